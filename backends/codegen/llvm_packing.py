"""Packing the right operand of a product into panels, from a matrix or from the windows of a convolution.

Packers are functions ``(ptr context, ptr block, ptr b, k, steps, z, y, x, columns)``. They fill ``steps`` rows of the
block, `Field.B_ROW` apart, from ``k`` on: ``columns`` elements from ``x`` on, and up to a panel's width of anything
finite behind them. `Field` says what they find in the context.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from omniop.backends.codegen import llvm_vector
from omniop.backends.codegen.llvm_flow import (
    Body,
    address,
    argument,
    count,
    define,
    each,
    lanes_below,
    least,
    load,
    plus,
    store,
    when,
    word,
    zeros,
)
from omniop.backends.codegen.llvm_ir import Code, Loop, Module, Value, index, iota
from omniop.backends.codegen.llvm_panels import Field, Tile, tile_of
from omniop.opset.dtype import FLOAT32, INT32

_POINTERS = ("context", "block", "b")
_NUMBERS = ("k", "steps", "z", "y", "x", "columns")
_K, _STEPS, _Z, _Y, _X, _COLUMNS = map(argument, _NUMBERS)

Packer = Callable[[Code, Tile], None]


def print_packer(module: Module, name: str) -> None:
    """Adds ``pack_name``; ``name``: of `PACKERS`."""
    code = Code(module)
    PACKERS[name](code, tile_of(module.target))
    define(module, f"pack_{name}", _POINTERS, _NUMBERS, code)


def pack(code: Code, packer: str, block: str, b: str, numbers: Sequence[Value]) -> None:
    """Calls a packer by its address."""
    code.do(f"call void {packer}(ptr %context, ptr {block}, ptr {b}, {', '.join(map(str, numbers))})")


def _row_of(code: Code, k: Value, stride: Value) -> str:
    return code.element("%block", FLOAT32, code.mul(k, stride))


def _stride(code: Code) -> Value:
    return word(code, "%context", Field.B_ROW)


# Row by row -----------------------------------------------------------------------------------------------------------


def pack_rows(code: Code, tile: Tile) -> None:
    """Rows whose columns lie side by side: ``b[k * B_K + x]``."""
    stride, apart = word(code, "%context", Field.B_K), _stride(code)
    start = code.element("%b", FLOAT32, code.add(code.mul(_K, stride), _X))
    left = code.op("urem", _COLUMNS, index(tile.lanes))
    mask = lanes_below(code, left, tile.lanes)

    def step(inside: Code, k: Value) -> None:
        row, target = inside.element(start, FLOAT32, inside.mul(k, stride)), _row_of(inside, k, apart)

        def part(width: int) -> Body:
            return lambda deep, x: store(deep, load(deep, row, x, width), target, x)

        done = count(inside, index(0), _COLUMNS, tile.width, part(tile.width))
        done = count(inside, done, _COLUMNS, tile.lanes, part(tile.lanes))

        def rest() -> None:
            value = llvm_vector.masked_load(inside, inside.element(row, FLOAT32, done), mask, zeros(1))
            store(inside, value, target, done)

        when(inside, inside.compare("slt", done, _COLUMNS), rest)

    each(code, index(0), _STEPS, 1, step)


def pack_windows(code: Code, tile: Tile) -> None:
    """Windows of a convolution: column x of output row (z, y) has element k where `Field.TAPS` says, and zeros for
    what the padding covers. What one element of the window needs is found once, for all channels."""
    take = {f: word(code, "%context", f) for f in Field if f >= Field.TAP_COUNT}
    taps, apart, channel = address(code, "%context", Field.TAPS), _stride(code), word(code, "%context", Field.B_K)
    corner = [
        code.op("sub", code.mul(place, take[step]), take[pad])
        for place, step, pad in (
            (_Z, Field.STEP_Z, Field.PAD_Z),
            (_Y, Field.STEP_Y, Field.PAD_Y),
            (_X, Field.STEP_X, Field.PAD_X),
        )
    ]
    start = code.add(code.mul(corner[0], take[Field.B_Z]), code.mul(corner[1], take[Field.B_Y]))
    start = code.add(start, corner[2])
    number = take[Field.TAP_COUNT]

    def tap(outer: Code, t: Value) -> None:
        line = outer.mul(t, index(4))
        offset, z, y, x = (word(outer, taps, plus(outer, line, i)) for i in range(4))
        held = outer.compare("ult", outer.add(corner[0], z), take[Field.DEPTH])
        held = outer.op("and", held, outer.compare("ult", outer.add(corner[1], y), take[Field.HEIGHT]))
        before = outer.op("sub", outer.op("sub", outer.add(_K, number), index(1)), t)
        first = outer.op("udiv", before, number)  # the first channel whose k is not before the block's
        k = outer.op("sub", outer.add(outer.mul(first, number), t), _K)
        source = outer.element("%b", FLOAT32, outer.add(outer.add(start, offset), outer.mul(first, channel)))
        row = _Row(outer, tile, outer.add(corner[2], x), take[Field.WIDTH])

        def channels(pack: Callable[[Code, str, str], None]) -> None:
            loop = Loop(outer, inside := Code(code.module), [k, index(0)])
            row_of_block, ahead = loop.carried
            loop.test(inside.compare("slt", row_of_block, _STEPS))
            pack(inside, inside.element(source, FLOAT32, ahead), _row_of(inside, row_of_block, apart))
            loop.close([inside.add(row_of_block, number), inside.add(ahead, channel)])

        def nothing(inside: Code, _: str, target: str) -> None:
            each(inside, index(0), _COLUMNS, tile.lanes, lambda deep, c: store(deep, zeros(tile.lanes), target, c))

        def by_step() -> None:
            step = take[Field.STEP_X]
            when(
                outer,
                outer.compare("eq", step, index(1)),
                lambda: channels(row.pack(1)),
                lambda: when(
                    outer,
                    outer.compare("eq", step, index(2)),
                    lambda: channels(row.pack(2)),
                    lambda: channels(lambda inside, source, target: row.pack_apart(inside, source, target, step)),
                ),
            )

        when(outer, held, by_step, lambda: channels(nothing))

    each(code, index(0), number, 1, tap)


class _Row:
    """The columns of a row of the block, from a row of the image, ``first`` being what its column 0 takes: zeros
    before the row's start and from ``width`` on."""

    def __init__(self, code: Code, tile: Tile, first: Value, width: Value) -> None:
        self.lanes = tile.lanes
        self.code = code
        self.first = first
        self.width = width
        self.widths = code.splat(code.convert("trunc", width, INT32), tile.lanes)

    def pack(self, step: int) -> Callable[[Code, str, str], None]:
        """Elements next to each other, or every second one: with masks only where the row ends."""
        outer, lanes = self.code, self.lanes
        zero = index(0)
        missing = outer.intrinsic("smax", outer.op("sub", zero, self.first), zero)
        ahead = least(outer, outer.op("lshr", plus(outer, missing, step - 1), index(step - 1)), _COLUMNS)
        left = outer.op("ashr", outer.op("sub", self.width, self.first), index(step - 1))
        whole = least(outer, outer.intrinsic("smax", left, zero), _COLUMNS)

        def part(source: str, target: str, masked: bool) -> Body:
            def one(code: Code, column: Value) -> None:
                place = code.mul(column, index(step))
                row = code.element(source, FLOAT32, place)
                x = code.add(self.first, place)
                values = [self._vector(code, row, x, more, masked) for more in range(0, step * lanes, lanes)]
                value = values[0] if step == 1 else code.shuffle_two(values[0], values[1], range(0, 2 * lanes, 2))
                store(code, value, target, column)

            return one

        def run(code: Code, source: str, target: str) -> None:
            done = each(code, zero, ahead, lanes, part(source, target, True))
            done = count(code, done, whole, lanes, part(source, target, False))
            each(code, done, _COLUMNS, lanes, part(source, target, True))

        return run

    def _vector(self, code: Code, row: str, x: Value, offset: int, masked: bool) -> Value:
        if not masked:
            return load(code, row, index(offset), self.lanes)
        at = code.convert("trunc", plus(code, x, offset), INT32)
        mask = code.compare("ult", code.op("add", code.splat(at, self.lanes), iota(self.lanes)), self.widths)
        return llvm_vector.masked_load(code, code.element(row, FLOAT32, index(offset)), mask, zeros(1))

    def pack_apart(self, code: Code, source: str, target: str, step: Value) -> None:
        """Elements ``step`` apart, one by one."""

        def one(inside: Code, column: Value) -> None:
            ahead = inside.mul(column, step)
            known = inside.compare("ult", inside.add(self.first, ahead), self.width)
            value = inside.either(known, lambda: load(inside, source, ahead), lambda: zeros(1))
            store(inside, value, target, column)

        each(code, index(0), _COLUMNS, 1, one)


