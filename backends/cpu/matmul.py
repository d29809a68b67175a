"""Matrix products by numpy, which gives floats to its BLAS, and by `gemv`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from omniop.backends.cpu import gemv
from omniop.backends.cpu.memory import Scratch
from omniop.opset.kernel import Call

_EXACT = ((np.dtype(np.float32), 1 << 24), (np.dtype(np.float64), 1 << 53))
"""Floats, and the magnitude up to which they hold every integer."""


def contract(call: Call, operands: Sequence[np.ndarray], outs: Sequence[np.ndarray], scratch: Scratch) -> None:
    """The prim."""
    a, b = operands
    matmul(a, b, outs[0])


def matmul(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """``out = a @ b`` over the last two axes, with sums in out's dtype.

    ``a`` and ``b`` have out's dtype; their matrices may lie in memory by rows or by columns, in place.
    """
    if out.dtype.kind in "iu":
        _integers(a, b, out)
        return
    if gemv.takes(a, b, out):
        gemv.gemv(a, b, out)
        return
    with np.errstate(all="ignore"):
        np.matmul(_for_blas(a), _for_blas(b), out=out)


def _for_blas(x: np.ndarray) -> np.ndarray:
    """``x`` itself when BLAS can read its matrices, else a copy."""
    *_, rows, columns = x.shape
    *_, down, across = x.strides
    by_rows = across == x.itemsize and down >= columns * x.itemsize
    by_columns = down == x.itemsize and across >= rows * x.itemsize
    return x if by_rows or by_columns or rows == 1 or columns == 1 else np.ascontiguousarray(x)


def _integers(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """In floats where every sum is exact in them: numpy has no fast product of integers."""
    bound = _magnitude(a) * _magnitude(b) * a.shape[-1]
    for dtype, limit in _EXACT:
        if bound <= limit:
            # by way of int64, since an integer that wraps is not a cast from a float
            np.copyto(out, np.matmul(a.astype(dtype), b.astype(dtype)).astype(np.int64), casting="unsafe")
            return
    np.matmul(a, b, out=out)


def _magnitude(x: np.ndarray) -> int:
    return max(abs(int(x.max())), abs(int(x.min())))
