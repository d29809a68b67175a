"""Depthwise convolution and pooling in the blocked layout; see `llvm_channelwise` for the tiles.

Nothing is padded: where a window reaches over the edge, its tile has the taps that lie inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from typing import NamedTuple

import numpy as np

from omniop.backends.codegen.llvm_channelwise import WEIGHTED, WindowRow, print_channelwise_tile
from omniop.backends.codegen.llvm_ir import Target
from omniop.backends.codegen.llvm_tile_grid import PanelWord, TaskWord, TileWord
from omniop.backends.codegen.llvm_tiles import TapWord, Tile, TileStore, block_of
from omniop.backends.cpu import jit
from omniop.backends.cpu.blocked.grid import Grid, in_two_dims, parts, table
from omniop.backends.cpu.blocked.stores import tile_store
from omniop.backends.cpu.windows import Geometry
from omniop.opset.kernel import Call
from omniop.opset.layout import Layout

COLUMNS = 16
"""Pixels of a tile at most, where there are 32 registers."""
WIDEST = 9
"""Taps of a window's row whose weights are held in registers."""
LINES = 8
"""Lines that a tile is repeated on at most: more would leave the first cache before the next tile comes."""
FEW_TASKS = 64
"""Tasks below which lines are shared out as well as channels."""
TAP = 0.5
"""Nanoseconds of a tap of a vector."""


@cache
def _tile_function(target: Target, tile: Tile, row: WindowRow, stored: TileStore, monoid: str) -> jit.MachineCode:
    return jit.build_printed("channelwise_tile", print_channelwise_tile, tile, stored, monoid, row, target=target)


class Channelwise:
    """``x[N, C, (H,) W] -> out[N, C, ...]`` by a window for each channel with the call's epilogue: a plan for
    `GridCall`. A convolution has weights ``[C, 1, (i,) j]``, pooling a monoid."""

    def __init__(self, call: Call, target: Target, layout: Layout) -> None:
        self.call = call
        self.target = target
        self.block = block_of(target)
        self.monoid = WEIGHTED if (call.tuned or "").startswith("depthwise") else call.attr("monoid")
        self.stored = tile_store(call, layout, self.block, flat=False)

    def __call__(self, shapes: Sequence[tuple[int, ...]], result: tuple[int, ...]) -> Grid:
        window = shapes[1][2:] if self.monoid == WEIGHTED else self.call.attr("kernel")
        geometry = Geometry.of(self.call, window).in_two_dims()
        return _Sizes(self, in_two_dims(shapes[0]), in_two_dims(result), geometry).grid()


class _Piece(NamedTuple):
    """Pixels of a line whose windows have the same columns inside."""

    function: int
    pixel: int
    tap: int
    """The first of their taps, and how many a row of the window has."""
    row: int


