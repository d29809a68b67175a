"""Products of `winograd` into pixels, as LLVM IR: what tiles of a blocked result store."""

from __future__ import annotations

from omniop.backends.codegen.llvm_flow import argument, load
from omniop.backends.codegen.llvm_ir import Module, index
from omniop.backends.codegen.llvm_tile_store import TilePrinter
from omniop.backends.codegen.llvm_tiles import Tile, TileStore, block_of
from omniop.backends.codegen.llvm_winograd_lines import both_ways, pixel_line
from omniop.backends.codegen.winograd import Winograd

PIXELS = "winograd_pixels"


def print_pixel_tile(module: Module, winograd: Winograd, tile: Tile, stored: TileStore) -> None:
    """A tile function, see `llvm_tiles`, of the first ``tile.lines * tile.columns`` pixels of a tile. Products of its
    block of channels begin at ``x``, ``line`` elements from one to the next."""
    printer = TilePrinter(module, tile, stored)
    code, size = printer.root, winograd.size
    apart, block = argument("line"), block_of(module.target)
    products = [
        [load(code, "%x", code.mul(apart, index(i * size + j)), block) for i in range(size)] for j in range(size)
    ]
    pixels = both_ways(code, winograd, pixel_line, products)
    printer.finish(PIXELS, [pixels[line][column] for line, column in tile.pixels])
