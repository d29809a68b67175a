"""Decoders with a cache of keys and values: GPT-2, and a Llama-like one with shared key heads.

Prefill reads a prompt and gives the logits of its last token and the cache; decode takes one token and the cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.architectures.graph import Graph
from benchmarks.architectures.layers import (
    Heads,
    causal_mask,
    join_heads,
    layer_norm,
    linear,
    rms_norm,
    silu,
    split_heads,
    tanh_gelu,
)


class _Turn(NamedTuple):
    """What the attention of all layers shares."""

    heads: Heads
    new: int
    """Tokens that are read now."""
    past: int
    """Tokens in the cache."""
    mask: str | None


def gpt2(
    g: Graph,
    *,
    decode: bool,
    length: int = 128,
    layers: int = 12,
    hidden: int = 768,
    heads: int = 12,
    vocabulary: int = 50257,
) -> None:
    """GPT-2 (Radford et al., 2019)."""
    new, past = (1, length) if decode else (length, 0)
    turn = _Turn(Heads(heads, heads, hidden // heads), new, past, None if decode or g.fused else causal_mask(g, length))
    ids, places = _tokens(g, turn, vocabulary)
    x = g.op("Add", g.op("Gather", g.weight(vocabulary, hidden), ids), g.op("Gather", g.weight(1024, hidden), places))
    for layer in range(layers):
        y = linear(g, layer_norm(g, x, hidden), hidden, 3 * hidden)
        q, k, v = g.ops("Split", 3, y, g.ints(hidden, hidden, hidden), axis=2)
        q, k, v = (split_heads(g, y, new, heads, turn.heads.size) for y in (q, k, v))
        x = g.op("Add", x, linear(g, _attention(g, q, k, v, turn, layer), hidden, hidden))
        inner = tanh_gelu(g, linear(g, layer_norm(g, x, hidden), hidden, 4 * hidden))
        x = g.op("Add", x, linear(g, inner, 4 * hidden, hidden))
    _logits(g, layer_norm(g, x, hidden), turn, vocabulary)


def llama(
    g: Graph,
    *,
    decode: bool,
    length: int = 128,
    layers: int = 12,
    hidden: int = 896,
    heads: int = 14,
    shared: int = 2,
    inner: int = 4864,
    vocabulary: int = 32000,
) -> None:
    """A Llama-like decoder (Touvron et al., 2023) of the widths of Qwen2-0.5B: rotary places, shared keys, SwiGLU."""
    new, past = (1, length) if decode else (length, 0)
    split = Heads(heads, shared, hidden // heads)
    turn = _Turn(split, new, past, None if decode or g.fused else causal_mask(g, length))
    ids, places = _tokens(g, turn, vocabulary)
    angles = _angles(g, places, split.size)
    x = g.op("Gather", g.weight(vocabulary, hidden, std=0.1), ids)
    for layer in range(layers):
        y = rms_norm(g, x, hidden)
        q, k, v = (linear(g, y, hidden, n * split.size) for n in (heads, shared, shared))
        q, k, v = (
            split_heads(g, y, new, n, split.size) for y, n in zip((q, k, v), (heads, shared, shared), strict=True)
        )
        q, k = (_rotated(g, y, angles, split.size) for y in (q, k))
        x = g.op("Add", x, linear(g, _attention(g, q, k, v, turn, layer), hidden, hidden, bias=False))
        y = rms_norm(g, x, hidden)
        gate, up = (linear(g, y, hidden, inner, bias=False) for _ in range(2))
        x = g.op("Add", x, linear(g, g.op("Mul", silu(g, gate), up), inner, hidden, bias=False))
    _logits(g, rms_norm(g, x, hidden), turn, vocabulary)


def _tokens(g: Graph, turn: _Turn, vocabulary: int) -> tuple[str, str]:
    """Inputs: numbers and places of the new tokens, int64 [1, new]."""
    ids = g.input("ids", g.feed_random.integers(0, vocabulary, (1, turn.new)))
    return ids, g.input("places", np.arange(turn.past, turn.past + turn.new)[None])


def _attention(g: Graph, q: str, k: str, v: str, turn: _Turn, layer: int) -> str:
    """[1, new, hidden]; takes and gives the layer's cache."""
    heads, whole = turn.heads, turn.past + turn.new
    kept = [_past(g, turn, name, layer) for name in ("k", "v")] if turn.past else []
    if g.fused:
        past = ["", *kept] if kept else []
        causal = int(turn.new > 1)
        attended, k, v = g.ops("Attention", 3, q, k, v, *past, scale=heads.scale, is_causal=causal)
    else:
        if kept:
            k, v = (g.op("Concat", old, now, axis=2) for old, now in zip(kept, (k, v), strict=True))
        keys, values = (_for_all(g, y, heads, whole) for y in (k, v))
        scores = g.op("MatMul", q, g.transpose(keys, 0, 1, 3, 2))
        scores = g.op("Mul", scores, g.scalar(heads.scale))
        if turn.mask is not None:
            scores = g.op("Add", scores, turn.mask)
        attended = g.op("MatMul", g.op("Softmax", scores, axis=-1), values)
    for name, value in (("k", k), ("v", v)):
        g.output(value, f"{name}{layer}", 1, heads.shared, whole, heads.size)
    return join_heads(g, attended, turn.new, heads.hidden)


def _past(g: Graph, turn: _Turn, name: str, layer: int) -> str:
    return g.image(f"past_{name}{layer}", 1, turn.heads.shared, turn.past, turn.heads.size)


def _for_all(g: Graph, x: str, heads: Heads, length: int) -> str:
    """Shared keys or values, one copy for each query head."""
    if heads.shared == heads.query:
        return x
    share = heads.query // heads.shared
    shape = g.ints(1, heads.shared, share, length, heads.size)
    wide = g.op("Expand", g.op("Unsqueeze", x, g.ints(2)), shape)
    return g.reshape(wide, (1, heads.query, length, heads.size))


def _angles(g: Graph, places: str, size: int) -> Sequence[str]:
    """Cosines and sines of each place: [1, new, size / 2], or [1, 1, new, size] where rotation is taken apart."""
    frequencies = g.array((10000.0 ** (-np.arange(0, size, 2) / size)).astype(np.float32)[None, None])
    angles = g.op("Mul", g.op("Cast", g.op("Unsqueeze", places, g.ints(2)), to=1), frequencies)
    if not g.fused:
        angles = g.op("Unsqueeze", g.op("Concat", angles, angles, axis=-1), g.ints(1))
    return g.op("Cos", angles), g.op("Sin", angles)


def _rotated(g: Graph, x: str, angles: Sequence[str], size: int) -> str:
    cos, sin = angles
    if g.fused:
        return g.op("RotaryEmbedding", x, cos, sin)
    half, last, step = g.ints(size // 2), g.ints(-1), g.ints(1)
    low = g.op("Slice", x, g.ints(0), half, last, step)
    high = g.op("Slice", x, half, g.ints(2**63 - 1), last, step)
    turned = g.op("Concat", g.op("Neg", high), low, axis=-1)
    return g.op("Add", g.op("Mul", x, cos), g.op("Mul", turned, sin))


def _logits(g: Graph, x: str, turn: _Turn, vocabulary: int) -> None:
    if turn.new > 1:
        x = g.op("Slice", x, g.ints(-1), g.ints(2**63 - 1), g.ints(1), g.ints(1))
    g.output(linear(g, x, turn.heads.hidden, vocabulary, bias=False), "logits", 1, 1, vocabulary)
