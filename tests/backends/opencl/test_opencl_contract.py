"""Matrix products against numpy's in float64, at shapes and strides that end badly."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided
from opencl_contracts import contract, normal, upload

from omniop.backends.base import OpContext, TensorType
from omniop.backends.opencl.device import OpenCLDevice
from omniop.opset import dtype as dtypes
from omniop.opset import expr
from omniop.opset.dtype import DType
from omniop.opset.errors import DeviceError
from omniop.opset.expr import Expr
from omniop.opset.kernel import Call, Param, View

SHAPES = [
    (1, 1, 1),
    (1, 1, 77),
    (1, 33, 5),
    (33, 1, 40),
    (3, 100, 17),
    (100, 3, 17),
    (7, 5, 1),
    (9, 37, 129),
    (64, 64, 64),
    (131, 67, 43),
    (13, 16, 300),
    (10, 300, 20),
]


def check(result: np.ndarray, wanted: np.ndarray, depth: int, rtol: float = 1e-5) -> None:
    np.testing.assert_allclose(result.astype(np.float64), wanted, rtol=rtol, atol=rtol * np.sqrt(depth))


@pytest.mark.parametrize(("m", "n", "k"), SHAPES)
@pytest.mark.parametrize("layout", ["nn", "nt", "tn", "tt"])
def test_shapes(either: OpenCLDevice, m: int, n: int, k: int, layout: str) -> None:
    a = normal(m, k) if layout[0] == "n" else normal(k, m).T
    b = normal(k, n) if layout[1] == "n" else normal(n, k).T
    check(contract(either, a, b), a.astype(np.float64) @ b.astype(np.float64), k)


@pytest.mark.parametrize("symbolic", [True, False], ids=["symbolic", "static"])
def test_steps_and_offsets(either: OpenCLDevice, symbolic: bool) -> None:
    """Neither rows nor columns are contiguous, and some run backwards."""
    a, b = normal(40, 60)[3:33:2, 50:10:-3], normal(60, 90)[5:47:3, 2:80:2]
    check(contract(either, a, b, symbolic=symbolic), a.astype(np.float64) @ b.astype(np.float64), 14)


BATCHES = [
    ((5, 9, 20), (5, 20, 17)),
    ((2, 3, 9, 20), (2, 3, 20, 17)),
    ((2, 3, 2, 10, 4), (2, 3, 2, 4, 11)),
    ((5, 1, 20), (5, 20, 30)),
    ((1, 1, 6, 20), (1, 1, 20, 40)),
]


@pytest.mark.parametrize(("a_shape", "b_shape"), BATCHES)
def test_batches(either: OpenCLDevice, a_shape: tuple[int, ...], b_shape: tuple[int, ...]) -> None:
    a, b = normal(*a_shape), normal(*b_shape)
    check(contract(either, a, b), a.astype(np.float64) @ b.astype(np.float64), 20)


def test_heads_are_strided(either: OpenCLDevice) -> None:
    """Attention scores: [batch, head, row, depth] views of [batch, row, head, depth]."""
    query, key = normal(2, 10, 3, 8).transpose(0, 2, 1, 3), normal(2, 12, 3, 8).transpose(0, 2, 3, 1)
    check(contract(either, query, key), query.astype(np.float64) @ key.astype(np.float64), 8)


@pytest.mark.parametrize("rows", [1, 3, 40])
def test_broadcast_batches(either: OpenCLDevice, rows: int) -> None:
    """Strides of 0: weights shared by a batch, and a row that is every row."""
    a, b = normal(2, 3, rows, 16), normal(16, 25)
    shared = np.broadcast_to(b, (2, 3, 16, 25))
    check(contract(either, a, shared), a.astype(np.float64) @ b.astype(np.float64), 16)
    same = as_strided(normal(1, 16), (2, 3, rows, 16), (0, 0, 0, 4))
    check(contract(either, same, shared), same.astype(np.float64) @ b.astype(np.float64), 16)


def test_large_enough_for_several_work_items_a_row(device: OpenCLDevice) -> None:
    a, b = normal(300, 50), normal(50, 20)
    check(contract(device, a, b), a.astype(np.float64) @ b.astype(np.float64), 50)


def test_panels_in_parts(device: OpenCLDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scratch memory is bounded: a wide B is packed and multiplied a part at a time."""
    monkeypatch.setattr("omniop.backends.opencl.contract._SCRATCH_BYTES", 1 << 14)
    a, b = normal(30, 70).T, normal(30, 1000)
    check(contract(device, a, b), a.astype(np.float64) @ b.astype(np.float64), 30)


DTYPES = [
    (np.float64, dtypes.FLOAT64, dtypes.FLOAT64, 1e-12),
    (np.float16, dtypes.FLOAT32, dtypes.FLOAT16, 1e-3),
    (np.float16, dtypes.FLOAT32, dtypes.FLOAT32, 1e-5),
    (ml_dtypes.bfloat16, dtypes.FLOAT32, dtypes.BFLOAT16, 1e-2),
    (np.int32, dtypes.INT32, dtypes.INT32, 0),
    (np.int64, dtypes.INT64, dtypes.INT64, 0),
    (np.uint8, dtypes.INT32, dtypes.INT32, 0),
    (np.int8, dtypes.INT32, dtypes.INT32, 0),
]


