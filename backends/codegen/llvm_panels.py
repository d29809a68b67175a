"""A float32 matrix product by panels, as LLVM IR: the product of a tile, and what it is told.

A tile of the result is ``rows x (vectors * lanes)`` and lives in registers while the sum over k runs. Its left operand
is read where it lies, an element to all lanes; its right one from a block that stays in the cache, some columns side by
side for each k, which a packer of `llvm_packing` has filled; a tile's part of it is a panel. Goto and van de Geijn,
"Anatomy of High-Performance Matrix Multiplication", 2008.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, auto

from omniop.backends.codegen import llvm_vector
from omniop.backends.codegen.llvm_blocks import Head
from omniop.backends.codegen.llvm_flow import (
    argument,
    define,
    each,
    fma,
    lanes_below,
    load,
    plus,
    prefetch,
    store,
    when,
    zeros,
)
from omniop.backends.codegen.llvm_ir import Code, Loop, Module, Target, Value, const, index
from omniop.opset.dtype import BOOL, FLOAT32

LINE = 16
"""Elements of a cache line."""


class Field(IntEnum):
    """The context of a product: int64 numbers and addresses, by their place in it. Strides count elements."""

    A_ROW = len(Head)
    A_K = auto()
    B_K = auto()
    B_COLUMN = auto()
    C_ROW = auto()
    B_ROW = auto()
    """Of the packed block."""
    B_PANEL = auto()
    """From panel to panel."""
    ROWS = auto()
    K = auto()
    K_BLOCK = auto()
    ROW_BLOCK = auto()
    ROW_BLOCKS = auto()
    BLOCKS = auto()
    COLUMN_COUNT = auto()
    """Of the right operand, where it is packed whole."""
    PACKER = auto()
    """Address of a function of `llvm_packing`, or 0 where b is read where it lies: in whole vectors, the rows of a
    panel `B_K` apart."""
    STRIPS = auto()
    """Address of `llvm_strips`' function."""
    BATCH_TABLE = auto()
    BATCH_WORDS = auto()
    BLOCK_TABLE = auto()
    EPILOGUE = auto()
    """Address of a kernel's function, or 0 where tiles go into the result as they are."""
    SIZES = auto()
    """Table of the size arguments that the epilogue has before a block's own."""
    SIZE_COUNT = auto()
    BUFFER_COUNT = auto()
    SCRATCH_SIZES = auto()
    SCRATCH_PANELS = auto()
    SCRATCH_BLOCK = auto()
    """Where parts of the scratch memory begin, in bytes; it begins with the epilogue's buffers."""
    TAPS = auto()
    """For each element of a window: (offset from its start, z, y, x in it), the same in all channels, B_K apart."""
    TAP_COUNT = auto()
    DEPTH = auto()
    HEIGHT = auto()
    WIDTH = auto()
    B_Z = auto()
    B_Y = auto()
    STEP_Z = auto()
    STEP_Y = auto()
    STEP_X = auto()
    PAD_Z = auto()
    PAD_Y = auto()
    PAD_X = auto()


@dataclass(frozen=True)
class Tile:
    """Rows and vectors of the largest tile: as many sums as registers allow beside what they are made from."""

    rows: int
    vectors: int
    lanes: int

    @property
    def width(self) -> int:
        return self.vectors * self.lanes


def tile_of(target: Target) -> Tile:
    lanes = target.vector_bits // 32
    if target.vector_bits == 128:
        return Tile(6, 4, lanes) if target.fma else Tile(4, 2, lanes)  # NEON has 32 registers, SSE2 16
    return Tile(12 if target.vector_bits == 512 else 6, 2, lanes)


def print_tile(module: Module, name: str, rows: int, vectors: int) -> None:
    """``name(a, b, c, ahead, a_row, a_k, b_row, count, c_row, columns, more)``: a tile's sum over ``count`` steps,
    written to ``columns`` of c, or added to it when ``more``. A line from ``ahead`` on is asked for at each step."""
    tile = tile_of(module.target)
    code = Code(module)
    numbers = ("a_row", "a_k", "b_row", "count", "c_row", "columns", "more")
    a_row, a_k, b_row, steps, c_row, columns, more = map(argument, numbers)
    held = code.let(f"alloca [{rows * vectors * tile.lanes} x float], align 64")
    lines = [code.element("%a", FLOAT32, code.mul(a_row, index(r))) for r in range(rows)]
    sums = [zeros(tile.lanes)] * (rows * vectors)
    # one step a turn: of several, LLVM would load ahead for later ones, into registers that there are not
    loop = Loop(code, inside := Code(module), [index(0), index(0), index(0), *sums])
    step, along, down, *sums = loop.carried
    row = inside.element("%b", FLOAT32, down)
    prefetch(inside, inside.element("%ahead", FLOAT32, inside.mul(step, index(LINE))))
    right = [load(inside, row, index(v * tile.lanes), tile.lanes) for v in range(vectors)]
    for r in range(rows):
        left = inside.splat(load(inside, lines[r], along), tile.lanes)
        for v in range(vectors):
            sums[r * vectors + v] = fma(inside, left, right[v], sums[r * vectors + v])
    following = plus(inside, step, 1)
    updates = [following, inside.add(along, a_k), inside.add(down, b_row), *sums]
    _, _, _, *sums = loop.close(updates, inside.compare("slt", following, steps))

    targets = [code.element("%c", FLOAT32, code.mul(c_row, index(r))) for r in range(rows)]

    fresh = code.compare("eq", more, index(0))

    def write(add: bool) -> None:
        for k, value in enumerate(sums):
            place = code.element(targets[k // vectors], FLOAT32, index(k % vectors * tile.lanes))
            old = load(code, place, index(0), tile.lanes) if add else None
            store(code, value if old is None else code.op("fadd", old, value), place, index(0))

    def write_part() -> None:
        """In a loop over rows, of sums from memory. Fresh ones have 0 added, which changes none but -0: sums begin with
        0, and only underflow gives that."""
        for k, value in enumerate(sums):
            store(code, value, held, index(k * tile.lanes))
        masks = [lanes_below(code, columns, tile.lanes, v * tile.lanes) for v in range(vectors)]

        def row(inside: Code, r: Value) -> None:
            line = inside.element("%c", FLOAT32, inside.mul(c_row, r))
            own = inside.element(held, FLOAT32, inside.mul(r, index(vectors * tile.lanes)))
            for v, mask in enumerate(masks):
                place = inside.element(line, FLOAT32, index(v * tile.lanes))
                known = inside.select(fresh, const(False, BOOL, tile.lanes), mask)
                old = llvm_vector.masked_load(inside, place, known, zeros(tile.lanes))
                value = load(inside, own, index(v * tile.lanes), tile.lanes)
                llvm_vector.masked_store(inside, place, inside.op("fadd", old, value), mask)

        each(code, index(0), index(rows), 1, row)

    def write_whole() -> None:
        when(code, fresh, lambda: write(False), lambda: write(True))

    when(code, code.compare("sge", columns, index(vectors * tile.lanes)), write_whole, write_part)
    define(module, name, ("a", "b", "c", "ahead"), numbers, code)
