"""Reverse-mode differentiation of a trace: the gradient of a tensor as prims, which can be differentiated again.

A map's cotangent goes back through its expression to each load, and from there to the tensor loaded: as a map where the
load runs through the tensor once, as a reduce where it comes by several times along whole axes, else as an adding
scatter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count

from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.definitions import Map, Repeat, Scatter, Structured, Tensor
from omniop.opset.derivatives import cotangents
from omniop.opset.errors import UnsupportedError
from omniop.opset.expand import expand
from omniop.opset.expr import Expr
from omniop.opset.sym import Dim, known_equal
from omniop.opset.trace import current

GRADIENT = ("omniop", "Gradient")
"""The composite whose attribute ``body`` is the graph to differentiate."""

Contribution = tuple[Tensor, Tensor]
"""A tensor, and a part of its cotangent."""


def gradients(y: Tensor, xs: Sequence[Tensor]) -> list[Tensor]:
    """The derivatives of the sum of ``y``'s elements by each of ``xs``; 0 where it does not depend on it.

    Raises UnsupportedError for what has no derivative here: recurrences, sequential scatters, products over axes.
    """
    return _Reverse(y, xs).run()


def leaf(t: Tensor) -> Tensor:
    """``t`` as a tensor of its own, which no other one is equal to: to differentiate by it alone."""
    return p.record(Map(t.at(*p.axes_of(t.shape))), [(t.shape, t.dtype)])[0]


class _Reverse:
    def __init__(self, y: Tensor, xs: Sequence[Tensor]) -> None:
        self.y, self.xs = y, xs
        self.expanded: dict[Tensor, Tensor] = {}
        self.varies: set[Tensor] = set(xs)
        self.numbers = count(1 << 20)
        self.parts: dict[Tensor, list[Tensor]] = {}

    def run(self) -> list[Tensor]:
        order = self._order()
        if self.y in self.varies:
            self.parts[self.y] = [p.full(self.y.shape, 1, self.y.dtype)]
        for t in reversed(order):
            if t in self.parts and t not in self.xs:
                for source, part in self._back(t, self._total(t)):
                    self.parts.setdefault(source, []).append(part)
        return [self._total(x) if x in self.parts else p.full(x.shape, 0, x.dtype) for x in self.xs]

    def _total(self, t: Tensor) -> Tensor:
        first, *rest = self.parts[t]
        for part in rest:
            first = p.add(first, part)
        return first

    def _order(self) -> list[Tensor]:
        """What ``y`` is made of, operands before users; notes what varies with ``xs``."""
        order: list[Tensor] = []
        seen: set[Tensor] = set()
        stack = [(self.y, False)]
        while stack:
            t, ready = stack.pop()
            if ready:
                order.append(t)
                if t.dtype.is_float and any(s in self.varies for s in self._sources(t)):
                    self.varies.add(t)
            elif t not in seen:
                seen.add(t)
                stack.append((t, True))
                stack.extend((s, False) for s in reversed(self._sources(t)))
        return order

    def _sources(self, t: Tensor) -> Sequence[Tensor]:
        definition = t.definition
        if t in self.xs:
            return ()
        if isinstance(definition, Structured) and definition.prim != "contract":
            if t not in self.expanded:
                self.expanded.update(zip(definition.outputs, expand(definition, loops=True), strict=True))
            return (self.expanded[t],)
        return definition.inputs()

    # Prims ------------------------------------------------------------------------------------------------------------

    def _back(self, t: Tensor, cotangent: Tensor) -> Iterator[Contribution]:
        definition = t.definition
        if t in self.expanded:
            yield self.expanded[t], cotangent
        elif isinstance(definition, Map):
            axes = p.axes_of(t.shape)
            yield from self._expression(definition.value, cotangent.at(*axes), axes)
        elif isinstance(definition, Structured):
            yield from self._product(definition, cotangent)
        elif isinstance(definition, Scatter) and definition.seq is None:
            yield from self._scatter(definition, t.output, cotangent)
        elif isinstance(definition, Scatter | Repeat):
            raise UnsupportedError("there is no derivative of a recurrence")

    def _product(self, definition: Structured, cotangent: Tensor) -> Iterator[Contribution]:
        a, b = definition.operands
        last = (*range(a.rank - 2), a.rank - 1, a.rank - 2)
        if a in self.varies:
            yield a, p.contract(cotangent, p.transpose(b, last), a.dtype)
        if b in self.varies:
            yield b, p.contract(p.transpose(a, last), cotangent, b.dtype)

    def _scatter(self, definition: Scatter, output: int, cotangent: Tensor) -> Iterator[Contribution]:
        base = definition.bases[output]
        stores = [s for s in definition.stores if s.output == output]
        if any(s.combine not in (None, "add") for s in stores):
            raise UnsupportedError("there is no derivative of a scatter that multiplies or compares")
        kept = cotangent
        for store in stores:
            own = cotangent.at(*store.index, guard=store.guard)
            yield from self._expression(store.value, own, definition.axes)
            if store.combine is None:
                zero = expr.const(0, cotangent.dtype)
                space = _dims(definition.axes)
                kept = p.scatter_of(kept, space, _stored(definition.axes, store.index, zero, store.guard))
        if base is not None and base in self.varies:
            yield base, kept

    # Expressions ------------------------------------------------------------------------------------------------------

    def _expression(self, root: Expr, cotangent: Expr, axes: Sequence[Expr]) -> Iterator[Contribution]:
        """From the value at a point of ``axes`` back to the loads of what varies."""
        pending: dict[Expr, Expr] = {root: cotangent}
        for node in reversed(list(expr.walk(root))):
            given = pending.pop(node, None)
            if given is None or not self._active(node):
                continue
            if node.op == "load":
                index, guard, other = expr.load_parts(node)
                if node.attr.source in self.varies:
                    yield node.attr.source, _at_load(node.attr.source, index, guard, given, axes)
                passed: Sequence[tuple[Expr, Expr]] = (
                    [] if guard is None or other is None else [(other, expr.select(guard, 0, given))]
                )
            elif node.op == "reduce":
                yield from self._reduce(node, given, axes)
                passed = []
            else:
                passed = _passed(node, given)
            for operand, part in passed:
                pending[operand] = pending[operand] + part if operand in pending else part

    def _active(self, node: Expr) -> bool:
        if not node.dtype.is_float:
            return False
        return any(n.op == "load" and n.attr.source in self.varies for n in expr.walk(node))

    def _reduce(self, node: Expr, cotangent: Expr, axes: Sequence[Expr]) -> Iterator[Contribution]:
        bound, monoid, value = node.args[: node.attr.axes], node.attr.monoid, node.args[-1]
        free, own = self._renamed(value, bound)
        if monoid in ("min", "max"):  # ties share
            tied, other = self._renamed(value, bound)
            number = expr.reduce("add", tuple(other), (_is(tied, node),))
            cotangent = cotangent * _is(free, node) / number
        elif monoid != "add":
            raise UnsupportedError(f"there is no derivative of a reduce by {monoid!r}")
        yield from self._expression(free, cotangent, [*axes, *own])

    def _renamed(self, value: Expr, bound: Sequence[Expr]) -> tuple[Expr, list[Expr]]:
        """What a reduce combines, over axes that nobody else has."""
        names = {a: expr.raw_axis(next(self.numbers), a.args[0]) for a in bound}
        return expr.substitute(value, names), list(names.values())


def _is(value: Expr, chosen: Expr) -> Expr:
    return expr.select(value.eq(chosen), expr.const(1.0, value.dtype), 0.0)


def _passed(node: Expr, cotangent: Expr) -> Sequence[tuple[Expr, Expr]]:
    if node.op == "alu":
        return list(zip(node.args, cotangents(node, cotangent), strict=False))
    if node.op == "cast":
        return [(node.args[0], expr.cast(cotangent, node.args[0].dtype))]
    if node.op == "select":
        condition, x, y = node.args
        return [(x, expr.select(condition, cotangent, 0)), (y, expr.select(condition, 0, cotangent))]
    return []


def _dims(axes: Sequence[Expr]) -> list[Dim]:
    env = current().env
    return [env.dim(a.args[0]) if a.op == "axis" else 1 for a in axes]


def _named(axes: Sequence[Expr], new: Sequence[Expr], roots: Sequence[Expr]) -> dict[Expr, Expr]:
    """``axes`` by their new nodes; and axes that reduces in ``roots`` bind by numbers that are free beside those."""
    names = {a: b for a, b in zip(axes, new, strict=True) if a.op == "axis"}
    numbers = count(len(new))
    for node in expr.walk(*roots):
        for a in node.args[: node.attr.axes] if node.op == "reduce" else ():
            if a not in names:
                names[a] = expr.raw_axis(next(numbers), a.args[0])
    return names


def _stored(
    axes: Sequence[Expr], index: Sequence[Expr], value: Expr, guard: Expr | None
) -> Callable[..., tuple[Sequence[Expr], Expr, Expr | None]]:
    def function(*new: Expr) -> tuple[Sequence[Expr], Expr, Expr | None]:
        names = _named(axes, new, [*index, value, *([] if guard is None else [guard])])
        renamed = [expr.substitute(e, names) for e in (*index, value)]
        return renamed[:-1], renamed[-1], None if guard is None else expr.substitute(guard, names)

    return function


def _at_load(
    source: Tensor, index: Sequence[Expr], guard: Expr | None, cotangent: Expr, axes: Sequence[Expr]
) -> Tensor:
    """What loads at ``index`` over ``axes`` give to the cotangent of ``source``."""
    value = cotangent if guard is None else expr.select(guard, cotangent, 0)
    free = [a for a in axes if a.op == "axis"]
    through = [i for i in index if i.op == "axis"]
    plain = len(set(through)) == len(through) and set(through) <= set(free)
    whole = all(
        _spans(i, d) if i.op == "axis" else expr.is_const(i, 0) and known_equal(d, 1)
        for i, d in zip(index, source.shape, strict=True)
    )
    if not (plain and whole):
        base = p.full(source.shape, 0, source.dtype)
        return p.scatter_of(base, _dims(free), _stored(free, index, cotangent, guard), combine="add")
    rest = [a for a in free if a not in through]

    def element(*new: Expr) -> Expr:
        places = [new[k] for k, i in enumerate(index) if i.op == "axis"]
        names = _named([*through, *rest], [*places, *new[len(index) :]], [value])
        wide = p.accumulator(value.dtype) if rest else value.dtype
        return expr.cast(expr.substitute(value, names), wide)

    if not rest:
        return p.map_of(source.shape, element)
    return p.cast(p.reduce_of(source.shape, _dims(rest), "add", element), source.dtype)


def _spans(axis: Expr, extent: Dim) -> bool:
    return known_equal(current().env.dim(axis.args[0]), extent)
