"""ConvNeXt-Tiny (Liu et al., 2022): wide depthwise windows, layer normalisation, and products on channels-last."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.architectures.graph import Graph
from benchmarks.architectures.layers import channel_norm, classifier, conv, gelu, layer_norm, linear, mean

_EPSILON = 1e-6


def convnext(
    g: Graph,
    *,
    image: int = 224,
    widths: Sequence[int] = (96, 192, 384, 768),
    depths: Sequence[int] = (3, 3, 9, 3),
    classes: int = 1000,
) -> None:
    x = conv(g, g.image("x", 1, 3, image, image), 3, widths[0], 4, 4, padding=0)
    x = channel_norm(g, x, widths[0])
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        if stage:
            x = channel_norm(g, x, widths[stage - 1])
            x = conv(g, x, widths[stage - 1], width, 2, 2, padding=0)
        for _ in range(depth):
            x = _block(g, x, width)
    x = layer_norm(g, mean(g, x, -2, -1, keepdims=False), widths[-1], _EPSILON)
    g.output(classifier(g, x, widths[-1], classes), "y", 1, classes)


def _block(g: Graph, x: str, width: int) -> str:
    y = g.transpose(conv(g, x, width, width, 7, group=width), 0, 2, 3, 1)
    y = linear(g, layer_norm(g, y, width, _EPSILON), width, 4 * width)
    y = linear(g, gelu(g, y), 4 * width, width)
    y = g.op("Mul", g.weight(width, mean=0.5), y)
    return g.op("Add", x, g.transpose(y, 0, 3, 1, 2))
