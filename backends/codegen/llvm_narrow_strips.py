"""All tiles of a block of a product of narrow elements: strips of rows, one after another, under each panel of columns.

As `llvm_strips` has it for float32, a module of its own, which whatever multiplies such matrices calls by address.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from omniop.backends.codegen.llvm_blocks import call_of, function_table
from omniop.backends.codegen.llvm_dot import Dot
from omniop.backends.codegen.llvm_flow import argument, define, each, least, plus
from omniop.backends.codegen.llvm_ir import Code, Loop, Module, Value, index
from omniop.backends.codegen.llvm_narrow_tiles import LINE_BYTES, WORD, print_tile, share_of, tile_of
from omniop.opset.dtype import INT32, UINT8

_POINTERS = ("a", "b", "c", "starts")


def entry(kind: Dot) -> str:
    return f"strips_{kind.name}"


@dataclass(frozen=True)
class Strips:
    """A block's numbers: bytes from row to row of the left operand and from panel to panel, ``rows``, ``columns`` and
    ``words`` of a row, elements from row to row of the result.

    ``whole``: 1 where the result has room for whole vectors.
    """

    a_row: Value
    b_panel: Value
    rows: Value
    columns: Value
    words: Value
    c_row: Value
    whole: Value

    def call(self, code: Code, function: str, pointers: tuple[str, str, str, str]) -> None:
        """``function``: the address of `print_strips`' function; ``pointers``: the operands', the result's, and that of
        what the rows' sums begin at, which those of floats do not."""
        given = ", ".join(f"ptr {p}" for p in pointers)
        numbers = ", ".join(str(getattr(self, f.name)) for f in fields(self))
        code.do(f"call void {function}({given}, {numbers})")


def print_strips(module: Module, kind: Dot) -> None:
    """Adds the function `entry`, which `Strips` calls, and its tiles. The first strips ask for the next panel: it is
    read from memory while this one is in the caches."""
    tile, share = tile_of(module.target), share_of(module.target)
    tiles = []
    for rows in range(1, tile.rows + 1):
        for columns in range(share, tile.width + 1, share):
            tiles.append(f"tile_{rows}x{columns}")
            print_tile(module, tiles[-1], kind, rows, columns)
    function_table(module, "tiles", tiles)

    code = Code(module)
    given = Strips(*(argument(f.name) for f in fields(Strips)))
    whole = code.compare("ne", given.whole, index(0))
    several = code.compare("sgt", given.rows, index(tile.rows))  # a panel that is used once is streamed well as it is
    askers = code.select(several, index(tile.width * WORD // LINE_BYTES), index(0))

    def panel(outer: Code, x: Value) -> None:
        columns = least(outer, outer.op("sub", given.columns, x), index(tile.width))
        shares = outer.op("udiv", plus(outer, columns, share - 1), index(share))
        written = outer.select(whole, index(tile.width), columns)
        number = outer.op("udiv", x, index(tile.width))
        right = outer.element("%b", UINT8, outer.mul(number, given.b_panel))
        after = outer.element(right, UINT8, given.b_panel)
        target = outer.element("%c", INT32, x)
        loop = Loop(outer, inside := Code(module), [index(0), index(0)])
        row, strip = loop.carried
        loop.test(inside.compare("slt", row, given.rows))
        height = _height(inside, tile.rows, inside.op("sub", given.rows, row))
        shape = plus(inside, inside.mul(plus(inside, height, -1), index(tile.width // share)), -1)
        lines = inside.element(after, UINT8, inside.mul(strip, inside.mul(given.words, index(LINE_BYTES))))
        ahead = inside.let(f"select {inside.compare('slt', strip, askers)}, ptr {lines}, ptr {right}")
        pointers = (
            inside.element("%a", UINT8, inside.mul(row, given.a_row)),
            right,
            inside.element(target, INT32, inside.mul(row, given.c_row)),
            inside.element("%starts", INT32, row),
            ahead,
        )
        numbers = (given.a_row, given.words, given.c_row, written)
        call_of(inside, "tiles", inside.add(shape, shares), pointers, numbers)
        loop.close([inside.add(row, height), plus(inside, strip, 1)])

    each(code, index(0), given.columns, tile.width, panel)
    define(module, entry(kind), _POINTERS, [f.name for f in fields(Strips)], code)


def _height(code: Code, tallest: int, left: Value) -> Value:
    """Rows of the next strip: what is left over is shared by the last two."""
    most = index(tallest)
    half = code.op("lshr", plus(code, left, 1), index(1))
    few = code.select(code.compare("sle", left, most), left, half)
    return code.select(code.compare("sge", left, index(2 * tallest)), most, few)
