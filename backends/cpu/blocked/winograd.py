"""Winograd's convolution in the blocked layout; see `llvm_winograd` for the work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np

from omniop.backends.array_eval import size_names
from omniop.backends.codegen.llvm_blocks import Head
from omniop.backends.codegen.llvm_ir import Target
from omniop.backends.codegen.llvm_panels import LINE, tile_of
from omniop.backends.codegen.llvm_tiles import Tile, TileStore, block_of
from omniop.backends.codegen.llvm_winograd import ENTRY, Field, print_winograd
from omniop.backends.codegen.llvm_winograd_pixels import PIXELS, print_pixel_tile
from omniop.backends.codegen.llvm_winograd_tiles import FILTERS, FilterField, print_filters
from omniop.backends.codegen.winograd import Winograd
from omniop.backends.cpu import jit
from omniop.backends.cpu.blocked.costs import SECONDS_PER_ELEMENT, WinogradCost
from omniop.backends.cpu.blocked.stores import arguments, tile_store
from omniop.backends.cpu.kept import Later
from omniop.backends.cpu.products import aligned, strips
from omniop.backends.cpu.program import RecordedWork
from omniop.backends.cpu.recording import Context, Record, Recording
from omniop.opset import expr
from omniop.opset.kernel import Call
from omniop.opset.layout import Layout

POINT_BYTES = 384 << 10
"""Of transformed tiles in a point and their products, about: they stay in the second cache while filters pass by."""
FEW_TILES = 24
"""... but not so few that filters come from memory for each of them."""
MANY_TILES = 96
"""... and of those for which filters are transformed: that is then a tenth of the work."""
CHUNK = 96
"""Channels whose filters are transformed together: a panel's are in the second cache until they are used."""
FEW_BLOCKS = 16
"""Blocks of tiles that are too few for many threads."""


@cache
def _work(target: Target, winograd: Winograd) -> jit.MachineCode:
    return jit.build_printed(ENTRY, print_winograd, winograd, target=target)


@cache
def _filters(target: Target, winograd: Winograd) -> jit.MachineCode:
    return jit.build_printed(FILTERS, print_filters, winograd, target=target)


@cache
def _pixel_tile(target: Target, winograd: Winograd, tile: Tile, stored: TileStore) -> jit.MachineCode:
    return jit.build_printed(PIXELS, print_pixel_tile, winograd, tile, stored, target=target)


