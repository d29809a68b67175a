"""Calls that numpy runs: a function on strided views, into the result's memory where it can, then the epilogue.

A plan from the disk brings them back without what planned them: this module imports none of that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import numpy as np

from omniop.backends.base import Runnable
from omniop.backends.cpu import gemv
from omniop.backends.cpu.kept import Keepable
from omniop.backends.cpu.memory import HostBuffer, Scratch
from omniop.backends.cpu.views import Window
from omniop.opset.dtype import DType
from omniop.opset.kernel import Call

PrimFunction = Callable[[Call, Sequence[np.ndarray], Sequence[np.ndarray], Scratch], None]
"""``function(call, operands, outs, scratch)`` fills ``outs``: contiguous, shaped as the call's results."""

ONE_THREAD = 1 << 13
"""Multiplications up to which BLAS keeps to one thread."""
_KEPT = 256
"""Sets of sizes that a call remembers."""


class _Bound:
    """Operands and results for one set of sizes."""

    def __init__(self, call: Call, sizes: Sequence[int]) -> None:
        from omniop.backends.array_eval import size_names  # those of a plan are there

        names = size_names(sizes)
        self.operands = [Window(v, names) for v in call.operands]
        self.results = [Window(v, names) for v in call.results]


class NumpyCall(Keepable):
    """What they share: their views, kept from launch to launch. ``works_in``: see `calls.Prim`."""

    def __init__(self, call: Call, function: PrimFunction, works_in: DType | None, scratch: Scratch) -> None:
        self.call = call
        self.scratch = scratch
        self.function = function
        self.works_in = works_in
        self._cast = works_in is not None and any(v.dtype is not works_in for v in call.operands)
        self._bounds: dict[tuple[int, ...], _Bound] = {}

    def bound(self, sizes: Sequence[int]) -> _Bound:
        key = tuple(sizes)
        found = self._bounds.get(key)
        if found is None:
            if len(self._bounds) >= _KEPT:
                self._bounds.clear()
            found = self._bounds[key] = _Bound(self.call, key)
        return found

    def uses_threads(self, sizes: Sequence[int]) -> bool:
        """Whether BLAS may share it among threads."""
        if self.call.prim != "contract":
            return self.call.prim in ("conv", "integer_conv")
        bound = self.bound(sizes)
        if prod(bound.results[0].shape) * bound.operands[0].shape[-1] < ONE_THREAD:
            return False
        a, b, out = (w.outline() for w in (*bound.operands, *bound.results))
        return not gemv.takes(a, b, out)

    def operands(self, bound: _Bound, buffers: Sequence[HostBuffer]) -> list[np.ndarray]:
        """In the dtype that the function works in."""
        arrays = [w.array(buffers) for w in bound.operands]
        if self._cast and self.works_in is not None:
            return [_cast(x, self.works_in) for x in arrays]
        return arrays


class Plain(NumpyCall):
    """The prim's function alone."""

    def __call__(self, buffers: Sequence[HostBuffer], sizes: Sequence[int]) -> None:
        bound = self.bound(sizes)
        targets = [w.array(buffers) for w in bound.results]
        outs = [self._out(k, t) for k, t in enumerate(targets)]
        self.function(self.call, self.operands(bound, buffers), outs, self.scratch)
        for target, out, view in zip(targets, outs, self.call.results, strict=True):
            if out is not target:
                target[...] = _cast(out, view.dtype)

    def _out(self, number: int, target: np.ndarray) -> np.ndarray:
        """The target's own memory when the function can write it."""
        dtype = (self.works_in or self.call.results[number].dtype).numpy
        if target.dtype == dtype and target.flags.c_contiguous:
            return target
        return self.scratch.array(f"result{number}", target.shape, dtype)


class Fused(NumpyCall):
    """The prim's function, then the epilogue's kernel on what it left, in dtype ``hole``; ``in_place``: in the result's
    own memory."""

    def __init__(
        self,
        call: Call,
        function: PrimFunction,
        works_in: DType | None,
        scratch: Scratch,
        epilogue: Runnable,
        hole: DType,
        in_place: bool,
    ) -> None:
        super().__init__(call, function, works_in, scratch)
        self._epilogue = epilogue
        self._hole = hole
        self._made = works_in or hole
        self._in_place = in_place and self._made is hole

    def __call__(self, buffers: Sequence[HostBuffer], sizes: Sequence[int]) -> None:
        bound = self.bound(sizes)
        result = bound.results[0]
        if self._in_place:
            value = buffers[result.buffer]
            out = np.ndarray(result.shape, self._made.numpy, value.bytes)
        else:
            out = self.scratch.array("result0", result.shape, self._made.numpy)
            value = self.scratch.buffer("result0", out.nbytes)
        self.function(self.call, self.operands(bound, buffers), [out], self.scratch)
        if self._made is not self._hole:
            value = self.scratch.buffer("hole", out.size * self._hole.itemsize)
            value.typed(self._hole)[: out.size] = _cast(out, self._hole).reshape(-1)
        self._epilogue([*buffers, value], sizes)


class Padded(NumpyCall):
    """A depthwise convolution: padding by numpy, the rest by one kernel."""

    def __init__(self, call: Call, function: PrimFunction, scratch: Scratch, kernel: Runnable) -> None:
        super().__init__(call, function, None, scratch)
        self._kernel = kernel

    def __call__(self, buffers: Sequence[HostBuffer], sizes: Sequence[int]) -> None:
        from omniop.backends.cpu.windows import Geometry  # few models need it

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


def _cast(x: np.ndarray, dtype: DType) -> np.ndarray:
    from omniop.backends.reference.numpy_ops import cast  # few models need it

    return cast(x, dtype)
