"""The prim ``window_reduce``."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from one_node import check, model, normal, whole

from omniop.backends.cpu.memory import Scratch
from omniop.backends.cpu.windows import Geometry

POOLS: dict[str, tuple[tuple[int, ...], dict[str, Any]]] = {
    "plain": ((1, 2, 7, 9), {"kernel_shape": [3, 2]}),
    "padded": ((2, 3, 8, 7), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}),
    "uneven": ((1, 2, 8, 9), {"kernel_shape": [3, 2], "pads": [2, 0, 1, 1], "strides": [3, 2]}),
    "dilated": ((1, 2, 11, 12), {"kernel_shape": [3, 2], "pads": [1, 1, 0, 1], "dilations": [2, 3]}),
    "ceil": ((1, 2, 8, 7), {"kernel_shape": [3, 3], "strides": [2, 3], "pads": [1, 0, 1, 0], "ceil_mode": 1}),
    "whole": ((2, 3, 5, 4), {"kernel_shape": [5, 4]}),
    "one": ((1, 2, 5, 4), {"kernel_shape": [1, 1], "strides": [2, 1]}),
    "1d": ((2, 3, 13), {"kernel_shape": [4], "strides": [3], "pads": [1, 2]}),
    "3d": ((1, 2, 5, 6, 4), {"kernel_shape": [2, 3, 2], "pads": [1, 1, 0, 0, 1, 1], "strides": [2, 1, 1]}),
}


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
@pytest.mark.parametrize("name", POOLS)
def test_pool(op: str, name: str) -> None:
    shape, attributes = POOLS[name]
    x, larger = normal(*shape), normal(shape[0] + 1, shape[1] + 1, *(d + 3 for d in shape[2:]), seed=1)
    feeds = [{"x": x}] if name == "whole" else [{"x": x}, {"x": larger}]
    check(model(op, {"x": x}, **attributes), *feeds, prim="window_reduce")


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
def test_floats(op: str, dtype: Any) -> None:
    shape, attributes = POOLS["padded"]
    x = normal(*shape, dtype=dtype)
    ulp = float(ml_dtypes.finfo(dtype).eps)
    check(model(op, {"x": x}, **attributes), {"x": x}, prim="window_reduce", rtol=ulp, atol=ulp)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
def test_integers(dtype: Any) -> None:
    """The padding is the least integer, not 0."""
    shape, attributes = POOLS["padded"]
    x = whole(*shape, low=-128 if dtype == np.int8 else 0, high=-3 if dtype == np.int8 else 250, dtype=dtype)
    check(model("MaxPool", {"x": x}, **attributes), {"x": x}, prim="window_reduce")


def test_nan_and_infinity() -> None:
    shape, attributes = POOLS["padded"]
    x = normal(*shape)
    x[0, 0, 2, 3], x[0, 1, 4, 4], x[1, :, 5, 5] = np.nan, np.inf, -np.inf
    for op in ("MaxPool", "AveragePool"):
        check(model(op, {"x": x}, **attributes), {"x": x}, prim="window_reduce")


def test_padding_copies_only_what_needs_it() -> None:
    """Windows that stay inside read x itself, also where padding was declared that none of them reaches."""
    x, scratch = normal(1, 2, 8, 8), Scratch()
    inside = Geometry((3, 3), (2, 2), (1, 1), (0, 0, 1, 1))
    assert inside.padded(x, (3, 3), 0, scratch) is x
    around = inside.padded(x, (4, 4), 7, scratch)
    assert around.shape == (1, 2, 9, 9)
    assert (around[:, :, :8, :8] == x).all()
    assert (around[:, :, 8] == 7).all()
    assert (around[:, :, :, 8] == 7).all()


def test_negative_padding_crops() -> None:
    x, scratch = normal(1, 1, 9), Scratch()
    geometry = Geometry((2,), (1,), (1,), (-2, -3))
    assert (geometry.padded(x, (3,), 0, scratch) == x[:, :, 2:6]).all()
