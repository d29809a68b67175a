"""Operators that keep some elements: how many is known by counting on the device and reading the count back."""

from __future__ import annotations

from collections.abc import Callable

from omniop.opset import expr, poly
from omniop.opset import prims as p
from omniop.opset.definitions import Tensor
from omniop.opset.dtype import BOOL, INT64
from omniop.opset.errors import ModelError
from omniop.opset.expr import Expr
from omniop.opset.lower.common import at_most, axis_of, require_rank
from omniop.opset.lowering import Node, lowering
from omniop.opset.sym import Dim, product


def running_total(x: Tensor, exclusive: bool) -> Tensor:
    """Sums of the elements up to each along the last axis, with or without itself."""
    return p.structured("prefix", [x], [(x.shape, x.dtype)], monoid="add", exclusive=exclusive, reverse=False)[0]


def inverse_of(count: Dim, places: Tensor, guard: Callable[[Expr], Expr] | None = None) -> Tensor:
    """int64 [count] whose element ``places[i]`` is i, for each i that ``guard`` lets through: one for each element."""
    return p.scatter_of(
        p.full([count], 0, INT64), places.shape, lambda i: ([places.at(i)], i, guard(i) if guard else None)
    )


def selected(node: Node, flags: Tensor) -> Tensor:
    """Indices (int64) of the true elements of a bool vector, in order."""
    ones = p.cast(flags, INT64)
    count: Dim = node.read(p.reduce("add", ones, [0]), "count").array.reshape(-1)[0]
    return inverse_of(count, running_total(ones, exclusive=True), lambda i: flags.at(i))


@lowering("Compress")
def compress(node: Node, x: Tensor, condition: Tensor) -> Tensor:
    """The slices along ``axis`` (or the elements) where the condition, which may be shorter, is true."""
    given = node.attr("axis")
    if given is None:
        x, axis = p.reshape(x, [product(x.shape)]), 0
    else:
        axis = axis_of(node, given, x.rank)
    require_rank(node, condition, 1)
    if not at_most(condition.shape[0], x.shape[axis]):
        raise ModelError(f"{node.label}: {condition.shape[0]} conditions for {x.shape[axis]} slices")
    places = selected(node, condition)
    shape = [places.shape[0] if k == axis else d for k, d in enumerate(x.shape)]
    return p.map_of(shape, lambda *i: x.at(*(places.at(a) if k == axis else a for k, a in enumerate(i))))


@lowering("NonZero")
def non_zero(node: Node, x: Tensor) -> Tensor:
    """Indices of the elements that are not 0: [rank, count], in row-major order."""
    places = selected(node, p.cast(p.reshape(x, [product(x.shape)]), BOOL))

    def coordinate(k: Expr, i: Expr) -> Expr:
        place = poly.delinear(places.at(i), x.extents)
        result = place[-1]
        for axis in range(x.rank - 2, -1, -1):
            result = expr.select(k.eq(axis), place[axis], result)
        return result

    return p.map_of([x.rank, places.shape[0]], coordinate)
