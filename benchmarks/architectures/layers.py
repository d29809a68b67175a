"""Layers that the families share, in the operators that PyTorch's exporters write for them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from benchmarks.architectures.graph import Graph

# Dense ----------------------------------------------------------------------------------------------------------------


def linear(g: Graph, x: str, inputs: int, outputs: int, *, bias: bool = True) -> str:
    """torch.nn.Linear on three dims or more."""
    product = g.op("MatMul", x, g.weight(inputs, outputs, std=inputs**-0.5))
    return g.op("Add", g.weight(outputs), product) if bias else product


def classifier(g: Graph, x: str, inputs: int, outputs: int) -> str:
    """torch.nn.Linear on [batch, inputs]."""
    return g.op("Gemm", x, g.weight(outputs, inputs, std=inputs**-0.5), g.weight(outputs), transB=1)


# Norms ----------------------------------------------------------------------------------------------------------------


def layer_norm(g: Graph, x: str, size: int, epsilon: float = 1e-5) -> str:
    """Over the last dim, as one operator."""
    return g.op("LayerNormalization", x, *_affine(g, size), axis=-1, epsilon=epsilon)


def spelled_layer_norm(g: Graph, x: str, size: int, epsilon: float = 1e-12) -> str:
    """Over the last dim, as exporters wrote it before opset 17."""
    scale, shift = _affine(g, size)
    return g.op("Add", g.op("Mul", _centred(g, x, -1, epsilon), scale), shift)


def channel_norm(g: Graph, x: str, channels: int, epsilon: float = 1e-6) -> str:
    """Layer normalisation over the channels of NCHW, which no operator does."""
    scale, shift = (g.op("Unsqueeze", w, g.ints(1, 2)) for w in _affine(g, channels))
    return g.op("Add", g.op("Mul", scale, _centred(g, x, 1, epsilon)), shift)


def rms_norm(g: Graph, x: str, size: int, epsilon: float = 1e-6) -> str:
    """Over the last dim."""
    scale = g.weight(size, mean=1.0)
    if g.fused:
        return g.op("RMSNormalization", x, scale, axis=-1, epsilon=epsilon)
    square = mean(g, g.op("Pow", x, g.scalar(2)), -1)
    root = g.op("Sqrt", g.op("Add", square, g.scalar(epsilon)))
    return g.op("Mul", g.op("Mul", x, g.op("Div", g.scalar(1), root)), scale)


def _affine(g: Graph, size: int) -> tuple[str, str]:
    return g.weight(size, mean=1.0), g.weight(size)


def _centred(g: Graph, x: str, axis: int, epsilon: float) -> str:
    d = g.op("Sub", x, mean(g, x, axis))
    variance = mean(g, g.op("Pow", d, g.scalar(2)), axis)
    return g.op("Div", d, g.op("Sqrt", g.op("Add", variance, g.scalar(epsilon))))


def mean(g: Graph, x: str, *axes: int, keepdims: bool = True) -> str:
    """ReduceMean, whose axes became an input with opset 18."""
    if g.fused:
        return g.op("ReduceMean", x, g.ints(*axes), keepdims=int(keepdims))
    return g.op("ReduceMean", x, axes=axes, keepdims=int(keepdims))


# Activations ----------------------------------------------------------------------------------------------------------


def gelu(g: Graph, x: str) -> str:
    """By the error function."""
    if g.fused:
        return g.op("Gelu", x)
    one_more = g.op("Add", g.op("Erf", g.op("Div", x, g.scalar(math.sqrt(2)))), g.scalar(1))
    return g.op("Mul", g.op("Mul", x, one_more), g.scalar(0.5))


def tanh_gelu(g: Graph, x: str) -> str:
    """By its approximation."""
    if g.fused:
        return g.op("Gelu", x, approximate="tanh")
    cube = g.op("Mul", g.op("Mul", x, g.op("Mul", x, x)), g.scalar(0.044715))
    tanh = g.op("Tanh", g.op("Mul", g.op("Add", x, cube), g.scalar(math.sqrt(2 / math.pi))))
    return g.op("Mul", g.op("Mul", x, g.scalar(0.5)), g.op("Add", tanh, g.scalar(1)))


def silu(g: Graph, x: str) -> str:
    return g.op("Mul", x, g.op("Sigmoid", x))


# Attention ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Heads:
    """How [batch, length, query * size] is split; ``shared`` keys and values serve all query heads."""

    query: int
    shared: int
    size: int

    @property
    def scale(self) -> float:
        return self.size**-0.5

    @property
    def hidden(self) -> int:
        return self.query * self.size


def split_heads(g: Graph, x: str, length: int, count: int, size: int, *, transposed: bool = False) -> str:
    """[1, length, count * size] as [1, count, length, size], or with the last two swapped."""
    apart = g.reshape(x, (1, length, count, size))
    return g.transpose(apart, 0, 2, 3, 1) if transposed else g.transpose(apart, 0, 2, 1, 3)


def join_heads(g: Graph, x: str, length: int, hidden: int) -> str:
    return g.reshape(g.transpose(x, 0, 2, 1, 3), (1, length, hidden))


def attend(g: Graph, q: str, k: str, v: str, mask: str | None = None) -> str:
    """softmax(q @ k + mask) @ v, with q scaled and k transposed already."""
    scores = g.op("MatMul", q, k)
    if mask is not None:
        scores = g.op("Add", scores, mask)
    return g.op("MatMul", g.op("Softmax", scores, axis=-1), v)


def self_attention(
    g: Graph, x: str, length: int, heads: Heads, mask: str | None = None, *, key_bias: bool = True
) -> str:
    """Multi-head attention of a sequence on itself, its output projection included."""
    hidden, count, size = heads.hidden, heads.query, heads.size
    q, k, v = (linear(g, x, hidden, hidden, bias=bias) for bias in (True, key_bias, True))
    if g.fused:
        q, k, v = (split_heads(g, y, length, count, size) for y in (q, k, v))
        attended = g.op("Attention", q, k, v, *([] if mask is None else [mask]), scale=heads.scale)
    else:
        k = split_heads(g, k, length, count, size, transposed=True)
        q, v = (split_heads(g, y, length, count, size) for y in (q, v))
        attended = attend(g, g.op("Mul", q, g.scalar(heads.scale)), k, v, mask)
    return linear(g, join_heads(g, attended, length, hidden), hidden, hidden)


def causal_mask(g: Graph, length: int) -> str:
    """[1, 1, length, length]: a large negative number above the diagonal, as exporters fold it."""
    return g.array(np.triu(np.full((1, 1, length, length), -1e9, np.float32), 1))


# Convolutions ---------------------------------------------------------------------------------------------------------


def conv(
    g: Graph,
    x: str,
    inputs: int,
    outputs: int,
    kernel: int = 1,
    stride: int = 1,
    *,
    padding: int | None = None,
    group: int = 1,
    bias: bool = True,
    dims: int = 2,
    gain: float = 1.0,
) -> str:
    """A convolution that keeps the extent at stride 1 by default; its weights keep a signal's size times ``gain``."""
    padding = kernel // 2 if padding is None else padding
    taps = (kernel,) * dims
    std = gain * (inputs // group * kernel**dims) ** -0.5
    operands = [x, g.weight(outputs, inputs // group, *taps, std=std), *([g.weight(outputs)] if bias else [])]
    return g.op(
        "Conv",
        *operands,
        dilations=[1] * dims,
        group=group,
        kernel_shape=taps,
        pads=[padding] * (2 * dims),
        strides=[stride] * dims,
    )


def batch_norm(g: Graph, x: str, channels: int) -> str:
    """With the statistics of a trained model, as an exporter writes it that does not fold it."""
    spread = g.array(g.random.uniform(0.5, 1.5, channels).astype(np.float32))
    return g.op(
        "BatchNormalization",
        x,
        *(g.weight(channels, mean=1.0), g.weight(channels), g.weight(channels, std=0.1), spread),
        epsilon=1e-5,
        momentum=0.9,
    )


def pooled(g: Graph, x: str) -> str:
    """[1, C, H, W] as the mean of each channel, [1, C]."""
    return g.op("Flatten", g.op("GlobalAveragePool", x), axis=1)
