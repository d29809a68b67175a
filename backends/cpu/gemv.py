"""A float32 row times a matrix: one pass over the matrix at the memory's speed, on the calling thread.

BLAS splits such a product among threads, of which two are no faster here than one, and far slower where a core is
shared: each product then waits for the other thread to be scheduled.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache

import numpy as np

from omniop.backends.codegen.llvm_ir import Module
from omniop.backends.cpu import jit

MIN_ELEMENTS = 1 << 13
"""Below, BLAS keeps to one thread."""
MAX_CPUS = 2
"""With more of them, BLAS's threads read faster than one."""

_F32 = np.dtype(np.float32)


def takes(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> bool:
    """Whether `gemv` does ``out = a @ b``."""
    return (
        a.ndim == b.ndim >= 2
        and a.size == a.shape[-1]
        and b.size == b.shape[-2] * b.shape[-1] >= MIN_ELEMENTS
        and a.dtype == b.dtype == out.dtype == _F32
        and a.strides[-1] == b.itemsize
        and out.flags.c_contiguous
        and _order(b) is not None
        and _cpus() <= MAX_CPUS
    )


def gemv(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """``out[1, N] = a[1, K] @ b[K, N]`` for what `takes` says yes to: axes of one element may stand before these."""
    order = _order(b)
    assert order is not None
    function = _functions()[order]
    function(a.ctypes.data, b.ctypes.data, out.ctypes.data, *b.shape[-2:], max(b.strides[-2:]) // b.itemsize)


def _order(b: np.ndarray) -> str | None:
    """How the matrix lies in memory."""
    (rows, columns), (down, across) = b.shape[-2:], b.strides[-2:]
    if across == b.itemsize and down >= columns * b.itemsize:
        return "rows"
    return "columns" if down == b.itemsize and across >= rows * b.itemsize else None


@cache
def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _functions() -> dict[str, jit.MachineCode]:
    """``function(x, matrix, y, K, N, elements from line to line)`` by the matrix's order; each built once a process."""
    return {order: _built(f"gemv_{order}") for order in ("rows", "columns")}


def _built(name: str) -> jit.MachineCode:
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    return jit.build_module({name: [pointer] * 3 + [number] * 3}, _print, name)[name]


def _print(module: Module, name: str) -> None:
    from omniop.backends.codegen.llvm_gemv import PRINTERS  # not for code that the disk has

    PRINTERS[name](module, name)
