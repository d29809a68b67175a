"""Products of narrow elements with a constant matrix: a tuned kernel of ``contract`` that wants it in panels."""

from __future__ import annotations

from dataclasses import replace

from omniop.backends.array_eval import size_names
from omniop.backends.base import YES, Answer, Device, KernelSpec, No, OpContext
from omniop.backends.codegen.llvm_dot import Dot, kind_of
from omniop.backends.codegen.llvm_ir import Target
from omniop.backends.codegen.llvm_narrow_tiles import tile_of
from omniop.backends.cpu import fused, narrow, narrow_calls
from omniop.backends.cpu.kept import Later
from omniop.backends.cpu.launch import CompiledLaunch, build_kernels
from omniop.backends.cpu.panels import record_of
from omniop.backends.cpu.products import matrix_product
from omniop.backends.cpu.program import RecordedWork
from omniop.backends.cpu.recording import Recording
from omniop.backends.cpu.views import Window
from omniop.opset.kernel import Call
from omniop.opset.layout import ROW_MAJOR, Layout


def layout(target: Target, group: int) -> Layout:
    """Of a matrix ``[K, N]``: ``[N / width, K / group, width, group]``, as wide as a tile. What is missing of the last
    word of a column is undefined."""
    width = tile_of(target).width
    order = ((1, width, "outer"), (0, group, "outer"), (1, width, "inner"), (0, group, "inner"))
    return Layout(f"panels of {width} by {group}", order)


def specs(target: Target) -> list[KernelSpec]:
    """The kernels for a CPU of this kind: for bytes, and for bfloat16."""
    return [_spec(target, group) for group in (4, 2)]


def _spec(target: Target, group: int) -> KernelSpec:
    def when(op: OpContext) -> Answer:
        a, b = (t for t in op.inputs if t is not None)
        kind = kind_of(a.dtype, b.dtype)
        if kind is None or kind.group != group or op.attrs["accumulate"] is not kind.sums:
            return No("dtype", f"it takes {'bytes, summed in int32' if group == 4 else 'bfloat16, summed in float32'}")
        if not b.constant:
            return No("computed", "its matrix is packed once, and this one is computed")
        if len(b.shape) != 2:
            return No("rank", "it is for one matrix, the same for all rows")
        k, columns = b.shape
        if columns is None or columns < tile_of(target).lanes:
            return No("columns", f"{columns} columns do not fill a vector")
        if not kind.left.is_int and (k is None or k % group):
            return No("k", f"sums of {k} terms are not whole words, and what is missing may be NaN")
        return YES

    return KernelSpec(
        "contract",
        f"packed_product_by_{group}",
        NarrowPacked,
        when=when,
        input_layouts=(ROW_MAJOR, layout(target, group)),
        epilogue=True,
    )


class NarrowPacked(RecordedWork):
    """``call``: ``a[M, K] @ b[K, N]``, b in its `layout`, maybe with an epilogue."""

    def __init__(self, device: Device, call: Call) -> None:
        super().__init__()
        kind = narrow_calls.kind(replace(call, prim="contract"))
        assert kind is not None
        product = fused.rounding(replace(call, prim="contract"), device.caps, kind.sums)
        self._call = Later.of(product)
        self._kind: Dot = kind
        self._epilogue = None
        if not narrow_calls.writes_itself(product, kind):
            (block,) = build_kernels([fused.block_kernel(product, device.caps, kind.sums)])
            assert isinstance(block, CompiledLaunch)
            self._epilogue = block.kernel

    def record(self, sizes: tuple[int, ...]) -> Recording:
        call, names = self._call(), size_names(sizes)
        a, b, c = windows = [Window(view, names) for view in (*call.operands, call.results[0])]
        found = narrow.Narrow(matrix_product(a, b, c), self._kind, in_panels=True)
        return Recording((record_of(found, windows, self._epilogue, sizes, len(call.params)),))
