"""The loops of a product of narrow elements around the tiles of `llvm_narrow_strips`.

Blocks are those of `llvm_gemm`: a batch, some rows, some columns, which may be several rows of an image. Rows of the
left operand are read as they lie where they are whole words, else copied; columns of the right one are packed into
panels unless they lie so. What was copied or packed for one block is kept for the next one that wants the same.

Where the right operand's elements are counted from a zero point, or their sign bits are flipped, a row's sums begin at
what takes that back: so much times the sum of the row.
"""

from __future__ import annotations

from collections.abc import Callable

from omniop.backends.codegen import llvm_vector
from omniop.backends.codegen.llvm_blocks import Epilogue, call_of, define_entry, function_table
from omniop.backends.codegen.llvm_dot import Dot
from omniop.backends.codegen.llvm_flow import address, argument, each, lanes_below, least, plus, when, word
from omniop.backends.codegen.llvm_gemm import BatchWord, BlockWord, finish
from omniop.backends.codegen.llvm_ir import Code, Loop, Module, Value, const, index
from omniop.backends.codegen.llvm_narrow_packing import PACKERS, print_left_packer, print_packer
from omniop.backends.codegen.llvm_narrow_strips import Strips
from omniop.backends.codegen.llvm_narrow_tiles import ONES, WORD, Field, read_zero_point, tile_of
from omniop.opset.dtype import INT32, INT64, UINT8


def entry(kind: Dot) -> str:
    return f"narrow_{kind.name}"


def print_narrow(module: Module, kind: Dot) -> None:
    """Adds the function `entry` and its packers."""
    for name, packer in PACKERS.items():
        print_packer(module, f"pack_{name}", packer, kind)
    print_left_packer(module, "pack_left", kind)
    function_table(module, "packers", [f"pack_{name}" for name in PACKERS])
    _Driver(module, kind).define()


