"""Depthwise convolutions of bytes for `llvm_narrow_depthwise`: what one is, for one set of sizes, as a context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from omniop.backends.codegen.llvm_blocks import BlockSize, Head
from omniop.backends.codegen.llvm_dot import Dot
from omniop.backends.codegen.llvm_narrow_depthwise import SPAN, Field, entry, print_narrow_depthwise
from omniop.backends.codegen.llvm_narrow_depthwise import Window as Taps
from omniop.backends.codegen.llvm_narrow_lines import ROW_BYTES
from omniop.backends.codegen.llvm_narrow_tiles import WORD
from omniop.backends.cpu import jit, products
from omniop.backends.cpu.products import aligned, step_through
from omniop.backends.cpu.views import Window
from omniop.backends.cpu.windows import Geometry

BLOCK = 1 << 13
"""Elements of the result in a block."""
MAX_WEIGHTS = 20
"""Words of a channel's weights, all of which stay in registers."""
MAX_SPACE = 2
"""Dims of space."""


@cache
def function(taps: Taps) -> jit.MachineCode:
    """The compiled function; see `llvm_narrow_depthwise.print_narrow_depthwise`."""
    return jit.build_printed(entry(taps), print_narrow_depthwise, taps)


def taps_of(kind: Dot, geometry: Geometry, w: Window) -> Taps | None:
    """The window, if code is made for such a one, and for its weights as they lie."""
    if len(geometry.kernel) > MAX_SPACE or step_through(w.shape[1:], w.strides[1:]) != 1:
        return None
    lead = [1] * (2 - len(geometry.kernel))
    kernel, strides, dilations = ((*lead, *part) for part in (geometry.kernel, geometry.strides, geometry.dilations))
    taps = Taps(kind, (kernel[0], kernel[1]), (strides[0], strides[1]), (dilations[0], dilations[1]))
    known = taps.fits(jit.host_target().vector_bits // 32) and taps.words * kernel[0] <= MAX_WEIGHTS
    return taps if known else None


@dataclass
class NarrowDepthwise:
    """``x[N, C, *spatial], w[M, 1, *window] -> out[N, M, *outs]``, M a multiple of C; the elements of a window follow
    each other, and so do those of the image's lines. ``zero``: see `narrow.Narrow`."""

    x: Window
    w: Window
    out: Window
    geometry: Geometry
    taps: Taps
    by_lines: bool
    zero: tuple[int, int]

    def __post_init__(self) -> None:
        *_, self._height, self._width = (1, *self.out.shape[2:])
        self._lines = min(self._height, max(4, BLOCK // self._width))
        self._channels = min(self.w.shape[0], max(1, BLOCK // (self._lines * self._width)))

    @property
    def function(self) -> jit.MachineCode:
        return function(self.taps)

    @property
    def points(self) -> int:
        return self.x.shape[0] * -(-self.w.shape[0] // self._channels) * -(-self._height // self._lines)

    @property
    def weight(self) -> float:
        """Nanoseconds of a point."""
        lanes = jit.host_target().vector_bits // 32
        vectors = self._channels * self._lines * -(-self._width // lanes)
        return vectors * self.taps.kernel[0] * self.taps.words * 2 * lanes / products.SPEED / 4

    def context(self, epilogue: int, sizes: Sequence[int], buffers: int) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        """See `products.Product.context`."""
        x, w, taps = self.x, self.w, self.taps
        rank = len(self.geometry.kernel)

        def two(values: Sequence[int], other: int) -> tuple[int, int]:
            return (other, values[0]) if len(values) == 1 else (values[0], values[1])

        pad_y, pad_x = two(self.geometry.pads[:rank], 0)
        height, width = two(x.shape[2:], 1)
        reach = (taps.kernel[0] - 1) * taps.dilations[0] + 1
        line = -(-((self._width - 1) * taps.strides[1] + SPAN) // ROW_BYTES) * ROW_BYTES
        padded = (self._lines - 1) * taps.strides[0] + reach
        numbers = np.ascontiguousarray(sizes, np.int64)
        at_sizes = aligned((buffers + 1) * products.WORD)
        at_places = at_sizes + aligned((len(sizes) + BlockSize.PLACES + 1) * products.WORD)
        at_lines = at_places + aligned(products.WORD)
        at_block = at_lines + aligned(padded * line + ROW_BYTES)
        lanes = jit.host_target().vector_bits // 32
        end = at_block + WORD * (self._channels * self._lines * self._width + lanes)
        fields = {
            Field.X_IMAGE: x.strides[0],
            Field.X_CHANNEL: x.strides[1],
            Field.X_LINE: two(x.strides[2:], 0)[0],
            Field.WEIGHT_CHANNEL: w.strides[0],
            Field.CHANNELS: w.shape[0],
            Field.MULTIPLIER: w.shape[0] // x.shape[1],
            Field.HEIGHT: height,
            Field.WIDTH: width,
            Field.OUT_HEIGHT: self._height,
            Field.OUT_WIDTH: self._width,
            Field.PAD_Y: pad_y,
            Field.PAD_X: pad_x,
            Field.REACH: reach,
            Field.LINE: line,
            Field.CHANNEL_BLOCK: self._channels,
            Field.CHANNEL_BLOCKS: -(-w.shape[0] // self._channels),
            Field.LINE_BLOCK: self._lines,
            Field.LINE_BLOCKS: -(-self._height // self._lines),
            Field.BY_LINES: self.by_lines,
            Field.ZERO_BUFFER: self.zero[0],
            Field.ZERO_START: self.zero[1],
            Field.EPILOGUE: epilogue,
            Field.SIZES: numbers.ctypes.data,
            Field.SIZE_COUNT: len(numbers),
            Field.BUFFER_COUNT: buffers,
            Field.SCRATCH_SIZES: at_sizes,
            Field.SCRATCH_PLACES: at_places,
            Field.SCRATCH_LINES: at_lines,
            Field.SCRATCH_BLOCK: at_block,
        }
        table = np.zeros(len(Head) + len(Field), np.int64)
        table[Head.SCRATCH] = end
        table[list(fields)] = list(fields.values())
        return table, (numbers,)
