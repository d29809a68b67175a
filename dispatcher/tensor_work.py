"""How much of a run's tensor work each device did: the figure that tells a model's core from its odd ends.

A count of nodes would not do: a convolution is one, and so is the cast of its length.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod

from omniop.dispatcher.placement import Placed
from omniop.opset import expr
from omniop.opset.definitions import Map, Scatter, Structured
from omniop.opset.expr import Expr
from omniop.opset.sym import Dim, as_expr


def tensor_work(placed: Iterable[Placed]) -> dict[str, Expr]:
    """Scalars computed by these prims, by the device's name, as an expression over sizes.

    An element that a prim writes, if only to move it, counts one, or as many as it has terms where it is a sum of many:
    in a matrix product, a convolution, a reduce. What fusion spares, and what is computed at load because it depends on
    constants alone, is counted too: the figure is about the model, not about how well it was planned. Shape arithmetic
    counts nothing.
    """
    found: dict[str, Expr] = {}
    for p in placed:
        found[p.device] = found.get(p.device, expr.index(0)) + as_expr(p.times) * _scalars(p)
    return found


def _scalars(placed: Placed) -> Expr:
    definition = placed.definition
    if isinstance(definition, Scatter):
        return _points(definition.axes)
    written = expr.index(0)
    for t in definition.outputs:
        written = written + _elements(t.shape)
    if isinstance(definition, Map):
        return written * _terms_of_map(definition.value)
    return written * _terms_of_structured(placed)


def _terms_of_map(value: Expr) -> Expr:
    """Those of its largest reduce."""
    most = expr.index(1)
    if value.holds & expr.REDUCE:
        for node in expr.walk(value):
            if node.op == "reduce":
                most = expr.maximum(most, _points(node.args[: node.attr.axes]))
    return most


def _terms_of_structured(placed: Placed) -> Expr:
    assert isinstance(placed.definition, Structured)
    if placed.prim == "contract":
        return as_expr(placed.operands[0].shape[-1])
    if placed.prim in ("conv", "integer_conv"):
        return _elements(placed.operands[1].shape[1:])
    return _elements(placed.definition.attr("kernel")) if placed.prim == "window_reduce" else expr.index(1)


def _points(axes: Sequence[Expr]) -> Expr:
    return _product([axis.args[0] for axis in axes if axis.op == "axis"])


def _elements(shape: Sequence[Dim]) -> Expr:
    known = [d for d in shape if isinstance(d, int)]
    return _product([expr.index(prod(known)), *(as_expr(d) for d in shape if not isinstance(d, int))])


def _product(factors: Sequence[Expr]) -> Expr:
    result, *others = factors or (expr.index(1),)
    for factor in others:
        result = result * factor
    return result