# Column by column -----------------------------------------------------------------------------------------------------


def pack_columns(code: Code, tile: Tile) -> None:
    """Columns whose elements lie side by side: ``b[k + x * B_COLUMN]``; squares are transposed in registers."""
    stride, apart = word(code, "%context", Field.B_COLUMN), _stride(code)
    origin = code.element("%b", FLOAT32, code.add(_K, code.mul(_X, stride)))
    size = tile.lanes

    def group(outer: Code, column: Value) -> None:
        """As many columns as a vector has lanes."""
        start = outer.element(origin, FLOAT32, outer.mul(column, stride))
        sources = [outer.element(start, FLOAT32, outer.mul(stride, index(j))) for j in range(size)]

        def square(inside: Code, k: Value) -> None:
            rows = llvm_vector.load_square(inside, [inside.element(s, FLOAT32, k) for s in sources], FLOAT32)
            for i, row in enumerate(rows):
                store(inside, row, _row_of(inside, plus(inside, k, i), apart), column)

        done = count(outer, index(0), _STEPS, size, square)
        each(outer, index(0), index(size), 1, lambda inside, j: _column(inside, start, column, j, stride, done))

    whole = count(code, index(0), _COLUMNS, size, group)
    start = code.element(origin, FLOAT32, code.mul(whole, stride))
    left = code.op("sub", _COLUMNS, whole)
    each(code, index(0), left, 1, lambda inside, j: _column(inside, start, whole, j, stride, index(0)))
    when(code, code.compare("sgt", left, index(0)), lambda: _clear(code, _COLUMNS, plus(code, whole, size)))


