"""Attention in blocks of queries, as LLVM IR: the scores of a block stand in scratch memory, which stays in the cache.

A point is a batch and some of its queries. Their products with all keys are written, changed by the kernel of the
scores where there is one, and made ``exp(x - max)`` row by row; the products of these with the values are divided by
the rows' sums at last. Keys and values lie in panels, which `print_pack` has made, or where few queries read them, as
they are.

``exp`` is `llvm_math`'s. NaN and infinities come out as of a softmax that is computed step by step.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum, auto

from omniop.backends.codegen import llvm_math, llvm_vector
from omniop.backends.codegen.llvm_blocks import BlockSize, Epilogue, Head, define_entry
from omniop.backends.codegen.llvm_dot import rounded
from omniop.backends.codegen.llvm_flow import (
    address,
    argument,
    count,
    define,
    each,
    fma,
    least,
    load,
    plus,
    store,
    when,
    word,
)
from omniop.backends.codegen.llvm_ir import Code, Loop, Module, Value, const, index
from omniop.backends.codegen.llvm_packing import pack
from omniop.backends.codegen.llvm_panels import Field as PanelField
from omniop.backends.codegen.llvm_panels import tile_of
from omniop.backends.codegen.llvm_strips import Strips
from omniop.opset.dtype import FLOAT32, INT64, UINT8, UINT16, DType

ENTRY, PACK_ENTRY = "attention", "pack"
KEY_BLOCK = 1024
"""Keys that are taken at a time for the second product."""


class Field(IntEnum):
    """The context: int64 numbers and addresses. `Head`'s a is the queries, c the result."""

    Q_ROW = len(Head)
    Q_STEP = auto()
    DEPTH = auto()
    """Of queries and keys."""
    QUERIES = auto()
    KEYS = auto()
    COLUMNS = auto()
    """Of values."""
    KEY_BUFFER = auto()
    VALUE_BUFFER = auto()
    KEY_ROW = auto()
    """From key to key where they are read as they are, or 0: then they lie in panels."""
    VALUE_ROW = auto()
    VALUE_PANEL = auto()
    """From key to key in a panel of values, and from panel to panel."""
    ROW_BLOCK = auto()
    ROW_BLOCKS = auto()
    SCORE_ROW = auto()
    """Stride of scores in scratch memory: whole vectors."""
    C_ROW = auto()
    BLANK = auto()
    """1 where rows of -inf give zeros."""
    BATCH_TABLE = auto()
    BATCH_WORDS = auto()
    STRIPS = auto()
    """Address of `llvm_strips`' function."""
    SCORES = auto()
    EPILOGUE = auto()
    """Addresses of kernels' functions, or 0."""
    SIZES = auto()
    SIZE_COUNT = auto()
    BUFFER_COUNT = auto()
    SCRATCH_SIZES = auto()
    SCRATCH_SCORES = auto()
    SCRATCH_FACTORS = auto()
    SCRATCH_BLOCK = auto()
    SCRATCH_QUERIES = auto()
    """Of copied queries, where they are."""


class BatchWord(IntEnum):
    """A batch's line of its table: where its queries, panels and results begin, then its places along the axes."""

    Q = 0
    KEY = 1
    VALUE = 2
    C = 3
    PLACES = 4


class PackWord(IntEnum):
    """A line of the batch table of `print_pack`: where a matrix begins."""

    SOURCE = 0


def print_pack(module: Module) -> None:
    """Adds ``pack``: matrices b brought into panels, which follow each other in c. A point is a panel; the context is
    that of `llvm_panels`, `Field.BLOCKS` being the panels of a matrix and `Field.COLUMN_COUNT` its columns."""
    tile = tile_of(module.target)
    code = Code(module, "work")
    numbers = (PanelField.BLOCKS, PanelField.K, PanelField.COLUMN_COUNT, PanelField.BATCH_WORDS)
    f = {k: word(code, "%context", k) for k in numbers}
    batches, packer = (address(code, "%context", k) for k in (PanelField.BATCH_TABLE, PanelField.PACKER))

    def point(inside: Code, at: Value) -> None:
        panel, batch = inside.op("urem", at, f[PanelField.BLOCKS]), inside.op("udiv", at, f[PanelField.BLOCKS])
        line = inside.element(batches, INT64, inside.mul(batch, f[PanelField.BATCH_WORDS]))
        source = inside.element("%b", FLOAT32, word(inside, line, PackWord.SOURCE))
        target = inside.element("%c", FLOAT32, inside.mul(at, inside.mul(f[PanelField.K], index(tile.width))))
        x = inside.mul(panel, index(tile.width))
        columns = least(inside, inside.op("sub", f[PanelField.COLUMN_COUNT], x), index(tile.width))
        numbers = (index(0), f[PanelField.K], index(0), index(0), x, columns)
        pack(inside, packer, target, source, numbers)

    each(code, argument("begin"), argument("end"), 1, point)
    define_entry(module, PACK_ENTRY, code)


