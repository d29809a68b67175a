"""Structured calls: which of them are taken whole, and what runs each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from omniop.backends.base import YES, Answer, No, OpContext, Runnable
from omniop.backends.codegen.llvm_dot import Dot
from omniop.backends.cpu import fused, jit, narrow_calls, panels
from omniop.backends.cpu.conv import conv, integer_conv
from omniop.backends.cpu.launch import CompiledLaunch
from omniop.backends.cpu.matmul import contract
from omniop.backends.cpu.memory import Scratch
from omniop.backends.cpu.numpy_calls import Fused, Padded, Plain, PrimFunction
from omniop.backends.cpu.prefix import MONOIDS, prefix
from omniop.backends.cpu.sorting import sort
from omniop.backends.cpu.windows import REDUCIBLE, window_reduce
from omniop.opset import dtype as dtypes
from omniop.opset import prims
from omniop.opset.dtype import INT32, DType
from omniop.opset.kernel import Call, Kernel
from omniop.opset.legalise import Capabilities, stored_dtype

_DTYPES = frozenset(d for d in dtypes.ALL if d.kind in "iu" and d.bits >= 8) | {
    *(dtypes.BOOL, dtypes.FLOAT16, dtypes.BFLOAT16, dtypes.FLOAT32, dtypes.FLOAT64),
}


def _as_stored(call: Call) -> DType | None:
    return None


def _accumulator(call: Call) -> DType:
    return prims.accumulator(call.operands[0].dtype)


def _anything(_: OpContext) -> No | None:
    return None


def _known_padding(op: OpContext) -> No | None:
    known = all(isinstance(p, int) for p in op.attrs["pads"])
    return None if known else No("dynamic-window", "its padding depends on the shapes")


def _window(op: OpContext) -> No | None:
    if op.attrs["monoid"] not in REDUCIBLE:
        return No("monoid", f"it reduces by {op.attrs['monoid']}")
    known = all(isinstance(k, int) for k in op.attrs["kernel"])
    return _known_padding(op) if known else No("dynamic-window", "its window depends on the shapes")


def _scan(op: OpContext) -> No | None:
    return None if op.attrs["monoid"] in MONOIDS else No("monoid", f"it scans by {op.attrs['monoid']}")


@dataclass(frozen=True)
class Prim:
    """How a prim is done here.

    ``works_in``: the one dtype that its function wants operands in and gives results in; None for those of the views.
    ``objection``: why it is not taken whole, or None.
    """

    function: PrimFunction
    works_in: Callable[[Call], DType | None] = _as_stored
    objection: Callable[[OpContext], No | None] = _anything
    epilogue: bool = True


PRIMS = {
    "contract": Prim(contract, lambda call: call.attr("accumulate")),
    "conv": Prim(conv, _accumulator, _known_padding),
    "integer_conv": Prim(integer_conv, lambda call: INT32, _known_padding),
    "window_reduce": Prim(window_reduce, _as_stored, _window),
    "prefix": Prim(prefix, _as_stored, _scan),
    "sort": Prim(sort, epilogue=False),
}


def accepts(op: OpContext) -> Answer:
    """Whether the CPU takes a prim whole."""
    prim = PRIMS.get(op.op)
    if prim is None:
        return No("expands", f"the cpu runs {op.op} by its expansion")
    strange = {t.dtype for t in (*op.inputs, *op.outputs) if t is not None} - _DTYPES
    if strange:
        return No("dtype", f"the cpu expands {op.op} of {', '.join(sorted(d.name for d in strange))}")
    reason = prim.objection(op)
    return YES if reason is None else reason


class PlannedCall:
    """A call and the kernels that it needs built."""

    def __init__(self, call: Call, caps: Capabilities, scratch: Scratch) -> None:
        self.call = call
        self.caps = caps
        self.scratch = scratch
        self._block: Kernel | None = None
        self._image: Kernel | None = None
        self._kind = narrow_calls.kind(call)
        if self._kind is not None and self._plan_narrow(call, self._kind):
            return
        self._kind = None
        suits = panels.suits(call)
        block = fused.block_kernel(call, caps) if suits is not False and not panels.writes_itself(call) else None
        self._panels = suits is not False and (block is None or jit.reach(block))
        self._block = block if self._panels else None
        conv = call.prim == "conv" and not (self._panels and suits)
        self._depthwise = fused.depthwise_kernel(call, caps) if conv else None
        self._whole = self._depthwise
        if call.epilogue is not None and self._depthwise is None and not (self._panels and suits):
            self._whole = fused.epilogue_kernel(call, caps)
        self._other = not (self._panels and suits)
        self._image = fused.copy_kernel(call, 0, caps) if self._panels and not panels.reads_image(call) else None
        self.kernels = tuple(k for k in (self._block, self._whole, self._image) if k is not None)

    def _plan_narrow(self, call: Call, kind: Dot) -> bool:
        """Whether it runs by `narrow`: LLVM has to take its kernels."""
        call = fused.rounding(call, self.caps, kind.sums)
        if not narrow_calls.writes_itself(call, kind):
            self._block = fused.block_kernel(call, self.caps, kind.sums)
        if not narrow_calls.reads_image(call):
            self._image = fused.copy_kernel(call, 0, self.caps)
        self.kernels = tuple(k for k in (self._block, self._image) if k is not None)
        return all(map(jit.reach, self.kernels))

    def runnable(self, built: Mapping[Kernel, Runnable]) -> Runnable:
        """The call made ready; ``built``: what became of `kernels`."""
        if self._kind is not None:
            block, image = (None if k is None else built[k] for k in (self._block, self._image))
            assert block is None or isinstance(block, CompiledLaunch)
            assert image is None or isinstance(image, CompiledLaunch)
            return narrow_calls.NarrowCall(self.call, self._kind, block, image)
        other = self._by_numpy(None if self._whole is None else built[self._whole]) if self._other else None
        if not self._panels:
            assert other is not None
            return other
        block = None if self._block is None else built[self._block]
        assert block is None or isinstance(block, CompiledLaunch)
        image = None if self._image is None else built[self._image]
        assert image is None or isinstance(image, CompiledLaunch)
        return panels.PanelCall(self.call, block, image, other)

    def _by_numpy(self, kernel: Runnable | None) -> Runnable:
        """``kernel``: what became of the epilogue's, or of a depthwise convolution's."""
        call, prim = self.call, PRIMS[self.call.prim]
        common = call, prim.function
        if kernel is None:
            return Plain(*common, prim.works_in(call), self.scratch)
        if self._depthwise is not None:
            return Padded(*common, self.scratch, kernel)
        view, hole = call.results[0], fused.hole_dtype(call)
        fits = hole is stored_dtype(view.dtype, self.caps) and fused.is_dense(view)
        return Fused(*common, prim.works_in(call), self.scratch, kernel, hole, fits)