def _column(code: Code, start: str, first: Value, j: Value, stride: Value, begin: Value) -> None:
    """Column ``first + j``, which is the j-th from ``start`` on, from step ``begin`` on."""
    source, apart, column = code.element(start, FLOAT32, code.mul(j, stride)), _stride(code), code.add(first, j)
    each(code, begin, _STEPS, 1, lambda deep, k: store(deep, load(deep, source, k), _row_of(deep, k, apart), column))


def pack_any(code: Code, tile: Tile) -> None:
    """``b[k * B_K + x * B_COLUMN]``, one by one."""
    down, across = word(code, "%context", Field.B_K), word(code, "%context", Field.B_COLUMN)
    apart = _stride(code)
    origin = code.element("%b", FLOAT32, code.add(code.mul(_K, down), code.mul(_X, across)))

    def step(inside: Code, k: Value) -> None:
        row, target = inside.element(origin, FLOAT32, inside.mul(k, down)), _row_of(inside, k, apart)

        def one(deep: Code, j: Value) -> None:
            store(deep, load(deep, row, deep.mul(j, across)), target, j)

        each(inside, index(0), _COLUMNS, 1, one)

    each(code, index(0), _STEPS, 1, step)
    _clear(code, _COLUMNS, plus(code, _COLUMNS, tile.lanes - 1))


def _clear(code: Code, first: Value, end: Value) -> None:
    """Columns that do not count: what stands there may be slow to multiply."""
    apart = _stride(code)

    def step(inside: Code, k: Value) -> None:
        row = _row_of(inside, k, apart)
        each(inside, first, end, 1, lambda deep, j: store(deep, zeros(1), row, j))

    each(code, index(0), _STEPS, 1, step)


PACKERS: dict[str, Packer] = {
    "rows": pack_rows,
    "columns": pack_columns,
    "any": pack_any,
    "windows": pack_windows,
}
