"""U-Net (Ronneberger et al., 2015): large pictures, transposed convolutions, BatchNormalization."""

from __future__ import annotations

from benchmarks.architectures.graph import Graph
from benchmarks.architectures.layers import batch_norm, conv


def unet(g: Graph, *, image: int = 256, width: int = 32, levels: int = 4) -> None:
    x, channels = g.image("x", 1, 3, image, image), 3
    kept: list[str] = []
    for level in range(levels + 1):
        if level:
            kept.append(x)
            x = g.op("MaxPool", x, kernel_shape=[2, 2], pads=[0, 0, 0, 0], strides=[2, 2], ceil_mode=0)
        x, channels = _double(g, x, channels, width << level), width << level
    for skip in reversed(kept):
        half = channels // 2
        grown = g.op(
            "ConvTranspose",
            *(x, g.weight(channels, half, 2, 2, std=channels**-0.5), g.weight(half)),
            dilations=[1, 1],
            group=1,
            kernel_shape=[2, 2],
            pads=[0, 0, 0, 0],
            strides=[2, 2],
        )
        x, channels = _double(g, g.op("Concat", grown, skip, axis=1), channels, half), half
    g.output(conv(g, x, channels, 1), "y", 1, 1, image, image)


def _double(g: Graph, x: str, inputs: int, outputs: int) -> str:
    for width in (inputs, outputs):
        y = conv(g, x, width, outputs, 3, bias=False, gain=2**0.5)
        x = g.op("Relu", batch_norm(g, y, outputs))
    return x
