"""Structured calls: a numpy function on strided views, into the result's memory where it can, then the epilogue."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from omniop.backends.array_eval import size_names
from omniop.backends.base import YES, Answer, No, OpContext, Runnable
from omniop.backends.codegen.llvm_dot import Dot
from omniop.backends.cpu import fused, jit, narrow_calls, panels
from omniop.backends.cpu.conv import conv, integer_conv
from omniop.backends.cpu.kept import Keepable
from omniop.backends.cpu.launch import CompiledLaunch
from omniop.backends.cpu.matmul import matmul
from omniop.backends.cpu.memory import HostBuffer, Scratch
from omniop.backends.cpu.prefix import MONOIDS, prefix
from omniop.backends.cpu.sorting import sort
from omniop.backends.cpu.views import Window
from omniop.backends.cpu.windows import REDUCIBLE, Geometry, window_reduce
from omniop.backends.reference.numpy_ops import cast
from omniop.opset import dtype as dtypes
from omniop.opset import prims
from omniop.opset.dtype import INT32, DType
from omniop.opset.kernel import Call, Kernel
from omniop.opset.legalise import Capabilities, stored_dtype

PrimFunction = Callable[[Call, Sequence[np.ndarray], Sequence[np.ndarray], Scratch], None]
"""``function(call, operands, outs, scratch)`` fills ``outs``: contiguous, shaped as the call's results."""

_DTYPES = frozenset(d for d in dtypes.ALL if d.kind in "iu" and d.bits >= 8) | {
    *(dtypes.BOOL, dtypes.FLOAT16, dtypes.BFLOAT16, dtypes.FLOAT32, dtypes.FLOAT64),
}
_KEPT = 256
"""Sets of sizes that a call remembers."""


def _contract(call: Call, operands: Sequence[np.ndarray], outs: Sequence[np.ndarray], scratch: Scratch) -> None:
    a, b = operands
    matmul(a, b, outs[0])


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
    "contract": Prim(_contract, lambda call: call.attr("accumulate")),
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
        whole = None if self._whole is None else built[self._whole]
        other: Runnable | None = None
        if self._other:
            if whole is None:
                other = _Plain(self)
            else:
                other = _Fused(self, whole) if self._depthwise is None else _Depthwise(self, whole)
        if not self._panels:
            assert other is not None
            return other
        block = None if self._block is None else built[self._block]
        assert block is None or isinstance(block, CompiledLaunch)
        image = None if self._image is None else built[self._image]
        assert image is None or isinstance(image, CompiledLaunch)
        return panels.PanelCall(self.call, block, image, other)


class _Bound:
    """Operands and results for one set of sizes."""

    def __init__(self, call: Call, sizes: Sequence[int]) -> None:
        names = size_names(sizes)
        self.operands = [Window(v, names) for v in call.operands]
        self.results = [Window(v, names) for v in call.results]


class _BoundCall(Keepable):
    """What calls share: their views, kept from launch to launch."""

    def __init__(self, plan: PlannedCall) -> None:
        self.call = plan.call
        self.scratch = plan.scratch
        prim = PRIMS[plan.call.prim]
        self.function = prim.function
        self.works_in = prim.works_in(plan.call)
        self._cast = self.works_in is not None and any(v.dtype is not self.works_in for v in plan.call.operands)
        self._bounds: dict[tuple[int, ...], _Bound] = {}

    def bound(self, sizes: Sequence[int]) -> _Bound:
        key = tuple(sizes)
        found = self._bounds.get(key)
        if found is None:
            if len(self._bounds) >= _KEPT:
                self._bounds.clear()
            found = self._bounds[key] = _Bound(self.call, key)
        return found

    def operands(self, bound: _Bound, buffers: Sequence[HostBuffer]) -> list[np.ndarray]:
        """In the dtype that the function works in."""
        arrays = [w.array(buffers) for w in bound.operands]
        if self._cast and self.works_in is not None:
            return [cast(x, self.works_in) for x in arrays]
        return arrays


class _Plain(_BoundCall):
    """The prim's function alone."""

    def __init__(self, plan: PlannedCall) -> None:
        super().__init__(plan)
        self._made = [(self.works_in or v.dtype).numpy for v in plan.call.results]

    def __call__(self, buffers: Sequence[HostBuffer], sizes: Sequence[int]) -> None:
        bound = self.bound(sizes)
        targets = [w.array(buffers) for w in bound.results]
        outs = [self._out(k, t) for k, t in enumerate(targets)]
        self.function(self.call, self.operands(bound, buffers), outs, self.scratch)
        for target, out, view in zip(targets, outs, self.call.results, strict=True):
            if out is not target:
                target[...] = cast(out, view.dtype)

    def _out(self, number: int, target: np.ndarray) -> np.ndarray:
        """The target's own memory when the function can write it."""
        dtype = self._made[number]
        if target.dtype == dtype and target.flags.c_contiguous:
            return target
        return self.scratch.array(f"result{number}", target.shape, dtype)


class _Fused(_BoundCall):
    """The prim's function, then the epilogue's kernel on what it left: in the result's own memory where that is fit."""

    def __init__(self, plan: PlannedCall, epilogue: Runnable) -> None:
        super().__init__(plan)
        view = plan.call.results[0]
        self._epilogue = epilogue
        self._hole = fused.hole_dtype(plan.call)
        self._made = self.works_in or self._hole
        fits = self._made is self._hole is stored_dtype(view.dtype, plan.caps)
        self._in_place = fits and fused.is_dense(view)
        self._numpy = self._made.numpy

    def __call__(self, buffers: Sequence[HostBuffer], sizes: Sequence[int]) -> None:
        bound = self.bound(sizes)
        result = bound.results[0]
        if self._in_place:
            value = buffers[result.buffer]
            out = np.ndarray(result.shape, self._numpy, value.bytes)
        else:
            out = self.scratch.array("result0", result.shape, self._numpy)
            value = self.scratch.buffer("result0", out.nbytes)
        self.function(self.call, self.operands(bound, buffers), [out], self.scratch)
        if self._made is not self._hole:
            value = self.scratch.buffer("hole", out.size * self._hole.itemsize)
            value.typed(self._hole)[: out.size] = cast(out, self._hole).reshape(-1)
        self._epilogue([*buffers, value], sizes)


class _Depthwise(_BoundCall):
    """Padding by numpy, the rest by one kernel."""

    def __init__(self, plan: PlannedCall, kernel: Runnable) -> None:
        super().__init__(plan)
        self._kernel = kernel

    def __call__(self, buffers: Sequence[HostBuffer], sizes: Sequence[int]) -> None:
        bound = self.bound(sizes)
        window, weights, result = bound.operands[0], bound.operands[1], bound.results[0]
        geometry = Geometry.of(self.call, weights.shape[2:])
        x = window.array(buffers)
        padded = geometry.padded(x, result.shape[2:], 0, self.scratch)
        if padded is x and window.strides[-1] == 1:
            source, numbers = buffers[window.buffer], (window.offset, *window.strides[:-1])
        else:
            if padded is x:
                padded = self.scratch.array("padded", x.shape, x.dtype)
                padded[...] = x
            source = self.scratch.buffer("padded", padded.nbytes)
            numbers = (0, *(s // padded.itemsize for s in padded.strides[:-1]))
        self._kernel([*buffers, source], (*sizes, *numbers))