@pytest.mark.parametrize(("dtype", "accumulate", "result", "rtol"), DTYPES)
@pytest.mark.parametrize(("m", "layout"), [(1, "nn"), (1, "nt"), (50, "nn")])
def test_dtypes(
    either: OpenCLDevice, dtype: type, accumulate: DType, result: DType, rtol: float, m: int, layout: str
) -> None:
    if accumulate not in either.caps.compute:
        pytest.skip(f"no {accumulate}")
    n, k = 30, 37
    a = normal(m, k, dtype=dtype)
    b = normal(k, n, dtype=dtype) if layout == "nn" else normal(n, k, dtype=dtype).T
    check(contract(either, a, b, accumulate, result), a.astype(np.float64) @ b.astype(np.float64), k, rtol)


def test_integers_wrap(either: OpenCLDevice) -> None:
    a, b = np.full((20, 3), 1 << 30, np.int32), np.full((3, 20), 5, np.int32)
    np.testing.assert_array_equal(contract(either, a, b, dtypes.INT32), a @ b)


@pytest.mark.parametrize(("m", "n"), [(1, 40), (3, 40), (40, 2), (37, 50)])
def test_epilogue(either: OpenCLDevice, m: int, n: int) -> None:
    """Bias by column, a residual at the row and batch, and a function."""
    a, b, bias, residual = normal(2, m, 9), normal(2, 9, n), normal(n), normal(2, m, n)

    def epilogue() -> Expr:
        i, j, k = expr.axis(0, 2), expr.axis(1, m), expr.axis(2, n)
        total = expr.hole(dtypes.FLOAT32) + expr.load(3, (k,), dtypes.FLOAT32)
        return expr.alu("tanh", total) + expr.load(4, ((i * m + j) * n + k,), dtypes.FLOAT32)

    wanted = np.tanh(a.astype(np.float64) @ b + bias) + residual
    result = contract(either, a, b, epilogue=epilogue(), extra=(bias, residual), symbolic=False)
    check(result, wanted, 9)


def test_epilogue_of_another_dtype(either: OpenCLDevice) -> None:
    a, b = normal(30, 9), normal(9, 20)
    positive = contract(either, a, b, epilogue=expr.binary("lt", 0.0, expr.hole(dtypes.FLOAT32)))
    np.testing.assert_array_equal(positive, a @ b > 0)


def test_half_is_rounded_before_the_epilogue(either: OpenCLDevice) -> None:
    a, b = normal(30, 9, dtype=np.float16), normal(9, 20, dtype=np.float16)
    result = contract(either, a, b, epilogue=expr.hole(dtypes.FLOAT16) + 1000.0)
    rounded = (a.astype(np.float32) @ b.astype(np.float32)).astype(np.float16)
    np.testing.assert_allclose(result, rounded + np.float16(1000), atol=0.5)


def test_other_shapes_with_the_same_kernels(device: OpenCLDevice) -> None:
    """Sizes are arguments: one piece of work serves them all, and plans anew for each."""
    n, k = expr.size("s1"), expr.size("s2")
    views = [((expr.size("s0"), k), (k, expr.index(1))), ((k, n), (n, expr.index(1)))]
    operands = tuple(View(i, dtypes.FLOAT32, *v, expr.index(0)) for i, v in enumerate(views))
    result = View(2, dtypes.FLOAT32, (expr.size("s0"), n), (n, expr.index(1)), expr.index(0))
    params = (Param(dtypes.FLOAT32), Param(dtypes.FLOAT32), Param(dtypes.FLOAT32, True))
    call = Call("contract", params, operands, (result,), (("accumulate", dtypes.FLOAT32),), 3)
    (run,) = device.build([call])
    for m_, n_, k_ in [(30, 41, 20), (1, 43, 21), (30, 41, 20), (64, 3, 2)]:
        a, b, c = normal(m_, k_), normal(k_, n_), np.zeros((m_, n_), np.float32)
        buffers = [upload(device, x) for x in (a, b, c)]
        run(buffers, [m_, n_, k_])
        device.d2h(c, buffers[2])
        check(c, a.astype(np.float64) @ b, k_)


def _context(device: OpenCLDevice, dtype: DType, accumulate: DType) -> OpContext:
    matrix = TensorType(dtype, (4, 4))
    return OpContext("contract", (matrix, matrix), (matrix,), {"accumulate": accumulate}, device.caps)


def test_what_is_accepted(device: OpenCLDevice) -> None:
    assert device.accepts(_context(device, dtypes.FLOAT32, dtypes.FLOAT32))
    assert device.accepts(_context(device, dtypes.FLOAT16, dtypes.FLOAT32))
    refused = device.accepts(_context(device, dtypes.COMPLEX64, dtypes.COMPLEX64))
    assert not refused
    assert "complex64" in str(refused)
    assert device.accepts_epilogue("contract")
    assert not device.accepts_epilogue("sort")


def test_a_prim_that_was_not_accepted(device: OpenCLDevice) -> None:
    with pytest.raises(DeviceError, match="sort"):
        device.build([Call("sort", (), (), ())])
