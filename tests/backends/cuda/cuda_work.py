"""Work for the device tests, in one place: what the emulator runs is what NVRTC compiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from omniop.backends.base import Runnable
from omniop.backends.cuda.device import CudaDevice
from omniop.backends.cuda.driver import DeviceBuffer
from omniop.opset import expr
from omniop.opset.dtype import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, INT32, INT64, UINT8, DType
from omniop.opset.expr import Expr
from omniop.opset.kernel import Carry, Kernel, Param, Store, Work
from omniop.opset.legalise import Refusal, legalise

N, M = expr.size("s0"), expr.size("s1")


def linear_map(dtype: DType, extent: Expr = N) -> Kernel:
    """``y = x * 2 + 1``"""
    i = expr.raw_axis(0, extent)
    value = expr.load(0, (i,), dtype) * 2 + 1
    return Kernel((Param(dtype), Param(dtype, True)), (i,), (Store(1, i, value),), 1)


def rows(function: Callable[[Callable[[Expr], Expr], Expr, Expr], Expr], columns: Expr = M) -> Kernel:
    """``function(x, c, k)`` at column ``c`` of each row; ``x(j)`` is the row's element, ``k`` an axis to reduce."""
    r, c, k = expr.raw_axis(0, N), expr.raw_axis(1, columns), expr.raw_axis(2, columns)
    value = function(lambda j: expr.load(0, (r * columns + j,), FLOAT32), c, k)
    return Kernel((Param(FLOAT32), Param(value.dtype, True)), (r, c), (Store(1, r * columns + c, value),), 2)


def softmax(x: Callable[[Expr], Expr], c: Expr, k: Expr) -> Expr:
    top = expr.reduce("max", (k,), (x(k),))
    total = expr.reduce("add", (k,), (expr.alu("exp", x(k) - top),))
    return expr.alu("exp", x(c) - top) / total


def arg_max() -> Kernel:
    r, k = expr.raw_axis(0, N), expr.raw_axis(1, M)
    value = expr.reduce("argmax", (k,), (expr.load(0, (r * M + k,), FLOAT32), k))
    return Kernel((Param(FLOAT32), Param(INT64, True)), (r,), (Store(1, r, value),), 2)


def running_sums() -> Kernel:
    """Of each row, one after another."""
    r, step = expr.raw_axis(0, N), expr.raw_axis(1, M)
    total = expr.carry(0, FLOAT32) + expr.load(0, (r * M + step,), FLOAT32)
    carry = Carry(FLOAT32, expr.const(0, FLOAT32), total)
    params = (Param(FLOAT32), Param(FLOAT32, True))
    return Kernel(params, (r,), (Store(1, r * M + step, total),), 2, step, (carry,))


