"""Direct convolution in blocked layouts: tiles of pixels by vectors of output channels.

For each tap of the window and each input channel, an element of the image at each pixel is spread out and multiplied by
vectors of weights, which lie in the order in which they are read: ``[M / panel, C / block, *window, block, panel]``.
This is the direct convolution of Georganas et al., "Anatomy of High-Performance Deep Learning Convolutions on SIMD
Architectures" (2018).

Narrow elements are taken in words, some channels in each, as `llvm_dot` multiplies them: a word stands where an element
stands above.
"""

from __future__ import annotations

from omniop.backends.codegen import llvm_vector
from omniop.backends.codegen.llvm_dot import Dot
from omniop.backends.codegen.llvm_flow import argument, fma, plus, prefetch, word, zeros
from omniop.backends.codegen.llvm_ir import Code, Loop, Module, Value, index
from omniop.backends.codegen.llvm_tile_store import TilePrinter
from omniop.backends.codegen.llvm_tiles import PANEL, TapWord, Tile, TileStore, block_of
from omniop.opset.dtype import FLOAT32, INT32, INT64


def print_conv_tile(module: Module, tile: Tile, stored: TileStore, kind: Dot | None) -> None:
    """Adds ``conv_tile``. Of a tap are told: where its elements begin, counted from the first pixel, and its
    weights, and how many channels follow each other there. ``kind``: of words; None for float32."""
    printer = TilePrinter(module, tile, stored)
    printer.finish("conv_tile", _sums(printer.root, tile, kind))


def _sums(code: Code, tile: Tile, kind: Dot | None) -> list[Value]:
    lanes = block_of(code.module.target)
    start = [zeros(lanes)] * (tile.vectors * tile.lines * tile.columns)
    taps = Loop(code, tap := Code(code.module), [index(0), *start])
    number, *sums = taps.carried
    table = tap.element("%taps", INT64, tap.mul(number, index(len(TapWord))))
    first, below, channels = (word(tap, table, k) for k in (TapWord.X, TapWord.W, TapWord.CHANNELS))
    lines = [
        tap.element("%x", FLOAT32, plus(tap, first, tap.mul(argument("line"), index(k)) if k else 0))
        for k in range(tile.lines)
    ]
    # one channel a turn: of several, LLVM would load ahead for later ones, into registers that there are not
    loop = Loop(tap, inside := Code(code.module), [index(0), below, *sums])
    channel, at, *sums = loop.carried
    row = inside.element("%w", FLOAT32, at)
    prefetch(inside, inside.element("%ahead", FLOAT32, at))
    held = FLOAT32 if kind is None else INT32
    weights = [
        llvm_vector.load(inside, inside.element(row, held, index(v * lanes)), held, lanes) for v in range(tile.vectors)
    ]
    starts = [inside.element(line, FLOAT32, channel) for line in lines]
    count = tile.lines * tile.columns
    for k, (line, column) in enumerate(tile.pixels):
        place = inside.element(starts[line], held, index(column * tile.step))
        element = inside.splat(llvm_vector.load(inside, place, held), lanes)
        for v in range(tile.vectors):
            total = sums[v * count + k]
            add = (
                fma(inside, element, weights[v], total)
                if kind is None
                else kind.add(inside, total, element, weights[v])
            )
            sums[v * count + k] = add
    following = plus(inside, channel, 1)
    next_row = plus(inside, at, PANEL * lanes)
    _, _, *sums = loop.close([following, next_row, *sums], inside.compare("slt", following, channels))
    after = plus(tap, number, 1)
    _, *sums = taps.close([after, *sums], tap.compare("slt", after, argument("tap_count")))
    return sums
