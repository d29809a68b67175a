"""RNN, GRU and LSTM: the inputs of all steps are projected by one product, then `prims.repeat` walks the steps.

Both directions of a bidirectional layer walk at once: direction is a batch axis, and each reads its own time step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.definitions import Tensor
from omniop.opset.expr import Expr
from omniop.opset.lower.common import require_equal, require_shape
from omniop.opset.lower.linalg import matmul
from omniop.opset.lower.recurrent_activation import Activation, activations
from omniop.opset.lowering import Node, lowering
from omniop.opset.sym import Dim, as_expr

Step = Callable[[Dim, Sequence[Tensor]], Sequence[Tensor]]
"""A cell: (step, states) gives the new states, hidden state first; each is [directions, batch, hidden]."""


class Layer:
    """A node's weights and inputs in the accumulator's dtype, made ready for the walk.

    ``gates`` is how many rows of H weights there are; of the last ``apart`` gates the recurrent bias is not added to
    the projection of the inputs.
    """

    def __init__(
        self,
        node: Node,
        gates: int,
        x: Tensor,
        w: Tensor,
        r: Tensor,
        b: Tensor | None,
        lens: Tensor | None,
        apart: int = 0,
    ) -> None:
        self.node, self.gates, self.dtype, self.lens = node, gates, x.dtype, lens
        self.wide = p.accumulator(x.dtype)
        self.batch_first = bool(node.attr("layout", 0))
        x = p.transpose(x, (1, 0, 2)) if self.batch_first else x
        self.steps, self.batch, _ = x.shape
        self.hidden = r.shape[2]
        self.direction = node.attr("direction", "forward")
        self.directions = 2 if self.direction == "bidirectional" else 1
        for t, name in ((w, "W"), (r, "R")):
            require_equal(node, t.shape[0], self.directions, f"directions of {name}")
            require_equal(node, t.shape[1], self.hidden * gates, f"rows of {name}")
        self.recurrent = p.transpose(p.cast(r, self.wide), (0, 2, 1))  # [directions, hidden, gates * hidden]
        self.bias = None if b is None else p.cast(b, self.wide)
        self._project(self.input_product(x, w), apart)

    def input_product(self, x: Tensor, w: Tensor) -> Tensor:
        """Input weights times inputs: [steps, batch, directions * gates * hidden]."""
        rows = p.reshape(p.cast(w, self.wide), [self.directions * self.hidden * self.gates, x.shape[2]])
        return matmul(p.cast(x, self.wide), p.transpose(rows, (1, 0)))

    def recurrent_product(self, state: Tensor) -> Tensor:
        """Recurrent weights times a state: [directions, batch, gates * hidden]."""
        return p.contract(state, self.recurrent)

    def _project(self, product: Tensor, apart: int) -> None:
        """The input's product with the biases."""
        width = self.hidden * self.gates
        bias = self.bias
        if bias is None:
            self.projected = product
            return
        shared = as_expr(self.hidden * (self.gates - apart))

        def element(t: Expr, n: Expr, column: Expr) -> Expr:
            direction, place = column // as_expr(width), column % as_expr(width)
            total = bias.at(direction, place)
            if apart < self.gates:
                guard = place < shared if apart else None
                total = total + bias.at(direction, place + as_expr(width), guard=guard)
            return product.at(t, n, column) + total

        self.projected = p.map_of(product.shape, element)

    def row(self, step: Dim, direction: Expr) -> Expr:
        """The time step that a direction reads at a step of the walk."""
        forward, backward = as_expr(step), as_expr(self.steps) - 1 - as_expr(step)
        if self.directions == 2:
            return expr.select(direction.eq(0), forward, backward)
        return backward if self.direction == "reverse" else forward

    def projection(self, step: Dim, gate: int, at: Sequence[Expr]) -> Expr:
        """One gate's projected input at (direction, batch, hidden)."""
        direction, n, j = at
        column = direction * as_expr(self.hidden * self.gates) + as_expr(self.hidden * gate) + j
        return self.projected.at(self.row(step, direction), n, column)

    def own(self, t: Tensor, gate: int, at: Sequence[Expr]) -> Expr:
        """One gate's element of [directions, batch, gates * hidden] at (direction, batch, hidden)."""
        direction, n, j = at
        return t.at(direction, n, as_expr(self.hidden * gate) + j)

    @property
    def state_shape(self) -> list[Dim]:
        return [self.directions, self.batch, self.hidden]

    def initial(self, given: Tensor | None) -> Tensor:
        if given is None:
            return p.full(self.state_shape, 0, self.wide)
        t = p.transpose(given, (1, 0, 2)) if self.batch_first else given
        require_shape(self.node, t, self.state_shape, "an initial state")
        return p.cast(t, self.wide)

    def walk(self, initial: Sequence[Tensor], step_of: Step) -> tuple[Tensor | None, ...]:
        """All steps: (Y or None where nobody wants it, the last of each state), in the node's layout and dtype.

        Behind the end of a sequence the states stay and Y is 0; a backward direction begins at the end.
        """
        wanted = self.node.outputs[0]

        def body(step: Dim, *states: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
            new = step_of(step, states)
            if self.lens is None:
                return new, [new[0]] if wanted else []
            kept = [self._within(step, a, b) for a, b in zip(new, states, strict=True)]
            return kept, [self._within(step, new[0], None)] if wanted else []

        last, collected = p.repeat(self.steps, initial, body)
        finals = [p.cast(p.transpose(t, (1, 0, 2)) if self.batch_first else t, self.dtype) for t in last]
        return (self._outputs(collected[0]) if wanted else None, *finals)

    def _within(self, step: Dim, new: Tensor, old: Tensor | None) -> Tensor:
        lens = self.lens
        assert lens is not None

        def element(direction: Expr, n: Expr, j: Expr) -> Expr:
            inside = self.row(step, direction) < expr.index(lens.at(n))
            other = expr.const(0, new.dtype) if old is None else old.at(direction, n, j)
            return expr.select(inside, new.at(direction, n, j), other)

        return p.map_of(new.shape, element)

    def _outputs(self, collected: Tensor) -> Tensor:
        """[walk step, direction, batch, hidden] in the order of time."""

        def element(*i: Expr) -> Expr:
            n, t, direction, j = i if self.batch_first else (i[2], i[0], i[1], i[3])
            forward, backward = t, as_expr(self.steps) - 1 - t
            if self.directions == 2:
                place = expr.select(direction.eq(0), forward, backward)
            else:
                place = backward if self.direction == "reverse" else forward
            return expr.cast(collected.at(place, direction, n, j), self.dtype)

        steps, directions, batch, hidden = collected.shape
        shape = [batch, steps, directions, hidden] if self.batch_first else [steps, directions, batch, hidden]
        return p.map_of(shape, element)


@lowering("RNN")
def rnn(
    node: Node,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lens: Tensor | None = None,
    h: Tensor | None = None,
) -> tuple[Tensor | None, ...]:
    """H' = f(X W + H R + biases)."""
    layer = Layer(node, 1, x, w, r, b, lens)
    (f,) = activations(node, ["Tanh"], layer.directions)

    def step_of(step: Dim, states: Sequence[Tensor]) -> Sequence[Tensor]:
        product = layer.recurrent_product(states[0])
        return [p.map_of(layer.state_shape, lambda *i: f(i[0], layer.projection(step, 0, i) + product.at(*i)))]

    return layer.walk([layer.initial(h)], step_of)


@lowering("GRU")
def gru(
    node: Node,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lens: Tensor | None = None,
    h: Tensor | None = None,
) -> tuple[Tensor | None, ...]:
    """Gates z (update), r (reset) and h (hidden); the reset is applied before or after the recurrent product."""
    after = bool(node.attr("linear_before_reset", 0))
    layer = Layer(node, 3, x, w, r, b, lens, apart=1 if after else 0)
    f, g = activations(node, ["Sigmoid", "Tanh"], layer.directions)
    hidden = layer.hidden
    before = layer.recurrent if after else p.narrow(layer.recurrent, 2, 0, hidden * 2)
    inner = p.narrow(layer.recurrent, 2, hidden * 2, hidden)

    def step_of(step: Dim, states: Sequence[Tensor]) -> Sequence[Tensor]:
        (old,) = states
        product = p.contract(old, before)

        def gate(k: int, i: Sequence[Expr]) -> Expr:
            return f(i[0], layer.projection(step, k, i) + layer.own(product, k, i))

        def reset_product(i: Sequence[Expr]) -> Expr:
            """The hidden gate's recurrent part, where the reset comes after the product."""
            value = layer.own(product, 2, i)
            if layer.bias is not None:
                value = value + layer.bias.at(i[0], as_expr(hidden * 5) + i[2])
            return gate(1, i) * value

        if after:
            recurrent = p.map_of(old.shape, lambda *i: reset_product(i))
        else:
            recurrent = p.contract(p.map_of(old.shape, lambda *i: gate(1, i) * old.at(*i)), inner)

        def element(*i: Expr) -> Expr:
            update = gate(0, i)
            candidate = g(i[0], layer.projection(step, 2, i) + recurrent.at(*i))
            return (1 - update) * candidate + update * old.at(*i)

        return [p.map_of(old.shape, element)]

    return layer.walk([layer.initial(h)], step_of)


@lowering("LSTM")
def lstm(
    node: Node,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    b: Tensor | None = None,
    lens: Tensor | None = None,
    h: Tensor | None = None,
    c: Tensor | None = None,
    peepholes: Tensor | None = None,
) -> tuple[Tensor | None, ...]:
    """Gates i (input), o (output), f (forget) and c (cell)."""
    return walk_lstm(node, Layer(node, 4, x, w, r, b, lens), h, c, peepholes)


def walk_lstm(
    node: Node, layer: Layer, h: Tensor | None, c: Tensor | None, peepholes: Tensor | None
) -> tuple[Tensor | None, ...]:
    """The outputs of an LSTM whose weights are in ``layer``."""
    f, g, out = activations(node, ["Sigmoid", "Tanh", "Tanh"], layer.directions)
    coupled = bool(node.attr("input_forget", 0))
    peep = None if peepholes is None else p.cast(peepholes, layer.wide)

    def step_of(step: Dim, states: Sequence[Tensor]) -> Sequence[Tensor]:
        old, cell = states
        product = layer.recurrent_product(old)

        def gate(k: int, i: Sequence[Expr], function: Activation, seen: Expr | None = None) -> Expr:
            """``seen`` is the cell that the gate looks at through its peephole; the gates' order is that of P."""
            value = layer.projection(step, k, i) + layer.own(product, k, i)
            if peep is not None and seen is not None:
                value = value + peep.at(i[0], as_expr(layer.hidden * k) + i[2]) * seen
            return function(i[0], value)

        def cells(*i: Expr) -> Expr:
            enter = gate(0, i, f, cell.at(*i))
            forget = 1 - enter if coupled else gate(2, i, f, cell.at(*i))
            return forget * cell.at(*i) + enter * gate(3, i, g)

        new = p.map_of(cell.shape, cells)
        return [p.map_of(old.shape, lambda *i: gate(1, i, f, new.at(*i)) * out(i[0], new.at(*i))), new]

    return layer.walk([layer.initial(h), layer.initial(c)], step_of)
