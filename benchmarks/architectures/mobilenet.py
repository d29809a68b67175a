"""MobileNetV2 (Sandler et al., 2018): inverted residuals, with batch normalisation left to the runtime."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.architectures.graph import Graph
from benchmarks.architectures.layers import batch_norm, classifier, conv, pooled

STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
"""(expansion, channels, blocks, stride of the first)."""


def mobilenet(
    g: Graph,
    *,
    image: int = 224,
    stages: Sequence[tuple[int, int, int, int]] = STAGES,
    stem: int = 32,
    last: int = 1280,
    classes: int = 1000,
) -> None:
    x = _conv6(g, g.image("x", 1, 3, image, image), 3, stem, 3, 2)
    channels = stem
    for expansion, outputs, blocks, stride in stages:
        for k in range(blocks):
            x = _inverted_residual(g, x, channels, outputs, expansion, stride if k == 0 else 1)
            channels = outputs
    x = _conv6(g, x, channels, last)
    g.output(classifier(g, pooled(g, x), last, classes), "y", 1, classes)


def _inverted_residual(g: Graph, x: str, channels: int, outputs: int, expansion: int, stride: int) -> str:
    inner = channels * expansion
    y = x if expansion == 1 else _conv6(g, x, channels, inner)
    y = _conv6(g, y, inner, inner, 3, stride, group=inner)
    y = batch_norm(g, conv(g, y, inner, outputs, bias=False), outputs)
    return g.op("Add", x, y) if stride == 1 and channels == outputs else y


def _conv6(g: Graph, x: str, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, group: int = 1) -> str:
    y = conv(g, x, inputs, outputs, kernel, stride, group=group, bias=False, gain=2**0.5)
    return g.op("Clip", batch_norm(g, y, outputs), g.scalar(0), g.scalar(6))