def halvings() -> Kernel:
    """How often each number can be halved: a fold that ends early."""
    i, step = expr.raw_axis(0, N), expr.raw_axis(1, expr.index(1 << 40))
    value, count = expr.carry(0, INT64), expr.carry(1, INT64)
    carries = (
        Carry(INT64, expr.load(0, (i,), INT64), value // 2),
        Carry(INT64, expr.index(0), count + expr.cast(value > 0, INT64)),
    )
    params = (Param(INT64), Param(INT64, True))
    return Kernel(params, (i,), (Store(1, i, count),), 1, step, carries, until=value.eq(0))


def scatter(combine: str, dtype: DType) -> Kernel:
    """``y[index[i]] = combine(y[index[i]], x[i])``"""
    i = expr.raw_axis(0, N)
    store = Store(2, expr.load(1, (i,), INT64), expr.load(0, (i,), dtype), None, combine)
    return Kernel((Param(dtype), Param(INT64), Param(dtype, True)), (i,), (store,), 1)


def gather() -> Kernel:
    """``y[i] = x[index[i]]`` of ``M`` elements; 7 in the error word for an index outside, and -1 for its element."""
    i = expr.raw_axis(0, N)
    at = expr.load(1, (i,), INT64)
    value = expr.load(0, (at,), FLOAT32, (expr.index(0) <= at) & (at < M), -1.0, 7)
    params = (Param(FLOAT32), Param(INT64), Param(FLOAT32, True), Param(INT32, True))
    return Kernel(params, (i,), (Store(2, i, value),), 2, error=3)


def guarded_store() -> Kernel:
    """``y[index[i]] = x[i]`` of ``M`` elements; 9 in the error word for an index outside."""
    i = expr.raw_axis(0, N)
    at = expr.load(1, (i,), INT64)
    store = Store(2, at, expr.load(0, (i,), FLOAT32), (expr.index(0) <= at) & (at < M), None, 9)
    params = (Param(FLOAT32), Param(INT64), Param(FLOAT32, True), Param(INT32, True))
    return Kernel(params, (i,), (store,), 2, error=3)


def strided() -> Kernel:
    """``y[i] = x[i * M % N]``: in more than 32 bits when M is large."""
    i = expr.raw_axis(0, N)
    value = expr.load(0, ((i * M) % N,), FLOAT32)
    return Kernel((Param(FLOAT32), Param(FLOAT32, True)), (i,), (Store(1, i, value),), 2)


def convolution() -> Kernel:
    """3 x 3, padded by 1, of 20 channels of 9 x 9 to 6."""
    o, y, x, c, v, u = (expr.raw_axis(k, expr.index(d)) for k, d in enumerate((6, 9, 9, 20, 3, 3)))
    row, column = y + v - 1, x + u - 1
    inside = (expr.index(0) <= row) & (row < 9) & (expr.index(0) <= column) & (column < 9)
    taken = expr.load(0, (c * 81 + row * 9 + column,), FLOAT32, inside)
    weight = expr.load(1, (o * 180 + c * 9 + v * 3 + u,), FLOAT32)
    value = expr.reduce("add", (c, v, u), (taken * weight,))
    params = (Param(FLOAT32), Param(FLOAT32), Param(FLOAT32, True))
    return Kernel(params, (o, y, x), (Store(2, o * 81 + y * 9 + x, value),))


KERNELS: dict[str, Kernel] = {
    **{f"map {dtype}": linear_map(dtype) for dtype in (FLOAT32, FLOAT64, FLOAT16, BFLOAT16, INT32, UINT8)},
    "softmax": rows(softmax),
    "softmax of 300": rows(softmax, expr.index(300)),
    "argmax": arg_max(),
    "running sums": running_sums(),
    "halvings": halvings(),
    "gather": gather(),
    "guarded store": guarded_store(),
    "strided": strided(),
    "convolution": convolution(),
    **{
        f"scatter {combine} {dtype}": scatter(combine, dtype)
        for combine, dtype in (
            *(("add", d) for d in (FLOAT32, FLOAT64, INT32, INT64, UINT8, BFLOAT16)),
            *(("max", d) for d in (FLOAT32, INT64)),
            ("mul", FLOAT32),
        )
    },
}


def legal(kernel: Kernel, device: CudaDevice) -> Kernel:
    result = legalise(kernel, device.caps)
    assert not isinstance(result, Refusal)
    return result


def upload(device: CudaDevice, array: np.ndarray) -> DeviceBuffer:
    buffer = device.alloc(max(1, array.nbytes))
    device.h2d(buffer, np.ascontiguousarray(array))
    return buffer


def launch(device: CudaDevice, run: Runnable, arrays: Sequence[np.ndarray], sizes: Sequence[int]) -> list[np.ndarray]:
    """The arrays as they are afterwards."""
    buffers = [upload(device, array) for array in arrays]
    run(buffers, sizes)
    results = [np.empty_like(array) for array in arrays]
    for result, buffer in zip(results, buffers, strict=True):
        device.d2h(result, buffer)
    return results


def run(device: CudaDevice, name: str, *arrays: np.ndarray, sizes: Sequence[int] = ()) -> list[np.ndarray]:
    """A kernel of `KERNELS`. All are built the first time, as one batch; then the device has them."""
    return launch(device, built(device)[name], arrays, sizes)


_built: dict[CudaDevice, dict[str, Runnable]] = {}


def built(device: CudaDevice) -> dict[str, Runnable]:
    if device not in _built:
        works: list[Work] = [legal(kernel, device) for kernel in KERNELS.values()]
        _built[device] = dict(zip(KERNELS, device.build(works), strict=True))
    return _built[device]