class _Driver:
    def __init__(self, module: Module, kind: Dot) -> None:
        self.module = module
        self.kind = kind
        self.tile = tile_of(module.target)
        self.code = Code(module, "work")
        self.field = {f: word(self.code, "%context", f) for f in Field if f < Field.TAPS}

    def define(self) -> None:
        code, f = self.code, self.field
        parts = (Field.SCRATCH_SIZES, Field.SCRATCH_LEFT, Field.SCRATCH_STARTS, Field.SCRATCH_STAGE)
        sizes, self.left, self.starts, self.stage = (code.element("%scratch", UINT8, f[p]) for p in parts)
        self.panels = code.element("%scratch", UINT8, f[Field.SCRATCH_PANELS])
        self.strips = address(code, "%context", Field.STRIPS)
        self.block = code.element("%scratch", UINT8, f[Field.SCRATCH_BLOCK])
        self.epilogue = Epilogue.told(code, Field, sizes, self.block)
        self.fused = self.epilogue.exists(code)
        self.copied = code.compare("ne", f[Field.A_PACKED], index(0))
        self.packs = code.compare("sge", f[Field.PACKER], index(0))
        self.left_row = code.select(self.copied, code.mul(f[Field.WORDS], index(WORD)), f[Field.A_ROW])
        self.zero = read_zero_point(code, self.kind, f[Field.ZERO_BUFFER], f[Field.ZERO_START])
        self.epilogue.prepare(code)
        kept = code.element("%scratch", UINT8, f[Field.SCRATCH_KEPT])
        self.held, self.packed = (code.element(kept, INT64, index(k)) for k in range(2))
        for place in (self.held, self.packed):
            code.do(f"store i64 -1, ptr {place}, align 8")
        each(code, argument("begin"), argument("end"), 1, self._point)
        define_entry(self.module, entry(self.kind), code)

    def _point(self, code: Code, point: Value) -> None:
        f = self.field
        by_rows = code.compare("ne", f[Field.ROWS_INNER], index(0))
        inner = code.select(by_rows, f[Field.ROW_BLOCKS], f[Field.BLOCKS])
        outer = code.select(by_rows, f[Field.BLOCKS], f[Field.ROW_BLOCKS])
        near, rest = code.op("urem", point, inner), code.op("udiv", point, inner)
        far, batch = code.op("urem", rest, outer), code.op("udiv", rest, outer)
        part, block = code.select(by_rows, near, far), code.select(by_rows, far, near)
        blocks, batches = (address(code, "%context", k) for k in (Field.BLOCK_TABLE, Field.BATCH_TABLE))
        line = code.element(blocks, INT64, code.mul(block, index(len(BlockWord))))
        group = code.element(batches, INT64, code.mul(batch, f[Field.BATCH_WORDS]))
        at = {w: word(code, line, w) for w in BlockWord}
        width = self.kind.left.itemsize
        a, b = (
            code.element(f"%{name}", UINT8, code.mul(word(code, group, w), index(width)))
            for name, w in (("a", BatchWord.A), ("b", BatchWord.B))
        )
        c = code.element("%c", INT32, word(code, group, BatchWord.C))
        first = code.mul(part, f[Field.ROW_BLOCK])
        end = least(code, code.add(first, f[Field.ROW_BLOCK]), f[Field.ROWS])
        rows = code.op("sub", end, first)
        lying = code.element(a, UINT8, code.mul(first, f[Field.A_ROW]))
        left = code.let(f"select {self.copied}, ptr {self.left}, ptr {lying}")
        self._once(
            code,
            self.held,
            code.add(code.mul(batch, f[Field.ROW_BLOCKS]), part),
            lambda: self._take_rows(code, lying, left, rows),
        )

        def pack() -> None:
            this = code.add(code.mul(batch, f[Field.BLOCKS]), block)
            self._once(code, self.packed, this, lambda: self._pack(code, b, at))

        when(code, self.packs, pack)
        panel = code.op("udiv", at[BlockWord.X], index(self.tile.width))
        there = code.element(b, UINT8, code.mul(panel, f[Field.B_PANEL]))
        right = code.let(f"select {self.packs}, ptr {self.panels}, ptr {there}")
        own = code.element(c, INT32, code.add(at[BlockWord.C], code.mul(first, f[Field.C_ROW])))
        target = code.let(f"select {self.fused}, ptr {self.block}, ptr {own}")
        self._tiles(code, rows, (left, right, target), at)
        strides = f[Field.C_ROW], f[Field.BATCH_WORDS]
        when(code, self.fused, lambda: finish(code, self.epilogue, at, group, (first, rows), strides))

    def _once(self, code: Code, place: str, number: Value, run: Callable[[], None]) -> None:
        """Unless it was done for this number last."""
        before = Value(code.let(f"load i64, ptr {place}, align 8"), INT64)

        def do() -> None:
            code.do(f"store {number}, ptr {place}, align 8")
            run()

        when(code, code.compare("ne", before, number), do)

    # Operands ---------------------------------------------------------------------------------------------------------

    def _take_rows(self, code: Code, lying: str, left: str, rows: Value) -> None:
        """Rows copied where they have to be, and where their sums begin."""
        when(
            code,
            self.copied,
            lambda: code.do(f"call void @pack_left(ptr %context, ptr {self.left}, ptr {lying}, {rows})"),
        )
        if not self.kind.left.is_int:
            return
        back = code.op("sub", index(-self.kind.offset), self.zero)
        factor = code.convert("trunc", back, INT32)
        idle = code.compare("eq", back, index(0))

        def row(inside: Code, r: Value) -> None:
            line = inside.element(left, UINT8, inside.mul(r, self.left_row))
            total = inside.either(idle, lambda: const(0, INT32), lambda: self._row_sum(inside, line))
            llvm_vector.store(inside, inside.element(self.starts, INT32, r), inside.op("mul", total, factor))

        each(code, index(0), rows, 1, row)

    def _row_sum(self, code: Code, line: str) -> Value:
        """The sum of a row of the left operand."""
        end = code.mul(self.field[Field.WORDS], index(WORD))

        def part(width: int, done: Value) -> tuple[Value, Value]:
            loop = Loop(code, inside := Code(self.module), [done, const(0, INT32, width)])
            place, total = loop.carried
            following = plus(inside, place, width * WORD)
            loop.test(inside.compare("sle", following, end))
            pointer = inside.element(line, UINT8, place)
            text = inside.let(f"load {total.type}, ptr {pointer}, align 1")
            more = self.kind.add(inside, total, Value(text, INT32, width), const(ONES, INT32, width))
            done, total = loop.close([following, more])
            return done, total

        lanes, none = self.tile.lanes, const(0, INT32)
        done, vector = part(lanes, index(0))
        if llvm_vector.has_masked(code, INT32):
            left = code.op("lshr", code.op("sub", end, done), index(2))
            rest = llvm_vector.masked_load(code, code.element(line, UINT8, done), lanes_below(code, left, lanes), none)
            vector = self.kind.add(code, vector, rest, const(ONES, INT32, lanes))
        else:
            _, none = part(1, done)
        (total,) = llvm_vector.narrowed(code, "add", [vector], 1)
        return code.op("add", total, none)

    def _pack(self, code: Code, b: str, at: dict[BlockWord, Value]) -> None:
        places = (at[BlockWord.Z], at[BlockWord.Y], at[BlockWord.X], at[BlockWord.LINES], at[BlockWord.COLUMNS])
        pointers = ("%context", self.panels, b, self.stage)
        call_of(code, "packers", self.field[Field.PACKER], pointers, (*places, self.zero))

    # Sums -------------------------------------------------------------------------------------------------------------

    def _tiles(self, code: Code, rows: Value, pointers: tuple[str, str, str], at: dict[BlockWord, Value]) -> None:
        f = self.field
        strips = Strips(
            a_row=self.left_row,
            b_panel=f[Field.B_PANEL],
            rows=rows,
            columns=code.mul(at[BlockWord.LINES], at[BlockWord.COLUMNS]),
            words=f[Field.WORDS],
            c_row=f[Field.C_ROW],
            whole=code.convert("zext", self.fused, INT64),  # scratch has room for whole vectors
        )
        strips.call(code, self.strips, (*pointers, self.starts))
