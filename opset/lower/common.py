"""What several families of lowerings share: axes, ranges and the dtype that formulas are computed in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from omniop.opset import expr, poly
from omniop.opset import prims as p
from omniop.opset.definitions import Tensor
from omniop.opset.dtype import FLOAT32, FLOAT64, DType
from omniop.opset.errors import ModelError
from omniop.opset.expr import Expr
from omniop.opset.lowering import Node
from omniop.opset.sym import Dim, SymInt, as_expr, known_equal, product

T = TypeVar("T")


def axis_of(node: Node, axis: int, rank: int) -> int:
    """``axis`` counted from the front. Raises ModelError when it lies outside ``-rank .. rank - 1``."""
    if not -rank <= axis < rank:
        raise ModelError(f"{node.label}: axis {axis} is outside {-rank}..{rank - 1}, the axes of rank {rank}")
    return axis % rank


def axes_of(node: Node, axes: Sequence[int], rank: int) -> list[int]:
    """Each axis counted from the front. Raises ModelError when one is outside, or named twice."""
    result = [axis_of(node, int(a), rank) for a in axes]
    if len(set(result)) != len(result):
        raise ModelError(f"{node.label}: axes {list(axes)} name an axis twice")
    return result


def axes_operand(node: Node, position: int) -> list[int] | None:
    """Axes that old versions give as the attribute ``axes`` and newer ones as input ``position``; None when absent."""
    given = node.attr("axes")
    return [int(a) for a in given] if given is not None else node.static_ints(position)


def real(dtype: DType) -> DType:
    """The floating dtype in which a formula over ``dtype`` is computed, to be rounded once at its end."""
    if dtype.is_float:
        return p.accumulator(dtype)
    return FLOAT32 if dtype.bits <= 16 else FLOAT64


def formula(function: Callable[..., Expr], *tensors: Tensor, dtype: DType | None = None) -> Tensor:
    """``function`` of the elements in `real` arithmetic, rounded once to ``dtype`` (default: the first tensor's)."""
    result = dtype or tensors[0].dtype
    wide = real(tensors[0].dtype)
    return p.elementwise(lambda *x: expr.cast(function(*(expr.cast(e, wide) for e in x)), result), *tensors)


def at_most(a: Dim, b: Dim) -> bool:
    """``a <= b``; a guard is left only where it cannot be proved either way."""
    if isinstance(a, int) and isinstance(b, int):
        return a <= b
    difference = as_expr(b) - as_expr(a)
    if poly.nonnegative(difference):
        return True
    if poly.nonnegative(-difference - 1):
        return False
    return bool(a <= b)


def clamp(value: Dim, low: Dim, high: Dim) -> Dim:
    """``value`` within ``low .. high``."""
    if not at_most(low, value):
        return low
    return value if at_most(value, high) else high


def is_number(value: Dim, number: int) -> bool:
    """``value == number`` for a number below 1, without a guard where a dim is known to be at least 1."""
    if isinstance(value, SymInt) and poly.nonnegative(value.expr - 1):
        return False
    return bool(value == number)


def require_equal(node: Node, a: Dim, b: Dim, what: str) -> None:
    """Raises ModelError unless the two are equal in this run; guarded when that is not known."""
    if not (known_equal(a, b) or bool(a == b)):
        raise ModelError(f"{node.label}: {what}: {a} is not {b}")


def require_shape(node: Node, t: Tensor, shape: Sequence[Dim], what: str) -> None:
    """Raises ModelError unless ``t`` has ``shape`` in this run; guarded where that is not known."""
    if t.rank != len(shape) or not all(known_equal(a, b) or bool(a == b) for a, b in zip(t.shape, shape, strict=True)):
        raise ModelError(f"{node.label}: {what} is of shape {list(t.shape)}, and {list(shape)} is needed")


def require_rank(node: Node, t: Tensor, rank: int, or_more: bool = False) -> None:
    """Raises ModelError unless the tensor has that rank (or more)."""
    if t.rank < rank or (t.rank > rank and not or_more):
        needed = f"a rank of {rank} or more" if or_more else f"rank {rank}"
        raise ModelError(f"{node.label}: an input of shape {list(t.shape)}, and {needed} is needed")


def counts(node: Node, values: Sequence[Dim], what: str) -> list[Dim]:
    """``values`` as dims or counts. Raises ModelError when one is negative."""
    if not all(at_most(0, v) for v in values):
        raise ModelError(f"{node.label}: {what} {list(values)} with a negative number")
    return list(values)


def scalar_of(node: Node, t: Tensor, what: str) -> Tensor:
    """A tensor of one element, made 0-d. Raises ModelError when it has another number of them."""
    require_equal(node, product(t.shape), 1, f"elements of {what}")
    return p.reshape(t, ())


def choice(node: Node, name: str, table: Mapping[str, T], default: str | None = None) -> T:
    """What a table has for a string attribute. Raises ModelError naming what there is."""
    value = node.attr(name, default)
    if value not in table:
        raise ModelError(f"{node.label}: {name} is {value!r}; known are {', '.join(table)}")
    return table[value]


def element(t: Tensor) -> Expr:
    """The single element of a tensor of any rank whose dims are 1."""
    return t.at(*([0] * t.rank))


def move_last(t: Tensor, axis: int) -> Tensor:
    """``t`` with one axis made the last."""
    return p.transpose(t, [k for k in range(t.rank) if k != axis] + [axis])


def move_back(t: Tensor, axis: int) -> Tensor:
    """The inverse of `move_last`."""
    order = [k for k in range(t.rank) if k != axis] + [axis]
    return p.transpose(t, [order.index(k) for k in range(t.rank)])
