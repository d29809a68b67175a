"""Winograd's convolution as LLVM IR: 3x3 filters over an image with its channels in blocks, tile by tile.

Tiles are transformed into as many matrices ``[tiles, channels]`` as there are products in a tile. Each is multiplied
with a matrix of transformed filters by `llvm_strips`, a panel of filters at a time, so that what comes of
all of them is still in the cache when it is transformed into pixels. See `winograd` for the arithmetic.

A point of the work is a block of tiles, whose matrices are in scratch memory; rows of tiles of all images count as
below each other, so that small images share what is read of filters. Where such blocks are few, the work is done in two
steps, with matrices in memory that both share: a point of the first is a block of tiles and some channels, a point of
the second a block of tiles and some filters.

Filters are transformed already, or where they are many and tiles are few, by each point, a panel's at a time and some
channels, just before they are used: transformed, they would be up to four times as many bytes to hold and to read.
"""

from __future__ import annotations

from enum import IntEnum, auto

from omniop.backends.codegen.llvm_blocks import Head, define_entry
from omniop.backends.codegen.llvm_flow import address, argument, each, least, plus, when, word
from omniop.backends.codegen.llvm_ir import Code, Module, Value, index
from omniop.backends.codegen.llvm_panels import tile_of
from omniop.backends.codegen.llvm_strips import Strips
from omniop.backends.codegen.llvm_tiles import block_of
from omniop.backends.codegen.llvm_winograd_tiles import print_filter_panel, print_image_tiles, print_outside
from omniop.backends.codegen.winograd import TAPS, Winograd
from omniop.opset.dtype import FLOAT32, INT64, UINT8

ENTRY = "winograd"


class Field(IntEnum):
    """The context: int64 numbers and addresses, by their place in it. Strides count elements; tiles are of pixels."""

    CHANNELS = len(Head)
    CHANNEL_BLOCKS = auto()
    X_IMAGE = auto()
    X_BLOCK = auto()
    X_LINE = auto()
    HEIGHT = auto()
    WIDTH = auto()
    PAD_Y = auto()
    PAD_X = auto()
    INSIDE_TOP = auto()
    INSIDE_BOTTOM = auto()
    """Rows of tiles from the one to below the other see no padding, nor do columns of tiles:"""
    INSIDE_LEFT = auto()
    INSIDE_RIGHT = auto()
    OUT_HEIGHT = auto()
    OUT_WIDTH = auto()
    FILTER_BLOCKS = auto()
    """Blocks of channels of the result."""
    TRANSFORMS = auto()
    """1 where tiles are transformed."""
    MULTIPLIES = auto()
    """1 where their matrices are multiplied."""
    PART = auto()
    """Blocks of filters, or of channels where nothing is multiplied, in a point ..."""
    PARTS = auto()
    """... and points for all of them."""
    IMAGE_ROWS = auto()
    """Of tiles; ``TILE_ROWS`` of all images."""
    TILE_ROWS = auto()
    TILE_COLUMNS = auto()
    ROWS = auto()
    """Of tiles, in a point."""
    COLUMNS = auto()
    BLOCK_COLUMNS = auto()
    """Points beside each other."""
    V_TILE = auto()
    V_PRODUCT = auto()
    M_TILE = auto()
    M_PRODUCT = auto()
    V_BUFFER = auto()
    """The buffer of the matrices of transformed tiles, or -1 where scratch memory begins with them ..."""
    V_BLOCK = auto()
    """... and from block to block of tiles in it."""
    SCRATCH_M = auto()
    """Where in scratch memory products begin, in bytes."""
    SCRATCH_U = auto()
    """Where filters are transformed there, or -1 where they are already."""
    U_PRODUCT = auto()
    """From product to product of a panel of transformed filters."""
    CHUNK = auto()
    """Channels that are summed before others."""
    STRIPS = auto()
    """Address of `llvm_strips`' function."""
    PIXEL_TILES = auto()
    """Address of a table of addresses: of the functions that make pixels of a tile, by lines and columns of it."""
    SIZES = auto()
    """Address of the call's sizes, which they want."""