def print_attention(module: Module) -> None:
    """Adds ``attention`` and all that it calls but strips."""
    _print_dots(module)
    print_softmax(module, FLOAT32)
    Driver(module).define(ENTRY)


class Driver:
    """The loops around both products, for operands of float32."""

    dtype = FLOAT32
    """Of operands, as they lie in memory."""

    def __init__(self, module: Module) -> None:
        self.code = Code(module, "work")
        self.width = tile_of(module.target).width
        self.field = {f: word(self.code, "%context", f) for f in Field}

    def define(self, entry: str) -> None:
        code, f = self.code, self.field
        parts = (Field.SCRATCH_SIZES, Field.SCRATCH_SCORES, Field.SCRATCH_FACTORS, Field.SCRATCH_BLOCK)
        sizes, self.scores, self.factors, self.block = (code.element("%scratch", UINT8, f[p]) for p in parts)
        self.queries = code.element("%scratch", UINT8, f[Field.SCRATCH_QUERIES])
        self.strips = address(code, "%context", Field.STRIPS)

        def kernel(field: Field, block: str) -> Epilogue:
            table = address(code, "%context", Field.SIZES)
            return Epilogue(f[field], table, f[Field.SIZE_COUNT], f[Field.BUFFER_COUNT], sizes, block)

        self.masks, self.epilogue = kernel(Field.SCORES, self.scores), kernel(Field.EPILOGUE, self.block)
        self.masked, self.fused = self.masks.exists(code), self.epilogue.exists(code)
        # the kernel of the scores writes where it reads: one more buffer
        target = code.element("%scratch", INT64, plus(code, f[Field.BUFFER_COUNT], 1))
        code.do(f"store ptr {self.scores}, ptr {target}, align 8")
        each(code, argument("begin"), argument("end"), 1, self._point)
        define_entry(code.module, entry, code)

    def _point(self, code: Code, point: Value) -> None:
        f = self.field
        part, batch = code.op("urem", point, f[Field.ROW_BLOCKS]), code.op("udiv", point, f[Field.ROW_BLOCKS])
        line = code.element(address(code, "%context", Field.BATCH_TABLE), INT64, code.mul(batch, f[Field.BATCH_WORDS]))
        q = code.element("%a", self.dtype, word(code, line, BatchWord.Q))
        c = code.element("%c", FLOAT32, word(code, line, BatchWord.C))
        key, value = (
            code.element(self._buffer(code, buffer), self.dtype, word(code, line, w))
            for buffer, w in ((Field.KEY_BUFFER, BatchWord.KEY), (Field.VALUE_BUFFER, BatchWord.VALUE))
        )
        first = code.mul(part, f[Field.ROW_BLOCK])
        rows = code.op("sub", least(code, code.add(first, f[Field.ROW_BLOCK]), f[Field.QUERIES]), first)
        self.first_product(code, code.element(q, self.dtype, code.mul(first, f[Field.Q_ROW])), key, rows)
        when(code, self.masked, lambda: self._run(code, self.masks, line, first, rows, f[Field.KEYS]))
        numbers = (rows, f[Field.KEYS], f[Field.SCORE_ROW], f[Field.BLANK])
        code.do(f"call void @softmax(ptr {self.scores}, ptr {self.factors}, {', '.join(map(str, numbers))})")
        own = code.element(c, FLOAT32, code.mul(first, f[Field.C_ROW]))
        target = code.let(f"select {self.fused}, ptr {self.block}, ptr {own}")
        self.second_product(code, value, target, rows)
        self._divide(code, target, rows)
        when(code, self.fused, lambda: self._run(code, self.epilogue, line, first, rows, f[Field.COLUMNS]))

    def first_product(self, code: Code, q: str, key: str, rows: Value) -> None:
        """Scores of some queries with all keys."""
        f = self.field
        zero, one, width = index(0), index(1), index(self.width)
        strips = Strips(
            a_row=f[Field.Q_ROW],
            a_k=f[Field.Q_STEP],
            b_row=width,
            b_panel=code.mul(f[Field.DEPTH], width),
            rows=rows,
            columns=f[Field.KEYS],
            steps=f[Field.DEPTH],
            c_row=f[Field.SCORE_ROW],
            whole=one,
            more=zero,
        )
        dots = (f[Field.Q_ROW], f[Field.KEY_ROW], f[Field.DEPTH], rows, f[Field.KEYS], f[Field.SCORE_ROW])
        when(
            code,
            code.compare("ne", f[Field.KEY_ROW], zero),
            lambda: code.do(f"call void @dots(ptr {q}, ptr {key}, ptr {self.scores}, {', '.join(map(str, dots))})"),
            lambda: strips.call(code, self.strips, q, key, self.scores),
        )

    def second_product(self, code: Code, value: str, target: str, rows: Value) -> None:
        """What the scores, made powers, weigh all values to."""
        f, zero = self.field, index(0)

        def some_keys(inside: Code, k: Value) -> None:
            products = Strips(
                a_row=f[Field.SCORE_ROW],
                a_k=index(1),
                b_row=f[Field.VALUE_ROW],
                b_panel=f[Field.VALUE_PANEL],
                rows=rows,
                columns=f[Field.COLUMNS],
                steps=least(inside, inside.op("sub", f[Field.KEYS], k), index(KEY_BLOCK)),
                c_row=f[Field.C_ROW],
                whole=inside.convert("zext", self.fused, INT64),
                more=inside.convert("zext", inside.compare("sgt", k, zero), INT64),
            )
            left = inside.element(self.scores, FLOAT32, k)
            right = inside.element(value, FLOAT32, inside.mul(k, f[Field.VALUE_ROW]))
            products.call(inside, self.strips, left, right, target)

        each(code, zero, f[Field.KEYS], KEY_BLOCK, some_keys)

    def _buffer(self, code: Code, field: Field) -> str:
        return code.let(f"load ptr, ptr {code.element('%buffers', INT64, self.field[field])}, align 8")

    def _divide(self, code: Code, target: str, rows: Value) -> None:
        lanes = tile_of(code.module.target).lanes

        def row(outer: Code, r: Value) -> None:
            factor = load(outer, self.factors, r)
            start = outer.element(target, FLOAT32, outer.mul(r, self.field[Field.C_ROW]))

            def part(width: int) -> Callable[[Code, Value], None]:
                def scale(inside: Code, x: Value) -> None:
                    several = inside.splat(factor, width) if width > 1 else factor
                    store(inside, inside.op("fmul", load(inside, start, x, width), several), start, x)

                return scale

            done = count(outer, index(0), self.field[Field.COLUMNS], lanes, part(lanes))
            count(outer, done, self.field[Field.COLUMNS], 1, part(1))

        each(code, index(0), rows, 1, row)

    def _run(self, code: Code, kernel: Epilogue, line: str, first: Value, rows: Value, columns: Value) -> None:
        f = self.field
        kernel.prepare(code)
        values: dict[int, Value] = {
            BlockSize.ROW: first,
            BlockSize.Z: index(0),
            BlockSize.Y: index(0),
            BlockSize.X: index(0),
            BlockSize.ROWS: rows,
            BlockSize.COUNT_Y: index(1),
            BlockSize.COUNT_X: columns,
            BlockSize.BLOCK_ROW: f[Field.SCORE_ROW] if kernel is self.masks else f[Field.C_ROW],
        }
        places = code.element(line, INT64, index(BatchWord.PLACES))
        kernel.run(code, values, places, plus(code, f[Field.BATCH_WORDS], -BatchWord.PLACES))


