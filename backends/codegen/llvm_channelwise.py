"""Windows that slide over each channel by itself, in blocked layouts: depthwise convolution and pooling.

A tile is some pixels of a line for one block of channels, on several lines. For each tap of the window, vectors of the
image are multiplied by the tap's vector of weights and added to the sums, or joined to them as they are. A row of the
window is printed as a whole, and what several pixels read is loaded once.
"""

from __future__ import annotations

from dataclasses import dataclass

from omniop.backends.codegen.llvm_flow import argument, fma, load, plus, word
from omniop.backends.codegen.llvm_ir import Code, Loop, Module, Value, index
from omniop.backends.codegen.llvm_tile_store import TilePrinter
from omniop.backends.codegen.llvm_tiles import TapWord, Tile, TileStore, block_of
from omniop.backends.codegen.llvm_vector import combine, identity
from omniop.opset.dtype import FLOAT32, INT64

WEIGHTED = "weighted"
"""In place of a monoid: multiplied by weights and added."""


@dataclass(frozen=True)
class WindowRow:
    """How many taps of a row of the window a tile has side by side, and their distance in elements of the image."""

    taps: int = 1
    apart: int = 0


def print_channelwise_tile(module: Module, tile: Tile, stored: TileStore, monoid: str, row: WindowRow) -> None:
    """Adds ``channelwise_tile``. ``monoid``: how the window is reduced."""
    printer = TilePrinter(module, tile, stored)
    printer.finish_lines("channelwise_tile", lambda code, x: _sums(code, x, tile, monoid, row))


def _sums(code: Code, x: str, tile: Tile, monoid: str, row: WindowRow) -> list[Value]:
    lanes = block_of(code.module.target)
    weighted = monoid == WEIGHTED
    (start,) = identity("add" if weighted else monoid, [FLOAT32], lanes)
    taps = Loop(code, inside := Code(code.module), [index(0), *[start] * tile.columns])
    number, *sums = taps.carried
    taps.test(inside.compare("slt", number, argument("tap_count")))
    table = inside.element("%taps", INT64, inside.mul(number, index(len(TapWord))))
    first = inside.element(x, FLOAT32, word(inside, table, TapWord.X))
    weights: list[Value] = []
    if weighted:
        own = inside.element("%w", FLOAT32, word(inside, table, TapWord.W))
        weights = [load(inside, own, index(tap * lanes), lanes) for tap in range(row.taps)]
    for place, uses in sorted(_uses(tile, row).items()):
        element = load(inside, first, index(place), lanes)
        for column, tap in uses:
            if weighted:
                sums[column] = fma(inside, element, weights[tap], sums[column])
            else:
                (sums[column],) = combine(inside, monoid, [sums[column]], [element])
    return taps.close([plus(inside, number, row.taps), *sums])[1:]


def _uses(tile: Tile, row: WindowRow) -> dict[int, list[tuple[int, int]]]:
    """By place in the image: the (column, tap) that read it."""
    found: dict[int, list[tuple[int, int]]] = {}
    for column in range(tile.columns):
        for tap in range(row.taps):
            found.setdefault(column * tile.step + tap * row.apart, []).append((column, tap))
    return found
