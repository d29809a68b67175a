"""The transforms of `winograd` as LLVM IR, as sums of whole vectors: of tiles of an image whose channels are in blocks,
a block at a time, and of as many filters."""

from __future__ import annotations

from enum import IntEnum, auto

from omniop.backends.codegen.llvm_blocks import Head, define_entry
from omniop.backends.codegen.llvm_flow import argument, define, each, lanes_below, least, load, plus, store, word, zeros
from omniop.backends.codegen.llvm_ir import Code, Module, Value, index
from omniop.backends.codegen.llvm_panels import tile_of
from omniop.backends.codegen.llvm_tiles import block_of
from omniop.backends.codegen.llvm_winograd_lines import both_ways, filter_line, image_line
from omniop.backends.codegen.winograd import TAPS, Winograd
from omniop.opset.dtype import FLOAT32, FLOAT64

FILTERS = "winograd_filters"
OUTSIDE = "outside"
"""A vector of zeros, which is what lies around an image."""


def print_outside(module: Module) -> None:
    lanes = block_of(module.target)
    module.functions[OUTSIDE] = f"@{OUTSIDE} = internal constant [{lanes} x float] zeroinitializer, align 64"


def print_image_tiles(module: Module, name: str, winograd: Winograd, inside: bool) -> None:
    """``name(x, v, line, count, v_tile, v_product, y, x0, height, width)``: tiles beside each other, of a block of
    channels.

    ``x`` is the first one's first pixel and ``line`` the elements from line to line; ``v_tile`` and ``v_product`` are
    those from tile to tile and from product to product. Unless ``inside``, the first tile begins at line ``y`` and
    column ``x0`` of an image of ``height * width`` pixels, and has zeros where that ends.
    """
    code = Code(module)
    block, size = block_of(module.target), winograd.size
    numbers = ("line", "count", "v_tile", "v_product", "y", "x0", "height", "width")
    line, count, v_tile, v_product, y, x0, height, width = map(argument, numbers)
    rows = [code.element("%x", FLOAT32, code.mul(line, index(i))) for i in range(size)]
    lines = [code.compare("ult", plus(code, y, i), height) for i in range(size)]

    def one(deep: Code, k: Value) -> None:
        column = deep.mul(k, index(winograd.outputs))
        starts = [deep.element(row, FLOAT32, deep.mul(column, index(block))) for row in rows]
        target = deep.element("%v", FLOAT32, deep.mul(k, v_tile))
        first = deep.add(x0, column)
        columns = [deep.compare("ult", plus(deep, first, j), width) for j in range(size)]

        def pixel(i: int, j: int) -> Value:
            place = deep.element(starts[i], FLOAT32, index(j * block))
            if not inside:
                there = deep.op("and", lines[i], columns[j])
                place = deep.let(f"select {there}, ptr {place}, ptr @{OUTSIDE}")
            return load(deep, place, index(0), block)

        tile = [[pixel(i, j) for i in range(size)] for j in range(size)]
        for i, values in enumerate(both_ways(deep, winograd, image_line, tile)):
            for j, value in enumerate(values):
                store(deep, value, target, deep.mul(v_product, index(i * size + j)))

    each(code, index(0), count, 1, one)
    define(module, name, ("x", "v"), numbers, code)


class FilterField(IntEnum):
    """The context of `print_filters`, behind `Head`."""

    FILTERS = len(Head)
    CHANNELS = auto()


def print_filter_panel(module: Module, name: str, winograd: Winograd) -> None:
    """``name(a, u, channels, product)``: a panel of filters, transformed in float32.

    ``a`` is ``[channels, 9, panel's width]``, and ``u`` as many matrices ``[channels, panel's width]`` as there are
    products, ``product`` elements from one to the next.
    """
    code = Code(module)
    lanes, panel, side = block_of(module.target), tile_of(module.target).width, winograd.size
    channels, product = argument("channels"), argument("product")

    def channel(outer: Code, c: Value) -> None:
        for o in range(0, panel, lanes):
            source = outer.element("%a", FLOAT32, plus(outer, outer.mul(c, index(TAPS**2 * panel)), o))
            target = outer.element("%u", FLOAT32, plus(outer, outer.mul(c, index(panel)), o))
            taps = [
                [load(outer, source, index((i * TAPS + j) * panel), lanes) for i in range(TAPS)] for j in range(TAPS)
            ]
            for i, values in enumerate(both_ways(outer, winograd, filter_line, taps)):
                for j, value in enumerate(values):
                    store(outer, value, target, outer.mul(product, index(i * side + j)))

    each(code, index(0), channels, 1, channel)
    define(module, name, ("a", "u"), ("channels", "product"), code)


def print_filters(module: Module, winograd: Winograd) -> None:
    """Adds ``winograd_filters``, of filters ``a[filters, channels, 3, 3]`` transformed, in float64, and rounded once.

    ``c`` holds panels ``[products, channels, panel's width]`` of filters, of which those behind the last filter are 0.
    A point is a vector of filters.
    """
    code = Code(module, "work")
    lanes, panel, side = block_of(module.target), tile_of(module.target).width, winograd.size
    filters, channels = (word(code, "%context", f) for f in FilterField)
    held = code.let(f"alloca [{TAPS**2 * lanes} x float], align 64")
    apart = code.mul(channels, index(TAPS**2))
    last = plus(code, filters, -1)

    def vector(outer: Code, point: Value) -> None:
        o = outer.mul(point, index(lanes))
        within = lanes_below(outer, outer.op("sub", least(outer, filters, plus(outer, o, lanes)), o), lanes)
        starts = [
            outer.element("%a", FLOAT32, outer.mul(least(outer, plus(outer, o, k), last), apart)) for k in range(lanes)
        ]
        size = outer.mul(channels, index(panel))
        whole = outer.mul(outer.op("udiv", o, index(panel)), outer.mul(size, index(winograd.products)))
        first = outer.add(whole, outer.op("urem", o, index(panel)))

        def channel(deep: Code, c: Value) -> None:
            offset = deep.mul(c, index(TAPS**2))

            def tap(inner: Code, k: Value) -> None:
                values = inner.gather([load(inner, start, inner.add(offset, k)) for start in starts])
                store(inner, inner.select(within, values, zeros(lanes)), held, inner.mul(k, index(lanes)))

            def taken(k: int) -> Value:
                return deep.convert("fpext", load(deep, held, index(k * lanes), lanes), FLOAT64)

            each(deep, index(0), index(TAPS**2), 1, tap)
            taps = [[taken(i * TAPS + j) for i in range(TAPS)] for j in range(TAPS)]
            target = deep.element("%c", FLOAT32, deep.add(first, deep.mul(c, index(panel))))
            for i, values in enumerate(both_ways(deep, winograd, filter_line, taps)):
                for j, value in enumerate(values):
                    rounded = deep.convert("fptrunc", value, FLOAT32)
                    store(deep, rounded, target, deep.mul(size, index(i * side + j)))

        each(outer, index(0), channels, 1, channel)

    each(code, argument("begin"), argument("end"), 1, vector)
    define_entry(module, FILTERS, code)
