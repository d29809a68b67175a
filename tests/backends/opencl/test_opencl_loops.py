"""Loop kernels on both kinds of device against the reference device, which evaluates them with numpy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from opencl_contracts import normal, upload

from omniop.backends.base import Device
from omniop.backends.opencl import loops
from omniop.backends.opencl.device import OpenCLDevice
from omniop.backends.reference import BACKEND as REFERENCE
from omniop.opset import expr
from omniop.opset.dtype import FLOAT32, INT32, INT64
from omniop.opset.expr import Expr
from omniop.opset.kernel import Carry, Kernel, Param, Store

Case = tuple[Kernel, Sequence[np.ndarray], Sequence[int]]
S0, S1, S2 = (expr.size(f"s{k}") for k in range(3))


def at(buffer: int, place: Expr, dtype: object = FLOAT32) -> Expr:
    return expr.load(buffer, (place,), dtype)


def elementwise() -> Case:
    """Longer than a group, and no multiple of one."""
    i = expr.axis(0, S0)
    kernel = Kernel((Param(FLOAT32), Param(FLOAT32, True)), (i,), (Store(1, i, expr.alu("tanh", at(0, i)) + 1.0),), 1)
    return kernel, [normal(1003), np.zeros(1003, np.float32)], [1003]


def bias() -> Case:
    """Four axes of which none can be joined."""
    n, c, y, x = expr.axis(0, 2), expr.axis(1, S0), expr.axis(2, S1), expr.axis(3, S2)
    place = ((n * S0 + c) * S1 + y) * S2 + x
    value = at(0, place) + at(1, c) * at(2, y) + at(3, x) * at(4, n)
    params = (*[Param(FLOAT32)] * 5, Param(FLOAT32, True))
    arrays = [normal(2, 3, 5, 70), normal(3), normal(5), normal(70), normal(2), np.zeros((2, 3, 5, 70), np.float32)]
    return Kernel(params, (n, c, y, x), (Store(5, place, value),), 3), arrays, [3, 5, 70]


def transpose() -> Case:
    i, j = expr.axis(0, S0), expr.axis(1, S1)
    kernel = Kernel((Param(FLOAT32), Param(FLOAT32, True)), (i, j), (Store(1, i * S1 + j, at(0, j * S0 + i)),), 2)
    return kernel, [normal(45, 37), np.zeros((37, 45), np.float32)], [37, 45]


def softmax() -> Case:
    i, j, k, m = expr.axis(0, S0), expr.axis(1, S1), expr.axis(2, S1), expr.axis(3, S1)
    top = expr.reduce("max", (k,), (at(0, i * S1 + k),))
    total = expr.reduce("add", (m,), (expr.alu("exp", at(0, i * S1 + m) - top),))
    value = expr.alu("exp", at(0, i * S1 + j) - top) / total
    kernel = Kernel((Param(FLOAT32), Param(FLOAT32, True)), (i, j), (Store(1, i * S1 + j, value),), 2)
    return kernel, [normal(7, 130), np.zeros((7, 130), np.float32)], [7, 130]


def total() -> Case:
    """One point, and a guarded load that feeds a logarithm in a loop."""
    k = expr.axis(0, S0)
    positive = expr.load(0, (k,), FLOAT32, guard=at(1, k, INT64).ne(2), other=1.0)
    value = expr.reduce("add", (k,), (expr.alu("log", expr.alu("abs", positive)),))
    kernel = Kernel((Param(FLOAT32), Param(INT64), Param(FLOAT32, True)), (), (Store(2, expr.index(0), value),), 1)
    return kernel, [normal(50), np.arange(50) % 4, np.zeros(1, np.float32)], [50]


def histogram() -> Case:
    """Stores that combine."""
    i = expr.axis(0, S0)
    store = Store(1, at(0, i, INT64), expr.const(1, INT32), combine="add")
    kernel = Kernel((Param(INT64), Param(INT32, True)), (i,), (store,), 1)
    return kernel, [np.arange(999) ** 2 % 7, np.zeros(7, np.int32)], [999]


def running_sum() -> Case:
    """A sequential axis."""
    i, k = expr.axis(0, S0), expr.raw_axis(1, S1)
    value = expr.carry(0, FLOAT32) + at(0, i * S1 + k)
    kernel = Kernel(
        (Param(FLOAT32), Param(FLOAT32, True)),
        (i,),
        (Store(1, i * S1 + k, value),),
        2,
        k,
        (Carry(FLOAT32, expr.const(0.0, FLOAT32), value),),
    )
    return kernel, [normal(9, 31), np.zeros((9, 31), np.float32)], [9, 31]


def halvings() -> Case:
    """A fold: the stores come after the last step, and the steps end early."""
    i, k = expr.axis(0, S0), expr.raw_axis(1, expr.index(1 << 40))
    value, count = expr.carry(0, INT64), expr.carry(1, INT32)
    carries = (
        Carry(INT64, at(0, i, INT64), value // 2),
        Carry(INT32, expr.const(0, INT32), count + expr.cast(value > 0, INT32)),
    )
    params = (Param(INT64), Param(INT32, True))
    kernel = Kernel(params, (i,), (Store(1, i, count),), 1, k, carries, until=value.eq(0))
    return kernel, [np.arange(99) ** 3, np.zeros(99, np.int32)], [99]


CASES: list[Callable[[], Case]] = [elementwise, bias, transpose, softmax, total, histogram, running_sum, halvings]


def results(device: Device, case: Case) -> np.ndarray:
    kernel, arrays, sizes = case
    (run,) = device.build([kernel])
    buffers = []
    for array in arrays:
        buffers.append(device.alloc(array.nbytes))
        device.h2d(buffers[-1], array)
    run(buffers, sizes)
    result = np.empty_like(arrays[-1])
    device.d2h(result, buffers[-1])
    return result


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_kernel(either: OpenCLDevice, case: Callable[[], Case]) -> None:
    wanted = results(REFERENCE.devices()[0], case())
    np.testing.assert_allclose(results(either, case()), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("columns", [1, 5, 64, 200, 1030])
def test_rows_of_open_length(device: OpenCLDevice, columns: int) -> None:
    """In parts, of which there may be none, with a rest, which may be nothing."""
    x = np.random.default_rng(0).standard_normal((7, columns)).astype(np.float32)
    case = softmax()[0], [x, np.zeros_like(x)], [7, columns]
    np.testing.assert_allclose(results(device, case), results(REFERENCE.devices()[0], case), rtol=1e-6)


def test_erf_leaves_room_for_what_cancels(either: OpenCLDevice) -> None:
    """To 2 units in the last place; the ends, zeros of both signs and NaN as C has them."""
    x = np.concatenate([np.linspace(-4.5, 4.5, 20001), np.logspace(-44, 0, 500), [np.inf, -np.inf, 0, -0.0, np.nan]])
    x = x.astype(np.float32)
    i = expr.axis(0, S0)
    kernel = Kernel((Param(FLOAT32), Param(FLOAT32, True)), (i,), (Store(1, i, expr.alu("erf", at(0, i))),), 1)
    y = results(either, (kernel, [x, np.zeros_like(x)], [len(x)]))
    exact = np.array([math.erf(v) for v in x.tolist()])
    last = np.spacing(np.maximum(np.abs(exact), np.finfo(np.float32).tiny).astype(np.float32))
    assert np.nanmax(np.abs(y - exact) / last) <= 2
    np.testing.assert_array_equal(np.isnan(y), np.isnan(x))
    np.testing.assert_array_equal(np.signbit(y)[:-1], np.signbit(x)[:-1])


def test_large_buffers_have_wide_offsets(lanes_device: OpenCLDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second version is compiled when a buffer has too many elements for 32 bits (here: 100), and only then."""
    kernel, arrays, sizes = elementwise()
    (run,) = lanes_device.build([kernel])
    monkeypatch.setattr(loops, "_ELEMENTS", 100)
    widths: list[int] = []
    printed = loops.OPENCL_C.print_kernel

    class Recorder:
        def print_kernel(self, *args: object, index_bits: int, **kwargs: object) -> object:
            widths.append(index_bits)
            return printed(*args, index_bits=index_bits, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(loops, "OPENCL_C", Recorder())
    buffers = [upload(lanes_device, a) for a in arrays]
    for _ in range(2):
        run(buffers, sizes)
    result = np.empty_like(arrays[-1])
    lanes_device.d2h(result, buffers[-1])
    np.testing.assert_allclose(result, np.tanh(arrays[0]) + 1, rtol=1e-5)
    assert widths == [64]
