"""Normalizations against onnxruntime, onnx's reference, or the formula in float64."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from evaluate import lower
from harness import check, random, run, same
from oracle import agrees

from omniop.opset.errors import ModelError


def parameters(channels: int, count: int) -> list[np.ndarray]:
    return [random((channels,), seed=k + 1) for k in range(count)]


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 5), (1, 4, 3, 5), (2, 3, 2, 2, 2)], ids=str)
def test_batch_normalization(shape: tuple[int, ...]) -> None:
    scale, bias, mean, variance = parameters(shape[1], 4)
    agrees("BatchNormalization", [random(shape), scale, bias, mean, np.abs(variance)], opset=15, epsilon=1e-3)


def test_batch_normalization_of_large_means_does_not_cancel() -> None:
    x = random((1, 2, 4, 4)) + np.float32(1e4)
    mean, variance = np.full(2, 1e4, np.float32), np.array([1e-6, 9.0], np.float32)
    scale, bias = parameters(2, 2)
    exact = (x.astype(np.float64) - 1e4) / np.sqrt(variance.astype(np.float64) + 1e-5).reshape(2, 1, 1)
    expected = exact * scale.reshape(2, 1, 1) + bias.reshape(2, 1, 1)
    same(run("BatchNormalization", [x, scale, bias, mean, variance])[0], expected.astype(np.float32), rtol=1e-5)


@pytest.mark.parametrize("opset", [14, 15])
def test_batch_normalization_in_training(opset: int) -> None:
    scale, bias, mean, variance = parameters(3, 4)
    inputs = [random((4, 3, 5)), scale, bias, mean, np.abs(variance)]
    check("BatchNormalization", inputs, opset=opset, outputs=3, training_mode=1, momentum=0.75, rtol=1e-4)


def test_batch_normalization_in_training_before_opset_14() -> None:
    x, (scale, bias, mean, variance) = random((4, 3, 5)), parameters(3, 4)
    results = run("BatchNormalization", [x, scale, bias, mean, variance], opset=9, outputs=5, momentum=0.75)
    own, spread = x.mean(axis=(0, 2)), x.var(axis=(0, 2))
    same(results[1], mean * 0.75 + own * 0.25, rtol=1e-4)
    same(results[2], variance * 0.75 + spread * 0.25, rtol=1e-4)
    same(results[3], own, rtol=1e-4)
    same(results[4], spread, rtol=1e-4)
    normal = (x - own.reshape(3, 1)) / np.sqrt(spread.reshape(3, 1) + 1e-5)
    same(results[0], normal * scale.reshape(3, 1) + bias.reshape(3, 1), rtol=1e-4, atol=1e-5)


def test_batch_normalization_by_feature() -> None:
    x, others = random((2, 3, 4)), [np.abs(random((3, 4), seed=k)) for k in range(4)]
    scale, bias, mean, variance = others
    expected = (x - mean) / np.sqrt(variance + 1e-5) * scale + bias
    same(
        run("BatchNormalization", [x, *others], opset=7, spatial=0)[0],
        expected.astype(np.float32),
        rtol=1e-4,
        atol=1e-5,
    )


def test_batch_normalization_with_parameters_of_another_dtype() -> None:
    x = random((2, 3, 4), np.float16)
    scale, bias, mean, variance = parameters(3, 4)
    (y,) = run("BatchNormalization", [x, scale.astype(np.float16), bias.astype(np.float16), mean, np.abs(variance)])
    assert y.dtype == np.float16


@pytest.mark.parametrize("shape", [(2, 3, 5), (1, 4, 3, 5)], ids=str)
def test_instance_normalization(shape: tuple[int, ...]) -> None:
    agrees("InstanceNormalization", [random(shape), *parameters(shape[1], 2)], opset=21, epsilon=1e-2)


@pytest.mark.parametrize(("shape", "axis"), [((2, 3, 4), -1), ((2, 3, 4), 1), ((5,), 0), ((2, 3, 4), 0)], ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_layer_normalization(shape: tuple[int, ...], axis: int, bias: bool) -> None:
    inner = shape[axis:]
    inputs = [random(shape), random(inner, seed=1), *([random(inner, seed=2)] if bias else [])]
    check("LayerNormalization", inputs, outputs=3, axis=axis, rtol=1e-4)


def test_layer_normalization_as_a_composite() -> None:
    x, scale, bias = random((2, 3, 4)), random((4,), seed=1), random((4,), seed=2)
    (direct,) = run("LayerNormalization", [x, scale, bias], epsilon=1e-3)
    (composite,) = lower("LayerNormalization", 1, [x, scale, bias], {"axis": -1, "epsilon": 1e-3}, domain="omniop")
    same(composite, direct, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_statistics_of_narrow_floats_are_taken_in_float32(dtype: Any) -> None:
    x = (random((3, 64)) + 40).astype(dtype)
    wide = x.astype(np.float64)
    one, zero = np.ones(64, dtype), np.zeros(64, dtype)
    expected = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-5)
    y, mean, _ = run("LayerNormalization", [x, one, zero], outputs=3)
    same(y, expected.astype(dtype), rtol=1e-3, atol=1e-3)
    same(mean, wide.mean(-1, keepdims=True).astype(np.float32))


def test_layer_normalization_refuses_an_axis_outside() -> None:
    with pytest.raises(ModelError, match="axis 2"):
        run("LayerNormalization", [random((2, 3)), random((3,))], axis=2)


@pytest.mark.parametrize("groups", [1, 2, 6])
@pytest.mark.parametrize("shape", [(2, 6, 3), (1, 6, 3, 4), (2, 6)], ids=str)
def test_group_normalization(shape: tuple[int, ...], groups: int) -> None:
    x, scale, bias = random(shape), random((6,), seed=1), random((6,), seed=2)
    grouped = x.astype(np.float64).reshape(shape[0], groups, -1)
    normal = (grouped - grouped.mean(-1, keepdims=True)) / np.sqrt(grouped.var(-1, keepdims=True) + 1e-5)
    across = [1, 6, *[1] * (len(shape) - 2)]
    expected = normal.reshape(shape) * scale.reshape(across) + bias.reshape(across)
    (y,) = run("GroupNormalization", [x, scale, bias], num_groups=groups)
    same(y, expected.astype(np.float32), rtol=1e-4, atol=1e-5)


def test_group_normalization_scales_groups_before_opset_21() -> None:
    x, scale, bias = random((2, 4, 3)), random((2,), seed=1), random((2,), seed=2)
    wide = [np.repeat(t, 2) for t in (scale, bias)]
    old = run("GroupNormalization", [x, scale, bias], opset=18, num_groups=2)[0]
    same(old, run("GroupNormalization", [x, *wide], opset=21, num_groups=2)[0], rtol=1e-6)


@pytest.mark.parametrize("axis", [-1, 1, 0])
def test_rms_normalization(axis: int) -> None:
    x = random((2, 3, 4))
    check("RMSNormalization", [x, random(x.shape[axis:], seed=1)], axis=axis, epsilon=1e-3)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("axis", [-1, 0])
def test_lp_normalization(order: int, axis: int) -> None:
    x = random((3, 4))
    x[1] = 0
    x[:, 2] = 0
    size = np.linalg.norm(x, order, axis, keepdims=True)
    expected = np.divide(x, size, out=np.zeros_like(x), where=size != 0)
    same(run("LpNormalization", [x], p=order, axis=axis)[0], expected)


@pytest.mark.parametrize("size", [1, 3, 5])
def test_lrn(size: int) -> None:
    agrees("LRN", [random((2, 6, 3, 4))], size=size, alpha=0.2, beta=0.6, bias=1.5)


def test_lrn_of_an_even_size_looks_further_ahead() -> None:
    x = random((1, 5, 2))
    squares = np.pad(x * x, ((0, 0), (1, 2), (0, 0)))
    total = sum(squares[:, k : k + 5] for k in range(4))
    expected = x / (1 + 1e-4 / 4 * total) ** 0.75
    same(run("LRN", [x], size=4)[0], expected.astype(np.float32))
