"""Reductions and running sums."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from harness import check, random, run, same

from omniop.opset.errors import ModelError

SUMS = ["ReduceSum", "ReduceMean", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceLogSumExp", "ReduceProd"]
ALL = [*SUMS, "ReduceMax", "ReduceMin"]


@pytest.mark.parametrize("axes", [[0], [-1], [1, 2], [0, 1, 2]])
@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("op", [*ALL, "ReduceLogSum"])
def test_axes_as_input(op, axes, keepdims):
    x = np.abs(random((2, 3, 4))) if op == "ReduceLogSum" else random((2, 3, 4))
    check(op, [x, np.array(axes)], keepdims=keepdims, rtol=1e-4)


@pytest.mark.parametrize("op", ALL)
def test_axes_as_attribute(op):
    x = random((2, 3, 4))
    same(run(op, [x], opset=11, axes=[1, -1])[0], run(op, [x, np.array([1, 2])])[0])


@pytest.mark.parametrize("op", ALL)
@pytest.mark.parametrize("axes", [None, np.zeros(0, np.int64)])
@pytest.mark.parametrize("noop", [0, 1])
def test_no_axes(op, axes, noop):
    check(op, [random((3, 4)), axes] if axes is not None else [random((3, 4))], noop_with_empty_axes=noop, rtol=1e-4)


@pytest.mark.parametrize("op", [*SUMS, "ReduceLogSum"])
def test_nothing_to_reduce(op):
    expected = {"ReduceMean": np.nan, "ReduceProd": 1, "ReduceLogSum": -np.inf, "ReduceLogSumExp": -np.inf}.get(op, 0)
    same(run(op, [random((2, 0, 4)), np.array([1])])[0], np.full((2, 1, 4), expected, np.float32))


@pytest.mark.parametrize(("op", "value"), [("ReduceMax", -np.inf), ("ReduceMin", np.inf)])
def test_extreme_of_nothing(op, value):
    same(run(op, [random((2, 0, 4)), np.array([1])])[0], np.full((2, 1, 4), value, np.float32))


def test_empty_result():
    same(run("ReduceSum", [random((2, 0, 4)), np.array([2])], keepdims=0)[0], np.zeros((2, 0), np.float32))


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32, np.float64])
@pytest.mark.parametrize("op", ["ReduceSum", "ReduceProd", "ReduceMax", "ReduceMin", "ReduceL1"])
def test_dtypes(op, dtype):
    check(op, [random((3, 4), dtype), np.array([1])])


@pytest.mark.parametrize("dtype", [np.int32, np.uint32])
def test_integer_formulas(dtype):
    x = random((3, 4), dtype)
    same(run("ReduceSumSquare", [x, np.array([1])])[0], np.sum(x * x, 1, dtype, keepdims=True))
    same(run("ReduceMean", [x, np.array([1])])[0], np.trunc(x.mean(1, keepdims=True)).astype(dtype))
    same(run("ReduceL2", [x, np.array([1])])[0], np.sqrt(np.sum(x * x, 1, dtype, keepdims=True)).astype(dtype))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_narrow_sums_are_kept_wide(dtype):
    x = np.ones((5000,), dtype)
    same(run("ReduceSum", [x], keepdims=0)[0], np.asarray(5000, np.float32).astype(dtype), rtol=0)
    same(run("ReduceMean", [x], keepdims=0)[0], np.asarray(1, dtype), rtol=0)


def test_extremes_of_small_types():
    check("ReduceMax", [random((3, 4), np.int8), np.array([0])])
    check("ReduceMin", [random((3, 4), bool), np.array([0])])
    check("ReduceMax", [np.array([[1, np.nan], [2, 3]], np.float32), np.array([1])])


def test_log_sum_exp_stays_in_range():
    check("ReduceLogSumExp", [np.array([[1000, 1000], [-1000, -1000]], np.float64), np.array([1])])
    same(run("ReduceLogSumExp", [np.array([-np.inf, -np.inf], np.float32)], keepdims=0)[0], np.float32(-np.inf))


def test_a_scalar():
    check("ReduceSum", [random(())])


def test_bad_axes():
    with pytest.raises(ModelError, match="axis 2"):
        run("ReduceSum", [random((2, 3)), np.array([2])])
    with pytest.raises(ModelError, match="twice"):
        run("ReduceSum", [random((2, 3)), np.array([1, -1])])


@pytest.mark.parametrize("op", ["ArgMax", "ArgMin"])
@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_arg_reductions(op, last, axis, keepdims):
    x = random((4, 5), np.int32) // 4
    check(op, [x], axis=axis, keepdims=keepdims, select_last_index=last)


def test_arg_max_finds_nan():
    same(run("ArgMax", [np.array([1, np.nan, 3, np.nan], np.float32)], keepdims=0)[0], np.asarray(1))


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("exclusive", [0, 1])
@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_cumulative(axis, exclusive, reverse, dtype):
    x = random((3, 4), dtype)
    check("CumSum", [x, np.array(axis)], exclusive=exclusive, reverse=reverse)
    view = np.flip(x, axis) if reverse else x
    expected = np.cumprod(view, axis, dtype)
    if exclusive:
        first = np.ones_like(np.take(expected, [0], axis))
        expected = np.concatenate([first, np.delete(expected, -1, axis)], axis)
    same(
        run("CumProd", [x, np.array(axis)], exclusive=exclusive, reverse=reverse)[0],
        np.flip(expected, axis) if reverse else expected,
    )


def test_cumulative_sum_of_nothing():
    check("CumSum", [random((0, 3)), np.array(0)])


def test_mean_variance_normalization():
    check("MeanVarianceNormalization", [random((2, 3, 4, 5))], rtol=1e-4)
