"""ResNet-50 (He et al., 2015): bottlenecks of three convolutions. The exporter has folded batch normalisation."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.architectures.graph import Graph
from benchmarks.architectures.layers import classifier, conv, pooled

_EXPANSION = 4
_GAIN = 2**0.5
"""What a ReLU takes away."""


def resnet(
    g: Graph, *, image: int = 224, width: int = 64, depths: Sequence[int] = (3, 4, 6, 3), classes: int = 1000
) -> None:
    x = g.op("Relu", conv(g, g.image("x", 1, 3, image, image), 3, width, 7, 2, gain=_GAIN))
    x = g.op("MaxPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 2], ceil_mode=0)
    channels = width
    for stage, depth in enumerate(depths):
        inner = width << stage
        for k in range(depth):
            x = _bottleneck(g, x, channels, inner, stride=2 if stage and k == 0 else 1)
            channels = inner * _EXPANSION
    g.output(classifier(g, pooled(g, x), channels, classes), "y", 1, classes)


def _bottleneck(g: Graph, x: str, channels: int, inner: int, stride: int) -> str:
    outputs = inner * _EXPANSION
    y = g.op("Relu", conv(g, x, channels, inner, gain=_GAIN))
    y = g.op("Relu", conv(g, y, inner, inner, 3, stride, gain=_GAIN))
    y = conv(g, y, inner, outputs, gain=0.5)
    if channels != outputs or stride != 1:
        x = conv(g, x, channels, outputs, 1, stride)
    return g.op("Relu", g.op("Add", y, x))
