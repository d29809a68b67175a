"""Products of narrow elements by panels, as LLVM IR: the product of a tile, and what it is told.

What `llvm_panels` does for float32, in words of 32 bits that hold four bytes or two bfloat16 of one row or column,
which follow each other in k: a tile of the result is ``rows x (vectors * lanes)``, a word of the left operand meets a
panel's word of each column, and `llvm_dot` adds up what they make. All of k is summed in registers.
"""

from __future__ import annotations

from enum import IntEnum, auto

from omniop.backends.codegen import llvm_vector
from omniop.backends.codegen.llvm_blocks import Head
from omniop.backends.codegen.llvm_dot import Dot
from omniop.backends.codegen.llvm_flow import argument, define, lanes_below, plus, prefetch, when
from omniop.backends.codegen.llvm_ir import Code, Loop, Module, Target, Value, const, index
from omniop.backends.codegen.llvm_panels import Tile
from omniop.opset.dtype import INT32, INT64, UINT8

WORD = 4
"""Bytes of a word."""
LINE_BYTES = 64
"""Of a line of the caches."""
ONES = 0x01010101
"""A word of bytes that are 1."""


class Field(IntEnum):
    """The context: int64 numbers and addresses, by their place in it. Strides of operands count bytes, those of the
    result elements."""

    A_ROW = len(Head)
    A_K = auto()
    A_PACKED = auto()
    """1 where the left operand is copied, in whole words, to scratch memory; 0 where it is read as it lies."""
    B_K = auto()
    B_COLUMN = auto()
    B_PANEL = auto()
    """Bytes of a panel."""
    C_ROW = auto()
    ROWS = auto()
    K = auto()
    WORDS = auto()
    """Of a row of the left operand."""
    ROW_BLOCK = auto()
    ROW_BLOCKS = auto()
    BLOCKS = auto()
    ROWS_INNER = auto()
    """1 where blocks of rows change faster than those of columns."""
    PACKER = auto()
    """Its number, or -1 where b lies in panels already."""
    ZERO_BUFFER = auto()
    """Buffer of the number that the right operand's elements are counted from, and that stands in for padding; -1 for
    none, which is 0."""
    ZERO_START = auto()
    BATCH_TABLE = auto()
    BATCH_WORDS = auto()
    BLOCK_TABLE = auto()
    EPILOGUE = auto()
    SIZES = auto()
    SIZE_COUNT = auto()
    BUFFER_COUNT = auto()
    STAGE_ROW = auto()
    """Bytes from row to row of the stage, on which a packer puts the elements of one word side by side."""
    SCRATCH_SIZES = auto()
    SCRATCH_LEFT = auto()
    SCRATCH_KEPT = auto()
    """Two numbers: of the rows that were taken last, and of the columns that were packed last."""
    SCRATCH_STARTS = auto()
    SCRATCH_STAGE = auto()
    SCRATCH_PANELS = auto()
    SCRATCH_BLOCK = auto()
    STRIPS = auto()
    """Address of `llvm_narrow_strips.print_strips`' function."""
    TAPS = auto()
    """For each k: (offset in bytes of its element from the window's start, its z, y, x in the window)."""
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


def tile_of(target: Target) -> Tile:
    """The largest tile; where products take several instructions, they need registers too."""
    lanes = target.vector_bits // 32
    if target.vector_bits == 512:
        return Tile(12, 2, lanes)
    return Tile(6 if target.narrow & {"vpdpbusd"} else 4, 2, lanes)


def share_of(target: Target) -> int:
    """Columns of the narrowest tile, and from one width of tiles to the next: half a vector where that costs half."""
    return target.vector_bits // (64 if target.vector_bits == 512 else 32)


def load_word(code: Code, pointer: str, offset: Value) -> Value:
    """The word at an offset in bytes, at any alignment."""
    return Value(code.let(f"load i32, ptr {code.element(pointer, UINT8, offset)}, align 1"), INT32)


def read_zero_point(code: Code, kind: Dot, buffer: Value, start: Value) -> Value:
    """What the right operand's elements are counted from, as int64: a number at ``start`` of a buffer; 0 if that is
    -1."""

    def read() -> Value:
        whole = code.let(f"load ptr, ptr {code.element('%buffers', INT64, buffer)}, align 8")
        value = llvm_vector.load(code, code.element(whole, UINT8, start), kind.right)
        return code.convert("sext" if kind.right.is_signed else "zext", value, INT64)

    if not kind.left.is_int:
        return index(0)
    return code.either(code.compare("sge", buffer, index(0)), read, lambda: index(0))


def print_tile(module: Module, name: str, kind: Dot, rows: int, width: int) -> None:
    """``name(a, b, c, starts, ahead, a_row, words, c_row, columns)``: sums of a tile of ``width`` columns. They begin
    at ``starts`` of each row where they are integers, and are written to ``columns`` of c. A line from ``ahead`` on is
    asked for at each word."""
    tile = tile_of(module.target)
    firsts = range(0, width, tile.lanes)
    widths = [min(tile.lanes, width - first) for first in firsts]
    code = Code(module)
    numbers = ("a_row", "words", "c_row", "columns")
    a_row, words, c_row, columns = map(argument, numbers)
    lines = [code.element("%a", UINT8, code.mul(a_row, index(r))) for r in range(rows)]
    sums = []
    for r in range(rows):
        start = const(0, kind.sums)
        if kind.left.is_int:
            start = llvm_vector.load(code, code.element("%starts", INT32, index(r)), INT32)
        sums += [code.splat(start, lanes) for lanes in widths]
    loop = Loop(code, inside := Code(module), [index(0), index(0), *sums])
    along, down, *sums = loop.carried
    row = inside.element("%b", INT32, down)
    prefetch(inside, inside.element("%ahead", UINT8, inside.mul(along, index(LINE_BYTES // WORD))))
    right = []
    for first, lanes in zip(firsts, widths, strict=True):
        part = llvm_vector.load(inside, inside.element(row, INT32, index(first)), INT32, lanes)
        right.append(kind.right_word(inside, part))
    for r in range(rows):
        left = load_word(inside, lines[r], along)
        for v, lanes in enumerate(widths):
            k = r * len(widths) + v
            sums[k] = kind.add(inside, sums[k], inside.splat(left, lanes), right[v])
    following = plus(inside, along, WORD)
    again = inside.compare("slt", following, code.mul(words, index(WORD)))
    _, _, *sums = loop.close([following, plus(inside, down, tile.width), *sums], again)

    def write(masks: list[Value] | None) -> None:
        for r in range(rows):
            target = code.element("%c", kind.sums, code.mul(c_row, index(r)))
            for v, first in enumerate(firsts):
                pointer, value = code.element(target, kind.sums, index(first)), sums[r * len(widths) + v]
                if masks is None:
                    llvm_vector.store(code, pointer, value)
                else:
                    llvm_vector.masked_store(code, pointer, value, masks[v])

    when(
        code,
        code.compare("sge", columns, index(width)),
        lambda: write(None),
        lambda: write([lanes_below(code, columns, n, first) for first, n in zip(firsts, widths, strict=True)]),
    )
    define(module, name, ("a", "b", "c", "starts", "ahead"), numbers, code)
