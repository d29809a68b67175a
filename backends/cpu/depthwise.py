"""Depthwise convolutions for `llvm_depthwise`: what one is, for one set of sizes, as a context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from math import prod

import numpy as np

from omniop.backends.codegen.llvm_blocks import BlockSize, Head
from omniop.backends.codegen.llvm_depthwise import ENTRY, FILL, MONOIDS, ROWS, Field, print_depthwise
from omniop.backends.cpu import jit
from omniop.backends.cpu.products import SPEED, WORD, aligned
from omniop.backends.cpu.views import Window
from omniop.backends.cpu.windows import Geometry

MAX_SPACE = 2
"""Dims of space."""
ELEMENT = 0.7
"""Nanoseconds that an element of the result takes besides its sum, about."""
BLOCK = 1 << 13
"""Elements of the result in a block."""


@cache
def depthwise() -> jit.MachineCode:
    """The compiled function; see `llvm_depthwise.print_depthwise`."""
    return jit.build_printed(ENTRY, print_depthwise)


@dataclass
class Depthwise:
    """``x[N, C, *spatial], w[M, 1, *window] -> out[N, M, *outs]``, M a multiple of C, in one or two dims of space; the
    elements of a window follow each other at one stride, ``w_step``, and so do those of the image's lines, at 1.

    ``monoid``: of `MONOIDS`. Where it takes no weights, ``w`` is the image once more: a channel for each of its own.
    """

    x: Window
    w: Window
    out: Window
    geometry: Geometry
    w_step: int
    by_lines: bool
    """The epilogue counts lines and columns, and does not see pixels as one run."""
    monoid: str = MONOIDS[0]

    def __post_init__(self) -> None:
        *_, self._height, self._width = (1, *self.out.shape[2:])
        self._filters = self.w.shape[0] if self.monoid == MONOIDS[0] else self.x.shape[1]
        self._lines = min(self._height, max(ROWS, BLOCK // self._width))
        self._channels = min(self._filters, max(1, BLOCK // (self._lines * self._width)))

    @property
    def scratch(self) -> int:
        """Bytes of scratch memory, but for the epilogue's few arguments."""
        context, _ = self.context(0, (), 0)
        return int(context[Head.SCRATCH])

    @property
    def function(self) -> jit.MachineCode:
        return depthwise()

    @property
    def points(self) -> int:
        return self.x.shape[0] * -(-self._filters // self._channels) * -(-self._height // self._lines)

    @property
    def weight(self) -> float:
        """Nanoseconds of a point."""
        term = 2 / (SPEED * (jit.host_target().vector_bits // 32))
        return self._channels * self._lines * self._width * (ELEMENT + prod(self.geometry.kernel) * term)

    def context(self, epilogue: int, sizes: Sequence[int], buffers: int) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """See `products.Product.context`."""
        lanes = jit.host_target().vector_bits // 32
        geometry, x, w = self.geometry, self.x, self.w

        def two(values: Sequence[int], other: int) -> tuple[int, int]:
            return (other, values[0]) if len(values) == 1 else (values[0], values[1])

        step_y, step_x = two(geometry.strides, 1)
        down, across = two(geometry.dilations, 1)
        rows, columns = two(geometry.kernel, 1)
        pad_y, pad_x = two(geometry.pads[: len(geometry.kernel)], 0)
        height, width = two(x.shape[2:], 1)
        reach_y, reach_x = (rows - 1) * down + 1, (self._width - 1) * step_x + (columns - 1) * across + 1
        skipped, start = max(0, -pad_x), max(0, pad_x)
        phase = max(self._width, lanes) + (columns - 1) * across // step_x + lanes
        line = -(-step_x * phase // lanes) * lanes + lanes
        taps = np.array(
            [
                i * down * line + j * across % step_x * phase + j * across // step_x
                for i in range(rows)
                for j in range(columns)
            ]
        )
        numbers = np.ascontiguousarray(sizes, np.int64)
        padded = (self._lines - 1) * step_y + reach_y
        at_sizes = aligned((buffers + 1) * WORD)
        at_lines = at_sizes + aligned((len(sizes) + BlockSize.PLACES + 1) * WORD)
        at_block = at_lines + aligned(4 * (padded * line + lanes))
        end = at_block + 4 * (self._channels * self._lines * self._width + lanes)
        fields = {
            Field.MONOID: MONOIDS.index(self.monoid),
            Field.FILL: int(np.float32(FILL[self.monoid]).view(np.uint32)),
            Field.X_IMAGE: x.strides[0],
            Field.X_CHANNEL: x.strides[1],
            Field.X_LINE: two(x.strides[2:], 0)[0],
            Field.WEIGHT_CHANNEL: w.strides[0],
            Field.WEIGHT_TAP: self.w_step,
            Field.CHANNELS: self._filters,
            Field.MULTIPLIER: self._filters // x.shape[1],
            Field.HEIGHT: height,
            Field.OUT_HEIGHT: self._height,
            Field.OUT_WIDTH: self._width,
            Field.STEP_Y: step_y,
            Field.STEP_X: step_x,
            Field.PAD_Y: pad_y,
            Field.FROM: skipped,
            Field.TO: start,
            Field.COUNT: max(0, min(width - skipped, reach_x - start)),
            Field.REACH: reach_y,
            Field.PHASE: phase,
            Field.LINE: line,
            Field.TAPS: taps.ctypes.data,
            Field.TAP_COUNT: len(taps),
            Field.CHANNEL_BLOCK: self._channels,
            Field.CHANNEL_BLOCKS: -(-self._filters // self._channels),
            Field.LINE_BLOCK: self._lines,
            Field.LINE_BLOCKS: -(-self._height // self._lines),
            Field.BY_LINES: self.by_lines,
            Field.EPILOGUE: epilogue,
            Field.SIZES: numbers.ctypes.data,
            Field.SIZE_COUNT: len(numbers),
            Field.BUFFER_COUNT: buffers,
            Field.SCRATCH_SIZES: at_sizes,
            Field.SCRATCH_LINES: at_lines,
            Field.SCRATCH_BLOCK: at_block,
        }
        table = np.zeros(len(Head) + len(Field), np.int64)
        table[Head.SCRATCH] = end
        table[list(fields)] = list(fields.values())
        return table, (taps, numbers)
