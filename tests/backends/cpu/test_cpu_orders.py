"""The prims ``sort`` and ``prefix``, which go along the last axis."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from one_node import check, model, normal, whole

FLOATS = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16]
INTEGERS = [np.int8, np.uint8, np.int32, np.int64, np.uint64]


def ties(dtype: Any) -> np.ndarray:
    """Few distinct values; for floats NaNs, infinities and both zeros among them."""
    x = whole(4, 23, low=0 if np.dtype(dtype).kind == "u" else -3, high=4).astype(dtype)
    if np.dtype(dtype).kind not in "iu":
        x[0, [1, 7, 8]], x[1, [2, 9]], x[2, [3, 20]] = np.nan, np.inf, -np.inf
        x[3, 5:9] = np.asarray([-0.0, 0.0, -0.0, -np.nan]).astype(dtype)
    return x


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("dtype", FLOATS + INTEGERS)
def test_sort(dtype: Any, largest: int) -> None:
    """Values, and indices: the first of equal ones first, NaN greatest."""
    x = ties(dtype)
    proto = model("TopK", {"x": x}, {"k": np.array([23])}, outputs=2, opset=24, largest=largest)
    check(proto, {"x": x}, {"x": x[:2]}, prim="sort")


@pytest.mark.parametrize("dtype", [np.int32, np.uint32, np.int64, np.uint64])
def test_sort_of_extremes(dtype: Any) -> None:
    limits = np.iinfo(dtype)
    x = np.array([[limits.max, limits.min, 1, limits.min, 0, limits.max, limits.max - 1]], dtype)
    check(model("TopK", {"x": x}, {"k": np.array([7])}, outputs=2, opset=24), {"x": x}, prim="sort")


@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("op", ["CumSum", "CumProd"])
def test_prefix(op: str, exclusive: int, reverse: int) -> None:
    x, larger = normal(3, 11), normal(5, 1, seed=1)
    proto = model(op, {"x": x}, {"axis": np.array(1)}, opset=26, exclusive=exclusive, reverse=reverse)
    check(proto, {"x": x}, {"x": larger}, prim="prefix")


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16, np.int32, np.int64])
def test_prefix_dtypes(dtype: Any) -> None:
    """Narrow floats are added in float32 and rounded one by one; integers wrap."""
    x = normal(2, 40, dtype=dtype) if np.dtype(dtype).kind not in "iu" else whole(2, 40, high=1 << 30, dtype=dtype)
    ulp = 0.0 if np.dtype(dtype).kind in "iu" else max(1e-14, float(ml_dtypes.finfo(dtype).eps))
    check(model("CumSum", {"x": x}, {"axis": np.array(0)}, opset=14), {"x": x}, prim="prefix", rtol=ulp, atol=ulp)
    check(model("CumSum", {"x": x}, {"axis": np.array(1)}, opset=14), {"x": x}, prim="prefix", rtol=ulp, atol=2 * ulp)
