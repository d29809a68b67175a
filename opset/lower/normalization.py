"""Normalizations: by given statistics, by those of the tensor itself, and by norms.

Statistics and formulas are in float32 for narrower floats, rounded once to the output's dtype.
"""

from __future__ import annotations

from collections.abc import Sequence

from omniop.opset import dtype as dtypes
from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.definitions import Tensor
from omniop.opset.dtype import DType
from omniop.opset.expr import Expr
from omniop.opset.lower.common import axis_of, require_equal
from omniop.opset.lowering import Node, lowering
from omniop.opset.sym import Dim, as_expr, product


def moments(x: Tensor, axes: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """(mean, x - mean, variance over the population) along ``axes``, which are kept as 1, in x's dtype."""
    mean = average(x, axes)
    deviation = p.sub(x, mean)
    return mean, deviation, average(p.mul(deviation, deviation), axes)


def average(x: Tensor, axes: Sequence[int]) -> Tensor:
    number = expr.cast(as_expr(p.count(x, axes)), x.dtype)
    return p.elementwise(lambda e: e / number, p.reduce("add", x, axes, keepdims=True))


def inverse_deviation(variance: Tensor, epsilon: float) -> Tensor:
    """1 / sqrt(variance + epsilon)."""
    return p.elementwise(lambda v: 1 / expr.alu("sqrt", v + epsilon), variance)


def affine(x: Tensor, scale: Tensor | None, bias: Tensor | None, dtype: DType) -> Tensor:
    """``x * scale + bias`` in x's dtype, rounded to ``dtype``."""
    given = [t for t in (scale, bias) if t is not None]

    def element(e: Expr, *terms: Expr) -> Expr:
        rest = iter(terms)
        if scale is not None:
            e = e * expr.cast(next(rest), e.dtype)
        if bias is not None:
            e = e + expr.cast(next(rest), e.dtype)
        return expr.cast(e, dtype)

    return p.elementwise(element, x, *given)


def channelwise(t: Tensor, rank: int) -> Tensor:
    """A vector along axis 1 of a tensor of ``rank``."""
    return p.reshape(t, [1, t.shape[0], *[1] * (rank - 2)])


# Batch ----------------------------------------------------------------------------------------------------------------


@lowering("BatchNormalization")
def batch_normalization(
    node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> tuple[Tensor, ...]:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias, with one of each a channel."""
    wide = p.accumulator(x.dtype)
    spatial = node.since >= 9 or bool(node.attr("spatial", 1))
    axes = [k for k in range(x.rank) if k != 1] if spatial else [0]
    shape: list[Dim] = [1 if k in axes else d for k, d in enumerate(x.shape)]
    scale, bias = p.reshape(scale, shape), p.reshape(bias, shape)
    given = [p.cast(p.reshape(t, shape), wide) for t in (mean, variance)]
    if not _training(node):
        return (_normalized(node, x, scale, bias, *given),)
    own_mean, _, own_variance = moments(p.cast(x, wide), axes)
    own = [own_mean, own_variance]
    y = _normalized(node, x, scale, bias, *own)
    momentum = node.attr("momentum", 0.9)
    running = [
        p.elementwise(lambda a, b: a * momentum + b * (1 - momentum), old, new)
        for old, new in zip(given, own, strict=True)
    ]
    statistics = [p.cast(p.reshape(t, mean.shape), mean.dtype) for t in (*running, *own)]
    return (y, *statistics)[: len(node.outputs)]


def _training(node: Node) -> bool:
    """Before opset 14 the outputs that are wanted say it."""
    return bool(node.attr("training_mode", 0)) if node.since >= 14 else any(node.outputs[1:])


def _normalized(node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    wide, epsilon = mean.dtype, node.attr("epsilon", 1e-5)
    factor = p.elementwise(lambda s, v: expr.cast(s, wide) / expr.alu("sqrt", v + epsilon), scale, variance)
    return p.elementwise(
        lambda e, m, f, b: expr.cast((expr.cast(e, wide) - m) * f + expr.cast(b, wide), x.dtype), x, mean, factor, bias
    )


# By the tensor's own statistics ---------------------------------------------------------------------------------------


@lowering("InstanceNormalization")
def instance_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Each channel of each image by its own mean and deviation."""
    _, deviation, variance = moments(p.cast(x, p.accumulator(x.dtype)), range(2, x.rank))
    normal = p.mul(deviation, inverse_deviation(variance, node.attr("epsilon", 1e-5)))
    return affine(normal, channelwise(scale, x.rank), channelwise(bias, x.rank), x.dtype)


@lowering("LayerNormalization", domain="omniop")
@lowering("LayerNormalization")
def layer_normalization(
    node: Node, x: Tensor, scale: Tensor | None = None, bias: Tensor | None = None
) -> Tensor | tuple[Tensor, ...]:
    """By the mean and deviation over ``axis`` and all after it."""
    axis = axis_of(node, node.attr("axis", -1), x.rank)
    mean, deviation, variance = moments(p.cast(x, p.accumulator(x.dtype)), range(axis, x.rank))
    inverse = inverse_deviation(variance, node.attr("epsilon", 1e-5))
    y = affine(p.mul(deviation, inverse), scale, bias, x.dtype)
    if len(node.outputs) == 1:
        return y
    stash = dtypes.of_onnx(node.attr("stash_type", 1))
    return (y, p.cast(mean, stash), p.cast(inverse, stash))[: len(node.outputs)]


@lowering("GroupNormalization", since=18)
def group_normalization(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Groups of channels by their own mean and deviation; scale and bias are for each group before opset 21."""
    groups = node.attr("num_groups")
    require_equal(node, x.shape[1] % groups, 0, f"channels by {groups} groups")
    grouped = p.reshape(x, [x.shape[0], groups, x.shape[1] // groups, product(x.shape[2:])])
    _, deviation, variance = moments(p.cast(grouped, p.accumulator(x.dtype)), (2, 3))
    normal = p.mul(deviation, inverse_deviation(variance, node.attr("epsilon", 1e-5)))
    if node.since < 21:
        y = affine(normal, channelwise(scale, 4), channelwise(bias, 4), x.dtype)
        return p.reshape(y, x.shape)
    return affine(p.reshape(normal, x.shape), channelwise(scale, x.rank), channelwise(bias, x.rank), x.dtype)


@lowering("RMSNormalization", since=23)
def rms_normalization(node: Node, x: Tensor, scale: Tensor) -> Tensor:
    """x / sqrt(mean(x * x) + epsilon) * scale, the mean over ``axis`` and all after it."""
    axis = axis_of(node, node.attr("axis", -1), x.rank)
    wide = p.cast(x, p.accumulator(x.dtype))
    inverse = inverse_deviation(average(p.mul(wide, wide), range(axis, x.rank)), node.attr("epsilon", 1e-5))
    return affine(p.mul(wide, inverse), scale, None, x.dtype)


# By norms -------------------------------------------------------------------------------------------------------------


@lowering("LpNormalization")
def lp_normalization(node: Node, x: Tensor) -> Tensor:
    """By the norm along one axis; where that is 0, so is the result."""
    order, axis = node.attr("p", 2), axis_of(node, node.attr("axis", -1), x.rank)
    wide = p.cast(x, p.accumulator(x.dtype))
    sizes = p.mul(wide, wide) if order == 2 else p.alu("abs", wide)
    total = p.reduce("add", sizes, [axis], keepdims=True)

    def element(e: Expr, norm: Expr) -> Expr:
        norm = expr.alu("sqrt", norm) if order == 2 else norm
        return expr.cast(expr.select(norm.eq(0.0), expr.const(0.0, norm.dtype), e / norm), x.dtype)

    return p.elementwise(element, wide, total)


@lowering("LRN")
def lrn(node: Node, x: Tensor) -> Tensor:
    """x / (bias + alpha / size * sum of squares over ``size`` neighbouring channels) ** beta."""
    size, bias = node.attr("size"), node.attr("bias", 1.0)
    alpha, beta = node.attr("alpha", 1e-4), node.attr("beta", 0.75)
    wide = p.accumulator(x.dtype)

    def square(n: Expr, c: Expr, *rest: Expr) -> Expr:
        *spatial, step = rest
        channel = c + step - (size - 1) // 2
        inside = (channel >= 0) & (channel < as_expr(x.shape[1]))
        value = expr.cast(x.at(n, channel, *spatial, guard=inside), wide)
        return value * value

    total = p.reduce_of(x.shape, [size], "add", square)

    def element(e: Expr, s: Expr) -> Expr:
        return expr.cast(expr.cast(e, wide) / expr.binary("pow", s * (alpha / size) + bias, beta), x.dtype)

    return p.elementwise(element, x, total)
