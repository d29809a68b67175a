"""The prim ``conv`` as matrix products: windows are copied to columns, a strip of output rows at a time.

Measured against one product per element of the window, on shifted views, added up: strips are as fast with many
channels, several times faster with few, and they take the weights as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.lib.stride_tricks import as_strided

from omniop.backends.cpu.matmul import matmul
from omniop.backends.cpu.memory import Scratch
from omniop.backends.cpu.windows import Geometry
from omniop.opset.kernel import Call

STRIP_BYTES = 8 << 20
"""Columns held at a time."""


def conv(call: Call, operands: Sequence[np.ndarray], outs: Sequence[np.ndarray], scratch: Scratch) -> None:
    """``x[N, C, ...], w[M, C / group, ...] -> out[N, M, ...]``, all of one dtype; ``out`` is contiguous."""
    (x, w), (out,) = operands, outs
    group = call.attr("group")
    geometry = Geometry.of(call, w.shape[2:])
    x = geometry.padded(x, out.shape[2:], 0, scratch)
    weights = w.reshape(group, w.shape[0] // group, -1)
    results = out.reshape(len(out), group, w.shape[0] // group, -1)
    if prod(geometry.kernel) == 1 and x.shape[2:] == out.shape[2:]:
        matmul(weights, x.reshape(len(x), group, w.shape[1], -1), results)
        return
    for image, result in zip(x, results, strict=True):
        _image(image, weights, result, out.shape[2:], geometry, scratch)


def integer_conv(call: Call, operands: Sequence[np.ndarray], outs: Sequence[np.ndarray], scratch: Scratch) -> None:
    """`conv` of what ``x`` is more than ``zero``."""
    x, w, zero = operands
    conv(call, (x - zero, w), outs, scratch)


def _image(
    x: np.ndarray, weights: np.ndarray, out: np.ndarray, shape: Sequence[int], geometry: Geometry, scratch: Scratch
) -> None:
    """``x[C, ...]``, ``weights[group, M / group, K]`` and ``out[group, M / group, ...]`` of one image."""
    channels, rest = len(x), prod(shape[1:])
    steps = [s * stride for s, stride in zip(x.strides[1:], geometry.strides, strict=True)]
    taps = [s * dilation for s, dilation in zip(x.strides[1:], geometry.dilations, strict=True)]
    row = channels * prod(geometry.kernel) * rest
    rows = max(1, STRIP_BYTES // (row * x.itemsize))
    for first in range(0, shape[0], rows):
        count = min(rows, shape[0] - first)
        extents = (channels, *geometry.kernel, count, *shape[1:])
        start = x[:, first * geometry.strides[0] :]
        columns = scratch.array("columns", extents, x.dtype)
        columns[...] = as_strided(start, extents, (x.strides[0], *taps, *steps), writeable=False)
        columns = columns.reshape(len(weights), -1, count * rest)
        matmul(weights, columns, out[:, :, first * rest : (first + count) * rest])
