"""Depthwise convolution and pooling in the blocked layout; see `llvm_channelwise` for the tiles.

Nothing is padded: where a window reaches over the edge, its tile has the taps that lie inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import groupby

import numpy as np

from omniop.backends.codegen.llvm_channelwise import WEIGHTED, print_channelwise_tile
from omniop.backends.codegen.llvm_ir import Target
from omniop.backends.codegen.llvm_tile_grid import PanelWord, TaskWord, TileWord
from omniop.backends.codegen.llvm_tiles import TapWord, Tile, TileStore, block_of
from omniop.backends.cpu import jit
from omniop.backends.cpu.blocked.grid import Grid, in_two_dims, parts, table
from omniop.backends.cpu.blocked.stores import tile_store
from omniop.backends.cpu.windows import Geometry
from omniop.opset.kernel import Call
from omniop.opset.layout import Layout

COLUMNS = 12
"""Pixels of a tile: enough to wait for no sum, and no more registers than there are."""
FEW_TASKS = 64
"""Tasks below which lines are shared out as well as channels."""
TAP = 1.0
"""Nanoseconds of a tap of a vector."""


@cache
def _tile_function(target: Target, columns: int, step: int, stored: TileStore, monoid: str) -> jit.MachineCode:
    tile = Tile(1, columns, 1, step)
    return jit.build_printed("channelwise_tile", print_channelwise_tile, tile, stored, monoid, target=target)


class Channelwise:
    """``x[N, C, (H,) W] -> out[N, C, ...]`` by a window for each channel with the call's epilogue: a plan for
    `GridCall`. A convolution has weights ``[C, 1, (i,) j]``, pooling a monoid."""

    def __init__(self, call: Call, target: Target, layout: Layout) -> None:
        self._call = call
        self._target = target
        self._block = block_of(target)
        self._columns = COLUMNS if target.vector_bits == 512 else COLUMNS // 2
        self._monoid = WEIGHTED if call.prim.startswith("kernel:depthwise") else call.attr("monoid")
        self._stored = tile_store(call, layout, self._block, flat=False)

    def __call__(self, shapes: Sequence[tuple[int, ...]], result: tuple[int, ...]) -> Grid:
        window = shapes[1][2:] if self._monoid == WEIGHTED else self._call.attr("kernel")
        geometry = Geometry.of(self._call, window).in_two_dims()
        batch, channels, height, width = in_two_dims(shapes[0])
        _, _, rows, columns = in_two_dims(result)
        block, line = self._block, width * self._block
        down, across = (
            [_taps_inside(geometry, k, o, extent) for o in range(count)]
            for k, (count, extent) in enumerate(((rows, height), (columns, width)))
        )
        functions: dict[int, int] = {}
        tables: dict[tuple[int, int], int] = {}
        all_taps: list[np.ndarray] = []
        pieces: list[tuple[int, int, int, int]] = []  # of a line: function, pixel, first tap, taps of a row
        for taps, group in groupby(range(columns), key=across.__getitem__):
            own = list(group)
            if taps not in tables:
                tables[taps] = sum(map(len, all_taps))
                all_taps.append(self._taps(geometry, taps, line))
            for start, count in parts(len(own), self._columns):
                number = functions.setdefault(count, len(functions))
                pieces.append((number, own[start], tables[taps], taps[1] - taps[0]))
        tiles = self._tiles(geometry, np.array(pieces), np.array(down), line)
        blocks = -(-channels // block)
        window_size = geometry.kernel[0] * geometry.kernel[1]
        panels = [
            {PanelWord.X: k * height * line, PanelWord.W: k * window_size * block, PanelWord.BLOCK: k}
            for k in range(blocks)
        ]
        tasks = [
            {
                TaskWord.X: image * blocks * height * line,
                TaskWord.IMAGE: image,
                TaskWord.TILE: first * len(pieces),
                TaskWord.TILE_COUNT: count * len(pieces),
                TaskWord.PANEL: panel,
                TaskWord.PANEL_COUNT: 1,
            }
            for image in range(batch)
            for panel in range(blocks)
            for first, count in parts(rows, -(-rows // min(rows, -(-FEW_TASKS // (batch * blocks)))))
        ]
        step = geometry.strides[1] * block
        made = [_tile_function(self._target, count, step, self._stored, self._monoid) for count in functions]
        weight = TAP * window_size * rows * columns * batch * blocks / len(tasks)
        words = table(TaskWord, tasks), tiles, table(PanelWord, panels), np.concatenate(all_taps)
        return Grid(*words, [made], 0, weight)

    def _taps(self, geometry: Geometry, columns: tuple[int, int], line: int) -> np.ndarray:
        """All rows of a window, of whose columns some are inside."""
        rows, width = geometry.kernel
        i, j = (a.ravel() for a in np.mgrid[:rows, columns[0] : columns[1]])
        taps = np.zeros((len(i), len(TapWord)), np.int64)
        down, right = geometry.dilations
        taps[:, TapWord.X] = i * down * line + j * right * self._block
        taps[:, TapWord.W] = (i * width + j) * self._block
        return taps

    def _tiles(self, geometry: Geometry, pieces: np.ndarray, down: np.ndarray, line: int) -> np.ndarray:
        """For each line of the result, whose windows have the rows ``down`` inside, all pieces of a line."""
        (step_y, step_x), (top, left, *_) = geometry.strides, geometry.pads
        y, piece = (a.ravel() for a in np.indices((len(down), len(pieces))))
        function, pixel, tap, per_row = pieces[piece].T
        first, end = down[y].T
        tiles = np.zeros((len(y), len(TileWord)), np.int64)
        tiles[:, TileWord.FUNCTION] = function
        tiles[:, TileWord.X] = (y * step_y - top) * line + (pixel * step_x - left) * self._block
        tiles[:, TileWord.Y] = y
        tiles[:, TileWord.PIXEL] = pixel
        tiles[:, TileWord.TAP] = tap + first * per_row
        tiles[:, TileWord.TAP_COUNT] = (end - first) * per_row
        return tiles


def _taps_inside(geometry: Geometry, axis: int, place: int, extent: int) -> tuple[int, int]:
    """The first tap of the window at ``place`` that is inside the image, and the one behind the last."""
    start = place * geometry.strides[axis] - geometry.pads[axis]
    apart, count = geometry.dilations[axis], geometry.kernel[axis]
    first = min(count, max(0, -(start // apart)))
    return first, max(first, min(count, -((start - extent) // apart)))
