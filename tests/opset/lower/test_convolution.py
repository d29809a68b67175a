"""Convolutions against onnxruntime and, where it has none, against onnx's reference."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from harness import check, random, run, same, traced
from oracle import agrees

from omniop.opset.definitions import Structured
from omniop.opset.dtype import FLOAT32
from omniop.opset.errors import ModelError
from omniop.opset.sym import SymInt

CONVOLUTIONS: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((2, 3, 9), (4, 3, 3), {}),
    ((1, 2, 7), (3, 2, 4), {"strides": [2], "pads": [3, 1], "dilations": [2]}),
    ((2, 3, 7, 9), (5, 3, 3, 2), {"pads": [1, 0, 2, 1]}),
    ((1, 4, 8, 7), (6, 2, 3, 3), {"group": 2, "strides": [2, 1], "pads": [1, 1, 1, 1]}),
    ((1, 4, 6, 6), (4, 1, 3, 3), {"group": 4, "dilations": [2, 2], "pads": [2, 2, 2, 2]}),
    ((1, 3, 8, 5), (2, 3, 1, 1), {}),
    ((1, 2, 4, 5, 6), (3, 2, 2, 3, 2), {"strides": [1, 2, 1], "pads": [0, 1, 0, 1, 1, 1]}),
    ((1, 2, 3, 3), (1, 2, 3, 3), {}),
]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("data", "weights", "attrs"), CONVOLUTIONS, ids=str)
def test_conv(data: tuple[int, ...], weights: tuple[int, ...], attrs: dict[str, Any], bias: bool) -> None:
    b = [random((weights[0],), seed=2)] if bias else []
    agrees("Conv", [random(data), random(weights, seed=1), *b], **attrs)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize(("size", "kernel", "stride"), [(7, 3, 1), (7, 2, 2), (8, 3, 2), (8, 1, 2), (9, 5, 3)])
def test_conv_pads_by_itself(auto_pad: str, size: int, kernel: int, stride: int) -> None:
    x, w = random((1, 2, size, size)), random((3, 2, kernel, kernel), seed=1)
    agrees("Conv", [x, w], auto_pad=auto_pad, strides=[stride, stride])


def test_conv_with_unchanged_size_asks_nothing_of_it() -> None:
    y, _ = traced("Conv", [((1, 3, 20, 30), FLOAT32), ((4, 3, 3, 3), FLOAT32)], pads=[1, 1, 1, 1])
    assert isinstance(y.definition, Structured)
    assert isinstance(y.shape[2], SymInt)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_conv_in_other_floats_sums_wide_and_rounds_once(dtype: Any) -> None:
    x, w, b = (random(s, dtype, k, 1.0) for k, s in enumerate([(1, 8, 6, 6), (3, 8, 3, 3), (3,)]))
    wide = np.float64 if dtype is np.float64 else np.float32
    expected = run("Conv", [x.astype(wide), w.astype(wide), b.astype(wide)])[0].astype(dtype)
    same(run("Conv", [x, w, b])[0], expected, rtol=1e-12, atol=0)


def test_conv_refuses_wrong_channels_and_windows_that_do_not_fit() -> None:
    with pytest.raises(ModelError, match="channels of X"):
        run("Conv", [random((1, 3, 5, 5)), random((2, 4, 3, 3))])
    with pytest.raises(ModelError, match="wider than axis"):
        run("Conv", [random((1, 3, 5, 2)), random((2, 3, 3, 3))])
    with pytest.raises(ModelError, match="'strides' has 1"):
        run("Conv", [random((1, 3, 5, 5)), random((2, 3, 3, 3))], strides=[1])


def test_conv_of_no_images() -> None:
    same(run("Conv", [random((0, 3, 5, 5)), random((2, 3, 3, 3))])[0], np.zeros((0, 2, 3, 3), np.float32))


TRANSPOSED: list[tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = [
    ((1, 3, 5), (3, 2, 4), {"strides": [2], "pads": [1, 1]}),
    ((2, 3, 4, 5), (3, 2, 2, 2), {"strides": [2, 2]}),
    ((2, 3, 4, 5), (3, 2, 3, 3), {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
    ((1, 4, 3, 4), (4, 2, 3, 2), {"group": 2, "strides": [3, 1]}),
    ((1, 4, 4, 4), (4, 1, 3, 3), {"group": 4, "pads": [0, 1, 1, 0]}),
    ((1, 2, 4, 3), (2, 3, 3, 3), {"dilations": [2, 2], "strides": [2, 3]}),
    ((1, 2, 3, 3), (2, 3, 2, 2), {"strides": [3, 3]}),
    ((1, 2, 3, 2, 3), (2, 2, 3, 2, 2), {"strides": [2, 1, 2], "pads": [1, 0, 0, 1, 0, 1]}),
    ((1, 2, 3, 3), (2, 3, 3, 3), {"strides": [2, 2], "output_shape": [6, 7], "auto_pad": "SAME_UPPER"}),
]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("data", "weights", "attrs"), TRANSPOSED, ids=str)
def test_conv_transpose(data: tuple[int, ...], weights: tuple[int, ...], attrs: dict[str, Any], bias: bool) -> None:
    b = [random((weights[1] * attrs.get("group", 1),), seed=2)] if bias else []
    agrees("ConvTranspose", [random(data), random(weights, seed=1), *b], **attrs)


@pytest.mark.parametrize("auto_pad", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_conv_transpose_pads_by_itself(auto_pad: str, stride: int) -> None:
    x, w = random((1, 2, 4, 5)), random((2, 3, 3, 4), seed=1)
    agrees("ConvTranspose", [x, w], auto_pad=auto_pad, strides=[stride, stride])


def test_conv_transpose_is_one_product() -> None:
    _, tr = traced("ConvTranspose", [((1, 3, 5, 7), FLOAT32), ((3, 2, 2, 2), FLOAT32)], strides=[2, 2])
    assert len([d for d in tr.definitions if isinstance(d, Structured)]) == 1


@pytest.mark.parametrize(("group", "offset_group"), [(1, 1), (1, 2), (2, 1), (2, 2)])
def test_deform_conv(group: int, offset_group: int) -> None:
    x, w = random((2, 4, 6, 7)), random((2, 4 // group, 2, 3), seed=1)
    attrs: dict[str, Any] = {"group": group, "offset_group": offset_group, "pads": [1, 0, 0, 1], "strides": [2, 1]}
    out = (3, 6)
    offset = random((2, offset_group * 12, *out), seed=2, scale=1.0)
    mask = random((2, offset_group * 6, *out), seed=3)
    b = random((2,), seed=4)
    check("DeformConv", [x, w, offset, b, mask], rtol=1e-3, atol=1e-4, **attrs)
    check("DeformConv", [x, w, offset], rtol=1e-3, atol=1e-4, **attrs)