def print_winograd(module: Module, winograd: Winograd) -> None:
    """Adds ``winograd``, of filters in panels, and an image and a result with their channels in blocks."""
    print_outside(module)
    print_filter_panel(module, "filter_panel", winograd)
    print_image_tiles(module, "image_tiles", winograd, True)
    print_image_tiles(module, "edge_tiles", winograd, False)
    _Driver(module, winograd).define()


class _Driver:
    def __init__(self, module: Module, winograd: Winograd) -> None:
        self.module = module
        self.winograd = winograd
        self.block = index(block_of(module.target))
        self.tile = tile_of(module.target)
        self.code = Code(module, "work")
        self.field = {f: word(self.code, "%context", f) for f in Field}

    def define(self) -> None:
        code = self.code
        self.m = code.element("%scratch", UINT8, self.field[Field.SCRATCH_M])
        tables = (Field.STRIPS, Field.PIXEL_TILES, Field.SIZES)
        self.strips, self.pixel_tiles, self.sizes = (address(code, "%context", k) for k in tables)
        each(code, argument("begin"), argument("end"), 1, self._point)
        define_entry(self.module, ENTRY, code)

    def _point(self, code: Code, point: Value) -> None:
        f, zero = self.field, index(0)
        part, block = code.op("urem", point, f[Field.PARTS]), code.op("udiv", point, f[Field.PARTS])
        column, row = code.op("urem", block, f[Field.BLOCK_COLUMNS]), code.op("udiv", block, f[Field.BLOCK_COLUMNS])
        y, x = code.mul(row, f[Field.ROWS]), code.mul(column, f[Field.COLUMNS])
        rows = least(code, code.op("sub", f[Field.TILE_ROWS], y), f[Field.ROWS])
        columns = least(code, code.op("sub", f[Field.TILE_COLUMNS], x), f[Field.COLUMNS])
        shared = code.compare("sge", f[Field.V_BUFFER], zero)
        held = code.intrinsic("smax", f[Field.V_BUFFER], zero)
        buffer = code.let(f"load ptr, ptr {code.element('%buffers', INT64, held)}, align 8")
        buffer = code.element(buffer, FLOAT32, code.mul(block, f[Field.V_BLOCK]))
        self.v = code.let(f"select {shared}, ptr {buffer}, ptr %scratch")
        multiplies = code.compare("ne", f[Field.MULTIPLIES], zero)
        first, end = code.mul(part, f[Field.PART]), plus(code, code.mul(part, f[Field.PART]), f[Field.PART])

        def transform() -> None:
            begin = code.select(multiplies, zero, first)
            until = code.select(multiplies, f[Field.CHANNEL_BLOCKS], least(code, end, f[Field.CHANNEL_BLOCKS]))
            source = code.element("%b", FLOAT32, code.mul(begin, f[Field.X_BLOCK]))
            target = code.element(self.v, FLOAT32, code.mul(begin, self.block))
            self._transform(code, (source, target), code.op("sub", until, begin), (y, x), (rows, columns))

        when(code, code.compare("ne", f[Field.TRANSFORMS], zero), transform)

        def panel(outer: Code, filters: Value) -> None:
            blocks = least(outer, outer.op("sub", last, filters), index(side))

            def chunk(inside: Code, c: Value) -> None:
                channels = least(inside, inside.op("sub", f[Field.CHANNELS], c), f[Field.CHUNK])
                u = self._filters(inside, inside.op("udiv", filters, index(side)), (c, channels))
                self._multiply(inside, u, (c, channels), blocks, inside.mul(rows, columns))

            each(outer, zero, f[Field.CHANNELS], f[Field.CHUNK], chunk)
            self._finish(outer, (filters, blocks), (y, x), (rows, columns))

        side = self.tile.width // block_of(self.module.target)
        last = code.select(multiplies, least(code, end, f[Field.FILTER_BLOCKS]), zero)
        each(code, first, last, side, panel)

    def _transform(
        self, code: Code, where: tuple[str, str], blocks: Value, at: tuple[Value, Value], counts: tuple[Value, Value]
    ) -> None:
        """Tiles of the image into matrices, for so many blocks of channels. ``where``: the first one, from and to."""
        f, step, zero = self.field, self.winograd.outputs, index(0)
        first, columns = at[1], counts[1]
        left = least(code, code.intrinsic("smax", code.op("sub", f[Field.INSIDE_LEFT], first), zero), columns)
        right = least(code, code.intrinsic("smax", code.op("sub", f[Field.INSIDE_RIGHT], first), left), columns)
        x = code.op("sub", code.mul(first, index(step)), f[Field.PAD_X])

        def line(outer: Code, i: Value) -> None:
            image, row = self._row(outer, outer.add(at[0], i))
            below = outer.compare("sge", row, f[Field.INSIDE_TOP])
            whole = outer.op("and", below, outer.compare("slt", row, f[Field.INSIDE_BOTTOM]))
            ends = [zero, *(outer.select(whole, end, columns) for end in (left, right)), columns]
            y = outer.op("sub", outer.mul(row, index(step)), f[Field.PAD_Y])
            start = outer.add(outer.mul(y, f[Field.X_LINE]), outer.mul(x, self.block))
            source = outer.element(where[0], FLOAT32, outer.add(start, outer.mul(image, f[Field.X_IMAGE])))
            target = outer.element(where[1], FLOAT32, outer.mul(outer.mul(i, columns), f[Field.V_TILE]))

            def channels(inside: Code, c: Value) -> None:
                plane = inside.element(source, FLOAT32, inside.mul(c, f[Field.X_BLOCK]))
                tiles = inside.element(target, FLOAT32, inside.mul(c, self.block))
                for name, begin, end in zip(("edge_tiles", "image_tiles", "edge_tiles"), ends, ends[1:], strict=False):
                    pixels = inside.mul(begin, index(step))
                    pointers = (
                        inside.element(plane, FLOAT32, inside.mul(pixels, self.block)),
                        inside.element(tiles, FLOAT32, inside.mul(begin, f[Field.V_TILE])),
                    )
                    numbers = (
                        *(f[Field.X_LINE], inside.op("sub", end, begin), f[Field.V_TILE], f[Field.V_PRODUCT]),
                        *(y, inside.add(x, pixels), f[Field.HEIGHT], f[Field.WIDTH]),
                    )
                    arguments = [*(f"ptr {p}" for p in pointers), *map(str, numbers)]
                    inside.do(f"call void @{name}({', '.join(arguments)})")

            each(outer, zero, blocks, 1, channels)

        each(code, zero, counts[0], 1, line)

    def _row(self, code: Code, row: Value) -> tuple[Value, Value]:
        """The image of a row of tiles, and the row's number there."""
        rows = self.field[Field.IMAGE_ROWS]
        return code.op("udiv", row, rows), code.op("urem", row, rows)

    def _filters(self, code: Code, panel: Value, channels: tuple[Value, Value]) -> tuple[str, str]:
        """A panel of transformed filters, for channels from the first on, and how many; and what is read next, of
        those that are transformed here."""
        f, width, (first, count) = self.field, self.tile.width, channels
        transforms = code.compare("sge", f[Field.SCRATCH_U], index(0))
        size = code.mul(f[Field.CHANNELS], index(width))
        skipped = code.mul(first, index(width))
        taps = code.mul(code.add(code.mul(panel, size), skipped), index(TAPS**2))
        given = code.add(code.mul(panel, code.mul(size, index(self.winograd.products))), skipped)
        source, own = code.element("%a", FLOAT32, taps), code.element("%scratch", UINT8, f[Field.SCRATCH_U])
        call = f"call void @filter_panel(ptr {source}, ptr {own}, {count}, {f[Field.U_PRODUCT]})"
        when(code, transforms, lambda: code.do(call))
        u = code.let(f"select {transforms}, ptr {own}, ptr {code.element('%a', FLOAT32, given)}")
        return u, code.element(source, FLOAT32, code.mul(count, index(TAPS**2 * width)))

    def _multiply(
        self, code: Code, u: tuple[str, str], channels: tuple[Value, Value], blocks: Value, tiles: Value
    ) -> None:
        """A product of matrices for each place in a tile, with so many blocks of a panel; added to what those of
        channels before the first have made. Meanwhile what is read next comes from memory."""
        f, zero, (first, count) = self.field, index(0), channels
        v, size = code.element(self.v, FLOAT32, first), code.mul(count, index(self.tile.width))
        transforms = code.compare("sge", f[Field.SCRATCH_U], zero)

        def one(outer: Code, k: Value) -> None:
            left, right, result = (
                outer.element(matrices, FLOAT32, outer.mul(k, f[stride]))
                for matrices, stride in ((v, Field.V_PRODUCT), (u[0], Field.U_PRODUCT), (self.m, Field.M_PRODUCT))
            )
            taps = outer.element(u[1], FLOAT32, outer.mul(k, size))
            reads = outer.op("and", transforms, outer.compare("slt", k, index(TAPS**2)))
            apart = outer.op("sub", _number(outer, taps), _number(outer, right))
            strips = Strips(
                a_row=f[Field.V_TILE],
                a_k=index(1),
                b_row=index(self.tile.width),
                b_panel=outer.select(reads, outer.op("ashr", apart, index(2)), f[Field.U_PRODUCT]),
                rows=tiles,
                columns=outer.mul(blocks, self.block),
                steps=count,
                c_row=f[Field.M_TILE],
                whole=zero,
                more=outer.intrinsic("smin", first, index(1)),
            )
            strips.call(outer, self.strips, left, right, result)

        each(code, zero, index(self.winograd.products), 1, one)

    def _finish(
        self, code: Code, what: tuple[Value, Value], at: tuple[Value, Value], counts: tuple[Value, Value]
    ) -> None:
        """Products into pixels of the result. ``what``: the first block of filters, and how many."""
        f, step = self.field, self.winograd.outputs
        first, blocks = what

        def line(outer: Code, i: Value) -> None:
            image, place = self._row(outer, outer.add(at[0], i))
            y = outer.mul(place, index(step))
            lines = least(outer, outer.op("sub", f[Field.OUT_HEIGHT], y), index(step))
            kind = outer.mul(plus(outer, lines, -1), index(step))
            row = outer.mul(i, counts[1])

            def tile(inside: Code, j: Value) -> None:
                x = inside.mul(inside.add(at[1], j), index(step))
                columns = least(inside, inside.op("sub", f[Field.OUT_WIDTH], x), index(step))
                source = inside.element(self.m, FLOAT32, inside.mul(inside.add(row, j), f[Field.M_TILE]))
                place = inside.element(self.pixel_tiles, INT64, plus(inside, inside.add(kind, columns), -1))
                function = inside.let(f"load ptr, ptr {place}, align 8")

                def one(deep: Code, block: Value) -> None:
                    m = deep.element(source, FLOAT32, deep.mul(block, self.block))
                    pointers = (m, "null", "null", "null", "%buffers", self.sizes)
                    numbers = (index(0), f[Field.M_PRODUCT], index(1), image, deep.add(first, block), y, x)
                    arguments = [*(f"ptr {p}" for p in pointers), *map(str, numbers)]
                    deep.do(f"call void {function}({', '.join(arguments)})")

                each(inside, index(0), blocks, 1, one)

            each(outer, index(0), counts[1], 1, tile)

        each(code, index(0), counts[0], 1, line)


def _number(code: Code, address: str) -> Value:
    return Value(code.let(f"ptrtoint ptr {address} to i64"), INT64)
