"""Attention as `llvm_attention` does it: what it is, for one set of sizes, as records of packing and of products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import product

import numpy as np

from omniop.backends.array_eval import size_names
from omniop.backends.base import YES, Answer, No, OpContext
from omniop.backends.codegen.llvm_attention import (
    ENTRY,
    PACK_ENTRY,
    BatchWord,
    Field,
    PackWord,
    print_attention,
    print_pack,
)
from omniop.backends.codegen.llvm_blocks import BlockSize, Head
from omniop.backends.codegen.llvm_panels import Field as PanelField
from omniop.backends.cpu import fused, jit
from omniop.backends.cpu.jit import CompiledKernel
from omniop.backends.cpu.kept import Later
from omniop.backends.cpu.launch import CompiledLaunch, build_kernels
from omniop.backends.cpu.panels import writes_itself
from omniop.backends.cpu.products import SPEED, STREAM, WORD, aligned, packing, strips, tile
from omniop.backends.cpu.program import RecordedWork
from omniop.backends.cpu.recording import Context, Record, Recording
from omniop.opset import expr
from omniop.opset.dtype import FLOAT32
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
    if any(t is None or t.dtype is not FLOAT32 for t in (*op.inputs, *op.outputs)):
        return No("dtype", "it is for float32")
    return YES


@cache
def _attention() -> jit.MachineCode:
    return jit.build_printed(ENTRY, print_attention)


@cache
def _pack() -> jit.MachineCode:
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
        table = np.zeros((len(q.starts), BatchWord.PLACES + len(q.batch)), np.int64)
        table[:, BatchWord.Q], table[:, BatchWord.C] = q.starts, c.starts
        table[:, BatchWord.PLACES :] = list(product(*map(range, q.batch)))
        width = tile().width
        if _read_as_they_are(q, k, v):
            table[:, BatchWord.KEY], table[:, BatchWord.VALUE] = k.starts, v.starts
            places = {Field.KEY_BUFFER: k.buffer, Field.VALUE_BUFFER: v.buffer, Field.KEY_ROW: k.strides[1]}
            places |= {Field.VALUE_ROW: v.strides[0], Field.VALUE_PANEL: width}
            return Recording((self._products(call, numbers, table, places, sizes),))
        workspace = len(call.params)
        keys, key_bytes = _packed(k, workspace, 0)
        values, value_bytes = _packed(v, workspace, key_bytes)
        table[:, BatchWord.KEY] = k.numbers * k.panel_elements
        table[:, BatchWord.VALUE] = key_bytes // FLOAT32.itemsize + v.numbers * v.panel_elements
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
        width, lanes = tile().width, tile().lanes
        score_row = -(-keys // width) * width + lanes  # of whole tiles; an odd number of vectors uses all of a cache
        fit = min(MOST_ROWS, max(1, BLOCK_BYTES // (FLOAT32.itemsize * score_row * tile().rows)) * tile().rows)
        even = -(-queries // -(-queries // fit))
        row_block = -(-even // tile().rows) * tile().rows
        row_blocks = -(-queries // row_block)
        block_row = -(-columns // width) * width
        multiply = strips(jit.host_target())
        code = [multiply, *(kernel.code for kernel in (self._scores, self._epilogue) if kernel is not None)]
        own = np.array([*sizes, 0], np.int64)
        at_sizes = aligned((len(call.params) + 2) * WORD)
        at_scores = at_sizes + aligned((len(sizes) + BlockSize.PLACES + len(q.batch)) * WORD)
        at_factors = at_scores + aligned(FLOAT32.itemsize * row_block * score_row)
        at_block = at_factors + aligned(FLOAT32.itemsize * row_block)
        end = at_block + (0 if self._epilogue is None else aligned(FLOAT32.itemsize * row_block * block_row))
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
        }.items():
            context[field] = value
        arithmetic = 2 * queries * keys * (depth + columns) / (SPEED * lanes)
        reading = FLOAT32.itemsize * keys * (depth + columns) / STREAM
        weight = max(arithmetic, reading) / row_blocks
        return Record(
            _attention(), Context(context, (table, own, *code)), len(table) * row_blocks, weight=weight, scratch=end
        )


def _read_as_they_are(q: _Matrices, k: _Matrices, v: _Matrices) -> bool:
    """Whether keys and values are read too seldom to be packed, and lie so that they can be read."""
    seldom = q.shape[0] * len(q.starts) <= FEW_READS * min(len(k.different), len(v.different))
    whole = q.shape[1] % tile().lanes == 0 == v.shape[1] % tile().lanes
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
        self.buffer = view.buffer
        self.batch, self.shape, self.strides = extents[:-2], extents[-2:], strides[-2:]
        places = list(product(*map(range, self.batch)))
        self.starts = np.array(
            [expr.evaluate(view.offset, sizes, dict(enumerate(p))) + sum(map(int.__mul__, p, strides)) for p in places],
            np.int64,
        )
        self.different, self.numbers = np.unique(self.starts, return_inverse=True)

    @property
    def panels(self) -> int:
        return -(-self.shape[1] // tile().width)

    @property
    def panel_elements(self) -> int:
        """Of all panels of a matrix."""
        return self.panels * self.shape[0] * tile().width


def _packed(matrices: _Matrices, workspace: int, start: int) -> tuple[Record, int]:
    """The record that packs them into the workspace, ``start`` bytes from its beginning, and how many it needs."""
    down, across = matrices.strides
    packer = packing(jit.host_target(), "rows" if across == 1 else "columns" if down == 1 else "any")
    table = np.zeros((len(matrices.different), len(PackWord)), np.int64)
    table[:, PackWord.SOURCE] = matrices.different
    context = np.zeros(len(Head) + len(PanelField), np.int64)
    context[[Head.B_BUFFER, Head.C_BUFFER, Head.C_START]] = matrices.buffer, workspace, start
    steps, columns = matrices.shape
    for field, value in {
        PanelField.B_K: down,
        PanelField.B_COLUMN: across,
        PanelField.B_ROW: tile().width,
        PanelField.K: steps,
        PanelField.COLUMN_COUNT: columns,
        PanelField.BLOCKS: matrices.panels,
        PanelField.PACKER: packer.address,
        PanelField.BATCH_TABLE: table.ctypes.data,
        PanelField.BATCH_WORDS: table.shape[1],
    }.items():
        context[field] = value
    points = len(table) * matrices.panels
    nbytes = aligned(FLOAT32.itemsize * len(table) * matrices.panel_elements)
    weight = PACKED_IN * steps * min(columns, tile().width)
    return Record(_pack(), Context(context, (table, packer)), points, weight=weight), nbytes
