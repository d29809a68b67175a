"""Products of narrow elements, and convolutions, for `llvm_narrow`: what one is, for one set of sizes, as a context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from omniop.backends.codegen import llvm_panels
from omniop.backends.codegen.llvm_blocks import BlockSize, Head
from omniop.backends.codegen.llvm_dot import Dot
from omniop.backends.codegen.llvm_gemm import BlockWord
from omniop.backends.codegen.llvm_ir import Target
from omniop.backends.codegen.llvm_narrow import entry, print_narrow
from omniop.backends.codegen.llvm_narrow_lines import ROW_BYTES
from omniop.backends.codegen.llvm_narrow_packing import PACKERS
from omniop.backends.codegen.llvm_narrow_strips import entry as strips_entry
from omniop.backends.codegen.llvm_narrow_strips import print_strips
from omniop.backends.codegen.llvm_narrow_tiles import WORD, Field, tile_of
from omniop.backends.codegen.llvm_panels import Tile
from omniop.backends.cpu import jit, products
from omniop.backends.cpu.products import Product, aligned
from omniop.backends.cpu.recording import shares

PANEL_BYTES = 1 << 18
"""Of a block's panels, which stay in the second cache."""
BLOCK_BYTES = 1 << 17
"""Of a block of sums, and of the rows that are copied for it."""
_COUNTS = (Field.B_K, Field.B_COLUMN, Field.B_Z, Field.B_Y)
"""Strides of the right operand, which a `Product` counts in elements."""


@cache
def tile() -> Tile:
    return tile_of(jit.host_target())


@cache
def function(kind: Dot) -> jit.MachineCode:
    """The compiled function; see `llvm_narrow.print_narrow`."""
    return jit.build_printed(entry(kind), print_narrow, kind)


@cache
def strips(target: Target, kind: Dot) -> jit.MachineCode:
    """The compiled function; see `llvm_narrow_strips.print_strips`."""
    return jit.build_printed(strips_entry(kind), print_strips, kind, target=target)


