"""GridSample, AffineGrid and NonMaxSuppression against onnx's reference and onnxruntime."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from harness import check, random, run, same
from oracle import agrees

from omniop.opset.errors import ModelError, UnsupportedError


def grid(*shape: int) -> np.ndarray:
    """Places of which some lie far outside; none within float32's error of an edge or a tie."""
    return np.random.default_rng(3).uniform(-2.7, 2.7, shape).astype(np.float32)


@pytest.mark.parametrize("mode", ["linear", "nearest", "cubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align_corners", [0, 1])
def test_grid_sample(mode: str, padding: str, align_corners: int) -> None:
    attrs: dict[str, Any] = {"mode": mode, "padding_mode": padding, "align_corners": align_corners}
    check("GridSample", [random((2, 3, 4, 5)), grid(2, 3, 4, 2)], rtol=1e-3, atol=1e-4, **attrs)


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_grid_sample_of_volumes(mode: str, padding: str) -> None:
    attrs: dict[str, Any] = {"mode": mode, "padding_mode": padding}
    check("GridSample", [random((1, 2, 3, 4, 5)), grid(1, 2, 3, 2, 3)], rtol=1e-3, atol=1e-4, **attrs)


@pytest.mark.parametrize("align_corners", [0, 1])
def test_grid_sample_of_one_pixel(align_corners: int) -> None:
    x = np.full((1, 1, 1, 1), 5, np.float32)
    attrs: dict[str, Any] = {"padding_mode": "reflection", "align_corners": align_corners, "mode": "nearest"}
    assert run("GridSample", [x, grid(1, 2, 2, 2)], **attrs)[0].reshape(-1).tolist() == [5] * 4


@pytest.mark.parametrize("dtype", [np.int32, np.uint8, np.bool_, np.float16, ml_dtypes.bfloat16, np.float64])
def test_grid_sample_of_other_dtypes(dtype: Any) -> None:
    x, places = random((1, 2, 4, 5), dtype), grid(1, 3, 3, 2)
    exact = run("GridSample", [x.astype(np.float64), places], mode="nearest")[0]
    same(run("GridSample", [x, places], mode="nearest")[0], exact.astype(dtype))


def test_grid_sample_before_opset_20_names_modes_otherwise() -> None:
    for old, new in (("bilinear", "linear"), ("bicubic", "cubic")):
        x, places = random((1, 2, 4, 5)), grid(1, 3, 3, 2)
        same(run("GridSample", [x, places], opset=16, mode=old)[0], run("GridSample", [x, places], mode=new)[0])
    with pytest.raises(UnsupportedError, match="known: bilinear"):
        run("GridSample", [x, places], mode="area")
    with pytest.raises(ModelError, match="coordinates in grid"):
        run("GridSample", [x, grid(1, 3, 3, 3)])


@pytest.mark.parametrize("align_corners", [0, 1])
@pytest.mark.parametrize("size", [(2, 3, 4, 5), (1, 1, 2, 3, 4)], ids=str)
def test_affine_grid(align_corners: int, size: tuple[int, ...]) -> None:
    rank = len(size) - 2
    theta = random((size[0], rank, rank + 1))
    check("AffineGrid", [theta, np.array(size, np.int64)], align_corners=align_corners, rtol=1e-4, atol=1e-5)


def test_affine_grid_of_one_element_is_at_the_middle() -> None:
    theta = np.array([[[1, 0, 0], [0, 1, 0]]], np.float32)
    for align_corners in (0, 1):
        (y,) = run("AffineGrid", [theta, np.array([1, 1, 1, 1])], align_corners=align_corners)
        assert y.reshape(-1).tolist() == [0, 0]
    with pytest.raises(ModelError, match="dim 0 of theta"):
        run("AffineGrid", [theta, np.array([2, 1, 3, 3])])


def boxes(batches: int, count: int, centred: bool, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    first, second = rng.uniform(0, 10, (batches, count, 2)), rng.uniform(0.5, 4, (batches, count, 2))
    corners = first + second * rng.choice([-1, 1], second.shape)  # corners come in any order
    return np.concatenate([first, second if centred else corners], -1).astype(np.float32)


def scalar(value: float, dtype: Any = np.float32) -> np.ndarray:
    return np.array([value], dtype)


@pytest.mark.parametrize("centred", [0, 1])
@pytest.mark.parametrize("most", [3, 100])
@pytest.mark.parametrize("threshold", [None, 0.0, 1.0, 9.0])
def test_non_max_suppression(centred: int, most: int, threshold: float | None) -> None:
    scores = random((1, 2, 66), seed=1)
    inputs = [boxes(1, 66, bool(centred)), scores, scalar(most, np.int64), scalar(0.3)]
    agrees("NonMaxSuppression", inputs + ([] if threshold is None else [scalar(threshold)]), center_point_box=centred)


def test_non_max_suppression_keeps_equal_scores_in_order() -> None:
    apart = np.arange(5, dtype=np.float32)[:, None] * 10 + np.array([0, 0, 1, 1], np.float32)
    inputs = [apart[None], np.ones((1, 1, 5), np.float32), scalar(4, np.int64)]
    (rows,) = run("NonMaxSuppression", inputs)
    assert rows.tolist() == [[0, 0, k] for k in range(4)]


def test_non_max_suppression_chooses_nothing_without_a_limit_or_for_nan() -> None:
    box = boxes(1, 4, centred=False)
    (rows,) = run("NonMaxSuppression", [box, np.ones((1, 1, 4), np.float32)])
    assert rows.shape == (0, 3)
    scores = np.array([[[np.nan, -np.inf, np.nan, 1]]], np.float32)
    assert run("NonMaxSuppression", [box, scores, scalar(4, np.int64)])[0].tolist() == [[0, 0, 3]]
