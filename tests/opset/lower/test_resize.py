"""Resize and Upsample against onnx's reference and onnxruntime."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from harness import check, host, random, run, same, traced
from oracle import agrees

from omniop.opset import expr
from omniop.opset.definitions import Source
from omniop.opset.dtype import FLOAT32, INT64
from omniop.opset.errors import ModelError, UnsupportedError

TRANSFORMS = ["half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "asymmetric", "align_corners"]
ROUNDINGS = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
SHAPE = (1, 2, 5, 6)


def scales(*values: float) -> np.ndarray:
    return np.array([1, 1, *values], np.float32)


def sizes(*values: int) -> np.ndarray:
    return np.array([*SHAPE[:2], *values], np.int64)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("target", [(9, 11), (3, 4), (5, 13), (1, 1), (10, 3)], ids=str)
def test_interpolation_to_sizes(transform: str, mode: str, target: tuple[int, int]) -> None:
    attrs: dict[str, Any] = {"coordinate_transformation_mode": transform, "mode": mode}
    if 1 in target and transform == "pytorch_half_pixel":
        return  # the specification says 0, onnx's reference -0.5
    check("Resize", [random(SHAPE), None, None, sizes(*target)], rtol=1e-4, atol=1e-5, **attrs)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("target", [(9, 11), (3, 4), (10, 3)], ids=str)
def test_nearest_to_sizes(transform: str, rounding: str, target: tuple[int, int]) -> None:
    attrs: dict[str, Any] = {"coordinate_transformation_mode": transform, "nearest_mode": rounding}
    check("Resize", [random(SHAPE), None, None, sizes(*target)], **attrs)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize("factors", [(2.0, 3.0), (1.5, 0.75), (0.6, 0.4), (1.0, 2.5)], ids=str)
def test_scales(transform: str, mode: str, factors: tuple[float, float]) -> None:
    attrs: dict[str, Any] = {"coordinate_transformation_mode": transform, "mode": mode}
    if mode == "nearest" and transform != "align_corners":
        # 0.6 and 0.4 as float32 are a little more: what is a tie is none for the reference
        attrs["nearest_mode"] = "floor" if transform == "asymmetric" else "round_prefer_ceil"
    check("Resize", [random(SHAPE), None, scales(*factors)], rtol=1e-4, atol=1e-5, **attrs)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
@pytest.mark.parametrize("exclude", [0, 1])
@pytest.mark.parametrize("target", [(2, 3), (3, 9), (4, 5)], ids=str)
def test_antialias(mode: str, exclude: int, target: tuple[int, int]) -> None:
    attrs: dict[str, Any] = {"mode": mode, "antialias": 1, "exclude_outside": exclude}
    check("Resize", [random(SHAPE), None, None, sizes(*target)], rtol=1e-4, atol=1e-5, **attrs)
    check("Resize", [random(SHAPE), None, scales(0.6, 0.9)], rtol=1e-4, atol=1e-5, **attrs)


def test_exclude_outside_and_another_coefficient() -> None:
    attrs: dict[str, Any] = {"mode": "cubic", "exclude_outside": 1, "cubic_coeff_a": -0.5}
    check("Resize", [random(SHAPE), None, scales(1.7, 2.0)], rtol=1e-4, atol=1e-5, **attrs)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_crop_and_resize(mode: str) -> None:
    roi = np.array([0, 0, 0.4, -0.3, 1, 1, 0.9, 1.2], np.float32)
    attrs: dict[str, Any] = {"coordinate_transformation_mode": "tf_crop_and_resize", "mode": mode}
    attrs["extrapolation_value"] = 10.0
    for target in ((3, 4), (7, 8), (1, 5)):
        check("Resize", [random(SHAPE), roi, None, sizes(*target)], rtol=1e-4, atol=1e-5, **attrs)


def test_crop_and_resize_by_scales() -> None:
    roi = np.array([0, 0, 0.25, 0.5, 1, 1, 0.75, 1.0], np.float32)
    attrs: dict[str, Any] = {"coordinate_transformation_mode": "tf_crop_and_resize", "mode": "linear"}
    agrees("Resize", [random((1, 2, 8, 8)), roi, scales(2.0, 1.5)], opset=13, **attrs)


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
@pytest.mark.parametrize("mode", ["nearest", "linear"])
def test_aspect_ratio_is_kept(policy: str, mode: str) -> None:
    target = np.array([7, 13], np.int64)
    attrs: dict[str, Any] = {"axes": [2, 3], "keep_aspect_ratio_policy": policy, "mode": mode}
    check("Resize", [random(SHAPE), None, None, target], rtol=1e-4, atol=1e-5, **attrs)


def test_axes_in_any_order() -> None:
    x, factors = random(SHAPE), np.array([1.5, 2.0], np.float32)
    whole = run("Resize", [x, None, scales(2.0, 1.5)], mode="linear")[0]
    same(run("Resize", [x, None, factors], axes=[-1, 2], mode="linear")[0], whole)


@pytest.mark.parametrize("shape", [(3, 4, 5), (7,), (2, 3, 4, 5, 2)], ids=str)
@pytest.mark.parametrize("mode", ["linear", "cubic", "nearest"])
def test_every_axis_may_be_resized(shape: tuple[int, ...], mode: str) -> None:
    target = np.array([d + k - 1 for k, d in enumerate(shape)], np.int64)
    check("Resize", [random(shape), None, None, target], rtol=1e-4, atol=1e-4, mode=mode)


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_dtypes(dtype: Any) -> None:
    x = random((1, 1, 4, 4), dtype)
    rtol = 1e-9 if dtype is np.float64 else 1e-2
    check("Resize", [x, None, scales(2.0, 0.5)], mode="linear", rtol=rtol)
    check("Resize", [x, None, scales(2.0, 0.5)], mode="nearest", rtol=0)


def test_tf_half_pixel_for_nn() -> None:
    attrs: dict[str, Any] = {"coordinate_transformation_mode": "tf_half_pixel_for_nn", "nearest_mode": "floor"}
    agrees("Resize", [random(SHAPE), np.zeros(0, np.float32), scales(2.0, 0.5)], opset=11, **attrs)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize("factors", [(2.0, 3.0), (1.5, 1.2)], ids=str)
def test_old_versions(mode: str, factors: tuple[float, float]) -> None:
    x = random(SHAPE)
    agrees("Upsample", [x], opset=7, scales=[1.0, 1.0, *factors], mode=mode)
    agrees("Upsample", [x, scales(*factors)], opset=9, mode=mode)
    agrees("Resize", [x, scales(*factors)], opset=10, mode=mode)
    same(
        run("Upsample", [x], opset=1, height_scale=factors[0], width_scale=factors[1], mode=mode)[0],
        run("Upsample", [x, scales(*factors)], opset=9, mode=mode)[0],
        rtol=0,
        atol=0,
    )


def test_whole_factors_leave_plain_indices() -> None:
    factor = host([1.0, 1.0, 2.0, 2.0], FLOAT32)
    attrs: dict[str, Any] = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    y, tr = traced("Resize", [(SHAPE, FLOAT32), None, factor], **attrs)
    i, j = (expr.axis(k, y.extents[k]) for k in (2, 3))
    (load,) = [n for n in expr.walk(y.definition.value) if n.op == "load"]
    assert load.args[2:] == (i // 2, j // 2)
    assert {(g.attr, answer) for g, answer in tr.env.guards.items()} == set()  # that no dim is 0


def test_sizes_that_do_not_change_are_the_input() -> None:
    y, _ = traced("Resize", [(SHAPE, FLOAT32), None, None, host([1, 2, 5, 6], INT64)], mode="linear")
    assert isinstance(y.definition, Source)


def test_bad_operands_are_refused() -> None:
    x = random(SHAPE)
    with pytest.raises(ModelError, match="3 scales for 4 axes"):
        run("Resize", [x, None, np.ones(3, np.float32)])
    with pytest.raises(ModelError, match="not above 0"):
        run("Resize", [x, None, scales(0.0, 1.0)])
    with pytest.raises(ModelError, match="neither scales nor sizes"):
        run("Resize", [x])
    with pytest.raises(ModelError, match="roi has 0"):
        run("Resize", [x, None, scales(2.0, 2.0)], coordinate_transformation_mode="tf_crop_and_resize")
    with pytest.raises(UnsupportedError, match="known: half_pixel"):
        run("Resize", [x, None, scales(2.0, 2.0)], coordinate_transformation_mode="centre")
