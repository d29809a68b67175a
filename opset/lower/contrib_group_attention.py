"""com.microsoft: GroupQueryAttention, the attention of language models, with its cache of keys and values."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.contrib import DOMAIN
from omniop.opset.definitions import Tensor
from omniop.opset.dtype import FLOAT32
from omniop.opset.errors import ModelError
from omniop.opset.expr import Expr
from omniop.opset.lower.common import at_most, require_equal, require_rank
from omniop.opset.lower.contrib_rotary import Position, positions, rotated
from omniop.opset.lower.dot_product_attention import merge_heads, split_heads
from omniop.opset.lower.heads import Mask, added, attend, default_scale
from omniop.opset.lowering import Node, Value, lowering
from omniop.opset.sym import Dim, as_expr


@dataclass(frozen=True)
class _Tokens:
    """How many tokens there are: new ones, and in all at most (``total``); in each row ``lengths`` + 1."""

    new: Dim
    total: Dim
    lengths: Tensor
    first: bool
    """All tokens are new."""

    def past(self, b: Expr) -> Expr:
        """How many are old. In a first run rows may be padded at their ends, and nothing is old."""
        if self.first:
            return expr.index(0)
        return expr.index(self.lengths.at(b)) + 1 - as_expr(self.new)


@lowering("GroupQueryAttention", domain=DOMAIN, host=(6,))
def group_query_attention(
    node: Node,
    query: Tensor,
    key: Tensor | None,
    value: Tensor | None,
    past_key: Tensor | None,
    past_value: Tensor | None,
    lengths: Tensor,
    total: Value,
    cosines: Tensor | None = None,
    sines: Tensor | None = None,
    position_ids: Tensor | None = None,
    attention_bias: Tensor | None = None,
    head_sink: Tensor | None = None,
    *others: Tensor | None,
) -> tuple[Tensor, ...]:
    """query [batch, token, heads * size], or with the keys and values behind; past and present [batch, groups, token,
    size]. Outputs: y, keys and values with the past, and the scores or probabilities that ``qk_output`` asks for."""
    _refuse(node, *others)
    q, k, v = _heads(node, query, key, value)
    new, counts = q.shape[2], node.ints(6) or [0]
    tokens = _Tokens(new, counts[0], p.reshape(lengths, [q.shape[0]]), p.dims_equal(counts[0], new))
    if node.attr("do_rotary", 0):
        if cosines is None or sines is None:
            raise ModelError(f"{node.label}: do_rotary needs the inputs cos_cache and sin_cache")
        place = _positions(node, tokens, position_ids, q)
        interleaved = bool(node.attr("rotary_interleaved", 0))
        q, k = (rotated(node, t, cosines, sines, place, interleaved) for t in (q, k))
    k, v = (_cached(tokens, old, t) for old, t in ((past_key, k), (past_value, v)))
    masks: list[Mask] = []
    cap = node.attr("softcap", 0.0)
    if cap:
        masks.append(lambda score, *_: expr.alu("tanh", score / cap) * cap)
    if attention_bias is not None:
        masks.append(added(attention_bias, [*q.shape[:3], k.shape[2]]))
    masks.append(_visible(node, tokens))
    y, scores, shares = attend(q, k, v, default_scale(node, q.shape[3]), masks, _sink(node, head_sink))
    results = [merge_heads(y), k, v]
    if len(node.outputs) > 3:
        results.append(p.cast(_QK[node.attr("qk_output", 0)](scores, shares), query.dtype))
    return tuple(results[: len(node.outputs)])


def _finite(scores: Tensor, shares: Tensor) -> Tensor:
    return p.elementwise(lambda e: expr.select(e.eq(-math.inf), 0.0, e), scores)


_QK: dict[int, Callable[[Tensor, Tensor], Tensor]] = {0: _finite, 1: _finite, 2: lambda scores, shares: shares}
"""What the last output holds: the scores, 0 where a query does not look, or their softmax."""


def _refuse(node: Node, *others: Tensor | None) -> None:
    """What onnxruntime's own kernel for CPUs refuses, too, or keeps to a cache of integers."""
    names = ("k_scale", "v_scale", "q_norm_weight", "k_norm_weight", "query_seqlens")
    for name, given in zip(names, others, strict=False):
        if given is not None:
            raise node.unsupported(f"input {name!r}; it works without")
    for name, plain in (("sliding_window_cache", 0), ("k_quant_type", "NONE"), ("v_quant_type", "NONE")):
        if node.attr(name, plain) != plain:
            raise node.unsupported(f"attribute {name} = {node.attr(name)!r}; {plain!r} would work")


