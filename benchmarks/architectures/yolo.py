"""A detector like YOLOv8n (Jocher et al., 2023): branches that are concatenated, SiLU, a pyramid of three scales."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.architectures.graph import Graph
from benchmarks.architectures.layers import conv, silu

_BINS = 16
"""Into which each side of a box is distributed."""


def yolo(
    g: Graph,
    *,
    image: int = 640,
    widths: Sequence[int] = (16, 32, 64, 128, 256),
    depths: Sequence[int] = (1, 2, 2, 1),
    head: int = 64,
    classes: int = 80,
) -> None:
    a, b, c, d, e = widths
    x = _conv(g, g.image("x", 1, 3, image, image), 3, a, 3, 2)
    x = _branches(g, _conv(g, x, a, b, 3, 2), b, b, depths[0])
    p3 = _branches(g, _conv(g, x, b, c, 3, 2), c, c, depths[1])
    p4 = _branches(g, _conv(g, p3, c, d, 3, 2), d, d, depths[2])
    p5 = _pyramid(g, _branches(g, _conv(g, p4, d, e, 3, 2), e, e, depths[3]), e)
    middle = _branches(g, _beside(g, _twice(g, p5), p4), e + d, d, 1, residual=False)
    o3 = _branches(g, _beside(g, _twice(g, middle), p3), d + c, c, 1, residual=False)
    o4 = _branches(g, _beside(g, _conv(g, o3, c, c, 3, 2), middle), c + d, d, 1, residual=False)
    o5 = _branches(g, _beside(g, _conv(g, o4, d, d, 3, 2), p5), d + e, e, 1, residual=False)
    cells = [(image >> level) ** 2 for level in (3, 4, 5)]
    found = [
        g.reshape(_detections(g, x, width, head, classes), (1, 4 * _BINS + classes, count))
        for x, width, count in zip((o3, o4, o5), (c, d, e), cells, strict=True)
    ]
    _boxes(g, g.op("Concat", *found, axis=2), sum(cells), classes)


def _conv(g: Graph, x: str, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> str:
    return silu(g, conv(g, x, inputs, outputs, kernel, stride, gain=1.5))


def _beside(g: Graph, *parts: str) -> str:
    return g.op("Concat", *parts, axis=1)


def _branches(g: Graph, x: str, inputs: int, outputs: int, depth: int, *, residual: bool = True) -> str:
    """C2f: one half goes on unchanged, the other through bottlenecks; all that came of it is joined."""
    half = outputs // 2
    parts = g.ops("Split", 2, _conv(g, x, inputs, outputs), g.ints(half, half), axis=1)
    for _ in range(depth):
        y = _conv(g, _conv(g, parts[-1], half, half, 3), half, half, 3)
        parts.append(g.op("Add", parts[-1], y) if residual else y)
    return _conv(g, _beside(g, *parts), (2 + depth) * half, outputs)


def _pyramid(g: Graph, x: str, channels: int) -> str:
    """SPPF: three poolings, one on the other."""
    parts = [_conv(g, x, channels, channels // 2)]
    for _ in range(3):
        parts.append(g.op("MaxPool", parts[-1], kernel_shape=[5, 5], pads=[2, 2, 2, 2], strides=[1, 1], ceil_mode=0))
    return _conv(g, _beside(g, *parts), 2 * channels, channels)


def _twice(g: Graph, x: str) -> str:
    scales = g.array(np.array([1, 1, 2, 2], np.float32))
    return g.op(
        "Resize", x, "", scales, mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric"
    )


def _detections(g: Graph, x: str, width: int, head: int, classes: int) -> str:
    x = _conv(g, _conv(g, x, width, head, 3), head, head, 3)
    return conv(g, x, head, 4 * _BINS + classes)


def _boxes(g: Graph, x: str, cells: int, classes: int) -> None:
    """Each side of a box is the expectation of its distribution."""
    sides, scores = g.ops("Split", 2, x, g.ints(4 * _BINS, classes), axis=1)
    bins = g.op("Softmax", g.transpose(g.reshape(sides, (1, 4, _BINS, cells)), 0, 2, 1, 3), axis=1)
    places = g.array(np.arange(_BINS, dtype=np.float32).reshape(1, _BINS, 1, 1))
    boxes = g.op("ReduceSum", g.op("Mul", bins, places), g.ints(1), keepdims=0)
    g.output(_beside(g, boxes, g.op("Sigmoid", scores)), "y", 1, 4 + classes, cells)
