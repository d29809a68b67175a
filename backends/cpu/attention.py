"""Attention as `llvm_attention` does it: what it is, for one set of sizes, as records of packing and of products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import product

import numpy as np

from omniop.backends.array_eval import size_names
from omniop.backends.base import YES, Answer, No, OpContext
from omniop.backends.codegen import llvm_attention_rounded
from omniop.backends.codegen.llvm_attention import (
    ENTRY,
    PACK_ENTRY,
    BatchWord,
    Field,
    PackWord,
    print_attention,
    print_pack,
)
from omniop.backends.codegen.llvm_attention_rounded import KIND
from omniop.backends.codegen.llvm_blocks import BlockSize, Head
from omniop.backends.codegen.llvm_narrow_lines import ROW_BYTES
from omniop.backends.codegen.llvm_narrow_tiles import Field as NarrowField
from omniop.backends.codegen.llvm_panels import Field as PanelField
from omniop.backends.codegen.llvm_panels import Tile
from omniop.backends.cpu import fused, jit, narrow
from omniop.backends.cpu.jit import CompiledKernel
from omniop.backends.cpu.kept import Later
from omniop.backends.cpu.launch import CompiledLaunch, build_kernels
from omniop.backends.cpu.panels import writes_itself
from omniop.backends.cpu.products import SPEED, STREAM, WORD, aligned, packing, strips, tile
from omniop.backends.cpu.program import RecordedWork
from omniop.backends.cpu.recording import Context, Record, Recording
from omniop.opset import expr
from omniop.opset.dtype import BFLOAT16, FLOAT32
from omniop.opset.kernel import Call, Kernel, View
from omniop.opset.legalise import Capabilities

BLOCK_BYTES = 3 << 15
"""Of scores, which stay in the second cache beside panels."""
MOST_ROWS = 96
"""Of queries in a block."""
FEW_READS = 4
"""Queries that read a key, up to which it is read where it lies."""
PACKED_IN = 0.3
"""Nanoseconds for an element of a panel, about."""


def accepts(op: OpContext) -> Answer:
    dtypes = {None if t is None else t.dtype for t in op.inputs}
    if dtypes not in ({FLOAT32}, {BFLOAT16}) or any(t.dtype is not FLOAT32 for t in op.outputs):
        return No("dtype", "it gives float32, of operands of float32 or of bfloat16")
    return YES


@cache
def _attention(rounded: bool) -> jit.MachineCode:
    if rounded:
        return jit.build_printed(llvm_attention_rounded.ENTRY, llvm_attention_rounded.print_attention)
    return jit.build_printed(ENTRY, print_attention)


@cache
def _pack(rounded: bool) -> jit.MachineCode:
    if rounded:
        return jit.build_printed(llvm_attention_rounded.PACK_ENTRY, llvm_attention_rounded.print_pack)
    return jit.build_printed(PACK_ENTRY, print_pack)


class AttentionCall(RecordedWork):
    """``call``: of the prim "attention"; see `omniop.opset.definitions.Attention`."""

    def __init__(self, call: Call, caps: Capabilities) -> None:
        super().__init__()
        self._call = Later.of(call)
        self._scores = None if call.scores is None else _built(fused.scores_kernel(call, caps))
        self._epilogue = None if writes_itself(call) else _built(fused.block_kernel(call, caps))

    def record(self, sizes: tuple[int, ...]) -> Recording:
        call, names = self._call(), size_names(sizes)
        numbers = [_Matrices(view, names) for view in (*call.operands, call.results[0])]
        q, k, v, c = numbers
        itemsize = call.operands[0].dtype.itemsize
        table = np.zeros((len(q.starts), BatchWord.PLACES + len(q.batch)), np.int64)
        table[:, BatchWord.Q], table[:, BatchWord.C] = q.starts, c.starts
        table[:, BatchWord.PLACES :] = list(product(*map(range, q.batch)))
        width = q.tile.width
        if _read_as_they_are(q, k, v):
            table[:, BatchWord.KEY], table[:, BatchWord.VALUE] = k.starts, v.starts
            places = {Field.KEY_BUFFER: k.buffer, Field.VALUE_BUFFER: v.buffer, Field.KEY_ROW: k.strides[1]}
            places |= {Field.VALUE_ROW: v.strides[0], Field.VALUE_PANEL: width}
            return Recording((self._products(call, numbers, table, places, sizes),))
        workspace = len(call.params)
        keys, key_bytes = _packed(k, workspace, 0)
        values, value_bytes = _packed(v, workspace, key_bytes)
        table[:, BatchWord.KEY] = k.numbers * k.panel_elements
        table[:, BatchWord.VALUE] = key_bytes // itemsize + v.numbers * v.panel_elements
        places = {Field.KEY_BUFFER: workspace, Field.VALUE_BUFFER: workspace}
        places |= {Field.VALUE_ROW: width, Field.VALUE_PANEL: v.shape[0] * width}
        work = self._products(call, numbers, table, places, sizes)
        return Recording((keys, values, work), key_bytes + value_bytes)

    def _products(
        self,
        call: Call,
        numbers: Sequence[_Matrices],
        table: np.ndarray,
        places: Mapping[Field, int],
        sizes: Sequence[int],
    ) -> Record:
        """``table``: of the batches; ``places``: of keys and values."""
        q, _, v, c = numbers
        (queries, depth), (keys, columns) = q.shape, v.shape
        rounded = call.operands[0].dtype is BFLOAT16
        width, lanes, tallest = q.tile.width, q.tile.lanes, q.tile.rows
        score_row = -(-keys // width) * width + lanes  # of whole tiles; an odd number of vectors uses all of a cache
        fit = min(MOST_ROWS, max(1, BLOCK_BYTES // (FLOAT32.itemsize * score_row * tallest)) * tallest)
        even = -(-queries // -(-queries // fit))
        row_block = -(-even // tallest) * tallest
        row_blocks = -(-queries // row_block)
        block_row = -(-columns // width) * width
        target = jit.host_target()
        multiply = narrow.strips(target, KIND) if rounded else strips(target)
        code = [multiply, *(kernel.code for kernel in (self._scores, self._epilogue) if kernel is not None)]
        own = np.array([*sizes, 0], np.int64)
        at_sizes = aligned((len(call.params) + 2) * WORD)
        at_scores = at_sizes + aligned((len(sizes) + BlockSize.PLACES + len(q.batch)) * WORD)
        at_factors = at_scores + aligned(FLOAT32.itemsize * row_block * score_row)
        at_block = at_factors + aligned(FLOAT32.itemsize * row_block)
        at_queries = at_block + (0 if self._epilogue is None else aligned(FLOAT32.itemsize * row_block * block_row))
        end = at_queries + (aligned(row_block * narrow.words_of(depth, KIND) * FLOAT32.itemsize) if rounded else 0)
        context = np.zeros(len(Head) + len(Field), np.int64)
        context[[Head.A_BUFFER, Head.B_BUFFER, Head.C_BUFFER, Head.SCRATCH]] = q.buffer, q.buffer, c.buffer, end
        for field, value in {
            **places,
            Field.Q_ROW: q.strides[0],
            Field.Q_STEP: q.strides[1],
            Field.DEPTH: depth,
            Field.QUERIES: queries,
            Field.KEYS: keys,
            Field.COLUMNS: columns,
            Field.ROW_BLOCK: row_block,
            Field.ROW_BLOCKS: row_blocks,
            Field.SCORE_ROW: score_row,
            Field.C_ROW: c.strides[0] if self._epilogue is None else block_row,
            Field.BLANK: call.attr("blank"),
            Field.BATCH_TABLE: table.ctypes.data,
            Field.BATCH_WORDS: table.shape[1],
            Field.STRIPS: multiply.address,
            Field.SCORES: 0 if self._scores is None else self._scores.address,
            Field.EPILOGUE: 0 if self._epilogue is None else self._epilogue.address,
            Field.SIZES: own.ctypes.data,
            Field.SIZE_COUNT: len(sizes),
            Field.BUFFER_COUNT: len(call.params),
            Field.SCRATCH_SIZES: at_sizes,
            Field.SCRATCH_SCORES: at_scores,
            Field.SCRATCH_FACTORS: at_factors,
            Field.SCRATCH_BLOCK: at_block,
            Field.SCRATCH_QUERIES: at_queries,
        }.items():
            context[field] = value
        arithmetic = 2 * queries * keys * (depth + columns) / (SPEED * lanes * (KIND.group if rounded else 1))
        reading = FLOAT32.itemsize * keys * (depth + columns) / STREAM
        weight = max(arithmetic, reading) / row_blocks
        return Record(
            _attention(rounded),
            Context(context, (table, own, *code)),
            len(table) * row_blocks,
            weight=weight,
            scratch=end,
        )


def _read_as_they_are(q: _Matrices, k: _Matrices, v: _Matrices) -> bool:
    """Whether keys and values are read too seldom to be packed, and lie so that they can be read."""
    if q.dtype is BFLOAT16:
        return False
    seldom = q.shape[0] * len(q.starts) <= FEW_READS * min(len(k.different), len(v.different))
    whole = q.shape[1] % q.tile.lanes == 0 == v.shape[1] % q.tile.lanes
    return seldom and whole and q.strides[1] == k.strides[0] == v.strides[1] == 1 and k.strides[1] != 0


def _built(kernel: Kernel) -> CompiledKernel:
    (launch,) = build_kernels([kernel])
    assert isinstance(launch, CompiledLaunch)
    return launch.kernel


class _Matrices:
    """The matrices of a view, for one set of sizes: ``starts`` of each, in elements, and among those that differ
    (``different``) its number."""

    def __init__(self, view: View, sizes: dict[str, int]) -> None:
        extents = [expr.evaluate(d, sizes) for d in view.shape]
        strides = [expr.evaluate(s, sizes) for s in view.strides]
        self.buffer, self.dtype = view.buffer, view.dtype
        self.batch, self.shape, self.strides = extents[:-2], extents[-2:], strides[-2:]
        places = list(product(*map(range, self.batch)))
        self.starts = np.array(
            [expr.evaluate(view.offset, sizes, dict(enumerate(p))) + sum(map(int.__mul__, p, strides)) for p in places],
            np.int64,
        )
        self.different, self.numbers = np.unique(self.starts, return_inverse=True)

    @property
    def tile(self) -> Tile:
        """Of products of such matrices."""
        return narrow.tile() if self.dtype is BFLOAT16 else tile()

    @property
    def panels(self) -> int:
        return -(-self.shape[1] // self.tile.width)

    @property
    def panel_elements(self) -> int:
        """Of all panels of a matrix."""
        group = KIND.group if self.dtype is BFLOAT16 else 1
        return self.panels * -(-self.shape[0] // group) * group * self.tile.width


def _packed(matrices: _Matrices, workspace: int, start: int) -> tuple[Record, int]:
    """The record that packs them into the workspace, ``start`` bytes from its beginning, and how many it needs."""
    down, across = matrices.strides
    packer = "rows" if across == 1 else "columns" if down == 1 else "any"
    table = np.zeros((len(matrices.different), len(PackWord)), np.int64)
    table[:, PackWord.SOURCE] = matrices.different
    rounded = matrices.dtype is BFLOAT16
    fields, code = _words_of(matrices, packer, table) if rounded else _panels_of(matrices, packer, table)
    fields |= {Head.B_BUFFER: matrices.buffer, Head.C_BUFFER: workspace, Head.C_START: start}
    context = np.zeros(len(Head) + len(NarrowField if rounded else PanelField), np.int64)
    context[list(fields)] = list(fields.values())
    points = len(table) * matrices.panels
    nbytes = aligned(matrices.dtype.itemsize * len(table) * matrices.panel_elements)
    weight = PACKED_IN * matrices.shape[0] * min(matrices.shape[1], matrices.tile.width)
    scratch = fields.get(Head.SCRATCH, 0)
    return Record(_pack(rounded), Context(context, (table, *code)), points, weight=weight, scratch=scratch), nbytes


def _panels_of(matrices: _Matrices, packer: str, table: np.ndarray) -> tuple[dict[int, int], Sequence[jit.MachineCode]]:
    """What packing of float32 is told, and the code that it calls."""
    code = packing(jit.host_target(), packer)
    return {
        PanelField.B_K: matrices.strides[0],
        PanelField.B_COLUMN: matrices.strides[1],
        PanelField.B_ROW: matrices.tile.width,
        PanelField.K: matrices.shape[0],
        PanelField.COLUMN_COUNT: matrices.shape[1],
        PanelField.BLOCKS: matrices.panels,
        PanelField.PACKER: code.address,
        PanelField.BATCH_TABLE: table.ctypes.data,
        PanelField.BATCH_WORDS: table.shape[1],
    }, (code,)


def _words_of(matrices: _Matrices, packer: str, table: np.ndarray) -> tuple[dict[int, int], Sequence[jit.MachineCode]]:
    """The same of bfloat16."""
    itemsize = matrices.dtype.itemsize
    stage_row = aligned(itemsize * matrices.tile.width + ROW_BYTES)
    return {
        Head.SCRATCH: (KIND.group + 1) * stage_row,
        NarrowField.B_K: matrices.strides[0] * itemsize,
        NarrowField.B_COLUMN: matrices.strides[1] * itemsize,
        NarrowField.B_PANEL: matrices.panel_elements // matrices.panels * itemsize,
        NarrowField.K: matrices.shape[0],
        NarrowField.WORDS: narrow.words_of(matrices.shape[0], KIND),
        NarrowField.WIDTH: matrices.shape[1],
        NarrowField.BLOCKS: matrices.panels,
        NarrowField.STAGE_ROW: stage_row,
        NarrowField.PACKER: llvm_attention_rounded.MATRIX_PACKERS.index(packer),
        NarrowField.BATCH_TABLE: table.ctypes.data,
        NarrowField.BATCH_WORDS: table.shape[1],
    }, ()
