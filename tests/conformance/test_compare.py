"""Comparing outputs, and measuring how far off they are."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from omniop.conformance.compare import compare, compare_outputs, error_of
from omniop.conformance.tolerance import Relative


def array(*values: Any, dtype: Any = np.float32) -> np.ndarray:
    return np.array(values).astype(dtype)


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (array(1, np.nan, np.inf), array(1.0009, np.nan, np.inf)),
        (np.float32(2), array(2).reshape(())),
        (array(1, dtype=ml_dtypes.bfloat16), array(1 + 2**-6, dtype=ml_dtypes.bfloat16)),
        (array(np.nan, 3, dtype=ml_dtypes.float8_e4m3fn), array(np.nan, 3, dtype=ml_dtypes.float8_e4m3fn)),
        (array(-8, 7, dtype=ml_dtypes.int4), array(-8, 7, dtype=ml_dtypes.int4)),
        (array(1 + 2j, dtype=np.complex64), array(1 + 2j, dtype=np.complex64)),
        (array("a", "", dtype=object), array("a", "", dtype=object)),
        ([array(1), array(2, 3)], [array(1), array(2, 3)]),
        ([{"a": array(1)}], [{"a": array(1)}]),
        (None, None),
        (array().reshape(0, 3), array().reshape(0, 3)),
    ],
)
def test_equal(actual: Any, expected: Any) -> None:
    assert compare(actual, expected, Relative(1e-3, 1e-7)) is None


@pytest.mark.parametrize(
    ("actual", "expected", "reason"),
    [
        (array(1, 2), array(1, 2.003), "1 of 2 values differ, first at [1]: 2.0, expected 2.003"),
        (array(1), array(1, dtype=np.float64), "dtype float32, expected float64"),
        (array(1), array(1).reshape(()), "shape [1], expected []"),
        (array(np.nan), array(1), "nan, expected 1.0"),
        (array(0), array(np.nan), "0.0, expected nan"),
        (array(np.inf), array(-np.inf), "inf, expected -inf"),
        (array(3.4e38), array(np.inf), "expected inf"),
        (array(10000, dtype=np.int32), array(10001, dtype=np.int32), "10000, expected 10001"),
        (array(7, dtype=ml_dtypes.int4), array(-8, dtype=ml_dtypes.int4), "7, expected -8"),
        (array(1, dtype=ml_dtypes.bfloat16), array(1.04, dtype=ml_dtypes.bfloat16), "1 of 1 values"),
        (array(1, dtype=ml_dtypes.float8_e5m2), array(1.25, dtype=ml_dtypes.float8_e5m2), "1 of 1 values"),
        (array(1 + 2j, dtype=np.complex64), array(1 + 3j, dtype=np.complex64), "2.0, expected 3.0"),
        (array("a", dtype=object), array("b", dtype=object), "a, expected b"),
        (array("a", dtype="U1"), array("a", dtype=object), "dtype str32, expected object"),
        ([array(1)], [array(1), array(2)], "1 elements, expected 2"),
        ([array(1), array(3)], [array(1), array(2)], "element 1: "),
        (array(1), [array(1)], "an array, expected a list"),
        ([array(1)], array(1), "a list, expected an array"),
        (array(1), None, "an array, expected None"),
        (None, array(1), "None, expected an array"),
        ({"a": array(1)}, {"b": array(1)}, "keys"),
    ],
)
def test_different(actual: Any, expected: Any, reason: str) -> None:
    assert reason in (compare(actual, expected, Relative(1e-3, 1e-7)) or "")


def test_a_missing_output_is_named() -> None:
    assert compare_outputs({"z": array(1)}, {"y": array(1)}, Relative(0, 0)) == "output 'y' is missing; there are z"


# -- how far off -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dtype",
    [
        *(np.float16, np.float32, np.float64, ml_dtypes.bfloat16),
        *(ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2fnuz, ml_dtypes.float4_e2m1fn),
        *(ml_dtypes.float6_e2m3fn, ml_dtypes.float6_e3m2fn),
    ],
)
def test_a_unit_in_the_last_place_is_one_step_of_the_dtype(dtype: Any) -> None:
    one = np.array([1], dtype)
    wide = np.array([1, -1], dtype)
    bits = one.view(f"u{one.itemsize}")
    above = (bits + 1).astype(bits.dtype).view(dtype)
    error = error_of({"y": np.concatenate([above, -one])}, {"y": wide})
    assert error is not None
    assert error.ulp == 1
    assert error.absolute == float(above[0]) - 1


def test_steps_are_counted_across_zero() -> None:
    tiny = np.finfo(np.float32).smallest_subnormal
    error = error_of({"y": array(tiny, 0.0)}, {"y": array(-tiny, -0.0)})
    assert error is not None
    assert error.ulp == 2


def test_the_worst_of_all_outputs_is_told_and_what_is_not_finite_left_out() -> None:
    expected = {"a": array(1, np.nan), "b": [array(2), array(4)], "c": array(1, dtype=np.int32)}
    error = error_of({"a": array(1, 5), "b": [array(2), array(5)], "c": array(9, dtype=np.int32)}, expected)
    assert error is not None
    assert (error.absolute, error.relative) == (1, 0.25)
    assert error_of({"c": array(9)}, {"c": array(1, dtype=np.int32)}) is None
    assert error_of({"a": array(np.inf)}, {"a": array(1)}) is None
