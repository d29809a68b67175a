"""Launching kernels: compiled ones where LLVM takes them, numpy's otherwise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from omniop.backends.base import Runnable
from omniop.backends.cpu import jit
from omniop.backends.cpu.memory import HostBuffer
from omniop.backends.cpu.program import RecordedWork
from omniop.backends.cpu.recording import Context, Record, Recording
from omniop.opset.kernel import Kernel

OPERATION = 0.4
"""Nanoseconds of one of the rough machine operations that kernels are weighed in."""


def build_kernels(kernels: Sequence[Kernel]) -> list[Runnable]:
    """Runnables of ``kernels``; those that LLVM takes are compiled together. Raises DeviceError."""
    taken = [k for k in dict.fromkeys(kernels) if jit.reach(k)]
    made: dict[Kernel, Runnable] = {
        k: CompiledLaunch(compiled) for k, compiled in zip(taken, jit.build(taken), strict=True)
    }
    return [made.get(k) or EvaluatedLaunch(k) for k in kernels]


class EvaluatedLaunch:
    """A kernel run by numpy, operation by operation."""

    def __init__(self, kernel: Kernel) -> None:
        from omniop.backends.array_eval import KernelEvaluator  # few kernels need it
        from omniop.backends.reference.numpy_ops import NUMPY

        self._evaluate = KernelEvaluator(kernel, NUMPY)
        self._dtypes = [p.dtype for p in kernel.params]

    def __call__(self, buffers: Sequence[HostBuffer], sizes: Sequence[int]) -> None:
        self._evaluate([b.typed(d) for b, d in zip(buffers, self._dtypes, strict=True)], sizes)


class CompiledLaunch(RecordedWork):
    """A compiled kernel."""

    def __init__(self, compiled: jit.CompiledKernel) -> None:
        super().__init__()
        self.kernel = compiled

    def record(self, sizes: tuple[int, ...]) -> Recording:
        kernel = self.kernel
        context = Context(np.array(sizes or kernel.printed.numbers or (0,), np.int64))
        points = kernel.points(context.address)
        grain = max(1, points) if kernel.serial else kernel.grain
        return Recording((Record(kernel.code, context, points, grain, OPERATION * kernel.weight),))
