"""Launching kernels: compiled ones where LLVM takes them, numpy's otherwise."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import NamedTuple

from omniop.backends.array_eval import KernelEvaluator
from omniop.backends.base import Runnable
from omniop.backends.cpu import jit
from omniop.backends.cpu.memory import HostBuffer
from omniop.backends.reference.numpy_ops import NUMPY
from omniop.opset.kernel import Kernel

_KEPT = 256
"""Sets of sizes that a launch remembers."""
SHORT = 1 << 18
"""Rough machine operations of a launch that counts as short: some 50 microseconds."""


def build_kernels(kernels: Sequence[Kernel]) -> list[Runnable]:
    """Runnables of ``kernels``; those that LLVM takes are compiled together. Raises DeviceError."""
    taken = [k for k in dict.fromkeys(kernels) if jit.reach(k)]
    made: dict[Kernel, Runnable] = {
        k: CompiledLaunch(compiled, len(k.params)) for k, compiled in zip(taken, jit.build(taken), strict=True)
    }
    return [made.get(k) or EvaluatedLaunch(k) for k in kernels]


class Record(NamedTuple):
    """A compiled launch as machine code wants it; ``keeps`` holds what the addresses point to."""

    function: int
    sizes: int
    points: int
    keeps: object


class EvaluatedLaunch:
    """A kernel run by numpy, operation by operation."""

    def __init__(self, kernel: Kernel) -> None:
        self._evaluate = KernelEvaluator(kernel, NUMPY)
        self._dtypes = [p.dtype for p in kernel.params]

    def __call__(self, buffers: Sequence[HostBuffer], sizes: Sequence[int]) -> None:
        self._evaluate([b.typed(d) for b, d in zip(buffers, self._dtypes, strict=True)], sizes)


class CompiledLaunch:
    """A compiled kernel; what depends on the sizes alone is kept from launch to launch."""

    def __init__(self, compiled: jit.CompiledKernel, params: int) -> None:
        self.kernel = compiled
        self._pointers = ctypes.c_void_p * params
        self._bound: dict[tuple[int, ...], _Bound] = {}

    def __call__(self, buffers: Sequence[HostBuffer], sizes: Sequence[int]) -> None:
        key = tuple(sizes)
        bound = self._bound.get(key)
        if bound is None:
            bound = self._bind(key)
        pointers = self._pointers(*[b.address for b in buffers])
        self.kernel(ctypes.addressof(pointers), bound.address, 0, bound.points)

    def record(self, sizes: tuple[int, ...]) -> Record | None:
        """The launch for `sequence`, when it is too short for its way through Python; else None."""
        bound = self._bound.get(sizes) or self._bind(sizes)
        if bound.points * self.kernel.weight > SHORT:
            return None
        return Record(self.kernel.address, bound.address, bound.points, (self, bound))

    def _bind(self, sizes: tuple[int, ...]) -> _Bound:
        if len(self._bound) >= _KEPT:
            self._bound.clear()
        bound = self._bound[sizes] = _Bound(self.kernel, sizes)
        return bound


class _Bound:
    """Sizes as C has them, and the number of points."""

    def __init__(self, kernel: jit.CompiledKernel, sizes: tuple[int, ...]) -> None:
        self._array = (ctypes.c_int64 * max(1, len(sizes)))(*sizes)
        self.address = ctypes.addressof(self._array)
        self.points = kernel.points(self.address)
