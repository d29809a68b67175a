"""Windows that slide over each channel by itself, in blocked layouts: depthwise convolution and pooling.

A tile is some pixels of a line for one block of channels. For each tap of the window, vectors of the image are
multiplied by the tap's vector of weights and added to the sums, or joined to them as they are.
"""

from __future__ import annotations

from omniop.backends.codegen.llvm_flow import argument, fma, load, plus, word
from omniop.backends.codegen.llvm_ir import Code, Loop, Module, Value, index
from omniop.backends.codegen.llvm_tile_store import TilePrinter
from omniop.backends.codegen.llvm_tiles import TapWord, Tile, TileStore, block_of
from omniop.backends.codegen.llvm_vector import combine, identity
from omniop.opset.dtype import FLOAT32, INT64

WEIGHTED = "weighted"
"""In place of a monoid: multiplied by weights and added."""


def print_channelwise_tile(module: Module, tile: Tile, stored: TileStore, monoid: str) -> None:
    """Adds ``channelwise_tile``. ``monoid``: how the window is reduced."""
    printer = TilePrinter(module, tile, stored)
    printer.finish("channelwise_tile", _sums(printer.root, tile, monoid))


def _sums(code: Code, tile: Tile, monoid: str) -> list[Value]:
    lanes = block_of(code.module.target)
    weighted = monoid == WEIGHTED
    (start,) = identity("add" if weighted else monoid, [FLOAT32], lanes)
    taps = Loop(code, tap := Code(code.module), [index(0), *[start] * tile.columns])
    number, *sums = taps.carried
    taps.test(tap.compare("slt", number, argument("tap_count")))
    table = tap.element("%taps", INT64, tap.mul(number, index(len(TapWord))))
    first = tap.element("%x", FLOAT32, word(tap, table, TapWord.X))
    weights = load(tap, "%w", word(tap, table, TapWord.W), lanes) if weighted else None
    for column in range(tile.columns):
        element = load(tap, first, index(column * tile.step), lanes)
        if weights is None:
            (sums[column],) = combine(tap, monoid, [sums[column]], [element])
        else:
            sums[column] = fma(tap, element, weights, sums[column])
    return taps.close([plus(tap, number, 1), *sums])[1:]
