"""Products with a constant matrix: a tuned kernel of ``contract`` that wants it in panels, which is done once."""

from __future__ import annotations

from dataclasses import replace

from omniop.backends.array_eval import size_names
from omniop.backends.base import YES, Answer, Device, KernelSpec, No, OpContext
from omniop.backends.codegen.llvm_ir import Target
from omniop.backends.codegen.llvm_panels import tile_of
from omniop.backends.cpu import fused
from omniop.backends.cpu.kept import Later
from omniop.backends.cpu.launch import CompiledLaunch, build_kernels
from omniop.backends.cpu.panels import record_of, writes_itself
from omniop.backends.cpu.products import packed_product
from omniop.backends.cpu.program import RecordedWork
from omniop.backends.cpu.recording import Record, Recording
from omniop.backends.cpu.views import Window
from omniop.opset.dtype import FLOAT32
from omniop.opset.kernel import Call
from omniop.opset.layout import ROW_MAJOR, Layout

NAME = "packed_product"
ALIASING = 2048
"""Rows that are a multiple of so many bytes apart share few places of the first cache ..."""
FEW_ROWS = 4
"""... which matters from so many on: they are copied,"""
APART = 32
"""so many elements further apart."""


def layout(target: Target) -> Layout:
    """Of a matrix ``[K, N]``: ``[N / width, K, width]``, as wide as a tile."""
    width = tile_of(target).width
    return Layout(f"panels of {width}", ((1, width, "outer"), (0, 0, "whole"), (1, width, "inner")))


def spec(target: Target) -> KernelSpec:
    """The kernel for a CPU of this kind."""

    def when(op: OpContext) -> Answer:
        b = op.inputs[1]
        assert b is not None
        if op.outputs[0].dtype is not FLOAT32:
            return No("dtype", "it gives float32")
        if not b.constant:
            return No("computed", "its matrix is packed once, and this one is computed")
        if len(b.shape) != 2:
            return No("rank", "it is for one matrix, the same for all rows")
        columns = b.shape[1]
        if columns is None or columns < tile_of(target).lanes:
            return No("columns", f"{columns} columns do not fill a vector")
        return YES

    layouts = (ROW_MAJOR, layout(target))
    return KernelSpec(
        "contract", NAME, PackedProduct, dtypes=(FLOAT32,), when=when, input_layouts=layouts, epilogue=True
    )


class PackedProduct(RecordedWork):
    """``call``: ``a[M, K] @ b[K, N]``, b in its `layout`, maybe with an epilogue."""

    def __init__(self, device: Device, call: Call) -> None:
        super().__init__()
        product = replace(call, prim="contract")
        self._call = Later.of(product)
        self._epilogue = None
        if not writes_itself(product):
            (block,) = build_kernels([fused.block_kernel(product, device.caps)])
            assert isinstance(block, CompiledLaunch)
            self._epilogue = block.kernel
        self._copy: CompiledLaunch | None = None
        self._copied_row = 0
        k = product.operands[1].shape[0].attr
        if k * FLOAT32.itemsize % ALIASING == 0:
            self._copied_row = k + APART
            (copy,) = build_kernels([fused.copy_kernel(product, 0, device.caps, row=self._copied_row)])
            assert isinstance(copy, CompiledLaunch)
            self._copy = copy

    def record(self, sizes: tuple[int, ...]) -> Recording:
        call, names = self._call(), size_names(sizes)
        a, b, c = windows = [Window(view, names) for view in (*call.operands, call.results[0])]
        before: tuple[Record, ...] = ()
        workspace = 0
        if self._copy is not None and a.shape[-2] >= FEW_ROWS:
            a = windows[0] = a.contiguous(len(call.params), self._copied_row)
            before, workspace = self._copy.record(sizes).records, a.shape[-2] * self._copied_row * FLOAT32.itemsize
        work = record_of(packed_product(a, b, c), windows, self._epilogue, sizes, len(call.params))
        return Recording((*before, work), workspace)
