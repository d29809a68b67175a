"""Windows on a tensor: Slice, Pad, CenterCropPad."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.definitions import Tensor
from omniop.opset.errors import ModelError
from omniop.opset.expr import Expr, Scalar
from omniop.opset.lower.common import at_most, axes_of, choice, clamp, counts, element, scalar_of
from omniop.opset.lowering import Node, Value, lowering
from omniop.opset.sym import Dim, as_expr, known_equal

_FAR = 2**31 - 1
"""Exporters write a bound of this size, or beyond, for "to the end"."""


def slice_bounds(start: Dim, end: Dim, step: int, extent: Dim) -> tuple[Dim, Dim]:
    """(first element, count) of Python's ``start:end:step`` on an axis of ``extent``."""
    low, high = (0, extent) if step > 0 else (-1, extent - 1)
    first, stop = (_bound(v, low, high, extent) for v in (start, end))
    span = stop - first if step > 0 else first - stop
    if at_most(span, 0):
        return 0, 0
    return first, (span + (abs(step) - 1)) // abs(step)


def _bound(value: Dim, low: Dim, high: Dim, extent: Dim) -> Dim:
    if isinstance(value, int) and abs(value) >= _FAR:
        return high if value > 0 else low
    if not at_most(0, value):
        value = value + extent
    return clamp(value, low, high)


def _slice(
    node: Node,
    x: Tensor,
    starts: Sequence[Dim],
    ends: Sequence[Dim],
    axes: Sequence[int] | None,
    steps: Sequence[int],
) -> Tensor:
    places = axes_of(node, axes if axes is not None else range(len(starts)), x.rank)
    if not len(starts) == len(ends) == len(places) == len(steps):
        raise ModelError(f"{node.label}: starts, ends, axes and steps differ in number")
    if 0 in steps:
        raise ModelError(f"{node.label}: a step is 0")
    first: list[Dim] = [0] * x.rank
    stride, shape = [1] * x.rank, list(x.shape)
    for start, end, k, step in zip(starts, ends, places, steps, strict=True):
        first[k], shape[k] = slice_bounds(start, end, step, x.shape[k])
        stride[k] = step
    if stride == [1] * x.rank and all(known_equal(a, b) for a, b in zip(shape, x.shape, strict=True)):
        return x
    return p.strided_slice(x, first, stride, shape)


@lowering("Slice")
def slice_attributes(node: Node, x: Tensor) -> Tensor:
    starts = node.attr("starts")
    return _slice(node, x, starts, node.attr("ends"), node.attr("axes"), [1] * len(starts))


@lowering("Slice", since=10, host=(1, 2, 3, 4))
def slice_operands(
    node: Node, x: Tensor, starts: Value, ends: Value, axes: Value = None, steps: Value = None
) -> Tensor:
    first, last = node.ints(1) or [], node.ints(2) or []
    return _slice(node, x, first, last, node.static_ints(3), node.static_ints(4) or [1] * len(first))


# Pad ------------------------------------------------------------------------------------------------------------------


def _reflect(place: Expr, extent: Expr) -> Expr:
    period = expr.maximum((extent - 1) * 2, 1)
    place = place % period
    return expr.minimum(place, period - place) if not expr.is_const(extent, 1) else expr.index(0)


MODES: dict[str, Callable[[Expr, Expr], Expr]] = {
    "edge": lambda place, extent: expr.minimum(expr.maximum(place, 0), extent - 1),
    "reflect": _reflect,
    "wrap": lambda place, extent: place % extent,
}
"""Where a position outside an axis of some extent takes its element from."""


def _padded(node: Node, x: Tensor, before: Sequence[Dim], after: Sequence[Dim], value: Scalar) -> Tensor:
    shape = [b + d + a for b, d, a in zip(before, x.shape, after, strict=True)]
    counts(node, shape, "a result of shape")
    if node.attr("mode", "constant") == "constant":
        return p.pad(x, before, after, value)
    outside = choice(node, "mode", MODES)

    def source(*i: Expr) -> Expr:
        return x.at(
            *(
                a if _is_zero(b) and _is_zero(e) else outside(a - as_expr(b), as_expr(d))
                for a, b, e, d in zip(i, before, after, x.shape, strict=True)
            )
        )

    return p.map_of(shape, source)


def _is_zero(value: Dim) -> bool:
    return isinstance(value, int) and value == 0


@lowering("Pad")
def pad_attributes(node: Node, x: Tensor) -> Tensor:
    amounts = node.attr("pads" if node.since >= 2 else "paddings")
    _check_pads(node, amounts, x.rank)
    return _padded(node, x, amounts[: x.rank], amounts[x.rank :], node.attr("value"))


def _check_pads(node: Node, amounts: Sequence[Dim], axes: int) -> None:
    if len(amounts) != 2 * axes:
        raise ModelError(f"{node.label}: {len(amounts)} pads for {axes} axes; two for each axis would be right")


@lowering("Pad", since=11, host=(1, 3))
def pad(node: Node, x: Tensor, pads: Value, value: Tensor | None = None, axes: Value = None) -> Tensor:
    """Amounts may be negative, which cuts. Modes constant, reflect, edge and wrap."""
    amounts, given = node.ints(1) or [], node.static_ints(3)
    places = axes_of(node, given if given is not None else range(x.rank), x.rank)
    _check_pads(node, amounts, len(places))
    before: list[Dim] = [0] * x.rank
    after: list[Dim] = [0] * x.rank
    for k, axis in enumerate(places):
        before[axis], after[axis] = amounts[k], amounts[k + len(places)]
    return _padded(node, x, before, after, 0 if value is None else element(scalar_of(node, value, "constant_value")))


@lowering("CenterCropPad", host=(1,))
def center_crop_pad(node: Node, x: Tensor, shape: Value) -> Tensor:
    """Cut or padded with 0 on both sides to the dims given; an odd element less or more falls to the end."""
    before: list[Dim] = [0] * x.rank
    after: list[Dim] = [0] * x.rank
    targets = counts(node, node.ints(1) or [], "a shape of")
    axes = axes_of(node, node.attr("axes", range(x.rank)), x.rank)
    if len(axes) != len(targets):
        raise ModelError(f"{node.label}: {len(targets)} dims for {len(axes)} axes")
    for axis, target in zip(axes, targets, strict=True):
        extent = x.shape[axis]
        before[axis] = -((extent - target) // 2) if at_most(target, extent) else (target - extent) // 2
        after[axis] = target - extent - before[axis]
    return p.pad(x, before, after)
