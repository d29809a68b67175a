"""TopK and Unique."""

from __future__ import annotations

import numpy as np
import pytest
from harness import random, run, same

from omniop.opset.errors import ModelError


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("k", [0, 1, 3])
@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.float16, np.uint8])
def test_top_k(axis, k, largest, dtype):
    x = random((3, 5), dtype)
    order = np.argsort(-x.astype(np.float64) if largest else x, axis, kind="stable").take(range(k), axis)
    values, indices = run("TopK", [x, np.array([k])], outputs=2, axis=axis, largest=largest)
    same(indices, order)
    same(values, np.take_along_axis(x, order, axis))


def test_top_k_of_old():
    x = random((2, 4))
    for inputs, opset, attrs in (([x], 1, {"k": 2}), ([x, np.array([2])], 10, {})):
        values, _ = run("TopK", inputs, opset=opset, outputs=2, **attrs)
        same(values, -np.sort(-x)[:, :2])


def test_top_k_puts_nan_first():
    values, indices = run("TopK", [np.array([1, np.nan, 3, np.inf], np.float32), np.array([2])], outputs=2)
    same(values, np.array([np.nan, np.inf], np.float32))
    same(indices, np.array([1, 3]))


def test_k_is_too_large():
    with pytest.raises(ModelError, match="k is 6"):
        run("TopK", [random((2, 5)), np.array([6])], outputs=2)


@pytest.mark.parametrize("ascending", [0, 1])
@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_unique(ascending, axis, dtype):
    x = np.random.default_rng(0).integers(0, 2, (5, 2, 3)).astype(dtype)
    found, firsts, inverse, counts = np.unique(x, True, True, True, axis=axis)
    inverse = inverse.reshape(-1)
    if not ascending:  # onnx's reference is wrong here: it takes the slices of axis 0
        order = np.argsort(firsts)
        firsts, counts, inverse = firsts[order], counts[order], np.argsort(order)[inverse]
        found = np.take(x.reshape(-1) if axis is None else x, firsts, axis or 0)
    attrs = {"sorted": ascending} | ({} if axis is None else {"axis": axis})
    for a, b in zip(run("Unique", [x], outputs=4, **attrs), (found, firsts, inverse, counts), strict=True):
        same(a, b)


def test_unique_of_special_values():
    x = np.array([np.nan, 1, np.nan, -0.0, 0.0, np.inf], np.float32)
    found, firsts, inverse, counts = run("Unique", [x], outputs=4)
    same(found, np.array([0, 1, np.inf, np.nan], np.float32))
    same(firsts, np.array([3, 1, 5, 0]))
    same(inverse, np.array([3, 1, 3, 0, 0, 2]))
    same(counts, np.array([2, 1, 1, 2]))


def test_unique_of_nothing():
    for y in run("Unique", [np.zeros(0, np.float32)], outputs=4):
        assert y.shape == (0,)
