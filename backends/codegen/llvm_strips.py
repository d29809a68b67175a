"""All tiles of a block of a product: strips of rows, one after another, under each panel of columns.

They are a module of their own, most of what there is to compile, which whatever multiplies matrices calls by address.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

from omniop.backends.codegen.llvm_blocks import call_of, function_table
from omniop.backends.codegen.llvm_flow import argument, define, each, least, plus
from omniop.backends.codegen.llvm_ir import Code, Loop, Module, Value, index
from omniop.backends.codegen.llvm_panels import LINE, Tile, print_tile, tile_of
from omniop.opset.dtype import FLOAT32

ENTRY = "strips"


@dataclass(frozen=True)
class Strips:
    """A block's numbers: strides of the operands and from panel to panel, ``rows``, ``columns`` and ``steps`` of k.

    ``whole``: 1 where the result has room for whole vectors; ``more``: 1 to add to what it holds.
    """

    a_row: Value
    a_k: Value
    b_row: Value
    b_panel: Value
    rows: Value
    columns: Value
    steps: Value
    c_row: Value
    whole: Value
    more: Value

    @property
    def numbers(self) -> tuple[Value, ...]:
        return tuple(getattr(self, f.name) for f in fields(self))

    def call(self, code: Code, function: str, a: str, b: str, c: str) -> None:
        """``function``: the address of `print_strips`' function."""
        code.do(f"call void {function}(ptr {a}, ptr {b}, ptr {c}, {', '.join(map(str, self.numbers))})")


def print_strips(module: Module) -> None:
    """Adds ``strips``, which `Strips` calls, and its tiles. The first strips ask for the next panel: it is read from
    memory while this one is in the caches."""
    tile = tile_of(module.target)
    heights = range(1, tile.rows + 1)
    names = [f"tile_{rows}x{vectors}" for rows in heights for vectors in range(1, tile.vectors + 1)]
    for rows in heights:
        for vectors in range(1, tile.vectors + 1):
            print_tile(module, f"tile_{rows}x{vectors}", rows, vectors)
    function_table(module, "tiles", names)

    code = Code(module)
    given = Strips(*(argument(f.name) for f in fields(Strips)))
    several = code.compare("sgt", given.rows, index(tile.rows))  # a panel that is used once is streamed well as it is
    askers = code.select(several, index(tile.width // LINE), index(0))
    whole = code.compare("ne", given.whole, index(0))

    def panel(outer: Code, x: Value) -> None:
        columns = least(outer, outer.op("sub", given.columns, x), index(tile.width))
        vectors = outer.op("udiv", plus(outer, columns, tile.lanes - 1), index(tile.lanes))
        written = outer.select(whole, index(tile.width), columns)
        right = outer.element("%b", FLOAT32, outer.mul(outer.op("udiv", x, index(tile.width)), given.b_panel))
        after = outer.element(right, FLOAT32, given.b_panel)
        line = outer.element("%c", FLOAT32, x)

        loop = Loop(outer, inside := Code(module), [index(0), index(0)])
        row, strip = loop.carried
        loop.test(inside.compare("slt", row, given.rows))
        height = _height(inside, tile, inside.op("sub", given.rows, row))
        lines = inside.element(after, FLOAT32, inside.mul(strip, inside.mul(given.steps, index(LINE))))
        ahead = inside.let(f"select {inside.compare('slt', strip, askers)}, ptr {lines}, ptr {right}")
        left = inside.element("%a", FLOAT32, inside.mul(row, given.a_row))
        place = inside.element(line, FLOAT32, inside.mul(row, given.c_row))
        numbers = (given.a_row, given.a_k, given.b_row, given.steps, given.c_row, written, given.more)
        shape = inside.add(inside.mul(plus(inside, height, -1), index(tile.vectors)), plus(inside, vectors, -1))
        call_of(inside, "tiles", shape, (left, right, place, ahead), numbers)
        loop.close([inside.add(row, height), plus(inside, strip, 1)])

    each(code, index(0), given.columns, tile.width, panel)
    define(module, ENTRY, ("a", "b", "c"), [f.name for f in fields(Strips)], code)


def _height(code: Code, tile: Tile, left: Value) -> Value:
    """Rows of the next strip: what is left over is shared by the last two, since a flat one keeps the multipliers
    waiting."""
    most = index(tile.rows)
    half = code.op("lshr", plus(code, left, 1), index(1))
    few = code.select(code.compare("sle", left, most), left, half)
    return code.select(code.compare("sge", left, index(2 * tile.rows)), most, few)
