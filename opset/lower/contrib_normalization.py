"""com.microsoft: normalizations of sums, and of embeddings; and those that ONNX Runtime has in ONNX's own domain."""

from __future__ import annotations

from collections.abc import Sequence

from omniop.opset import dtype as dtypes
from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.contrib import DOMAIN
from omniop.opset.definitions import Tensor
from omniop.opset.dtype import FLOAT32
from omniop.opset.expr import Expr
from omniop.opset.lower.common import axis_of, require_rank
from omniop.opset.lower.indexing import gather
from omniop.opset.lower.normalization import affine, average, inverse_deviation, moments
from omniop.opset.lowering import Node, lowering


def _wide_sum(*terms: Tensor | None) -> Tensor:
    """The sum of the terms that are there, from left to right in the accumulator's dtype."""
    given = [t for t in terms if t is not None]
    wide = p.accumulator(given[0].dtype)

    def total(*x: Expr) -> Expr:
        result = expr.cast(x[0], wide)
        for e in x[1:]:
            result = result + expr.cast(e, wide)
        return result

    return p.elementwise(total, *given)


def _root_mean_square(x: Tensor, axes: Sequence[int], epsilon: float) -> Tensor:
    """1 / sqrt(mean(x * x) + epsilon) along ``axes``, which are kept as 1."""
    return inverse_deviation(average(p.mul(x, x), axes), epsilon)


@lowering("SimplifiedLayerNormalization")
def simplified_layer_normalization(node: Node, x: Tensor, scale: Tensor) -> tuple[Tensor, ...]:
    """RMSNormalization by another name. The result is of the scale's dtype."""
    axis = axis_of(node, node.attr("axis", -1), x.rank)
    wide = p.cast(x, p.accumulator(x.dtype))
    inverse = _root_mean_square(wide, range(axis, x.rank), node.attr("epsilon"))
    stash = dtypes.of_onnx(node.attr("stash_type"))
    y = affine(p.mul(wide, inverse), scale, None, scale.dtype)
    return (y, p.cast(inverse, stash))[: len(node.outputs)]


@lowering("SkipSimplifiedLayerNormalization", domain=DOMAIN)
def skip_simplified_layer_normalization(
    node: Node, x: Tensor, skip: Tensor, gamma: Tensor, bias: Tensor | None = None
) -> tuple[Tensor | None, ...]:
    """Outputs: y, (no mean), the inverse root mean square, the sum that is normalized."""
    total = _wide_sum(x, skip, bias)
    inverse = _root_mean_square(total, [-1], node.attr("epsilon"))
    y = affine(p.mul(total, inverse), gamma, None, x.dtype)
    return (y, None, p.cast(inverse, FLOAT32), p.cast(total, x.dtype))[: len(node.outputs)]


@lowering("SkipLayerNormalization", domain=DOMAIN)
def skip_layer_normalization(
    node: Node, x: Tensor, skip: Tensor, gamma: Tensor, beta: Tensor | None = None, bias: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Outputs: y, mean, inverse deviation, the sum that is normalized."""
    total = _wide_sum(x, skip, bias)
    mean, deviation, variance = moments(total, [-1])
    inverse = inverse_deviation(variance, node.attr("epsilon"))
    y = affine(p.mul(deviation, inverse), gamma, beta, x.dtype)
    statistics = [p.cast(t, FLOAT32) for t in (mean, inverse)]
    return (y, *statistics, p.cast(total, x.dtype))[: len(node.outputs)]


@lowering("EmbedLayerNormalization", domain=DOMAIN)
def embed_layer_normalization(
    node: Node,
    ids: Tensor,
    segments: Tensor | None,
    words: Tensor,
    positions: Tensor,
    segment_table: Tensor | None,
    gamma: Tensor,
    beta: Tensor,
    mask: Tensor | None = None,
    position_ids: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """ids [batch, token], tables [row, hidden]. Outputs: y, how many ones each row of the mask has, the sum."""
    require_rank(node, ids, 2)
    placed = p.narrow(positions, 0, 0, ids.shape[1]) if position_ids is None else gather(node, positions, position_ids)
    segment = None if segments is None or segment_table is None else gather(node, segment_table, segments)
    total = _wide_sum(gather(node, words, ids), placed, segment)
    _, deviation, variance = moments(total, [-1])
    y = affine(p.mul(deviation, inverse_deviation(variance, node.attr("epsilon"))), gamma, beta, words.dtype)
    if mask is None:
        counts = p.full(ids.shape[:1], 0, ids.dtype)
    else:
        counts = p.reduce("add", p.elementwise(lambda e: expr.cast(e.eq(1), ids.dtype), mask), [1])
    return (y, counts, p.cast(total, words.dtype))[: len(node.outputs)]
