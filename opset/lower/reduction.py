"""Reductions over axes, running sums, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.definitions import Tensor
from omniop.opset.expr import Expr
from omniop.opset.lower.common import axes_of, axes_operand, axis_of, move_back, move_last, real
from omniop.opset.lowering import Node, Value, lowering
from omniop.opset.sym import as_expr


@dataclass(frozen=True)
class Reduction:
    """``finish(monoid over prepare(x))``. A formula (``real``) is computed in a floating dtype and rounded once."""

    monoid: str
    prepare: Callable[[Expr], Expr] | None = None
    finish: Callable[[Expr], Expr] | None = None
    real: bool = False


def _abs(x: Expr) -> Expr:
    return expr.alu("abs", x)


def _square(x: Expr) -> Expr:
    return x * x


REDUCTIONS = {
    "ReduceSum": Reduction("add"),
    "ReduceProd": Reduction("mul"),
    "ReduceMax": Reduction("max"),
    "ReduceMin": Reduction("min"),
    "ReduceL1": Reduction("add", _abs),
    "ReduceSumSquare": Reduction("add", _square),
    "ReduceL2": Reduction("add", _square, lambda s: expr.alu("sqrt", s), real=True),
    "ReduceLogSum": Reduction("add", None, lambda s: expr.alu("log", s), real=True),
}


def reduced_axes(node: Node, x: Tensor) -> list[int]:
    """The axes to reduce, given as an attribute or as input 1. None or an empty list means all, or none at all."""
    axes = axes_operand(node, 1)
    if axes:
        return axes_of(node, axes, x.rank)
    return [] if node.attr("noop_with_empty_axes") else list(range(x.rank))


def _keepdims(node: Node) -> bool:
    return bool(node.attr("keepdims", 1))


def _reduce(reduction: Reduction) -> Callable[..., Tensor]:
    def lower(node: Node, x: Tensor, axes: Value = None) -> Tensor:
        over = reduced_axes(node, x)
        dtype = x.dtype
        if reduction.real or reduction.prepare:
            x = p.cast(x, real(dtype) if reduction.real else p.accumulator(dtype))
        if reduction.prepare:
            x = p.elementwise(reduction.prepare, x)
        result = p.reduce(reduction.monoid, x, over, _keepdims(node))
        if reduction.finish:
            result = p.elementwise(reduction.finish, result)
        return p.cast(result, dtype)

    return lower


def _mean(node: Node, x: Tensor, axes: Value = None) -> Tensor:
    return mean(x, reduced_axes(node, x), _keepdims(node))


def mean(x: Tensor, axes: list[int], keepdims: bool = True) -> Tensor:
    """The mean over ``axes``, rounded once; of integers, truncated."""
    wide = p.accumulator(x.dtype)
    total = p.reduce("add", p.cast(x, wide), axes, keepdims)
    count = expr.cast(as_expr(p.count(x, axes)), wide)
    return p.cast(p.elementwise(lambda s: s / count, total), x.dtype)


def _log_sum_exp(node: Node, x: Tensor, axes: Value = None) -> Tensor:
    """log(sum(exp(x))), with the greatest element taken out so that exp stays in range."""
    over, dtype = reduced_axes(node, x), real(x.dtype)
    wide = p.cast(x, dtype)
    top = p.reduce("max", wide, over, keepdims=True)
    # an infinite one stays inside: inf - inf is not a number
    top = p.elementwise(lambda m: expr.select(expr.alu("isinf", m), 0, m), top)
    total = p.reduce("add", p.elementwise(lambda a, m: expr.alu("exp", a - m), wide, top), over, keepdims=True)
    result = p.elementwise(lambda s, m: expr.cast(expr.alu("log", s) + m, x.dtype), total, top)
    return result if _keepdims(node) else p.squeeze(result, over)


_LOWERINGS = {name: _reduce(reduction) for name, reduction in REDUCTIONS.items()}
_LOWERINGS |= {"ReduceMean": _mean, "ReduceLogSumExp": _log_sum_exp}
for _op, _function in _LOWERINGS.items():
    lowering(_op)(_function)
    lowering(_op, since=13 if _op == "ReduceSum" else 18, host=(1,))(_function)


def _arg(monoid: str) -> Callable[[Node, Tensor], Tensor]:
    def lower(node: Node, x: Tensor) -> Tensor:
        axis = axis_of(node, node.attr("axis", 0), x.rank)
        found = p.arg_reduce(monoid, x, axis, bool(node.attr("select_last_index", 0)))
        return p.unsqueeze(found, [axis]) if _keepdims(node) else found

    return lower


lowering("ArgMax")(_arg("argmax"))
lowering("ArgMin")(_arg("argmin"))


def _prefix(monoid: str) -> Callable[[Node, Tensor, Value], Tensor]:
    def lower(node: Node, x: Tensor, axis: Value) -> Tensor:
        (given,) = node.static_ints(1) or [0]
        place = axis_of(node, given, x.rank)
        moved = move_last(x, place)
        exclusive, reverse = bool(node.attr("exclusive", 0)), bool(node.attr("reverse", 0))
        (result,) = p.structured(
            "prefix", [moved], [(moved.shape, x.dtype)], monoid=monoid, exclusive=exclusive, reverse=reverse
        )
        return move_back(result, place)

    return lower


lowering("CumSum", host=(1,))(_prefix("add"))
lowering("CumProd", host=(1,))(_prefix("mul"))


@lowering("MeanVarianceNormalization")
def mean_variance_normalization(node: Node, x: Tensor) -> Tensor:
    """(x - mean) / sqrt(variance) over the attribute's axes, with 1e-9 beside the root."""
    axes = axes_of(node, node.attr("axes", [0, 2, 3]), x.rank)
    wide = p.cast(x, p.accumulator(x.dtype))
    centred = p.sub(wide, mean(wide, axes))
    variance = mean(p.mul(centred, centred), axes)
    return p.elementwise(lambda d, v: expr.cast(d / (expr.alu("sqrt", v) + 1e-9), x.dtype), centred, variance)
