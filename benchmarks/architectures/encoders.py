"""Transformer encoders: BERT, DistilBERT, ViT, and Whisper's."""

from __future__ import annotations

import numpy as np

from benchmarks.architectures.graph import Graph
from benchmarks.architectures.layers import (
    Heads,
    classifier,
    conv,
    gelu,
    join_heads,
    layer_norm,
    linear,
    self_attention,
    spelled_layer_norm,
    split_heads,
)

_LEAST = float(np.finfo(np.float32).min)


def _heads(hidden: int, count: int) -> Heads:
    return Heads(count, count, hidden // count)


def _tokens(g: Graph, length: int, vocabulary: int) -> tuple[str, str]:
    """Inputs: token numbers and the mask, int64 [1, length]."""
    ids = g.input("ids", g.feed_random.integers(0, vocabulary, (1, length)))
    return ids, g.input("mask", np.ones((1, length), np.int64))


def _feed_forward(g: Graph, x: str, hidden: int, inner: int) -> str:
    return linear(g, gelu(g, linear(g, x, hidden, inner)), inner, hidden)


def bert(
    g: Graph, *, length: int = 128, layers: int = 12, hidden: int = 768, heads: int = 12, vocabulary: int = 30522
) -> None:
    """BERT (Devlin et al., 2018), without its pooler; layer normalisation as one operator, the rest taken apart."""
    ids, mask = _tokens(g, length, vocabulary)
    wide = g.op("Unsqueeze", g.op("Unsqueeze", mask, g.ints(1)), g.ints(2))
    wide = g.op("Sub", g.scalar(1), g.op("Cast", wide, to=1))
    wide = g.op("Mul", wide, g.scalar(_LEAST))
    if g.fused:  # ONNX Runtime's Attention does not broadcast it
        wide = g.op("Expand", wide, g.ints(1, 1, length, length))
    words = g.op("Gather", g.weight(vocabulary, hidden), ids)
    kinds = g.op("Gather", g.weight(2, hidden), g.array(np.zeros((1, length), np.int64)))
    places = g.op("Gather", g.weight(512, hidden), g.array(np.arange(length)[None]))
    x = layer_norm(g, g.op("Add", g.op("Add", words, kinds), places), hidden, 1e-12)
    for _ in range(layers):
        attended = self_attention(g, x, length, _heads(hidden, heads), wide)
        x = layer_norm(g, g.op("Add", attended, x), hidden, 1e-12)
        x = layer_norm(g, g.op("Add", _feed_forward(g, x, hidden, 4 * hidden), x), hidden, 1e-12)
    g.output(x, "y", 1, length, hidden)


def distilbert(
    g: Graph, *, length: int = 128, layers: int = 6, hidden: int = 768, heads: int = 12, vocabulary: int = 30522
) -> None:
    """DistilBERT (Sanh et al., 2019), spelled as before opset 17: layer normalisation taken apart, masked by Where."""
    ids, mask = _tokens(g, length, vocabulary)
    split = _heads(hidden, heads)
    words = g.op("Gather", g.weight(vocabulary, hidden), ids)
    places = g.op("Gather", g.weight(512, hidden), g.array(np.arange(length)[None]))
    x = spelled_layer_norm(g, g.op("Add", words, places), hidden)
    for _ in range(layers):
        q, k, v = (linear(g, x, hidden, hidden) for _ in range(3))
        k = split_heads(g, k, length, heads, split.size, transposed=True)
        q, v = (split_heads(g, y, length, heads, split.size) for y in (q, v))
        scores = g.op("MatMul", g.op("Div", q, g.scalar(split.size**0.5)), k)
        hidden_there = g.reshape(g.op("Equal", mask, g.index(0)), (1, 1, 1, length))
        hidden_there = g.op("Expand", hidden_there, g.op("Shape", scores))
        scores = g.op("Where", hidden_there, g.scalar(_LEAST), scores)
        attended = join_heads(g, g.op("MatMul", g.op("Softmax", scores, axis=-1), v), length, hidden)
        x = spelled_layer_norm(g, g.op("Add", linear(g, attended, hidden, hidden), x), hidden)
        x = spelled_layer_norm(g, g.op("Add", _feed_forward(g, x, hidden, 4 * hidden), x), hidden)
    g.output(x, "y", 1, length, hidden)


def vit(
    g: Graph,
    *,
    image: int = 224,
    patch: int = 16,
    layers: int = 12,
    hidden: int = 768,
    heads: int = 12,
    classes: int = 1000,
) -> None:
    """ViT-Base (Dosovitskiy et al., 2020)."""
    side = image // patch
    length = side * side + 1
    patches = conv(g, g.image("x", 1, 3, image, image), 3, hidden, patch, patch, padding=0)
    patches = g.transpose(g.reshape(patches, (1, hidden, side * side)), 0, 2, 1)
    x = g.op("Concat", g.weight(1, 1, hidden), patches, axis=1)
    x = g.op("Add", x, g.weight(1, length, hidden))
    for _ in range(layers):
        y = self_attention(g, layer_norm(g, x, hidden, 1e-12), length, _heads(hidden, heads))
        x = g.op("Add", y, x)
        x = g.op("Add", _feed_forward(g, layer_norm(g, x, hidden, 1e-12), hidden, 4 * hidden), x)
    first = g.op("Gather", layer_norm(g, x, hidden, 1e-12), g.index(0), axis=1)
    g.output(classifier(g, first, hidden, classes), "y", 1, classes)


def whisper(
    g: Graph, *, frames: int = 3000, bands: int = 80, layers: int = 4, hidden: int = 384, heads: int = 6
) -> None:
    """Whisper's encoder (Radford et al., 2022): two convolutions of a spectrogram, then attention of 1500 on 1500."""
    length = frames // 2
    x = gelu(g, conv(g, g.image("x", 1, bands, frames), bands, hidden, 3, dims=1))
    x = gelu(g, conv(g, x, hidden, hidden, 3, 2, dims=1))
    x = g.op("Add", g.transpose(x, 0, 2, 1), g.weight(length, hidden))
    for _ in range(layers):
        y = layer_norm(g, x, hidden)
        x = g.op("Add", x, self_attention(g, y, length, _heads(hidden, heads), key_bias=False))
        x = g.op("Add", x, _feed_forward(g, layer_norm(g, x, hidden), hidden, 4 * hidden))
    g.output(layer_norm(g, x, hidden), "y", 1, length, hidden)