def _print_dots(module: Module) -> None:
    """``dots(q, keys, scores, q_row, key_row, depth, rows, count, row)``: each query's product with each key, whose
    elements lie side by side and fill whole vectors."""
    lanes = tile_of(module.target).lanes
    names = ("q_row", "key_row", "depth", "rows", "count", "row")
    q_row, key_row, depth, rows, keys, row = map(argument, names)
    code = Code(module)

    def one_row(outer: Code, r: Value) -> None:
        q = outer.element("%q", FLOAT32, outer.mul(r, q_row))
        scores = outer.element("%scores", FLOAT32, outer.mul(r, row))

        def some_keys(taken: int) -> Callable[[Code, Value], None]:
            def body(inside: Code, j: Value) -> None:
                starts = [
                    inside.element("%keys", FLOAT32, inside.mul(plus(inside, j, n), key_row)) for n in range(taken)
                ]
                loop = Loop(inside, deep := Code(module), [index(0), *[const(0.0, FLOAT32, lanes)] * taken])
                k, *sums = loop.carried
                loop.test(deep.compare("slt", k, depth))
                x = load(deep, q, k, lanes)
                sums = [fma(deep, x, load(deep, s, k, lanes), held) for s, held in zip(starts, sums, strict=True)]
                _, *sums = loop.close([plus(deep, k, lanes), *sums])
                for n, held in enumerate(sums):
                    store(inside, _folded(inside, "add", held), scores, plus(inside, j, n))

            return body

        done = count(outer, index(0), keys, 4, some_keys(4))
        count(outer, done, keys, 1, some_keys(1))

    each(code, index(0), rows, 1, one_row)
    define(module, "dots", ("q", "keys", "scores"), names, code)


