"""Softmax and its relatives, and the losses made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.definitions import Tensor
from omniop.opset.dtype import BOOL, DType
from omniop.opset.errors import ModelError
from omniop.opset.expr import Expr
from omniop.opset.lower.common import axis_of, require_rank, require_shape
from omniop.opset.lowering import Node, lowering
from omniop.opset.sym import product


def softmax(x: Tensor, axes: Sequence[int]) -> Tensor:
    """exp(x - max) / sum(exp(x - max)) over ``axes``; narrow floats round at every step, as ONNX's suite expects."""
    wide = p.accumulator(x.dtype)
    e = p.cast(p.alu("exp", p.sub(x, p.reduce("max", x, axes, keepdims=True))), wide)
    total = p.reduce("add", e, axes, keepdims=True)
    if wide is not x.dtype:
        total = p.elementwise(lambda s: _rounded(s, x.dtype), total)
    return p.cast(p.div(e, total), x.dtype)


def _rounded(total: Expr, dtype: DType) -> Expr:
    """``total`` with the precision of a narrower dtype, but not its range: a long row of float16 may add up to more."""
    narrow = expr.cast(expr.cast(total, dtype), total.dtype)
    return expr.select(expr.alu("isinf", narrow), total, narrow)


def log_softmax(x: Tensor, axes: Sequence[int]) -> Tensor:
    """x - max - log(sum(exp(x - max))) over ``axes``, computed in the accumulator's dtype."""
    wide = p.cast(x, p.accumulator(x.dtype))
    shifted = p.sub(wide, p.reduce("max", wide, axes, keepdims=True))
    total = p.reduce("add", p.alu("exp", shifted), axes, keepdims=True)
    return p.cast(p.sub(shifted, p.alu("log", total)), x.dtype)


def hardmax(x: Tensor, axis: int) -> Tensor:
    """1 at the first of the greatest, 0 elsewhere."""
    best = p.unsqueeze(p.arg_reduce("argmax", x, axis), [axis])
    return p.elementwise(lambda b, i: expr.cast(b.eq(i), x.dtype), best, p.iota(x.shape, axis))


def _one_axis(function: Callable[[Tensor, Sequence[int]], Tensor]) -> Callable[[Node, Tensor], Tensor]:
    return lambda node, x: function(x, [axis_of(node, node.attr("axis", -1), x.rank)])


def _trailing_axes(function: Callable[[Tensor, Sequence[int]], Tensor]) -> Callable[[Node, Tensor], Tensor]:
    """Before opset 13 the input is seen as a matrix, split at ``axis``: all later axes are normalised together."""
    return lambda node, x: function(x, range(_split_axis(node, x), x.rank))


def _split_axis(node: Node, x: Tensor) -> int:
    """Opset 11 counts axes from the end, too, and no longer takes one behind the last."""
    axis: int = node.attr("axis", 1)
    return axis if axis == x.rank and node.since < 11 else axis_of(node, axis, x.rank)


for _op, _function in {"Softmax": softmax, "LogSoftmax": log_softmax}.items():
    lowering(_op)(_trailing_axes(_function))
    lowering(_op, since=13)(_one_axis(_function))


@lowering("Hardmax", since=13)
def hardmax_axis(node: Node, x: Tensor) -> Tensor:
    return hardmax(x, axis_of(node, node.attr("axis", -1), x.rank))


@lowering("Hardmax")
def hardmax_matrix(node: Node, x: Tensor) -> Tensor:
    axis = _split_axis(node, x)
    matrix = p.reshape(x, [product(x.shape[:axis]), product(x.shape[axis:])])
    return p.reshape(hardmax(matrix, 1), x.shape)


@lowering("NegativeLogLikelihoodLoss")
def negative_log_likelihood(node: Node, x: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """``-weight[t] * x[n, t, ...]`` where t is the target at (n, ...); targets of ``ignore_index`` count nothing.

    Input [N, C, d1, ...], target [N, d1, ...], weight [C].
    """
    require_rank(node, x, 2, or_more=True)
    require_shape(node, target, (x.shape[0], *x.shape[2:]), "the target")
    if weight is not None:
        require_shape(node, weight, (x.shape[1],), "the weight")
    ignore = node.attr("ignore_index")
    wide = p.accumulator(x.dtype)

    def at_target(*i: Expr, source: Tensor, place: Callable[[Expr], tuple[Expr, ...]]) -> Expr:
        """``source`` at the target class; 0 where it is ignored."""
        label = target.at(*i)
        ignored = expr.const(False, BOOL) if ignore is None else label.eq(ignore)
        index, guard, fault = p.checked_index(expr.select(ignored, 0, label), x.shape[1], "a target")
        value = expr.cast(source.at(*place(index), guard=guard, fault=fault), wide)
        return expr.select(ignored, 0, value)

    def class_weight(*i: Expr) -> Expr:
        if weight is not None:
            return at_target(*i, source=weight, place=lambda c: (c,))
        one = expr.const(1, wide)
        return one if ignore is None else expr.select(target.at(*i).eq(ignore), 0, one)

    def loss(*i: Expr) -> Expr:
        return -(at_target(*i, source=x, place=lambda c: (i[0], c, *i[1:])) * class_weight(*i))

    losses = p.map_of(target.shape, loss)
    axes = range(target.rank)
    reduction = node.attr("reduction", "mean")
    if reduction not in ("none", "sum", "mean"):
        raise ModelError(f"{node.label}: reduction {reduction!r}; none, sum and mean would work")
    if reduction == "none":
        return p.cast(losses, x.dtype)
    total = p.reduce("add", losses, axes)
    if reduction == "mean":
        total = p.div(total, p.reduce("add", p.map_of(target.shape, class_weight), axes))
    return p.cast(total, x.dtype)


@lowering("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy(
    node: Node, scores: Tensor, labels: Tensor, weights: Tensor | None = None
) -> tuple[Tensor, ...]:
    """The negative log likelihood of the log-softmax over axis 1, and that log-softmax."""
    log_probability = log_softmax(scores, [1])
    return (negative_log_likelihood(node, log_probability, labels, weights), log_probability)[: len(node.outputs)]
