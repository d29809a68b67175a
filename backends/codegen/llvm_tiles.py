"""Tiles of a blocked result: a vector of channels for each of some pixels, summed in registers.

A tile function is ``void name(ptr x, ptr w, ptr ahead, ptr taps, ptr buffers, ptr sizes, int64 numbers)``. With each
row of ``w`` that it reads, it may ask memory for a line of ``ahead``, as far behind its begin. The numbers are
`NUMBERS`: how many ``taps`` there are (a line of `TapWord` each), the step from line to line of ``x``, on how many
lines the tile stands, for those that repeat it, and the place of its first vector in the result. `llvm_tile_store`
prints what becomes of the sums.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from omniop.backends.codegen.llvm_ir import Target
from omniop.opset.expr import Expr
from omniop.opset.kernel import Kernel

POINTERS = ("x", "w", "ahead", "taps", "buffers", "sizes")
NUMBERS = ("tap_count", "line", "lines", "image", "block", "y", "pixel")

MIN_BLOCK = 8
"""Channels of a block, at least: narrower registers work in pairs."""
PANEL = 2
"""Blocks of output channels whose weights lie side by side."""


class TapWord(IntEnum):
    """Where a tap's elements begin, counted from those of the first pixel, and its weights; how many channels follow
    each other there, for tiles that sum over channels."""

    X = 0
    W = 1
    CHANNELS = 2


def block_of(target: Target) -> int:
    """Channels of a block of a blocked layout: a vector of float32."""
    return max(target.vector_bits // 32, MIN_BLOCK)


def pixels_of(target: Target, vectors: int) -> int:
    """Pixels of a tile at most: as many sums as there are registers beside those for weights and one for the image."""
    registers = 32 if target.vector_bits == 512 else 16  # NEON has 32, of which two make a block
    if target.vector_bits == 128:
        registers = 16 if target.fma else 8
    return min(14, (registers - vectors - 1) // vectors)


@dataclass(frozen=True)
class Tile:
    """``lines`` of ``columns`` pixels, ``step`` elements from pixel to pixel in the image; ``vectors`` blocks of
    channels."""

    lines: int
    columns: int
    vectors: int
    step: int

    @property
    def pixels(self) -> list[tuple[int, int]]:
        return [(line, column) for line in range(self.lines) for column in range(self.columns)]


@dataclass(frozen=True)
class TileStore:
    """What becomes of a sum: ``kernel`` has one store, over the axes (image, block, y, pixel, lane), of a value that
    reads the sum from buffer ``hole``, which does not exist; ``content``: a text that says the same. ``channels``: of
    the result, where the last block is not full. ``numbers``: made of the call's sizes; the kernel's arguments behind
    these."""

    kernel: Kernel = field(repr=False)
    content: str
    hole: int
    channels: Expr | None = None
    numbers: tuple[Expr, ...] = field(default=(), compare=False, repr=False)