def print_softmax(module: Module, powers_of: DType) -> None:
    """``softmax(scores, factors, rows, columns, row, blank)``: each row made ``exp(x - max)``, and what to multiply it
    with. ``powers_of``: what they are stored as, from the row's beginning on, up to whole vectors; float32 or bfloat16.
    """
    lanes = tile_of(module.target).lanes
    wide = lanes * (4 if module.target.vector_bits == 512 else 2)
    code = Code(module)
    rows, columns, row, blank = map(argument, ("rows", "columns", "row", "blank"))
    lowest, zero = const(float("-inf"), FLOAT32), const(0.0, FLOAT32)
    padded = code.mul(code.op("udiv", plus(code, columns, lanes - 1), index(lanes)), index(lanes))

    def one_row(outer: Code, r: Value) -> None:
        start = outer.element("%scores", FLOAT32, outer.mul(r, row))
        each(outer, columns, padded, 1, lambda inside, x: store(inside, lowest, start, x))

        def over(initial: Value, step: Callable[[Code, Value, int, Value], Value], join: str) -> Value:
            """All vectors of the row, some at a time."""
            done, total = index(0), initial
            for width in (wide, lanes):
                loop = Loop(outer, inside := Code(module), [done, _spread(outer, initial, width)])
                x, held = loop.carried
                end = plus(inside, x, width)
                loop.test(inside.compare("sle", end, padded))
                done, value = loop.close([end, step(inside, x, width, held)])
                total = _join(outer, join, total, _folded(outer, join, value))
            return total

        def greatest(inside: Code, x: Value, width: int, held: Value) -> Value:
            return _join(inside, "max", held, load(inside, start, x, width))

        most = over(lowest, greatest, "max")
        none = outer.op("and", outer.compare("oeq", most, lowest), outer.compare("ne", blank, index(0)))
        shift = outer.select(none, zero, most)

        def powers(inside: Code, x: Value, width: int, held: Value) -> Value:
            moved = inside.op("fsub", load(inside, start, x, width), _spread(inside, shift, width))
            if powers_of is FLOAT32:
                e = llvm_math.function(inside, "exp", moved)
                store(inside, e, start, x)
            else:  # never further than what was read
                e = llvm_math.short_exp(inside, moved)
                llvm_vector.store(inside, inside.element(start, UINT16, x), rounded(inside, e))
            return inside.op("fadd", held, e)

        total = over(zero, powers, "add")
        factor = outer.op("fdiv", const(1.0, FLOAT32), total)
        empty = outer.op("and", outer.compare("oeq", total, zero), outer.compare("ne", blank, index(0)))
        store(outer, outer.select(empty, zero, factor), "%factors", r)

    each(code, index(0), rows, 1, one_row)
    define(module, "softmax", ("scores", "factors"), ("rows", "columns", "row", "blank"), code)


def _spread(code: Code, value: Value, lanes: int) -> Value:
    if value.is_const:
        return Value(f"splat ({value.type} {value.text})", value.dtype, lanes)
    return code.splat(value, lanes)


def _join(code: Code, how: str, a: Value, b: Value) -> Value:
    if how == "add":
        return code.op("fadd", a, b)
    return code.select(code.compare("ogt", b, a), b, a)  # NaN is left to exp


def _folded(code: Code, how: str, value: Value) -> Value:
    """All lanes joined, in halves."""
    while value.lanes > 1:
        half = value.lanes // 2
        value = _join(code, how, code.shuffle(value, range(half)), code.shuffle(value, range(half, 2 * half)))
    return value
