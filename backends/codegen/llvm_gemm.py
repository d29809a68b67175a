"""The loops of a matrix product by panels around the tiles of `llvm_panels`.

The result is a grid of blocks: a batch, some rows, and some columns, which may be several rows of an image. For each
block a part of k at a time is packed, and its tiles are summed, into the result itself or into a block of scratch
memory that stays in the cache, from which the epilogue's kernel then writes the result. Blocks do not depend on each
other, nor on how many threads there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

from omniop.backends.codegen.llvm_blocks import BlockSize, Epilogue, define_entry
from omniop.backends.codegen.llvm_flow import (
    address,
    argument,
    each,
    least,
    plus,
    when,
    word,
)
from omniop.backends.codegen.llvm_ir import Code, Module, Value, index
from omniop.backends.codegen.llvm_packing import pack
from omniop.backends.codegen.llvm_panels import Field
from omniop.backends.codegen.llvm_strips import Strips
from omniop.opset.dtype import FLOAT32, INT64, UINT8


class BatchWord(IntEnum):
    """A batch's line of its table: where operands and result begin, then what the epilogue adds to the row's number,
    then its places along the batch axes."""

    A = 0
    B = 1
    C = 2
    FIRST_ROW = 3
    PLACES = 4


class BlockWord(IntEnum):
    """A block's line of its table: its lines of columns as the packer has them, which follow each other in the result,
    and where they are as the epilogue has it."""

    Z = 0
    Y = 1
    LINES = 2
    X = 3
    COLUMNS = 4
    C = 5
    PLACE_Z = 6
    PLACE_Y = 7
    PLACE_X = 8
    COUNT_Y = 9
    COUNT_X = 10


ENTRY = "gemm"


def print_gemm(module: Module) -> None:
    """Adds ``gemm``."""
    _Driver(module).define()


class _Driver:
    def __init__(self, module: Module) -> None:
        self.module = module
        self.code = Code(module, "work")
        self.field = {f: word(self.code, "%context", f) for f in Field if f < Field.TAPS}

    def define(self) -> None:
        code = self.code
        parts = (Field.SCRATCH_SIZES, Field.SCRATCH_PANELS, Field.SCRATCH_BLOCK)
        sizes, self.panels, self.block = (code.element("%scratch", UINT8, self.field[f]) for f in parts)
        self.strips, self.packer = (address(code, "%context", f) for f in (Field.STRIPS, Field.PACKER))
        self.epilogue = Epilogue.told(code, Field, sizes, self.block)
        self.fused = self.epilogue.exists(code)
        self.direct = code.compare("eq", self.field[Field.PACKER], index(0))
        self.b_row = code.select(self.direct, self.field[Field.B_K], self.field[Field.B_ROW])
        self.epilogue.prepare(code)
        each(code, argument("begin"), argument("end"), 1, self._point)
        define_entry(self.module, ENTRY, code)

    def _point(self, code: Code, point: Value) -> None:
        f = self.field
        block = code.op("urem", point, f[Field.BLOCKS])
        rest = code.op("udiv", point, f[Field.BLOCKS])
        part, batch = code.op("urem", rest, f[Field.ROW_BLOCKS]), code.op("udiv", rest, f[Field.ROW_BLOCKS])
        blocks, batches = (address(code, "%context", k) for k in (Field.BLOCK_TABLE, Field.BATCH_TABLE))
        line = code.element(blocks, INT64, code.mul(block, index(len(BlockWord))))
        group = code.element(batches, INT64, code.mul(batch, f[Field.BATCH_WORDS]))
        at = {w: word(code, line, w) for w in BlockWord}
        a, b, c = (
            code.element(f"%{name}", FLOAT32, word(code, group, w))
            for name, w in (("a", BatchWord.A), ("b", BatchWord.B), ("c", BatchWord.C))
        )
        first = code.mul(part, f[Field.ROW_BLOCK])
        count = code.op("sub", least(code, code.add(first, f[Field.ROW_BLOCK]), f[Field.ROWS]), first)
        a = code.element(a, FLOAT32, code.mul(first, f[Field.A_ROW]))
        own = code.element(c, FLOAT32, code.add(at[BlockWord.C], code.mul(first, f[Field.C_ROW])))
        target = code.let(f"select {self.fused}, ptr {self.block}, ptr {own}")

        def part_of_k(inside: Code, k: Value) -> None:
            steps = least(inside, inside.op("sub", f[Field.K], k), f[Field.K_BLOCK])
            when(inside, self.direct, lambda: None, lambda: self._pack(inside, b, k, steps, at))
            own = inside.element(b, FLOAT32, inside.add(inside.mul(k, f[Field.B_K]), at[BlockWord.X]))
            right = inside.let(f"select {self.direct}, ptr {own}, ptr {self.panels}")
            left = inside.element(a, FLOAT32, inside.mul(k, f[Field.A_K]))
            self._tiles(inside, count, (left, right, target), k, steps, at)

        each(code, index(0), f[Field.K], f[Field.K_BLOCK], part_of_k)
        strides = f[Field.C_ROW], f[Field.BATCH_WORDS]
        when(code, self.fused, lambda: finish(code, self.epilogue, at, group, (first, count), strides))

    def _pack(self, code: Code, b: str, k: Value, steps: Value, at: dict[BlockWord, Value]) -> None:
        """All lines of a block, side by side."""

        def line(inside: Code, y: Value) -> None:
            target = inside.element(self.panels, FLOAT32, inside.mul(y, at[BlockWord.COLUMNS]))
            places = (at[BlockWord.Z], inside.add(at[BlockWord.Y], y), at[BlockWord.X])
            numbers = (k, steps, *places, at[BlockWord.COLUMNS])
            pack(inside, self.packer, target, b, numbers)

        each(code, index(0), at[BlockWord.LINES], 1, line)

    def _tiles(
        self,
        code: Code,
        rows: Value,
        pointers: tuple[str, str, str],
        k: Value,
        steps: Value,
        at: dict[BlockWord, Value],
    ) -> None:
        """All tiles of a block."""
        f = self.field
        strips = Strips(
            a_row=f[Field.A_ROW],
            a_k=f[Field.A_K],
            b_row=self.b_row,
            b_panel=f[Field.B_PANEL],
            rows=rows,
            columns=code.mul(at[BlockWord.LINES], at[BlockWord.COLUMNS]),
            steps=steps,
            c_row=f[Field.C_ROW],
            whole=code.convert("zext", self.fused, INT64),
            more=code.convert("zext", code.compare("sgt", k, index(0)), INT64),
        )
        strips.call(code, self.strips, *pointers)


def finish(
    code: Code,
    epilogue: Epilogue,
    at: Mapping[BlockWord, Value],
    group: str,
    rows: tuple[Value, Value],
    strides: tuple[Value, Value],
) -> None:
    """The epilogue of a block. ``rows``: the first one, and how many; ``group``: its batch's line of a table of lines
    of so many words, the second of ``strides``; the first is from row to row of the block."""
    first, count = rows
    row, words = strides
    values: dict[int, Value] = {
        BlockSize.ROW: code.add(first, word(code, group, BatchWord.FIRST_ROW)),
        BlockSize.Z: at[BlockWord.PLACE_Z],
        BlockSize.Y: at[BlockWord.PLACE_Y],
        BlockSize.X: at[BlockWord.PLACE_X],
        BlockSize.ROWS: count,
        BlockSize.COUNT_Y: at[BlockWord.COUNT_Y],
        BlockSize.COUNT_X: at[BlockWord.COUNT_X],
        BlockSize.BLOCK_ROW: row,
    }
    places = code.element(group, INT64, index(BatchWord.PLACES))
    epilogue.run(code, values, places, plus(code, words, -BatchWord.PLACES))