def transformed_shape(target: Target, winograd: Winograd, filters: Sequence[int]) -> tuple[int, ...]:
    """Of filters ``[M, C, 3, 3]``: ``[panels, products, C, panel's width]``."""
    width = tile_of(target).width
    return -(-filters[0] // width), winograd.products, filters[1], width


def taps_layout(target: Target) -> Layout:
    """Of filters that are transformed in each run: ``[panels, C, 3, 3, panel's width]``."""
    width = tile_of(target).width
    whole = tuple((axis, 0, "whole") for axis in (1, 2, 3))
    return Layout(f"taps in panels of {width}", ((0, width, "outer"), *whole, (0, width, "inner")))


class WinogradFilters(RecordedWork):
    """Filters ``[M, C, 3, 3]`` into a result of the `transformed_shape`, both row-major and of constant sizes."""

    def __init__(self, call: Call, target: Target, winograd: Winograd) -> None:
        super().__init__()
        self._call = Later.of(call)
        self._code = _filters(target, winograd)
        self._vector = block_of(target)

    def record(self, sizes: tuple[int, ...]) -> Recording:
        """See `RecordedWork`."""
        (source,), (result,) = self._call().operands, self._call().results
        filters, channels, *_ = (d.attr for d in source.shape)
        panels, products, _, width = (d.attr for d in result.shape)
        table = np.zeros(len(Head) + len(FilterField), np.int64)
        table[[Head.A_BUFFER, Head.B_BUFFER, Head.C_BUFFER]] = source.buffer, source.buffer, result.buffer
        table[[FilterField.FILTERS, FilterField.CHANNELS]] = filters, channels
        points = panels * width // self._vector
        weight = products * channels * self._vector * SECONDS_PER_ELEMENT * 1e9
        return Recording((Record(self._code, Context(table), points, weight=weight),))


class WinogradConv(RecordedWork):
    """``x[N, C, H, W]``, filters, ``out[N, M, ...]`` with the call's epilogue; x and out have a layout.

    Filters are transformed, or (``anew``) have the `taps_layout`, and are transformed in each run.
    """

    def __init__(self, call: Call, target: Target, layout: Layout, winograd: Winograd, *, anew: bool = False) -> None:
        super().__init__()
        stored = tile_store(call, layout, block_of(target), flat=False)
        self._plan = Later.of(Plan(call, target, winograd, stored, anew))

    def record(self, sizes: tuple[int, ...]) -> Recording:
        """See `RecordedWork`."""
        plan, names = self._plan(), size_names(sizes)
        x, filters = plan.call.operands
        shape, out = (tuple(expr.evaluate(d, names) for d in v.shape) for v in (x, plan.call.results[0]))
        work = TileMatrices(plan, shape, out)
        buffers = x.buffer, filters.buffer, len(plan.call.params)
        records = [
            Record(
                _work(plan.target, plan.winograd),
                work.context(step, buffers, sizes),
                step.points,
                weight=step.seconds * 1e9 / step.points,
                scratch=step.scratch,
            )
            for step in work.steps()
        ]
        return Recording(tuple(records), work.workspace if len(records) > 1 else 0)


@dataclass(frozen=True)
class Plan:
    """What all sizes of a call share."""

    call: Call
    target: Target
    winograd: Winograd
    stored: TileStore
    anew: bool

    @property
    def block(self) -> int:
        return block_of(self.target)

    def pixel_tiles(self, height: int, width: int) -> list[jit.MachineCode | None]:
        """A function for each number of lines and of columns that tiles of such a result have; see `PIXEL_TILES`."""
        sizes = range(1, self.winograd.outputs + 1)
        lines, columns = ({d % self.winograd.outputs, min(d, self.winograd.outputs)} - {0} for d in (height, width))
        return [
            _pixel_tile(self.target, self.winograd, Tile(i, j, 1, self.block), self.stored)
            if i in lines and j in columns
            else None
            for i, j in product(sizes, sizes)
        ]


class Step(NamedTuple):
    """What its context has of its own, its points, the bytes of scratch memory that it wants, and how long it takes."""

    fields: dict[Field, int]
    points: int
    scratch: int
    seconds: float


@dataclass
class TileMatrices:
    """The work for one set of sizes: how tiles are shared out, and where their matrices lie."""

    plan: Plan
    x: tuple[int, ...]
    out: tuple[int, ...]

    def __post_init__(self) -> None:
        w, panel, block = self.plan.winograd, tile_of(self.plan.target), self.plan.block
        self.channel_blocks, self.filter_blocks = (-(-shape[1] // block) for shape in (self.x, self.out))
        self.v_tile = _odd_lines(self.channel_blocks * block)
        self.image_rows, self.tile_columns = (-(-d // w.outputs) for d in self.out[2:])
        self.tile_rows = self.x[0] * self.image_rows
        self.m_tile = _odd_lines(panel.width)
        few = MANY_TILES if self.plan.anew else FEW_TILES
        most = max(few, POINT_BYTES // (4 * w.products * (self.v_tile + self.m_tile)))
        self.columns = _even(self.tile_columns, most)
        self.rows = _even(self.tile_rows, max(1, most // self.columns))
        self.block_columns = -(-self.tile_columns // self.columns)
        self.blocks = -(-self.tile_rows // self.rows) * self.block_columns
        tiles = self.rows * self.columns
        self.v_product, self.m_product = (_odd_lines(tiles * stride) for stride in (self.v_tile, self.m_tile))
        self.chunk = _even(self.x[1], CHUNK) if self.plan.anew else self.x[1]
        self.u_product = _odd_lines(self.chunk * panel.width) if self.plan.anew else self.chunk * panel.width
        self.v_bytes, self.m_bytes = (aligned(4 * w.products * n) for n in (self.v_product, self.m_product))
        self.u_bytes = aligned(4 * w.products * self.u_product) if self.plan.anew else 0

    @property
    def workspace(self) -> int:
        """Bytes that two steps share."""
        return self.blocks * self.v_bytes

    def steps(self) -> list[Step]:
        """Both at once for a block of tiles where there are many; else one after the other, in smaller points."""
        tiles = self.tile_rows * self.tile_columns
        cost = WinogradCost(self.plan.winograd, tiles, self.x[1], self.out[1], self.plan.anew)
        scratch = self.m_bytes + self.u_bytes
        if self.blocks >= FEW_BLOCKS:
            both = {Field.TRANSFORMS: 1, Field.MULTIPLIES: 1, Field.V_BUFFER: -1}
            both |= self._scratch(self.v_bytes) | _parts(self.filter_blocks, 1, 1)
            return [Step(both, self.blocks, self.v_bytes + scratch, cost.transforms + cost.products)]
        wanted = -(-FEW_BLOCKS // self.blocks)
        panel = tile_of(self.plan.target).width // self.plan.block
        first = {Field.TRANSFORMS: 1} | _parts(self.channel_blocks, wanted, 1)
        second = {Field.MULTIPLIES: 1} | self._scratch(0) | _parts(self.filter_blocks, wanted, panel)
        return [
            Step(first, self.blocks * first[Field.PARTS], 0, cost.transforms),
            Step(second, self.blocks * second[Field.PARTS], scratch, cost.products),
        ]

    def _scratch(self, begin: int) -> dict[Field, int]:
        """Where products and filters are, in bytes."""
        return {Field.SCRATCH_M: begin, Field.SCRATCH_U: begin + self.m_bytes if self.plan.anew else -1}

    def context(self, step: Step, buffers: tuple[int, int, int], sizes: Sequence[int]) -> Context:
        """``buffers``: of x, of the filters, and of what two steps share."""
        plan, block = self.plan, self.plan.block
        pads, outputs = plan.call.attr("pads"), plan.winograd.outputs
        _, channels, height, width = self.x
        multiply = strips(plan.target)
        functions = plan.pixel_tiles(*self.out[2:])
        addresses = np.array([0 if f is None else f.address for f in functions], np.int64)
        numbers = arguments(plan.stored, sizes)
        fields = {
            Field.CHANNELS: channels,
            Field.CHANNEL_BLOCKS: self.channel_blocks,
            Field.X_IMAGE: self.channel_blocks * height * width * block,
            Field.X_BLOCK: height * width * block,
            Field.X_LINE: width * block,
            Field.HEIGHT: height,
            Field.WIDTH: width,
            Field.PAD_Y: pads[0],
            Field.PAD_X: pads[1],
            Field.INSIDE_TOP: -(-pads[0] // outputs),
            Field.INSIDE_BOTTOM: (height + pads[0] - plan.winograd.size) // outputs + 1,
            Field.INSIDE_LEFT: -(-pads[1] // outputs),
            Field.INSIDE_RIGHT: (width + pads[1] - plan.winograd.size) // outputs + 1,
            Field.OUT_HEIGHT: self.out[2],
            Field.OUT_WIDTH: self.out[3],
            Field.FILTER_BLOCKS: self.filter_blocks,
            Field.IMAGE_ROWS: self.image_rows,
            Field.TILE_ROWS: self.tile_rows,
            Field.TILE_COLUMNS: self.tile_columns,
            Field.ROWS: self.rows,
            Field.COLUMNS: self.columns,
            Field.BLOCK_COLUMNS: self.block_columns,
            Field.V_TILE: self.v_tile,
            Field.V_PRODUCT: self.v_product,
            Field.M_TILE: self.m_tile,
            Field.M_PRODUCT: self.m_product,
            Field.U_PRODUCT: self.u_product,
            Field.CHUNK: self.chunk,
            Field.V_BUFFER: buffers[2],
            Field.V_BLOCK: self.v_bytes // 4,
            Field.STRIPS: multiply.address,
            Field.PIXEL_TILES: addresses.ctypes.data,
            Field.SIZES: numbers.ctypes.data,
        }
        table = np.zeros(len(Head) + len(Field), np.int64)
        table[[Head.A_BUFFER, Head.B_BUFFER]] = buffers[1], buffers[0]
        fields |= step.fields
        table[list(fields)] = list(fields.values())
        return Context(table, (addresses, numbers, multiply, *(f for f in functions if f is not None)))


def _parts(total: int, wanted: int, unit: int) -> dict[Field, int]:
    """Blocks in a point, whole ``unit``s, and points for all of them."""
    size = -(-total // (wanted * unit)) * unit
    return {Field.PART: size, Field.PARTS: -(-total // size)}


def _even(total: int, most: int) -> int:
    """What ``total`` comes to in equal parts of at most ``most``."""
    return -(-total // -(-total // most))


def _odd_lines(elements: int) -> int:
    """As many, in an odd number of cache lines: what lies a power of two apart shares few places of a cache."""
    lines = -(-elements // LINE)
    return (lines + 1 - lines % 2) * LINE
