"""TopK and Unique, on the structured prim ``sort``."""

from __future__ import annotations

from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.definitions import Tensor
from omniop.opset.dtype import INT32, INT64
from omniop.opset.errors import ModelError
from omniop.opset.expr import Expr
from omniop.opset.lower.common import at_most, axis_of, move_back, move_last
from omniop.opset.lower.selection import inverse_of, running_total
from omniop.opset.lowering import Node, Value, lowering
from omniop.opset.sym import Dim, product


def sort(x: Tensor, descending: bool = False) -> tuple[Tensor, Tensor]:
    """(values, indices int64) along the last axis, stable; NaN is the greatest."""
    values, indices = p.structured("sort", [x], [(x.shape, x.dtype), (x.shape, INT64)], descending=descending)
    return values, indices


def _top(node: Node, x: Tensor, k: Dim) -> tuple[Tensor, Tensor]:
    axis = axis_of(node, node.attr("axis", -1), x.rank)
    if not (at_most(0, k) and at_most(k, x.shape[axis])):
        raise ModelError(f"{node.label}: k is {k}, and axis {axis} has {x.shape[axis]} elements")
    # sorted=0 leaves the order open: the sorted one is as good as any
    values, indices = (
        move_back(p.narrow(t, -1, 0, k), axis) for t in sort(move_last(x, axis), bool(node.attr("largest", 1)))
    )
    return values, indices


@lowering("TopK")
def top_k_attribute(node: Node, x: Tensor) -> tuple[Tensor, Tensor]:
    return _top(node, x, node.attr("k"))


@lowering("TopK", since=10, host=(1,))
def top_k(node: Node, x: Tensor, k: Value) -> tuple[Tensor, Tensor]:
    """The k greatest (or least) along an axis and where they were; of equal ones the first comes first."""
    (count,) = node.ints(1) or [0]
    return _top(node, x, count)


@lowering("Unique")
def unique(node: Node, x: Tensor) -> tuple[Tensor, ...]:
    """Distinct elements, or slices along ``axis``: with first places, inverse and counts. The number is read back."""
    axis = node.attr("axis")
    if x.dtype.kind == "c":
        raise node.unsupported("complex numbers have no order")
    if axis is None:
        keys = p.reshape(x, [product(x.shape)])
    else:
        axis = axis_of(node, axis, x.rank)
        keys = _slice_order(move_last(x, axis))
    firsts, inverse, counts = _groups(node, keys, bool(node.attr("sorted", 1)))
    if axis is None:
        found = p.map_of(firsts.shape, lambda i: keys.at(firsts.at(i)))
    else:
        place = axis
        shape = [firsts.shape[0] if k == place else d for k, d in enumerate(x.shape)]
        found = p.map_of(shape, lambda *i: x.at(*(firsts.at(a) if k == place else a for k, a in enumerate(i))))
    return (found, firsts, inverse, counts)[: len(node.outputs)]


def _slice_order(x: Tensor) -> Tensor:
    """int64 keys of the slices along the last axis: how many slices come before each, element by element."""
    count = x.shape[-1]
    rows = p.transpose(p.reshape(x, [product(x.shape[:-1]), count]), [1, 0])

    def differs(i: Expr, j: Expr, c: Expr) -> tuple[Expr, Expr]:
        return expr.cast(_distinct(rows.at(i, c), rows.at(j, c)), INT32), c

    column = p.reduce_of([count, count], [rows.shape[1]], "argmax", differs)

    def before(i: Expr, j: Expr) -> Expr:
        return expr.cast(_before(rows.at(j, column.at(i, j)), rows.at(i, column.at(i, j))), INT64)

    return p.reduce_of([count], [count], "add", before)


def _isnan(x: Expr) -> Expr:
    return expr.alu("isnan", x)


def _distinct(a: Expr, b: Expr) -> Expr:
    """Not the same value; one NaN is like another."""
    return a.ne(b) & ~(_isnan(a) & _isnan(b)) if a.dtype.is_float else a.ne(b)


def _before(a: Expr, b: Expr) -> Expr:
    return (a < b) | (_isnan(b) & ~_isnan(a)) if a.dtype.is_float else a < b


def _groups(node: Node, keys: Tensor, ascending: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Of each distinct key its first place and its count, and of each place the number of its key."""
    (length,) = keys.shape
    values, places = sort(keys)

    def starts(i: Expr) -> Expr:
        previous = values.at(expr.maximum(i - 1, 0))
        return expr.cast(i.eq(0) | _distinct(values.at(i), previous), INT64)

    start = p.map_of([length], starts)
    number = p.elementwise(lambda r: r - 1, running_total(start, exclusive=False))
    count: Dim = node.read(p.reduce("add", start, [0]), "distinct").array.reshape(-1)[0]

    begins = inverse_of(count, number, lambda i: start.at(i).ne(0))
    firsts = p.map_of([count], lambda g: places.at(begins.at(g)))
    sizes = p.scatter_of(
        p.full([count], 0, INT64), [length], lambda i: ([number.at(i)], expr.const(1, INT64), None), "add"
    )
    if not ascending:  # groups by where they first occur
        firsts, order = sort(firsts)
        rank = inverse_of(count, order)
        old_sizes, old_number = sizes, number
        sizes = p.map_of([count], lambda g: old_sizes.at(order.at(g)))
        number = p.map_of([length], lambda i: rank.at(old_number.at(i)))
    inverse = p.scatter_of(p.full([length], 0, INT64), [length], lambda i: ([places.at(i)], number.at(i), None))
    return firsts, inverse, sizes
