"""com.microsoft: multi-head attention, with its projection and without."""

from __future__ import annotations

from collections.abc import Sequence

from omniop.opset import prims as p
from omniop.opset.contrib import DOMAIN
from omniop.opset.definitions import Tensor
from omniop.opset.errors import ModelError
from omniop.opset.lower.common import require_equal, require_rank
from omniop.opset.lower.contrib_quantized import scaled_product
from omniop.opset.lower.dot_product_attention import merge_heads, split_heads
from omniop.opset.lower.heads import LOWEST, added, attend, causal, default_scale, joined, padding
from omniop.opset.lower.linalg import matmul
from omniop.opset.lowering import Node, lowering
from omniop.opset.sym import Dim


def refuse(node: Node, *names: str) -> None:
    """Raises UnsupportedError when one of the attributes is set to anything but 0."""
    for name in names:
        if node.attr(name, 0):
            raise node.unsupported(f"attribute {name} = {node.attr(name)}; 0 would work")


def refuse_inputs(node: Node, **inputs: Tensor | None) -> None:
    """Raises UnsupportedError when one of the inputs is there."""
    for name, given in inputs.items():
        if given is not None:
            raise node.unsupported(f"input {name!r}; it works without")


# With the projection --------------------------------------------------------------------------------------------------


@lowering("Attention", domain=DOMAIN)
def attention(
    node: Node,
    x: Tensor,
    weights: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    past: Tensor | None = None,
    attention_bias: Tensor | None = None,
    past_length: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """x [batch, token, columns]; weights [columns, q + k + v]; past [2, batch, heads, token, size]."""
    refuse(node, "do_rotary", "past_present_share_buffer")
    refuse_inputs(node, past_sequence_length=past_length)
    require_rank(node, x, 3)
    projected = matmul(x, weights) if bias is None else p.add(matmul(x, weights), bias)
    sizes = node.attr("qkv_hidden_sizes") or [weights.shape[1] // 3] * 3
    return _self_attention(node, projected, sizes, mask, past, attention_bias)


@lowering("QAttention", domain=DOMAIN)
def qattention(
    node: Node,
    x: Tensor,
    weights: Tensor,
    bias: Tensor,
    x_scale: Tensor,
    weight_scale: Tensor,
    mask: Tensor | None = None,
    x_zero: Tensor | None = None,
    weight_zero: Tensor | None = None,
    past: Tensor | None = None,
) -> tuple[Tensor, ...]:
    refuse(node, "do_rotary", "past_present_share_buffer")
    require_rank(node, x, 3)
    projected = scaled_product(node, x, weights, x_scale, weight_scale, x_zero, weight_zero, bias)
    return _self_attention(node, projected, [weights.shape[1] // 3] * 3, mask, past, None)


def _self_attention(
    node: Node, qkv: Tensor, sizes: Sequence[Dim], mask: Tensor | None, past: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, ...]:
    heads = node.attr("num_heads")
    parts = [p.narrow(qkv, 2, sum(sizes[:k], start=0), size) for k, size in enumerate(sizes)]
    q, k, v = (split_heads(node, t, heads, "the projection") for t in parts)
    length: Dim = 0
    if past is not None:
        require_rank(node, past, 5)
        require_equal(node, past.shape[0], 2, "the first axis of past holds keys and values")
        length = past.shape[3]
        k, v = (joined(_member(past, n, 0), t) for n, t in enumerate((k, v)))
    y = _masked(node, q, k, v, length, mask, bias)[0]
    if len(node.outputs) == 1:
        return (y,)
    return y, p.concat([p.unsqueeze(t, [0]) for t in (k, v)], 0)


def _member(t: Tensor, number: int, axis: int) -> Tensor:
    """One index of an axis, which goes."""
    return p.squeeze(p.narrow(t, axis, number, 1), [axis])


def _masked(
    node: Node, q: Tensor, k: Tensor, v: Tensor, past: Dim, mask: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(the merged heads, scale * q k' with the masks), of q, k and v split into heads; of k and v ``past`` are old."""
    masks = [] if mask is None else [padding(node, mask, q.shape[0], past, k.shape[2])]
    if node.attr("unidirectional", 0):
        masks.append(causal(past, LOWEST))
    if bias is not None:
        masks.append(added(bias, [*q.shape[:3], k.shape[2]]))
    y, scores, _ = attend(q, k, v, default_scale(node, q.shape[3]), masks)
    return merge_heads(y), scores


# Without --------------------------------------------------------------------------------------------------------------


@lowering("MultiHeadAttention", domain=DOMAIN)
def multi_head_attention(
    node: Node,
    query: Tensor,
    key: Tensor | None = None,
    value: Tensor | None = None,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    attention_bias: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    past_length: Tensor | None = None,
    cache_indirection: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Outputs: y [batch, token, heads * columns], keys and values with the past, the scores."""
    refuse_inputs(node, past_sequence_length=past_length, cache_indirection=cache_indirection)
    q, k, v = _heads(node, query, key, value, bias)
    length: Dim = 0 if past_key is None else past_key.shape[2]
    k, v = joined(past_key, k), joined(past_value, v)
    y, scores = _masked(node, q, k, v, length, mask, attention_bias)
    return (y, k, v, p.cast(scores, query.dtype))[: len(node.outputs)]


def _heads(
    node: Node, query: Tensor, key: Tensor | None, value: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Q, K and V split into heads, with their biases, however they are packed."""
    heads = node.attr("num_heads")
    if query.rank == 5:
        q, k, v = (_unpacked(query, n) for n in range(3))
    elif key is not None and key.rank == 5:
        q, (k, v) = query, (_unpacked(key, n) for n in range(2))
    elif key is not None and value is not None:
        q, k, v = query, key, value
    else:
        raise ModelError(f"{node.label}: without a key and a value, query is of rank 5 or key is")
    widths = [heads * t.shape[3] if t.rank == 4 else t.shape[2] for t in (q, k, v)]
    result = []
    for n, (t, width) in enumerate(zip((q, k, v), widths, strict=True)):
        if bias is not None and t.rank == 3:
            t = p.add(t, p.narrow(bias, 0, sum(widths[:n], start=0), width))
        result.append(split_heads(node, t, heads, "an input"))
    return result[0], result[1], result[2]


def _unpacked(t: Tensor, number: int) -> Tensor:
    """[batch, token, heads, Q K V, size] as [batch, token, heads * size] of one."""
    one = _member(t, number, 3)
    return p.reshape(one, [*one.shape[:2], one.shape[2] * one.shape[3]])