def words_of(k: int, kind: Dot) -> int:
    return -(-k // kind.group)


def columns_of(k: int, kind: Dot) -> int:
    """Columns of a block for sums of ``k`` terms."""
    fitting = PANEL_BYTES // (WORD * words_of(k, kind)) // tile().width * tile().width
    return min(max(fitting, tile().width), products.COLUMNS)


@dataclass
class Narrow:
    """A product as `products` describes it, in elements of ``kind``.

    ``in_panels``: the right operand lies in panels; ``zero``: buffer and place of the number its elements are counted
    from.
    """

    product: Product
    kind: Dot
    in_panels: bool = False
    zero: tuple[int, int] | None = None

    @property
    def function(self) -> jit.MachineCode:
        return function(self.kind)

    @property
    def points(self) -> int:
        return len(self.product.batches) * self.row_blocks * len(self.product.blocks)

    @property
    def weight(self) -> float:
        """Nanoseconds of a point."""
        return self.product.weight / self.kind.group

    @property
    def words(self) -> int:
        return words_of(self.product.k, self.kind)

    @property
    def run(self) -> int:
        """Columns of the largest block, in whole panels."""
        blocks, width = self.product.blocks, tile().width
        return -(-int((blocks[:, BlockWord.LINES] * blocks[:, BlockWord.COLUMNS]).max()) // width) * width

    @property
    def copies_rows(self) -> bool:
        """Whether the left operand's rows are not whole words where they lie."""
        product = self.product
        return product.fields[llvm_panels.Field.A_K] != 1 or product.k % self.kind.group != 0

    @property
    def row_block(self) -> int:
        """Rows of a block: of about equal height, in whole tiles."""
        row = max(WORD * self.run, WORD * self.words if self.copies_rows else 0)
        most, tiles = max(1, BLOCK_BYTES // row // tile().rows), -(-self.product.rows // tile().rows)
        pieces = shares(tiles, most, len(self.product.batches) * len(self.product.blocks))
        return -(-tiles // pieces) * tile().rows

    @property
    def row_blocks(self) -> int:
        return -(-self.product.rows // self.row_block)

    def context(
        self, epilogue: int, sizes: Sequence[int], buffers: int
    ) -> tuple[np.ndarray, tuple[np.ndarray | jit.MachineCode, ...]]:
        """See `products.Product.context`."""
        product, kind, width = self.product, self.kind, self.kind.left.itemsize
        stage_row = aligned(self.run * width + ROW_BYTES)
        panel = self.words * tile().width * WORD
        at_sizes = aligned((buffers + 1) * products.WORD)
        at_left = at_sizes + aligned((len(sizes) + BlockSize.PLACES + product.batches.shape[1]) * products.WORD)
        at_kept = at_left + (aligned(self.row_block * self.words * WORD) if self.copies_rows else 0)
        at_starts = at_kept + aligned(2 * products.WORD)
        at_stage = at_starts + aligned(self.row_block * WORD)
        at_panels = at_stage + stage_row * (kind.group + 1)
        at_block = at_panels + (0 if self.in_panels else panel * (self.run // tile().width))
        end = at_block + (self.row_block * self.run * WORD if epilogue else 0)
        taps, multiply = self._taps(), strips(jit.host_target(), self.kind)
        batches, blocks, numbers = (np.ascontiguousarray(t, np.int64) for t in (product.batches, product.blocks, sizes))
        a_row, a_k = (product.fields[getattr(llvm_panels.Field, name)] * width for name in ("A_ROW", "A_K"))
        buffer, start = (-1, 0) if self.zero is None else self.zero
        packer = -1 if self.in_panels else list(PACKERS).index(product.packer)
        fields = {
            Field.A_ROW: a_row,
            Field.A_K: a_k,
            Field.A_PACKED: self.copies_rows,
            Field.B_PANEL: panel,
            Field.C_ROW: self.run if epilogue else product.c_row,
            Field.ROWS: product.rows,
            Field.K: product.k,
            Field.WORDS: self.words,
            Field.ROW_BLOCK: self.row_block,
            Field.ROW_BLOCKS: self.row_blocks,
            Field.BLOCKS: len(blocks),
            Field.ROWS_INNER: not self.in_panels,
            Field.PACKER: packer,
            Field.ZERO_BUFFER: buffer,
            Field.ZERO_START: start,
            Field.BATCH_TABLE: batches.ctypes.data,
            Field.BATCH_WORDS: batches.shape[1],
            Field.BLOCK_TABLE: blocks.ctypes.data,
            Field.EPILOGUE: epilogue,
            Field.SIZES: numbers.ctypes.data,
            Field.SIZE_COUNT: len(numbers),
            Field.BUFFER_COUNT: buffers,
            Field.STAGE_ROW: stage_row,
            Field.SCRATCH_SIZES: at_sizes,
            Field.SCRATCH_LEFT: at_left,
            Field.SCRATCH_KEPT: at_kept,
            Field.SCRATCH_STARTS: at_starts,
            Field.SCRATCH_STAGE: at_stage,
            Field.SCRATCH_PANELS: at_panels,
            Field.SCRATCH_BLOCK: at_block,
            Field.STRIPS: multiply.address,
            Field.TAPS: taps.ctypes.data,
        }
        for name, value in product.fields.items():
            if name.name in _SHARED:
                fields[Field[name.name]] = value * width if Field[name.name] in _COUNTS else value
        table = np.zeros(len(Head) + len(Field), np.int64)
        table[Head.SCRATCH] = end
        table[list(fields)] = list(fields.values())
        return table, (taps, batches, blocks, numbers, multiply)

    def _taps(self) -> np.ndarray:
        """For each k of a window of all channels what `products` says for one channel."""
        product = self.product
        if product.taps is None:
            return np.zeros(1, np.int64)
        taps = np.ascontiguousarray(product.taps, np.int64)
        every = np.tile(taps, (product.k // len(taps), 1))
        every[:, 0] += np.repeat(np.arange(product.k // len(taps)), len(taps)) * product.fields[llvm_panels.Field.B_K]
        every[:, 0] *= self.kind.left.itemsize
        return every


_SHARED = frozenset(f.name for f in Field if f >= Field.DEPTH) | {f.name for f in _COUNTS}
