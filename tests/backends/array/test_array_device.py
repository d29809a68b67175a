"""`ArrayDevice`, by way of the reference device."""

from __future__ import annotations

import numpy as np
import pytest

from omniop.backends.base import OpContext
from omniop.backends.reference import BACKEND
from omniop.opset import expr
from omniop.opset.dtype import FLOAT32, INT32
from omniop.opset.errors import DeviceError
from omniop.opset.expr import Expr
from omniop.opset.kernel import Call, Param, View

DEVICE = BACKEND.devices()[0]


def view(buffer: int, shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> View:
    def numbers(values: tuple[int, ...]) -> tuple[Expr, ...]:
        return tuple(map(expr.index, values))

    return View(buffer, FLOAT32, numbers(shape), numbers(strides), expr.index(offset))


def test_memory() -> None:
    x = np.arange(6, dtype=np.float32)
    first, second = DEVICE.alloc(24), DEVICE.alloc(30)
    DEVICE.h2d(first, x)
    DEVICE.copy(second, first, 24)
    y = np.empty((2, 3), np.float32)
    DEVICE.d2h(y, second)
    assert y.reshape(-1).tolist() == x.tolist()
    assert len(DEVICE.typed(second, INT32)) == 7  # type: ignore[attr-defined]


def test_no_memory() -> None:
    with pytest.raises(DeviceError, match="reference has no memory left for"):
        DEVICE.alloc(1 << 60)


def test_what_it_takes() -> None:
    context = OpContext("contract", (), (), {}, DEVICE.caps)
    assert DEVICE.accepts(context)
    assert DEVICE.accepts_epilogue("contract")
    assert not DEVICE.accepts(OpContext("conv", (), (), {}, DEVICE.caps))
    assert not DEVICE.accepts_epilogue("conv")


def contract(epilogue: Expr | None) -> Call:
    """[2, 3] x [3, 2], the second one backwards, into every second element of its buffer."""
    params = (Param(FLOAT32), Param(FLOAT32), Param(FLOAT32, True))
    operands = (view(0, (2, 3), (3, 1)), view(0, (3, 2), (-1, -3), 5))
    return Call("contract", params, operands, (view(2, (2, 2), (4, 2)),), (("accumulate", FLOAT32),), 0, epilogue)


@pytest.mark.parametrize("epilogue", [False, True])
def test_call(epilogue: bool) -> None:
    """The epilogue sees the product at its place, and reads a buffer of its own."""
    column = expr.axis(1, 2)
    tail = expr.hole(FLOAT32) * 10.0 + expr.load(1, (column,), FLOAT32)
    data, bias = np.arange(6, dtype=np.float32), np.array([100, 200], np.float32)
    buffers = [DEVICE.alloc(x) for x in (24, 8, 32)]
    DEVICE.h2d(buffers[0], data)
    DEVICE.h2d(buffers[1], bias)
    (run,) = DEVICE.build([contract(tail if epilogue else None)])
    DEVICE.h2d(buffers[2], np.full(8, -1, np.float32))
    run(buffers, ())
    y = np.empty(8, np.float32)
    DEVICE.d2h(y, buffers[2])
    product = data.reshape(2, 3) @ data[::-1].reshape(2, 3).T
    assert (y[::2].reshape(2, 2) == (product * 10 + bias if epilogue else product)).all()
    assert (y[1::2] == -1).all()
