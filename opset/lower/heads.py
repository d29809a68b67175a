"""Attention over heads as the operators of com.microsoft have it: scores, masks, and the caches of keys and values.

A mask is a function of a score: ``mask(score, b, h, s, t)`` at batch b, head h, query s and key t.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.definitions import Tensor
from omniop.opset.dtype import FLOAT32
from omniop.opset.errors import ModelError
from omniop.opset.expr import Expr
from omniop.opset.lower.common import require_equal
from omniop.opset.lower.dot_product_attention import grouped_product
from omniop.opset.lowering import Node
from omniop.opset.sym import Dim, as_expr

Mask = Callable[[Expr, Expr, Expr, Expr, Expr], Expr]
LOWEST = -3.4028234663852886e38
"""What onnxruntime gives a score that causality forbids: the least float32."""


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    scale: float | Expr,
    masks: Sequence[Mask],
    sink: Callable[[Expr], Expr] | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """softmax(masks(scale * q k')) v, in float32 for narrower floats: (output, scores, probabilities).

    q [batch, heads, s, size], k [batch, groups, t, size], v [batch, groups, t, columns]; the heads of a group share k
    and v. ``sink(head)`` is one more score, of a key whose value is 0.
    """
    raw = grouped_product(q, p.transpose(k, (0, 1, 3, 2)), p.accumulator(q.dtype))

    def score(*i: Expr) -> Expr:
        value = raw.at(*i) * scale
        for mask in masks:
            value = mask(value, *i)
        return value

    scores = p.map_of(raw.shape, score)
    probabilities = _softmax(scores, sink)
    return grouped_product(p.cast(probabilities, q.dtype), v), scores, probabilities


def _softmax(scores: Tensor, sink: Callable[[Expr], Expr] | None) -> Tensor:
    """Over the last axis; with a sink the probabilities add up to less than 1."""
    most = p.reduce("max", scores, [-1], keepdims=True)
    if sink is None:
        e = p.alu("exp", p.sub(scores, most))
        return p.div(e, p.reduce("add", e, [-1], keepdims=True))
    most = p.map_of(most.shape, lambda *i, seen=most: expr.maximum(seen.at(*i), sink(i[1])))
    e = p.alu("exp", p.sub(scores, most))
    total = p.reduce("add", e, [-1], keepdims=True)
    return p.div(e, p.map_of(total.shape, lambda *i: total.at(*i) + expr.alu("exp", sink(i[1]) - most.at(*i))))


def default_scale(node: Node, size: Dim) -> float | Expr:
    """The attribute ``scale``, or 1 / sqrt(size) where it is 0 or left out."""
    given: float = node.attr("scale", 0.0)
    if given:
        return given
    if isinstance(size, int):
        return 1 / math.sqrt(size)
    return 1 / expr.alu("sqrt", expr.cast(as_expr(size), FLOAT32))


# Masks ----------------------------------------------------------------------------------------------------------------


def added(bias: Tensor, shape: Sequence[Dim]) -> Mask:
    """A term for each of the scores, which are of ``shape``; it broadcasts to them."""
    p.broadcast_shapes(bias.shape, shape)
    return lambda score, *i: score + expr.cast(bias.at(*p.broadcast_index(bias, i, shape)), score.dtype)


def causal(past: Dim, forbidden: float) -> Mask:
    """A query sees the past and what is not behind it."""
    return lambda score, b, h, s, t: expr.select(t > s + as_expr(past), forbidden, score)


def padding(node: Node, mask: Tensor, batch: Dim, past: Dim, keys: Dim) -> Mask:
    """The additive mask of `Attention` and `MultiHeadAttention`, in whatever form it comes: what it does not hold
    above 0 gets ``mask_filter_value`` added.

    [batch]: the number of keys; [2 batch]: ends, then starts; [3 batch + 2]: numbers of keys, then offsets, which say
    nothing more; [batch, keys]; [batch, queries, keys]; [batch, 1, queries and past or more, keys or more].
    Raises ModelError on any other shape.
    """
    visible = _visible(node, mask, batch, past, keys)
    filtered: float = node.attr("mask_filter_value", -10000.0)
    return lambda score, *i: score + expr.select(visible(*i), expr.const(0, score.dtype), filtered)


def _visible(node: Node, mask: Tensor, batch: Dim, past: Dim, keys: Dim) -> Callable[[Expr, Expr, Expr, Expr], Expr]:
    rank = mask.rank
    if rank == 1:
        return _between(node, mask, batch)
    if rank in (2, 3):
        require_equal(node, mask.shape[-1], keys, "keys of the mask and of the scores")
    if rank == 2:
        return lambda b, h, s, t: mask.at(b, t) > 0
    if rank == 3:
        return lambda b, h, s, t: mask.at(b, s, t) > 0
    if rank == 4:
        return lambda b, h, s, t: mask.at(b, 0, s + as_expr(past), t) > 0
    raise ModelError(f"{node.label}: a mask of shape {list(mask.shape)}; ranks 1 to 4 are known")


def _between(node: Node, mask: Tensor, batch: Dim) -> Callable[[Expr, Expr, Expr, Expr], Expr]:
    count = mask.shape[0]
    if p.dims_equal(count, batch) or p.dims_equal(count, batch * 3 + 2):
        return lambda b, h, s, t: t < expr.index(mask.at(b))
    if p.dims_equal(count, batch * 2):
        return lambda b, h, s, t: (t < expr.index(mask.at(b))) & (t >= expr.index(mask.at(b + as_expr(batch))))
    known = f"{batch}, {batch * 2} and {batch * 3 + 2}"
    raise ModelError(f"{node.label}: a mask of {count} numbers; {known} have a meaning for {batch} rows")


def joined(past: Tensor | None, new: Tensor) -> Tensor:
    """Keys or values [batch, heads, token, size] behind those of the past."""
    return new if past is None else p.concat([p.cast(past, new.dtype), new], 2)