def _heads(node: Node, query: Tensor, key: Tensor | None, value: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    heads, groups = node.attr("num_heads"), node.attr("kv_num_heads")
    require_equal(node, heads % groups, 0, f"{heads} query heads by {groups} key and value heads")
    require_rank(node, query, 3)
    if key is None or value is None:
        require_equal(node, query.shape[2] % (heads + 2 * groups), 0, "columns of the packed query by its heads")
        size = query.shape[2] // (heads + 2 * groups)
        bounds = [(0, heads), (heads, groups), (heads + groups, groups)]
        query, key, value = (p.narrow(query, 2, size * start, size * count) for start, count in bounds)
    parts = ((query, heads, "the query"), (key, groups, "the key"), (value, groups, "the value"))
    q, k, v = (split_heads(node, t, count, what) for t, count, what in parts)
    return q, k, v


def _positions(node: Node, tokens: _Tokens, given: Tensor | None, q: Tensor) -> Position:
    """In a first run the tokens count from the first of ``position_ids``."""
    if given is None:
        return lambda b, s: tokens.past(b) + s
    if tokens.first:
        return lambda b, s: given.at(*[0] * given.rank) + s
    return positions(node, given, q)


def _cached(tokens: _Tokens, past: Tensor | None, new: Tensor) -> Tensor:
    """Each row's old tokens, then its new ones, then zeros: as many as the past has room for, or as there are."""
    batch, groups, count, size = new.shape
    if past is None or past.empty:
        return p.pad(new, [0] * 4, [0, 0, tokens.total - count, 0])
    room = past.shape[2] if at_most(tokens.total, past.shape[2]) else tokens.total

    def element(b: Expr, h: Expr, t: Expr, d: Expr) -> Expr:
        length = tokens.past(b)
        fresh = t - length
        old = past.at(b, h, t, d, guard=(t < length) & (t < as_expr(past.shape[2])))
        own = new.at(b, h, fresh, d, guard=(fresh >= 0) & (fresh < as_expr(count)))
        return expr.select(fresh < 0, expr.cast(old, new.dtype), own)

    return p.map_of([batch, groups, room, size], element)


def _visible(node: Node, tokens: _Tokens) -> Mask:
    """What a query sees: itself and what is before it, as far as ``local_window_size``; the whole row if not causal."""
    window, follows = node.attr("local_window_size", -1), bool(node.attr("causal", 1))

    def mask(score: Expr, b: Expr, h: Expr, s: Expr, t: Expr) -> Expr:
        own = tokens.past(b) + s
        seen = t <= own if follows else t <= expr.index(tokens.lengths.at(b))
        if window > 0:
            seen = seen & (t > own - window)
        return expr.select(seen, score, -math.inf)

    return mask


def _sink(node: Node, head_sink: Tensor | None) -> Callable[[Expr], Expr] | None:
    """One more score of each head, for a key without a value; 0 for ``smooth_softmax``."""
    if head_sink is not None:
        return lambda h: expr.cast(head_sink.at(h), FLOAT32)
    return (lambda h: expr.const(0.0, FLOAT32)) if node.attr("smooth_softmax", -1) == 1 else None
