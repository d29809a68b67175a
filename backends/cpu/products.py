"""Matrix products and convolutions for the panels of `llvm_gemm`: what one is, for one set of sizes, as a context.

A convolution is a product of its weights ``[M, C / group * window]`` and of windows ``[C / group * window, pixels]``
that are packed from the image, a few rows of pixels at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from math import prod

import numpy as np

from omniop.backends.codegen.llvm_blocks import BlockSize, Head
from omniop.backends.codegen.llvm_gemm import ENTRY, BlockWord, print_gemm
from omniop.backends.codegen.llvm_ir import Target
from omniop.backends.codegen.llvm_packing import print_packer
from omniop.backends.codegen.llvm_panels import Field, Tile, tile_of
from omniop.backends.codegen.llvm_strips import ENTRY as STRIPS
from omniop.backends.codegen.llvm_strips import print_strips
from omniop.backends.cpu import jit
from omniop.backends.cpu.memory import ALIGNMENT
from omniop.backends.cpu.recording import shares
from omniop.backends.cpu.views import Window
from omniop.backends.cpu.windows import Geometry
from omniop.opset.dtype import FLOAT32

PANELS_K_BLOCK = 1024
"""Steps of k that are taken at a time of a right operand that lies in panels: one of them fits in the second cache."""
K_BLOCK = 160
"""Steps of k that are packed at a time: a panel of them fits in the first cache beside a strip of rows ..."""
COLUMNS = 128
"""... and so many columns of them in the second one."""
ROW_BLOCK = 256
"""Rows of the result in a block, at most."""

DIRECT_ROWS = 12
"""Rows of the result up to which the right operand is not packed."""

SPEED = 7.0
"""Multiplications and additions that one lane does in a nanosecond, about."""
STREAM = 25.0
"""Bytes that come from memory in a nanosecond, about."""
FRAME_STEP = 4
"""Stride of a window from which on its elements are read side by side, and not its places."""
WORD = 8
"""Bytes of a number or an address in a context."""


@cache
def tile() -> Tile:
    return tile_of(jit.host_target())


@cache
def gemm() -> jit.MachineCode:
    """The compiled function; see `llvm_gemm.print_gemm`."""
    return jit.build_printed(ENTRY, print_gemm)


@cache
def strips(target: Target) -> jit.MachineCode:
    """The compiled function; see `llvm_strips.print_strips`."""
    return jit.build_printed(STRIPS, print_strips, target=target)


@cache
def packing(target: Target, name: str) -> jit.MachineCode:
    """The compiled function; see `llvm_packing.PACKERS`."""
    return jit.build_printed(f"pack_{name}", print_packer, name, target=target)


@dataclass
class Product:
    """``c[batch] = a[batch] @ b[batch]`` as `Field` describes it.

    ``batches``: a line of `BatchWord` each; ``blocks``: a line of `BlockWord` each; ``fields``: what the packer takes.
    """

    rows: int
    k: int
    packer: str
    batches: np.ndarray
    blocks: np.ndarray
    fields: Mapping[Field, int]
    taps: np.ndarray | None = None
    c_row: int = 0
    """Stride from row to row of the result."""

    @property
    def function(self) -> jit.MachineCode:
        return gemm()

    @property
    def points(self) -> int:
        return len(self.batches) * self.row_blocks * len(self.blocks)

    @property
    def weight(self) -> float:
        """Nanoseconds of a point: of its arithmetic, or of reading the right operand."""
        run = float((self.blocks[:, BlockWord.LINES] * self.blocks[:, BlockWord.COLUMNS]).mean())
        arithmetic = 2 * run * self.rows / self.row_blocks * self.k / (SPEED * tile().lanes)
        return max(arithmetic, run * self.k * FLOAT32.itemsize / STREAM)

    @property
    def direct(self) -> bool:
        """Whether b is read where it lies: packing is for what is read again and again."""
        runs = self.blocks[:, BlockWord.LINES] * self.blocks[:, BlockWord.COLUMNS]
        whole = self.rows <= DIRECT_ROWS and not (runs % tile().lanes).any()
        return self.packer == "panels" or (self.packer == "rows" and whole)

    @property
    def row_blocks(self) -> int:
        return -(-self.rows // ROW_BLOCK)

    @property
    def k_block(self) -> int:
        most = K_BLOCK
        if self.packer == "panels":
            most = PANELS_K_BLOCK if self.rows > tile().rows else self.k
        return -(-self.k // -(-self.k // most))

    @property
    def row_block(self) -> int:
        """Blocks are of about equal height, in whole tiles."""
        even = -(-self.rows // self.row_blocks)
        return -(-even // tile().rows) * tile().rows

    def context(
        self, epilogue: int, sizes: Sequence[int], buffers: int
    ) -> tuple[np.ndarray, tuple[np.ndarray | jit.MachineCode, ...]]:
        """The context but for `Head`'s buffers, and what has to live as long.

        ``epilogue``: address of its kernel, or 0; ``sizes`` and the number of ``buffers`` that it has before those of
        the block.
        """
        width = tile().width
        table = np.zeros(len(Head) + len(Field), np.int64)
        run = int((self.blocks[:, BlockWord.LINES] * self.blocks[:, BlockWord.COLUMNS]).max())
        run = -(-run // width) * width
        b_row = run + width * (1 + run // width % 2)  # room for a packer; an odd number of panels uses all of a cache
        k_block = self.k_block
        at_sizes = aligned((buffers + 1) * WORD)
        at_panels = at_sizes + aligned((len(sizes) + BlockSize.PLACES + self.batches.shape[1]) * WORD)
        end = at_block = at_panels + (0 if self.direct else aligned(4 * k_block * b_row))
        if epilogue:
            end += 4 * self.row_block * run
        table[Field.B_PANEL] = self.fields.get(Field.B_PANEL, width)
        table[Field.C_ROW], table[Field.B_ROW] = run if epilogue else self.c_row, b_row
        batches, blocks, numbers = (np.ascontiguousarray(t, np.int64) for t in (self.batches, self.blocks, sizes))
        table[Field.ROWS], table[Field.K], table[Field.K_BLOCK] = self.rows, self.k, k_block
        table[Field.ROW_BLOCK], table[Field.ROW_BLOCKS] = self.row_block, self.row_blocks
        table[Field.BLOCKS], table[Field.BLOCK_TABLE] = len(blocks), blocks.ctypes.data
        table[Field.BATCH_TABLE], table[Field.BATCH_WORDS] = batches.ctypes.data, batches.shape[1]
        table[Field.EPILOGUE], table[Field.BUFFER_COUNT] = epilogue, buffers
        table[Field.SIZES], table[Field.SIZE_COUNT] = numbers.ctypes.data, len(numbers)
        table[[Field.SCRATCH_SIZES, Field.SCRATCH_PANELS, Field.SCRATCH_BLOCK]] = at_sizes, at_panels, at_block
        multiply = strips(jit.host_target())
        table[Field.STRIPS] = multiply.address
        code = [multiply] if self.direct else [multiply, packing(jit.host_target(), self.packer)]
        table[Field.PACKER] = 0 if self.direct else code[-1].address
        taps = np.ascontiguousarray(() if self.taps is None else self.taps, np.int64)
        table[Field.TAPS] = taps.ctypes.data
        for name, value in self.fields.items():
            table[name] = value
        table[Head.SCRATCH] = end
        return table, (batches, blocks, numbers, taps, *code)


def aligned(nbytes: int) -> int:
    """As many bytes, up to a whole cache line."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT


def packed_product(a: Window, b: Window, c: Window) -> Product:
    """``a[*batch, M, K] @ b[K, N] = c[*batch, M, N]``, the panels of b following each other, each as wide as a tile."""
    width, (*batch, rows, _) = tile().width, a.shape
    panels, times = -(-b.shape[-1] // width), prod(batch) * -(-rows // ROW_BLOCK)
    found = matrix_product(a, b, c, -(-panels // shares(panels, COLUMNS // width, times)) * width)
    found.packer = "panels"
    found.fields = {**found.fields, Field.B_K: width, Field.B_PANEL: found.k * width}
    found.blocks[:, BlockWord.X] *= found.k
    return found


def matrix_product(a: Window, b: Window, c: Window, most: int = COLUMNS) -> Product:
    """``a[*batch, M, K] @ b[*batch, K, N] = c[*batch, M, N]``, in blocks of at most so many columns."""
    *batch, rows, k = a.shape
    columns = b.shape[-1]
    fields = {Field.A_ROW: a.strides[-2], Field.A_K: a.strides[-1]}
    fields |= {Field.B_K: b.strides[-2], Field.B_COLUMN: b.strides[-1]}
    packer = "rows" if b.strides[-1] == 1 else "columns" if b.strides[-2] == 1 else "any"
    places = np.indices(batch).reshape(len(batch), prod(batch))
    first = [_dot(places, w.strides) for w in (a, b, c)]
    batches = np.stack([*first, np.zeros_like(first[0]), *places], axis=1)
    starts = np.arange(0, columns, most)
    blocks = np.zeros((len(starts), len(BlockWord)), np.int64)
    counts = np.minimum(columns - starts, most)
    blocks[:, [BlockWord.LINES, BlockWord.COUNT_Y]] = 1
    for words, values in (
        ((BlockWord.X, BlockWord.C, BlockWord.PLACE_X), starts),
        ((BlockWord.COLUMNS, BlockWord.COUNT_X), counts),
    ):
        blocks[:, words] = values[:, None]
    return Product(rows, k, packer, batches, blocks, fields, c_row=c.strides[-2])


def _dot(places: np.ndarray, strides: Sequence[int]) -> np.ndarray:
    """Offset of each column of ``places``, which has a line an axis."""
    weights = np.array(strides[: len(places)], np.int64)
    result: np.ndarray = (places * weights[:, None]).sum(axis=0, dtype=np.int64)
    return result


def convolution(
    x: Window, w: Window, out: Window, geometry: Geometry, group: int, by_lines: bool, most: int = COLUMNS
) -> Product:
    """``x[N, C, *spatial], w[M, C / group, *window] -> out[N, M, *outs]`` in one to three dims of space; the weights'
    elements follow each other at one stride, and so do the image's along its last axis, at 1.

    ``by_lines``: the epilogue counts lines and columns, and does not see pixels as one run. ``most``: pixels of a
    block, about."""
    rows, depth = w.shape[0] // group, w.shape[1]
    images, groups = (i.ravel() for i in np.indices((x.shape[0], group)))
    batches = np.stack(
        [
            groups * rows * w.strides[0],
            images * x.strides[0] + groups * depth * x.strides[1],
            images * out.strides[0] + groups * rows * out.strides[1],
            groups * rows,
            images,
        ],
        axis=1,
    )
    k = depth * prod(geometry.kernel)
    fields = {Field.A_ROW: w.strides[0], Field.A_K: step_through(w.shape[1:], w.strides[1:]) or 1}
    if _is_pointwise(x, out, geometry):
        blocks = _runs_of_pixels(out.shape[2:], by_lines, most)
        fields[Field.B_K] = x.strides[1]
        return Product(rows, k, "rows", batches, blocks, fields, c_row=out.strides[1])
    if _is_framing(x, w, geometry):
        fields |= {Field.B_K: geometry.dilations[-1], Field.B_COLUMN: geometry.strides[-1]}
        blocks = _runs_of_pixels(out.shape[2:], by_lines, most)
        packer = "columns" if geometry.dilations[-1] == 1 else "any"
        return Product(rows, k, packer, batches, blocks, fields, c_row=out.strides[1])
    taps, more = _windows(x, geometry)
    blocks = _rows_of_pixels(out.shape[2:], by_lines, most)
    return Product(rows, k, "windows", batches, blocks, fields | more, taps, out.strides[1])


def _is_pointwise(x: Window, out: Window, geometry: Geometry) -> bool:
    """Whether output pixel k is made from input pixel k alone, wherever it is."""
    plain = prod(geometry.kernel) == 1 and not any(geometry.pads) and x.shape[2:] == out.shape[2:]
    return plain and set(geometry.strides) == {1} and step_through(x.shape[2:], x.strides[2:]) == 1


def _is_framing(x: Window, w: Window, geometry: Geometry) -> bool:
    """Whether windows are frames of one signal, whose elements lie side by side more than frames do."""
    flat = w.shape[1] == prod(geometry.kernel[:-1]) == prod(x.shape[2:-1]) == 1
    return flat and geometry.strides[-1] > FRAME_STEP and not any(geometry.pads)


def step_through(shape: Sequence[int], strides: Sequence[int]) -> int | None:
    """The stride at which elements follow each other in row-major order, if it is one; 1 for a single element."""
    step, reach = None, 1
    for extent, stride in zip(reversed(shape), reversed(strides), strict=True):
        if extent != 1:
            step = stride if step is None else step
            if stride != step * reach:
                return None
        reach *= extent
    return 1 if step is None else step


def _windows(x: Window, geometry: Geometry) -> tuple[np.ndarray, dict[Field, int]]:
    """The taps of a window, and the fields of the packer of windows; missing dims of space in front are of 1."""
    missing = 3 - len(geometry.kernel)

    def three(values: Sequence[int], other: int) -> list[int]:
        return [other] * missing + list(values)

    window, dilations, steps = (three(v, 1) for v in (geometry.kernel, geometry.dilations, geometry.strides))
    strides = three(x.strides[2:], 0)
    places = [i.ravel() * d for i, d in zip(np.indices(window), dilations, strict=True)]
    offset = sum(p * s for p, s in zip(places, strides, strict=True))
    extents, pads = three(x.shape[2:], 1), three(geometry.pads[: len(geometry.kernel)], 0)
    names = (
        *(Field.DEPTH, Field.HEIGHT, Field.WIDTH, Field.B_Z, Field.B_Y, Field.STEP_Z, Field.STEP_Y, Field.STEP_X),
        *(Field.PAD_Z, Field.PAD_Y, Field.PAD_X, Field.B_K, Field.TAP_COUNT),
    )
    values = (*extents, *strides[:2], *steps, *pads, x.strides[1], prod(window))
    return np.stack([offset, *places], axis=1), dict(zip(names, values, strict=True))


def _runs_of_pixels(shape: Sequence[int], by_lines: bool, most: int) -> np.ndarray:
    """Blocks of `_rows_of_pixels` for a packer that takes their pixels as one run."""
    blocks = _rows_of_pixels(shape if by_lines else (prod(shape),), by_lines, most)
    blocks[:, BlockWord.X] = blocks[:, BlockWord.C]
    blocks[:, BlockWord.COLUMNS] *= blocks[:, BlockWord.LINES]
    blocks[:, BlockWord.LINES] = 1
    return blocks


def _rows_of_pixels(shape: Sequence[int], by_lines: bool, most: int) -> np.ndarray:
    """Blocks of several rows of pixels, or of a part of a row."""
    *lead, extent = shape
    depth, height = [1] * (2 - len(lead)) + list(lead)
    step_x, step_y = extent, max(1, most // extent)
    if extent > most:
        parts = -(-extent // most)
        step_x = -(-extent // (parts * tile().width)) * tile().width
    z, y, x = (
        i.ravel()
        for i in np.meshgrid(
            np.arange(depth), np.arange(0, height, step_y), np.arange(0, extent, step_x), indexing="ij"
        )
    )
    blocks = np.zeros((len(z), len(BlockWord)), np.int64)
    lines, columns = np.minimum(height - y, step_y), np.minimum(extent - x, step_x)
    for word, values in (
        (BlockWord.Z, z),
        (BlockWord.Y, y),
        (BlockWord.LINES, lines),
        (BlockWord.X, x),
        (BlockWord.COLUMNS, columns),
        (BlockWord.C, (z * height + y) * extent + x),
        (BlockWord.PLACE_Z, z),
        (BlockWord.PLACE_Y, y),
        (BlockWord.PLACE_X, x),
        (BlockWord.COUNT_Y, lines),
        (BlockWord.COUNT_X, columns),
    ):
        blocks[:, word] = values
    if not by_lines:
        blocks[:, BlockWord.PLACE_X] = blocks[:, BlockWord.C]
        blocks[:, BlockWord.COUNT_X] *= lines
        blocks[:, [BlockWord.PLACE_Z, BlockWord.PLACE_Y]] = 0
        blocks[:, BlockWord.COUNT_Y] = 1
    return blocks