@dataclass
class _Sizes:
    """One set of sizes. Strides count elements."""

    plan: Channelwise
    x: tuple[int, ...]
    out: tuple[int, ...]
    geometry: Geometry

    def __post_init__(self) -> None:
        self.line = self.x[3] * self.plan.block
        self.functions: dict[tuple[int, WindowRow], int] = {}
        self.taps: list[np.ndarray] = []

    def grid(self) -> Grid:
        plan, (batch, channels, height, _), lines = self.plan, self.x, self.out[2]
        pieces = self._pieces()
        blocks = -(-channels // plan.block)
        size = self.geometry.kernel[0] * self.geometry.kernel[1]
        plane = height * self.line
        panels = [
            {PanelWord.X: k * plane, PanelWord.W: k * size * plan.block, PanelWord.BLOCK: k} for k in range(blocks)
        ]
        shares = min(lines, -(-FEW_TASKS // (batch * blocks)))
        runs: list[tuple[int, int, int, int]] = []
        ranges: list[tuple[int, int]] = []
        for start, count in parts(lines, -(-lines // shares)):
            first = len(runs)
            runs += self._runs(start, count)
            ranges.append((first * len(pieces), (len(runs) - first) * len(pieces)))
        tasks = [
            {
                TaskWord.X: image * blocks * plane,
                TaskWord.IMAGE: image,
                TaskWord.TILE: first,
                TaskWord.TILE_COUNT: count,
                TaskWord.PANEL: panel,
                TaskWord.PANEL_COUNT: 1,
            }
            for image in range(batch)
            for panel in range(blocks)
            for first, count in ranges
        ]
        words = table(TaskWord, tasks), self._tiles(pieces, runs), table(PanelWord, panels), np.concatenate(self.taps)
        step = self.geometry.strides[1] * plan.block
        functions = [
            _tile_function(plan.target, Tile(1, count, 1, step), row, plan.stored, plan.monoid)
            for count, row in self.functions
        ]
        weight = TAP * size * lines * self.out[3] * batch * blocks / len(tasks)
        return Grid(*words, [functions], plan.stored, self.geometry.strides[0] * self.line, weight)

    def _pieces(self) -> list[_Piece]:
        """Of a line of the result."""
        apart = self.geometry.dilations[1] * self.plan.block
        across = [_taps_inside(self.geometry, 1, pixel, self.x[3]) for pixel in range(self.out[3])]
        pieces: list[_Piece] = []
        for taps, group in groupby(range(self.out[3]), key=across.__getitem__):
            own = list(group)
            first = sum(map(len, self.taps))
            self.taps.append(self._taps_of(taps))
            inside = taps[1] - taps[0]
            row = WindowRow(inside, apart) if 1 < inside <= WIDEST else WindowRow()
            most = COLUMNS if self.plan.target.vector_bits == 512 else 6
            for start, count in parts(len(own), most):
                number = self.functions.setdefault((count, row), len(self.functions))
                pieces.append(_Piece(number, own[start], first, inside))
        return pieces

    def _taps_of(self, columns: tuple[int, int]) -> np.ndarray:
        """All rows of a window, of whose columns some are inside."""
        rows, width = self.geometry.kernel
        i, j = (a.ravel() for a in np.mgrid[:rows, columns[0] : columns[1]])
        taps = np.zeros((len(i), len(TapWord)), np.int64)
        down, right = self.geometry.dilations
        taps[:, TapWord.X] = i * down * self.line + j * right * self.plan.block
        taps[:, TapWord.W] = (i * width + j) * self.plan.block
        return taps

    def _runs(self, start: int, count: int) -> list[tuple[int, int, int, int]]:
        """Of ``count`` lines of the result: (first line, lines, first row of the window that is inside, behind the
        last)."""
        inside = [_taps_inside(self.geometry, 0, y, self.x[2]) for y in range(start, start + count)]
        runs: list[tuple[int, int, int, int]] = []
        for rows, group in groupby(range(count), key=inside.__getitem__):
            own = list(group)
            runs += [(start + own[k], n, *rows) for k, n in parts(len(own), LINES)]
        return runs

    def _tiles(self, pieces: Sequence[_Piece], runs: Sequence[tuple[int, int, int, int]]) -> np.ndarray:
        """For each run of lines all pieces of a line."""
        (step_y, step_x), (top, left, *_) = self.geometry.strides, self.geometry.pads
        run, piece = (a.ravel() for a in np.indices((len(runs), len(pieces))))
        function, pixel, tap, row = np.array(pieces)[piece].T
        y, lines, first, end = np.array(runs)[run].T
        tiles = np.zeros((len(y), len(TileWord)), np.int64)
        tiles[:, TileWord.FUNCTION] = function
        tiles[:, TileWord.X] = (y * step_y - top) * self.line + (pixel * step_x - left) * self.plan.block
        tiles[:, TileWord.Y] = y
        tiles[:, TileWord.PIXEL] = pixel
        tiles[:, TileWord.TAP] = tap + first * row
        tiles[:, TileWord.TAP_COUNT] = (end - first) * row
        tiles[:, TileWord.LINES] = lines
        return tiles


def _taps_inside(geometry: Geometry, axis: int, place: int, extent: int) -> tuple[int, int]:
    """The first tap of the window at ``place`` that is inside the image, and the one behind the last."""
    start = place * geometry.strides[axis] - geometry.pads[axis]
    apart, count = geometry.dilations[axis], geometry.kernel[axis]
    first = min(count, max(0, -(start // apart)))
    return first, max(first, min(count, -((start - extent) // apart)))
