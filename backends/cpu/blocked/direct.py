"""Direct convolution in the blocked layout; see `llvm_conv` for the tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product
from math import prod

import numpy as np

from omniop.backends.codegen.llvm_conv import print_conv_tile
from omniop.backends.codegen.llvm_dot import Dot
from omniop.backends.codegen.llvm_ir import Target
from omniop.backends.codegen.llvm_panels import LINE
from omniop.backends.codegen.llvm_tile_grid import PanelWord, TaskWord, TileWord
from omniop.backends.codegen.llvm_tiles import PANEL, TapWord, Tile, TileStore, block_of, pixels_of
from omniop.backends.cpu import fused, jit
from omniop.backends.cpu.blocked.grid import Frame, Grid, in_two_dims, parts, table
from omniop.backends.cpu.blocked.stores import tile_store
from omniop.backends.cpu.products import SPEED
from omniop.backends.cpu.recording import shares
from omniop.backends.cpu.windows import Geometry
from omniop.opset.kernel import Call
from omniop.opset.layout import Layout

IMAGE_BYTES = 448 << 10
"""Of the image, that a task reads for each panel anew: they stay in the second cache."""
AHEAD_BYTES = 896 << 10
"""Of the second cache, that what tasks read of the image and two panels may take, for the second to be asked for."""
MAX_FRAME = 512 << 10
"""Bytes of a frame, in whole lines, beyond which it holds parts of lines."""
MAX_LINES = 4
"""Lines of a tile."""


@cache
def _tile_function(target: Target, tile: Tile, stored: TileStore, kind: Dot | None) -> jit.MachineCode:
    return jit.build_printed("conv_tile", print_conv_tile, tile, stored, kind, target=target)


class DirectConv:
    """``x[N, C, (H,) W], w[M, C / group, (i,) j] -> out[N, M, ...]`` with the call's epilogue: a plan for `GridCall`.

    ``layout``: of the result; x has its channels in blocks of ``depth``, and is row-major where that is 1. ``kind``: of
    narrow elements, words of which are multiplied; None for float32. C / group is then in whole words.
    """

    def __init__(self, call: Call, target: Target, layout: Layout, depth: int, kind: Dot | None = None) -> None:
        self.call = call
        self.target = target
        self.block = block_of(target)
        self.kind = kind
        self.group = 1 if kind is None else kind.group
        self.depth = depth
        self._flat = fused.pixels_are_one_run(call)
        self.stored = {flat: tile_store(call, layout, self.block, flat) for flat in {False, self._flat}}

    def __call__(self, shapes: Sequence[tuple[int, ...]], result: tuple[int, ...]) -> Grid:
        geometry = Geometry.of(self.call, shapes[1][2:]).in_two_dims()
        x, w, out = (in_two_dims(s) for s in (*shapes, result))
        flat = self._flat and prod(geometry.kernel) == prod(geometry.strides) == 1 and not any(geometry.pads)
        if flat:
            x, out = ((*s[:2], 1, s[2] * s[3]) for s in (x, out))
        return _Sizes(self, x, w, out, geometry).grid(flat)

    def function(self, tile: Tile, flat: bool) -> jit.MachineCode:
        return _tile_function(self.target, tile, self.stored[flat], self.kind)


def _even(extent: int, step: int, most: int, times: int) -> int:
    """Of ``extent``, in whole steps, at most ``most`` for a task, so that threads have equal shares."""
    steps = -(-extent // step)
    return -(-steps // shares(steps, max(1, most // step), times)) * step


@dataclass
class _Sizes:
    """One set of sizes. Strides count elements of float32, or words, of which a plane holds ``unit`` for each pixel."""

    conv: DirectConv
    x: tuple[int, ...]
    w: tuple[int, ...]
    out: tuple[int, ...]
    geometry: Geometry

    def __post_init__(self) -> None:
        geometry, depth = self.geometry, self.conv.depth
        self.unit = max(1, depth // self.conv.group)
        _, channels, self.height, self.width = self.x
        self.all_planes = -(-channels // depth)
        self.planes = -(-self.w[1] // depth)
        self.plane = self.height * self.width * self.unit
        self.reach = [(k - 1) * d + 1 for k, d in zip(geometry.kernel, geometry.dilations, strict=True)]
        beyond = any(r > d for r, d in zip(geometry.reach(self.out[2:]), self.x[2:], strict=True))
        self.framed = beyond or any(geometry.pads[:2])
        self.lines, self.columns = self._tile()
        self.rows, self.row = self._task()

    def _tile(self) -> tuple[int, int]:
        """Lines and columns of a tile, at most."""
        most = pixels_of(self.conv.target, PANEL)
        height, width = self.out[2:]
        return (min(MAX_LINES, most // width, height), width) if width <= most // 2 else (1, most)

    def _task(self) -> tuple[int, int]:
        """Lines of the result, and pixels of a line, that a task covers at most."""
        height, width = self.out[2:]
        while width > self.columns and self._image_bytes(1, width) > MAX_FRAME:
            width = -(-width // 2)
        if height == 1 and self._image_bytes(1, width) > IMAGE_BYTES:
            width = max(self.columns, IMAGE_BYTES // self._image_bytes(1, 1) // self.columns * self.columns)
        rows = height
        while rows > self.lines and self._image_bytes(rows, width) > IMAGE_BYTES:
            rows -= 1
        rows, images = max(self.lines, rows // self.lines * self.lines), self.x[0]
        if self.framed and height <= self.lines:
            width = _even(self.out[3], self.columns, width, images)
        elif self.framed:
            rows = _even(height, self.lines, rows, images * -(-self.out[3] // width))
        return rows, min(width, self.out[3])

    def _image_bytes(self, rows: int, width: int) -> int:
        """Of what so many lines and pixels of the result read: between windows, strides may leave some out."""
        touched = [
            (n - 1) * min(step, reach) + reach
            for n, step, reach in zip((rows, width), self.geometry.strides, self.reach, strict=True)
        ]
        return 4 * self.all_planes * self.unit * prod(touched)

    def _seen(self, rows: int, width: int) -> tuple[int, int]:
        """Lines and columns of the padded image that the windows of so many lines and columns of the result touch."""
        (down, right), (high, wide) = self.geometry.strides, self.reach
        return (rows - 1) * down + high, (width - 1) * right + wide

    @cached_property
    def frame(self) -> Frame | None:
        if not self.framed:
            return None
        lines, columns = self._seen(self.rows, self.row)
        line = self.width * self.unit
        return Frame(self.all_planes, self.plane, line, self.height, columns * self.unit, lines)

    def grid(self, flat: bool) -> Grid:
        line, plane = self.width * self.unit, self.plane
        if self.frame is not None:
            line, plane = self.frame.line, self.frame.line * self.frame.lines
        taps = self._taps(line, plane)
        panels, kinds = self._panels(plane)
        tiles: list[dict[int, int]] = []
        shapes: dict[tuple[int, int], int] = {}
        of_block: dict[tuple[int, int], tuple[int, int]] = {}
        tasks: list[dict[int, int]] = []
        blocks = list(product(range(self.x[0]), parts(self.out[2], self.rows), parts(self.out[3], self.row)))
        pieces = 1 if self.framed else shares(len(panels), len(panels), len(blocks))
        for image, (y, rows), (pixel, columns) in blocks:
            if (rows, columns) not in of_block:
                first = len(tiles)
                tiles += self._tiles(rows, columns, line, len(taps), shapes)
                of_block[rows, columns] = first, len(tiles) - first
            task = self._place(image, y, rows, pixel, columns)
            task |= dict(zip((TaskWord.TILE, TaskWord.TILE_COUNT), of_block[rows, columns], strict=True))
            for start, count in parts(len(panels), -(-len(panels) // pieces)):
                tasks.append({**task, TaskWord.PANEL: start, TaskWord.PANEL_COUNT: count})
        step = self.geometry.strides[1] * self.unit
        functions = [[self.conv.function(Tile(*shape, k, step), flat) for shape in shapes] for k in kinds]
        lines = table(TaskWord, tasks), table(TileWord, tiles), table(PanelWord, panels)
        weight = 2 * prod(self.w[1:]) * prod(self.out) / (SPEED * self.conv.block * self.conv.group * len(tasks))
        stored = self.conv.stored[flat]
        askers = PANEL * self.conv.block // LINE if self._held_bytes() <= AHEAD_BYTES else 0
        return Grid(*lines, taps, functions, stored, line * self.geometry.strides[0], weight, self.frame, askers)

    def _held_bytes(self) -> int:
        """Of what a task reads of the image, and two panels."""
        return self._image_bytes(self.rows, self.row) + 2 * 4 * self._panel

    def _taps(self, line: int, plane: int) -> np.ndarray:
        (high, wide), (down, right) = self.geometry.kernel, self.geometry.dilations
        p, i, j = (a.ravel() for a in np.indices((self.planes, high, wide)))
        taps = np.zeros((len(p), len(TapWord)), np.int64)
        taps[:, TapWord.X] = p * plane + i * down * line + j * right * self.unit
        before = np.arange(len(p)) * self.unit
        if self.conv.kind is not None:  # see `specs.words_layout`
            before = (i * wide + j) * self.words + p * self.unit
        taps[:, TapWord.W] = before * PANEL * self.conv.block
        taps[:, TapWord.CHANNELS] = np.minimum(self.conv.depth, self.w[1] - p * self.conv.depth) // self.conv.group
        return taps

    @property
    def words(self) -> int:
        """Of a filter's channels at one place of the window."""
        return self.w[1] // self.conv.group

    @property
    def _panel(self) -> int:
        """Elements of a panel of weights."""
        held = self.planes * self.unit if self.conv.kind is None else self.words
        return held * prod(self.geometry.kernel) * PANEL * self.conv.block

    def _panels(self, plane: int) -> tuple[list[dict[int, int]], list[int]]:
        """The panels, and the numbers of vectors that make their kinds."""
        block, (filters, depth) = self.conv.block, self.w[:2]
        blocks, width = -(-filters // block), PANEL * block
        per_group = filters * depth // self.x[1]
        size = self._panel
        kinds: list[int] = []
        panels: list[dict[int, int]] = []
        for k in range(-(-filters // width)):
            vectors = min(PANEL, blocks - k * PANEL)
            if vectors not in kinds:
                kinds.append(vectors)
            panels.append(
                {
                    PanelWord.X: k * width // per_group * self.planes * plane,
                    PanelWord.W: k * size,
                    PanelWord.BLOCK: k * PANEL,
                    PanelWord.KIND: kinds.index(vectors),
                }
            )
        return panels, kinds

    def _tiles(
        self, rows: int, columns: int, line: int, taps: int, shapes: dict[tuple[int, int], int]
    ) -> list[dict[int, int]]:
        """Of a block that begins at 0; ``shapes``: lines and columns of tiles, which it adds to."""
        down, right = self.geometry.strides
        tiles: list[dict[int, int]] = []
        for y in range(0, rows, self.lines):
            for x, count in parts(columns, self.columns):
                shape = min(self.lines, rows - y), count
                tiles.append(
                    {
                        TileWord.FUNCTION: shapes.setdefault(shape, len(shapes)),
                        TileWord.X: y * down * line + x * right * self.unit,
                        TileWord.Y: y,
                        TileWord.PIXEL: x,
                        TileWord.TAP_COUNT: taps,
                        TileWord.LINES: 1,
                    }
                )
        return tiles

    def _place(self, image: int, y: int, rows: int, pixel: int, columns: int) -> dict[int, int]:
        (down, right), (top, left, *_) = self.geometry.strides, self.geometry.pads
        start = image * self.all_planes * self.plane
        place: dict[int, int] = {TaskWord.IMAGE: image, TaskWord.Y: y, TaskWord.PIXEL: pixel, TaskWord.X: start}
        if self.frame is None:
            place[TaskWord.X] += (y * down * self.width + pixel * right) * self.unit
            return place
        begin = pixel * right - left
        wide = self.frame.line // self.unit
        inside = max(0, min(self.width, begin + wide) - max(0, begin))
        return place | {
            TaskWord.FIRST_LINE: y * down - top,
            TaskWord.LINES: self._seen(rows, columns)[0],
            TaskWord.LEFT: min(wide, max(0, -begin)) * self.unit,
            TaskWord.FROM: max(0, begin) * self.unit,
            TaskWord.COUNT: inside * self.unit,
        }
