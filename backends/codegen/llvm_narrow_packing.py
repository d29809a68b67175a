"""Packing narrow elements into panels of words, from a matrix or from the windows of a convolution.

Packers are functions ``(ptr context, ptr panels, ptr b, ptr stage, z, y, x, lines, columns, fill)``. They fill the
panels of a block: ``columns`` elements from ``x`` on in each of some lines. The elements of one word, of rows that
follow each other in k, stand on the stage side by side before they are woven; behind its rows there is one of zeros,
for what is missing of the last word. Behind the last column panels hold anything. `Field` is the context.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from omniop.backends.codegen import llvm_vector
from omniop.backends.codegen.llvm_dot import Dot
from omniop.backends.codegen.llvm_flow import address, argument, count, define, each, plus, when, word
from omniop.backends.codegen.llvm_ir import Code, Module, Value, const, index
from omniop.backends.codegen.llvm_narrow_lines import ROW_BYTES, Lines
from omniop.backends.codegen.llvm_narrow_tiles import WORD, Field, load_word, tile_of
from omniop.backends.codegen.llvm_panels import Tile
from omniop.opset.dtype import INT32, UINT8, UINT16, DType

_POINTERS = ("context", "panels", "b", "stage")
_NUMBERS = ("z", "y", "x", "lines", "columns", "fill")
_Z, _Y, _X, _LINES, _COLUMNS, _FILL = map(argument, _NUMBERS)


def held(kind: Dot) -> DType:
    """The elements as they are moved about."""
    return UINT8 if kind.left.bits == 8 else UINT16


class Packing:
    """A packer being printed."""

    def __init__(self, code: Code, kind: Dot) -> None:
        self.code = code
        self.dtype = held(kind)
        self.group = kind.group
        self.tile: Tile = tile_of(code.module.target)
        self.panel = word(code, "%context", Field.B_PANEL)
        self.stage_row = word(code, "%context", Field.STAGE_ROW)
        self.k = word(code, "%context", Field.K)
        self.words = word(code, "%context", Field.WORDS)
        self.run = code.mul(_LINES, _COLUMNS)
        self.zeros = self.staged(code, self.group)

    def staged(self, code: Code, row: int) -> str:
        return code.element("%stage", UINT8, code.mul(self.stage_row, index(row)))

    def place(self, code: Code, column: Value, number: Value) -> str:
        """Of a word: by its column in the block and its number."""
        width = self.tile.width
        panel = code.mul(code.op("udiv", column, index(width)), self.panel)
        inside = code.add(code.mul(number, index(width)), code.op("urem", column, index(width)))
        return code.element(code.element("%panels", UINT8, panel), INT32, inside)

    def weave(self, code: Code, rows: Sequence[str], number: Value, first: Value, end: Value) -> None:
        """Word ``number`` of whole vectors of columns, of rows that can be read up to there."""
        lanes = self.tile.lanes

        def vector(inside: Code, x: Value) -> None:
            parts = [llvm_vector.load(inside, inside.element(row, self.dtype, x), self.dtype, lanes) for row in rows]
            llvm_vector.store(inside, self.place(inside, x, number), woven(inside, parts))

        each(code, first, end, lanes, vector)

    def every_word(self, body: Callable[[Code, Value, Value], None]) -> None:
        """``body(code, number, k)`` for each word, which begins at k."""
        each(
            self.code,
            index(0),
            self.words,
            1,
            lambda inside, number: body(inside, number, inside.mul(number, index(self.group))),
        )

    def clear(self) -> None:
        """The row of zeros."""
        lanes = self.tile.lanes
        zeros = const(0, INT32, lanes)
        each(
            self.code,
            index(0),
            self.stage_row,
            lanes * WORD,
            lambda inside, at: llvm_vector.store(inside, inside.element(self.zeros, UINT8, at), zeros),
        )


def woven(code: Code, parts: Sequence[Value]) -> Value:
    """Vectors of elements of two or four rows as one of words."""
    lanes, group = parts[0].lanes, len(parts)
    while len(parts) > 1:
        parts = [code.shuffle_two(a, b, range(2 * a.lanes)) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    whole = code.shuffle(parts[0], [row * lanes + lane for lane in range(lanes) for row in range(group)])
    return Value(code.let(f"bitcast {whole} to <{lanes} x i32>"), INT32, lanes)


Packer = Callable[[Packing], None]


def print_packer(module: Module, name: str, packer: Packer, kind: Dot) -> None:
    code = Code(module)
    packer(Packing(code, kind))
    define(module, name, _POINTERS, _NUMBERS, code)


# From matrices --------------------------------------------------------------------------------------------------------


def pack_rows(p: Packing) -> None:
    """Rows whose columns lie side by side: ``b[k * B_K + x]``."""
    code, lanes = p.code, p.tile.lanes
    stride = word(code, "%context", Field.B_K)
    start = code.element("%b", p.dtype, _X)
    whole = code.mul(code.op("udiv", p.run, index(lanes)), index(lanes))
    p.clear()

    def one(inside: Code, number: Value, k: Value) -> None:
        rows = []
        for e in range(p.group):
            at = plus(inside, k, e)
            row = inside.element(start, UINT8, inside.mul(at, stride))
            rows.append(inside.let(f"select {inside.compare('slt', at, p.k)}, ptr {row}, ptr {p.zeros}"))
        p.weave(inside, rows, number, index(0), whole)

        def rest() -> None:
            for e, row in enumerate(rows):
                target = p.staged(inside, e)

                def copy(deep: Code, x: Value, row: str = row, target: str = target) -> None:
                    value = llvm_vector.load(deep, deep.element(row, p.dtype, x), p.dtype)
                    llvm_vector.store(deep, deep.element(target, p.dtype, x), value)

                each(inside, whole, p.run, 1, copy)
            p.weave(inside, [p.staged(inside, e) for e in range(p.group)], number, whole, p.run)

        when(inside, inside.compare("slt", whole, p.run), rest)

    p.every_word(one)


def pack_columns(p: Packing) -> None:
    """Columns whose elements lie side by side: ``b[k + x * B_COLUMN]``; squares of words are transposed."""
    code, lanes = p.code, p.tile.lanes
    stride = word(code, "%context", Field.B_COLUMN)
    start = code.element("%b", UINT8, code.mul(_X, stride))
    filled = code.op("udiv", p.k, index(p.group))

    def group(outer: Code, column: Value) -> None:
        sources = [outer.element(start, UINT8, outer.mul(plus(outer, column, j), stride)) for j in range(lanes)]

        def square(inside: Code, number: Value) -> None:
            at = inside.mul(number, index(WORD))
            rows = [load_words(inside, inside.element(s, UINT8, at), lanes) for s in sources]
            for i, row in enumerate(llvm_vector.transposed(inside, rows)):
                llvm_vector.store(inside, p.place(inside, column, plus(inside, number, i)), row)

        done = count(outer, index(0), filled, lanes, square)
        for j, source in enumerate(sources):
            _column(p, outer, source, plus(outer, column, j), done, filled)

    whole = count(code, index(0), p.run, lanes, group)
    each(
        code,
        whole,
        p.run,
        1,
        lambda inside, column: _column(
            p, inside, inside.element(start, UINT8, inside.mul(column, stride)), column, index(0), filled
        ),
    )


def load_words(code: Code, pointer: str, lanes: int) -> Value:
    return Value(code.let(f"load <{lanes} x i32>, ptr {pointer}, align 1"), INT32, lanes)


def _column(p: Packing, code: Code, source: str, column: Value, first: Value, filled: Value) -> None:
    """Words of a column one by one, the last of which may be filled in part."""

    def one(inside: Code, number: Value) -> None:
        value = load_word(inside, source, inside.mul(number, index(WORD)))
        llvm_vector.store(inside, p.place(inside, column, number), value)

    each(code, first, filled, 1, one)

    def last() -> None:
        _element_by_element(p, code, source, index(p.dtype.itemsize), column, filled)

    when(code, code.compare("slt", filled, p.words), last)


def _element_by_element(p: Packing, code: Code, source: str, step: Value, column: Value, number: Value) -> None:
    """A word of elements ``step`` bytes apart; zeros for those that are missing."""
    k = code.mul(number, index(p.group))
    total = const(0, INT32)
    for e in range(p.group):
        at = plus(code, k, e)
        known = code.compare("slt", at, p.k)
        pointer = code.element(source, UINT8, code.mul(at, step))
        pointer = code.let(f"select {known}, ptr {pointer}, ptr {p.zeros}")
        value = code.convert("zext", llvm_vector.load(code, pointer, p.dtype), INT32)
        total = code.op("or", total, code.op("shl", value, const(p.dtype.bits * e, INT32)))
    llvm_vector.store(code, p.place(code, column, number), total)


def pack_any(p: Packing) -> None:
    """``b[k * B_K + x * B_COLUMN]``, one by one."""
    code = p.code
    down, across = word(code, "%context", Field.B_K), word(code, "%context", Field.B_COLUMN)
    start = code.element("%b", UINT8, code.mul(_X, across))
    p.clear()

    def one(inside: Code, number: Value, _: Value) -> None:
        def column(deep: Code, x: Value) -> None:
            source = deep.element(start, UINT8, deep.mul(x, across))
            _element_by_element(p, deep, source, down, x, number)

        each(inside, index(0), p.run, 1, column)

    p.every_word(one)


# From windows ---------------------------------------------------------------------------------------------------------


def pack_windows(p: Packing) -> None:
    """Windows of a convolution: column x of output row (z, y) has element k where `Field.TAPS` says, and the fill for
    what the padding covers."""
    code = p.code
    take = {f: word(code, "%context", f) for f in Field if f > Field.TAPS}
    taps = address(code, "%context", Field.TAPS)
    corners = [
        code.op("sub", code.mul(place, take[step]), take[pad])
        for place, step, pad in (
            (_Z, Field.STEP_Z, Field.PAD_Z),
            (_Y, Field.STEP_Y, Field.PAD_Y),
            (_X, Field.STEP_X, Field.PAD_X),
        )
    ]
    offset = code.add(code.mul(corners[0], take[Field.B_Z]), code.mul(corners[1], take[Field.B_Y]))
    offset = code.add(offset, code.mul(corners[2], index(p.dtype.itemsize)))
    start = code.element("%b", UINT8, offset)
    line_step = code.mul(take[Field.STEP_Y], take[Field.B_Y])
    fill = code.convert("trunc", _FILL, p.dtype)
    p.clear()

    def one(inside: Code, number: Value, k: Value) -> None:
        for e in range(p.group):
            target = p.staged(inside, e)
            known = inside.compare("slt", plus(inside, k, e), p.k)

            def fetch(e: int = e, target: str = target) -> None:
                row = inside.mul(plus(inside, k, e), index(4))
                ahead, z, y, x = (word(inside, taps, plus(inside, row, i)) for i in range(4))
                source = inside.element(start, UINT8, ahead)
                deep = inside.compare("ult", inside.add(corners[0], z), take[Field.DEPTH])
                top, left = inside.add(corners[1], y), inside.add(corners[2], x)

                def exists(code: Code, number: Value) -> Value:
                    at = code.add(top, code.mul(number, take[Field.STEP_Y]))
                    return code.op("and", deep, code.compare("ult", at, take[Field.HEIGHT]))

                lines = Lines(source, left, take[Field.WIDTH], take[Field.STEP_X], line_step, exists)
                lines.copy(inside, target, _LINES, _COLUMNS, fill)

            def nothing(target: str = target) -> None:
                each(
                    inside,
                    index(0),
                    p.run,
                    1,
                    lambda deep, x: llvm_vector.store(deep, deep.element(target, p.dtype, x), const(0, p.dtype)),
                )

            when(inside, known, fetch, nothing)
        p.weave(inside, [p.staged(inside, e) for e in range(p.group)], number, index(0), p.run)

    p.every_word(one)


# The left operand -----------------------------------------------------------------------------------------------------


def print_left_packer(module: Module, name: str, kind: Dot) -> None:
    """``name(context, left, a, rows)``: rows in whole words, with zeros behind their ends."""
    code = Code(module)
    dtype = held(kind)
    lanes = ROW_BYTES // dtype.itemsize
    rows = argument("rows")
    row_step, step = word(code, "%context", Field.A_ROW), word(code, "%context", Field.A_K)
    k, words = word(code, "%context", Field.K), word(code, "%context", Field.WORDS)
    end = code.mul(words, index(kind.group))

    def row(outer: Code, r: Value) -> None:
        source = outer.element("%a", UINT8, outer.mul(r, row_step))
        target = outer.element("%left", dtype, outer.mul(r, end))

        def move(width: int, inside: Code, x: Value) -> None:
            value = llvm_vector.load(inside, inside.element(source, dtype, x), dtype, width)
            llvm_vector.store(inside, inside.element(target, dtype, x), value)

        def side_by_side() -> None:
            done = count(outer, index(0), k, lanes, lambda inside, x: move(lanes, inside, x))
            each(outer, done, k, 1, lambda inside, x: move(1, inside, x))

        def apart() -> None:
            def one(inside: Code, x: Value) -> None:
                value = llvm_vector.load(inside, inside.element(source, UINT8, inside.mul(x, step)), dtype)
                llvm_vector.store(inside, inside.element(target, dtype, x), value)

            each(outer, index(0), k, 1, one)

        when(outer, outer.compare("eq", step, index(dtype.itemsize)), side_by_side, apart)
        zero = const(0, dtype)
        each(outer, k, end, 1, lambda inside, x: llvm_vector.store(inside, inside.element(target, dtype, x), zero))

    each(code, index(0), rows, 1, row)
    define(module, name, ("context", "left", "a"), ("rows",), code)


PACKERS: dict[str, Packer] = {
    "rows": pack_rows,
    "columns": pack_columns,
    "any": pack_any,
    "windows": pack_windows,
}
