"""Pools against onnxruntime, and against numpy where it differs from the specification or has none."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from harness import check, random, run, same
from oracle import agrees

from omniop.opset.errors import ModelError

WINDOWS: list[tuple[tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 9), {"kernel_shape": [3]}),
    ((1, 2, 8, 9), {"kernel_shape": [2, 3], "strides": [2, 2]}),
    ((1, 2, 8, 9), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ((1, 2, 8, 9), {"kernel_shape": [3, 2], "pads": [2, 0, 1, 1], "strides": [1, 3]}),
    ((1, 2, 7, 8), {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    ((1, 2, 7, 8), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1], "ceil_mode": 1}),
    ((1, 1, 4, 5, 6), {"kernel_shape": [2, 3, 2], "strides": [1, 2, 2], "pads": [0, 1, 1, 0, 1, 0]}),
    ((1, 2, 7, 8), {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_UPPER"}),
    ((1, 2, 7, 8), {"kernel_shape": [3, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"}),
    ((1, 2, 7, 8), {"kernel_shape": [3, 2], "strides": [2, 3], "auto_pad": "VALID"}),
]


@pytest.mark.parametrize(("shape", "attrs"), WINDOWS, ids=str)
def test_max_pool_with_positions(shape: tuple[int, ...], attrs: dict[str, Any]) -> None:
    agrees("MaxPool", [random(shape)], outputs=2, **attrs)


@pytest.mark.parametrize("storage_order", [0, 1])
def test_max_pool_dilated_in_both_orders(storage_order: int) -> None:
    attrs: dict[str, Any] = {"kernel_shape": [2, 3], "dilations": [3, 2], "pads": [1, 2, 1, 2]}
    agrees("MaxPool", [random((2, 3, 7, 8))], outputs=2, storage_order=storage_order, **attrs)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.float16, np.float64, ml_dtypes.bfloat16])
def test_max_pool_of_other_dtypes(dtype: Any) -> None:
    x = random((1, 2, 6, 6), dtype)
    blocks = x.astype(np.float64).reshape(1, 2, 3, 2, 3, 2).max(axis=(3, 5)).astype(dtype)
    same(run("MaxPool", [x], opset=22, kernel_shape=[2, 2], strides=[2, 2])[0], blocks)


def test_of_equal_maxima_the_first_place_wins_even_among_minus_infinities() -> None:
    x = np.full((1, 1, 3, 3), -np.inf, np.float32)
    y, places = run("MaxPool", [x], outputs=2, kernel_shape=[2, 2], pads=[1, 1, 0, 0])
    assert np.isneginf(y).all()
    assert places.reshape(-1).tolist() == [0, 0, 1, 0, 0, 1, 3, 3, 4]


@pytest.mark.parametrize("count_include_pad", [0, 1])
@pytest.mark.parametrize(("shape", "attrs"), WINDOWS, ids=str)
def test_average_pool(shape: tuple[int, ...], attrs: dict[str, Any], count_include_pad: int) -> None:
    check("AveragePool", [random(shape)], rtol=1e-4, atol=1e-5, count_include_pad=count_include_pad, **attrs)


@pytest.mark.parametrize("ceil_mode", [0, 1])
@pytest.mark.parametrize("count_include_pad", [0, 1])
def test_average_pool_dilated(ceil_mode: int, count_include_pad: int) -> None:
    attrs: dict[str, Any] = {"kernel_shape": [3, 2], "dilations": [2, 3], "pads": [2, 1, 0, 1], "strides": [2, 2]}
    attrs |= {"ceil_mode": ceil_mode, "count_include_pad": count_include_pad}
    agrees("AveragePool", [random((1, 2, 8, 9))], **attrs)


def test_average_of_halves_is_summed_wide() -> None:
    x = np.full((1, 1, 64, 64), 48.0, np.float16)
    same(run("AveragePool", [x], kernel_shape=[64, 64])[0], np.full((1, 1, 1, 1), 48.0, np.float16))
    same(run("GlobalAveragePool", [x])[0], np.full((1, 1, 1, 1), 48.0, np.float16))


@pytest.mark.parametrize("power", [1, 2, 3])
@pytest.mark.parametrize(("shape", "attrs"), WINDOWS[:4], ids=str)
def test_lp_pool(shape: tuple[int, ...], attrs: dict[str, Any], power: int) -> None:
    agrees("LpPool", [random(shape)], p=power, **attrs)


@pytest.mark.parametrize("shape", [(2, 3, 5), (1, 2, 4, 5), (2, 1, 3, 2, 2)], ids=str)
def test_global_pools(shape: tuple[int, ...]) -> None:
    x = random(shape)
    agrees("GlobalMaxPool", [x])
    agrees("GlobalAveragePool", [x])
    for power in (1, 2, 3):
        agrees("GlobalLpPool", [x], p=power)


def test_max_unpool_inverts_max_pool() -> None:
    x = random((2, 3, 6, 8))
    y, places = run("MaxPool", [x], outputs=2, kernel_shape=[2, 2], strides=[2, 2])
    agrees("MaxUnpool", [y, places], kernel_shape=[2, 2], strides=[2, 2])


def test_max_unpool_into_a_larger_shape() -> None:
    x, places = random((1, 1, 2, 2)), np.array([[[[5, 7], [13, 15]]]])
    shape = np.array([1, 1, 5, 6])
    check("MaxUnpool", [x, places, shape], kernel_shape=[2, 2], strides=[2, 2])
    with pytest.raises(ModelError, match="does not hold"):
        run("MaxUnpool", [x, places, np.array([1, 1, 3, 4])], kernel_shape=[2, 2], strides=[2, 2])


def test_max_unpool_reports_a_place_outside() -> None:
    with pytest.raises(IndexError, match="outside its axis of"):
        run("MaxUnpool", [random((1, 1, 1, 1)), np.array([[[[4]]]])], kernel_shape=[2, 2])


BOXES = np.array([[0, 0, 7, 7], [1, 2, 5, 9], [-2, -3, 4, 4], [6, 6, 20, 30], [3, 3, 3, 3]], np.float32)
IMAGES = np.array([0, 1, 0, 1, 0], np.int64)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("ratio", [0, 2])
@pytest.mark.parametrize("transform", ["half_pixel", "output_half_pixel"])
def test_roi_align(mode: str, ratio: int, transform: str) -> None:
    attrs: dict[str, Any] = {"mode": mode, "sampling_ratio": ratio, "coordinate_transformation_mode": transform}
    attrs |= {"output_height": 2, "output_width": 3, "spatial_scale": 0.75}
    check("RoiAlign", [random((2, 3, 8, 9)), BOXES, IMAGES], opset=16, rtol=1e-4, atol=1e-5, **attrs)


def test_roi_align_before_opset_16_does_not_shift() -> None:
    attrs: dict[str, Any] = {"sampling_ratio": 2, "output_height": 2, "output_width": 2}
    agrees("RoiAlign", [random((2, 3, 8, 9)), BOXES, IMAGES], opset=10, **attrs)


def test_roi_align_of_an_image_that_is_not_there() -> None:
    with pytest.raises(IndexError, match="outside its axis of"):
        run("RoiAlign", [random((2, 1, 4, 4)), BOXES[:1], np.array([2])], sampling_ratio=1)


def test_max_roi_pool() -> None:
    boxes = np.array([[0, 0, 0, 7, 7], [1, 1, 2, 5, 6], [0, 3, 3, 4, 4], [1, 2, 0, 8, 7]], np.float32)
    agrees("MaxRoiPool", [random((2, 3, 8, 9)), boxes], pooled_shape=[2, 3], spatial_scale=1.0)
    agrees(
        "MaxRoiPool",
        [random((2, 3, 8, 9)), boxes * np.array([1, 2, 2, 2, 2], np.float32)],
        pooled_shape=[3, 3],
        spatial_scale=0.5,
    )
