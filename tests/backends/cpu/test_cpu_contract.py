"""The prim ``contract``: views as BLAS finds them, dtypes, epilogues in place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from one_node import check, model, normal, whole
from onnx import helper, numpy_helper

from omniop.backends.cpu import BACKEND, matmul
from omniop.opset import dtype as dtypes
from omniop.opset import expr
from omniop.opset.dtype import DType
from omniop.opset.expr import Expr
from omniop.opset.kernel import Call, Param, View

DEVICE = BACKEND.devices()[0]


def view(buffer: int, dtype: DType, shape: Sequence[int], strides: Sequence[int], offset: int = 0) -> View:
    numbers: list[tuple[Expr, ...]] = [tuple(map(expr.index, part)) for part in (shape, strides)]
    return View(buffer, dtype, numbers[0], numbers[1], expr.index(offset))


def product(
    a: np.ndarray, views: tuple[View, View], shape: tuple[int, ...], accumulate: DType | None = None
) -> np.ndarray:
    """A contract of two views of ``a``'s memory."""
    dtype = dtypes.of_numpy(a.dtype)
    steps = [int(np.prod(shape[k + 1 :])) for k in range(len(shape))]
    result = view(1, dtype, shape, steps)
    attrs = (("accumulate", accumulate or dtype),)
    (run,) = DEVICE.build([Call("contract", (Param(dtype), Param(dtype, True)), views, (result,), attrs)])
    source, target = DEVICE.alloc(a.nbytes), DEVICE.alloc(int(np.prod(shape)) * a.itemsize)
    DEVICE.h2d(source, np.ascontiguousarray(a))
    run([source, target], ())
    y = np.empty(shape, a.dtype)
    DEVICE.d2h(y, target)
    return y


@pytest.mark.parametrize("strides", [(12, 1), (1, 12), (-12, 1), (24, 2), (0, 1), (12, 0)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_strides(strides: tuple[int, int], dtype: Any) -> None:
    """By rows, by columns, backwards, every second one, broadcast: on either side."""
    data = whole(400, dtype=dtype) if dtype == np.int32 else normal(400, dtype=dtype)
    kind = dtypes.of_numpy(data.dtype)
    offset = 130 if min(strides) < 0 else 3
    x = np.lib.stride_tricks.as_strided(data[offset:], (5, 7), [s * data.itemsize for s in strides])
    square = data[200:249].reshape(7, 7)
    left = product(data, (view(0, kind, (5, 7), strides, offset), view(0, kind, (7, 7), (7, 1), 200)), (5, 7))
    np.testing.assert_allclose(left, x @ square, rtol=1e-4, atol=1e-4)
    right = product(data, (view(0, kind, (7, 7), (1, 7), 200), view(0, kind, (7, 5), strides[::-1], offset)), (7, 5))
    np.testing.assert_allclose(right, square.T @ x.T, rtol=1e-4, atol=1e-4)


def test_batches() -> None:
    """Heads of attention: the batch lies between rows and columns; one operand is the same for all."""
    data = normal(3 * 4 * 8)
    heads = data.reshape(3, 4, 8).transpose(1, 0, 2)  # [heads, rows, 8]
    a = view(0, dtypes.FLOAT32, (4, 3, 8), (8, 32, 1))
    b = view(0, dtypes.FLOAT32, (4, 8, 3), (0, 1, 32))
    y = product(data, (a, b), (4, 3, 3))
    np.testing.assert_allclose(y, heads @ heads[0].T, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_narrow_floats_are_rounded_once(dtype: Any) -> None:
    x = normal(40, 40, dtype=dtype)
    kind = dtypes.of_numpy(x.dtype)
    operand = view(0, kind, (40, 40), (40, 1))
    y = product(x, (operand, operand), (40, 40), dtypes.FLOAT32)
    exact = x.astype(np.float64) @ x.astype(np.float64)
    ulp = float(ml_dtypes.finfo(dtype).eps)
    np.testing.assert_allclose(y.astype(np.float64), exact, rtol=0.51 * ulp, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.int64, np.uint64])
@pytest.mark.parametrize("magnitude", [3, 1 << 14, 1 << 40, 1 << 62])
def test_integers_wrap(dtype: Any, magnitude: int) -> None:
    """Exact modulo 2**bits, whichever float or integer product was used."""
    limits = np.iinfo(dtype)
    low, high = max(limits.min, -magnitude), min(limits.max, magnitude)
    x = np.random.default_rng(0).integers(low, high, (6, 9), dtype=dtype, endpoint=True)
    y = np.random.default_rng(1).integers(low, high, (9, 4), dtype=dtype, endpoint=True)
    out = np.empty((6, 4), dtype)
    matmul.matmul(x, y, out)
    exact = x.astype(object) @ y.astype(object)
    mask = (1 << limits.bits) - 1
    assert ([int(v) & mask for v in out.reshape(-1)]) == [int(v) & mask for v in exact.reshape(-1)]


def test_least_integers() -> None:
    """Magnitudes that have no counterpart above 0."""
    x = np.full((1, 2), np.iinfo(np.int64).min)
    out = np.empty((1, 1), np.int64)
    matmul.matmul(x, np.array([[1], [0]]), out)
    assert out[0, 0] == np.iinfo(np.int64).min


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64])
def test_epilogue(dtype: Any) -> None:
    """Bias and GELU in one step; in place for float32, by way of float32 for narrow floats."""
    x, larger = normal(5, 12, dtype=dtype), normal(9, 12, dtype=dtype, seed=1)
    held = {"w": normal(12, 17, dtype=dtype)}
    tail = [helper.make_node("Add", ["y0", "b"], ["s"]), helper.make_node("Gelu", ["s"], ["z"])]
    proto = model("MatMul", {"x": x}, held, then=tail)
    proto.graph.initializer.append(numpy_helper.from_array(normal(17, dtype=dtype, seed=2), "b"))
    ulp = float(ml_dtypes.finfo(dtype).eps)
    text = check(proto, {"x": x}, {"x": larger}, prim="contract", rtol=8 * ulp, atol=8 * ulp)
    assert "1 steps" in text


def test_epilogue_to_another_dtype() -> None:
    """The result's memory holds another dtype than the product."""
    x = normal(5, 12)
    tail = [helper.make_node("Cast", ["y0"], ["z"], to=7)]
    text = check(model("MatMul", {"x": x}, {"w": normal(12, 17)}, then=tail), {"x": x}, prim="contract")
    assert "1 steps" in text
