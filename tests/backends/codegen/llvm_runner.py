"""Runs kernels compiled through LLVM on numpy arrays, and the same kernels by the reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from omniop.backends.array_eval import KernelEvaluator
from omniop.backends.codegen.llvm_ir import Target
from omniop.backends.cpu import jit
from omniop.backends.reference.numpy_ops import NUMPY
from omniop.opset import expr
from omniop.opset.dtype import FLOAT32, DType
from omniop.opset.expr import Expr
from omniop.opset.kernel import Kernel, Param

SENTINEL = 0x5A
MARGIN = 64
"""Bytes behind every buffer that no kernel may write."""


def launch(
    kernel: Kernel,
    arrays: Sequence[np.ndarray],
    sizes: Sequence[int] = (),
    parts: int = 1,
    target: Target | None = None,
) -> list[np.ndarray]:
    """The arrays after a launch whose range was cut in ``parts``, last part first. Fails on a write out of bounds."""
    (compiled,) = jit.build([kernel], target)
    memory = [np.concatenate([a.view(np.uint8).ravel(), np.full(MARGIN, SENTINEL, np.uint8)]) for a in arrays]
    table = np.array([m.ctypes.data for m in memory], np.int64)
    numbers = np.array([*sizes, 0], np.int64)
    points = compiled.points(numbers.ctypes.data)
    if compiled.serial:
        parts = 1
    step = -(-points // (parts * compiled.grain)) * compiled.grain
    for begin in reversed(range(0, points, step)):
        compiled(table.ctypes.data, numbers.ctypes.data, begin, min(begin + step, points))
    for k, m in enumerate(memory):
        assert (m[-MARGIN:] == SENTINEL).all(), f"buffer {k} was written out of bounds"
    return [m[:-MARGIN].view(a.dtype).reshape(a.shape) for m, a in zip(memory, arrays, strict=True)]


def reference(kernel: Kernel, arrays: Sequence[np.ndarray], sizes: Sequence[int] = ()) -> list[np.ndarray]:
    """The arrays after the reference has run the kernel."""
    results = [a.copy().ravel() for a in arrays]
    KernelEvaluator(kernel, NUMPY)(results, sizes)
    return [r.reshape(a.shape) for r, a in zip(results, arrays, strict=True)]


def element(buffer: int, offset: Expr, dtype: DType = FLOAT32, guard: Expr | None = None, other: float = 0) -> Expr:
    return expr.load(buffer, (offset,), dtype, guard, other)


def reads(dtype: DType = FLOAT32) -> Param:
    return Param(dtype)


def writes(dtype: DType = FLOAT32) -> Param:
    return Param(dtype, written=True)
