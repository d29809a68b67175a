"""Quantization against onnx's reference and onnxruntime; products and convolutions of quantized integers."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from harness import check, random, run, same
from oracle import agrees

from omniop.opset.errors import ModelError

INTEGERS = [np.int8, np.uint8, np.int16, np.uint16]
TINY = [ml_dtypes.int4, ml_dtypes.uint4, ml_dtypes.int2, ml_dtypes.uint2]
FLOATS = [
    *(ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e4m3fnuz, ml_dtypes.float8_e5m2, ml_dtypes.float8_e5m2fnuz),
    ml_dtypes.float4_e2m1fn,
]


def scales(count: int) -> np.ndarray:
    return np.linspace(0.02, 0.3, count).astype(np.float32)


def whole(dtype: Any, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Any values of an integer dtype."""
    info = ml_dtypes.iinfo(dtype)
    return np.random.default_rng(seed).integers(info.min, info.max + 1, shape).astype(np.int32).astype(dtype)


def weights(dtype: Any, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Values of 7 bits: without VNNI, onnxruntime saturates sums of two products at 16 bits."""
    return (whole(dtype, shape, seed).astype(np.int32) // 2).astype(dtype)


@pytest.mark.parametrize("dtype", [*INTEGERS, *TINY])
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
def test_quantize_and_back(dtype: Any, axis: int | None) -> None:
    x = random((3, 4, 5), scale=9.0)
    shape = () if axis is None else (x.shape[axis],)
    scale = np.float32(0.07) if axis is None else scales(shape[0])
    zero = whole(dtype, shape)
    attrs: dict[str, Any] = {} if axis is None else {"axis": axis}
    check("QuantizeLinear", [x, np.asarray(scale), zero], opset=25, **attrs)
    check("DequantizeLinear", [whole(dtype, (3, 4, 5), 1), np.asarray(scale), zero], opset=25, **attrs)


@pytest.mark.parametrize("dtype", [np.int8, ml_dtypes.int4])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("block", [2, 3])
def test_blocks(dtype: Any, axis: int, block: int) -> None:
    shape = (6, 6, 6)
    inner = tuple(d // block if k == axis else d for k, d in enumerate(shape))
    scale = np.abs(random(inner)) + np.float32(0.1)
    zero = whole(dtype, inner)
    check("QuantizeLinear", [random(shape), scale, zero], axis=axis, block_size=block)
    check("DequantizeLinear", [whole(dtype, shape), scale, zero], axis=axis, block_size=block)


def test_the_last_block_may_be_short() -> None:
    x, scale = whole(np.int8, (2, 5)), np.array([[1, 2, 4], [8, 16, 32]], np.float32)
    expected = x * np.repeat(scale, 2, 1)[:, :5]
    same(run("DequantizeLinear", [x, scale], block_size=2)[0], expected)
    with pytest.raises(ModelError, match="in blocks of 2"):
        run("DequantizeLinear", [x, scale[:, :2]], block_size=2)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("saturate", [0, 1])
def test_narrow_floats(dtype: Any, saturate: int) -> None:
    x = np.array([0, -0.0, 1, 0.3, -7, 500, -70000, np.nan, np.inf], np.float32)
    zero = np.zeros((), dtype)
    check("QuantizeLinear", [x, np.asarray(np.float32(0.5)), zero], saturate=saturate)
    check("DequantizeLinear", [x.astype(dtype), np.asarray(np.float32(0.5)), zero])


def test_quantize_rounds_halves_to_even_and_saturates() -> None:
    x = np.array([0.5, 1.5, 2.5, -0.5, 1e9, -1e9, np.inf, -np.inf, 127.5], np.float32)
    y = run("QuantizeLinear", [x, np.asarray(np.float32(1)), np.asarray(np.int8(1))])[0]
    assert y.tolist() == [1, 3, 3, 1, 127, -128, 127, -128, 127]


def test_output_dtype_and_precision() -> None:
    x, scale = random((4, 5)), np.asarray(np.float32(0.1))
    check("QuantizeLinear", [x, scale], output_dtype=3)
    check("QuantizeLinear", [x.astype(np.float16), scale.astype(np.float16)], precision=1, output_dtype=5)
    check("DequantizeLinear", [whole(np.uint8, (4, 5)), scale], output_dtype=10)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_narrow_scales(dtype: Any) -> None:
    scale = np.asarray(dtype(0.125))
    x = random((4, 5), scale=2.0).astype(dtype)
    check("QuantizeLinear", [x, scale, np.asarray(np.uint8(7))])
    check("DequantizeLinear", [whole(np.int8, (4, 5)), scale, np.asarray(np.int8(7))])


def test_int32_is_dequantized_and_quantized() -> None:
    x = np.array([[-(2**20), 3, 2**24 + 2]], np.int32)
    check("DequantizeLinear", [x, np.asarray(np.float32(0.5))])
    check("QuantizeLinear", [np.array([[-300, 3, 300]], np.int32), np.asarray(np.float32(2))], opset=13)


@pytest.mark.parametrize("shift", [-100.0, 0.0, 100.0])
def test_dynamic_quantize_linear(shift: float) -> None:
    x = random((3, 4, 5), scale=20.0) + np.float32(shift)
    y, scale, zero = run("DynamicQuantizeLinear", [x], opset=21)
    agrees("DynamicQuantizeLinear", [x], outputs=3)
    assert scale == np.float32((max(x.max(), 0) - min(x.min(), 0)) / np.float32(255))
    assert np.abs((y.astype(np.float32) - zero) * scale - x).max() <= scale


def test_dynamic_quantize_linear_of_zeros() -> None:
    y, _, zero = run("DynamicQuantizeLinear", [np.zeros((2, 2), np.float32)], opset=21)
    assert y.tolist() == [[0, 0], [0, 0]]
    assert zero == 0


@pytest.mark.parametrize("right", [np.int8, np.uint8])
def test_matmul_integer(right: Any) -> None:
    a, b = whole(np.uint8, (2, 3, 5)), weights(right, (5, 4), 1)
    same(run("MatMulInteger", [a, b])[0], np.matmul(a.astype(np.int32), b.astype(np.int32)))
    agrees("MatMulInteger", [a, b, np.asarray(np.uint8(120)), weights(right, (4,), 2)])
    rows = whole(np.uint8, (3,), 3)
    expected = np.matmul(a[0].astype(np.int32) - rows.reshape(3, 1), b.astype(np.int32))
    same(run("MatMulInteger", [a[0], b, rows])[0], expected)


def test_qlinear_matmul() -> None:
    a, b = whole(np.uint8, (2, 3, 5)), weights(np.int8, (5, 4), 1)
    inputs = [a, np.float32(0.03), np.uint8(120), b, np.float32(0.02), np.int8(3), np.float32(0.4), np.uint8(99)]
    agrees("QLinearMatMul", [np.asarray(t) for t in inputs])
    columns = [a, np.float32(0.03), np.uint8(120), b, scales(4), weights(np.int8, (4,)), np.float32(0.4), np.uint8(9)]
    agrees("QLinearMatMul", [np.asarray(t) for t in columns])


@pytest.mark.parametrize("attrs", [{}, {"pads": [1, 1, 1, 1], "strides": [2, 1]}, {"group": 2}], ids=str)
def test_quantized_convolutions(attrs: dict[str, Any]) -> None:
    x, w = whole(np.uint8, (1, 4, 6, 7)), weights(np.int8, (6, 4 // attrs.get("group", 1), 3, 3), 1)
    x_zero = np.asarray(np.uint8(131))
    centred = x.astype(np.float64) - 131
    exact = run("Conv", [centred, w.astype(np.float64)], **attrs)[0]
    same(run("ConvInteger", [x, w, x_zero], **attrs)[0], exact.astype(np.int32))
    bias = whole(np.int16, (6,)).astype(np.int32)
    scale, zero = scales(6), np.zeros(6, np.int8)
    inputs = [x, np.float32(0.02), x_zero, w, scale, zero, np.float32(0.3), np.uint8(100), bias]
    agrees("QLinearConv", [np.asarray(t) for t in inputs], **attrs)
