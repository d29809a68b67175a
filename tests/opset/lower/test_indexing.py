"""Reading and writing at computed places, and operators that keep some elements."""

from __future__ import annotations

import numpy as np
import pytest
from harness import check, random, run, same

from omniop.opset.errors import ExecutionError, ModelError


def ints(*values):
    return np.array(values, np.int64)


@pytest.mark.parametrize("shape", [(), (3,), (2, 2), (0,)])
@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_gather(shape, axis, dtype):
    indices = np.random.default_rng(0).integers(-3, 3, shape).astype(dtype)
    same(run("Gather", [random((3, 4, 5)), indices], axis=axis)[0], np.take(random((3, 4, 5)), indices, axis))


@pytest.mark.parametrize("index", [3, -4])
@pytest.mark.parametrize("op", ["Gather", "GatherElements"])
def test_an_index_out_of_range_is_a_fault(op, index):
    with pytest.raises(IndexError, match="outside its axis"):
        run(op, [random((3,)), ints(0, index)])


def test_gather_from_nothing():
    with pytest.raises(ExecutionError, match="empty"):
        run("Gather", [random((0, 2)), ints(0)])
    same(run("Gather", [random((0, 2)), ints()])[0], np.zeros((0, 2), np.float32))


@pytest.mark.parametrize("axis", [0, 1])
def test_gather_elements(axis):
    x, indices = random((3, 3)), np.array([[0, -1, 2], [1, 1, -3]])
    whole = np.vstack([indices, indices[:1]])  # numpy wants the index to cover the other axis
    same(run("GatherElements", [x, indices], axis=axis)[0], np.take_along_axis(x, whole, axis)[:2])
    with pytest.raises(ModelError, match="reach past"):
        run("GatherElements", [random((2, 2)), np.zeros((3, 3), np.int64)], axis=axis)


@pytest.mark.parametrize("batch", [0, 1])
@pytest.mark.parametrize("depth", [1, 2])
def test_gather_nd(batch, depth):
    indices = np.random.default_rng(0).integers(-2, 2, (2, 3, depth))
    check("GatherND", [random((2, 3, 4)), indices], batch_dims=batch)


def test_gather_nd_out_of_range():
    with pytest.raises(IndexError, match="outside its axis"):
        run("GatherND", [random((2, 3)), np.array([[0, 3]])])
    with pytest.raises(ModelError, match="3 indices for 2 axes"):
        run("GatherND", [random((2, 3)), np.array([[0, 0, 0]])])


REDUCTIONS = ["none", "add", "mul", "min", "max"]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int32])
@pytest.mark.parametrize("axis", [0, -1])
def test_scatter_elements(reduction, dtype, axis):
    indices = np.array([[0, -1, 2], [1, 0, -3]]) if axis == 0 else np.array([[0, 2], [1, -1]])
    updates = random(indices.shape, dtype, seed=1)
    check("ScatterElements", [random((3, 3), dtype), indices, updates], axis=axis, reduction=reduction, rtol=1e-3)


@pytest.mark.parametrize("reduction", ["add", "mul", "min", "max"])
def test_scatter_to_one_place(reduction):
    check("ScatterElements", [random((4,)), ints(1, 1, -3), random((3,), seed=1)], reduction=reduction)


def test_old_scatter():
    (actual,) = run("Scatter", [np.zeros(3, np.float32), ints(1), np.ones(1, np.float32)], opset=9)
    same(actual, np.array([0, 1, 0], np.float32))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("depth", [1, 2])
def test_scatter_nd(reduction, depth):
    indices = np.array([[[0], [-1]], [[1], [2]]]) if depth == 1 else np.array([[[0, 1], [-1, 2]], [[2, 0], [1, -2]]])
    x = random((4, 3, 2))
    check("ScatterND", [x, indices, random((2, 2, *x.shape[depth:]), seed=1)], reduction=reduction)


@pytest.mark.parametrize("op", ["ScatterElements", "ScatterND"])
def test_scatter_out_of_range(op):
    indices = ints(3) if op == "ScatterElements" else np.array([[3]])
    with pytest.raises(IndexError, match="outside its axis"):
        run(op, [random((3,)), indices, random((1,))])


def test_scatter_of_nothing():
    same(run("ScatterND", [random((3,)), np.zeros((0, 1), np.int64), np.zeros(0, np.float32)])[0], random((3,)))


def test_scatter_wants_one_shape():
    with pytest.raises(ModelError, match="updates is of shape"):
        run("ScatterElements", [random((3,)), ints(0, 1), random((3,))])


@pytest.mark.parametrize("mode", ["linear", "circular"])
@pytest.mark.parametrize("placed", [False, True])
def test_tensor_scatter(mode, placed):
    past, update = random((2, 3, 5, 2)), random((2, 3, 2, 2), seed=1)
    inputs = [past, update, ints(1, 4 if mode == "circular" else 3)] if placed else [past, update]
    check("TensorScatter", inputs, mode=mode)


def test_tensor_scatter_past_the_end():
    with pytest.raises(IndexError, match="write index"):
        run("TensorScatter", [random((1, 5, 2)), random((1, 2, 2)), ints(4)])


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.uint8])
def test_one_hot(axis, dtype):
    indices = np.array([[0, 3], [9, 2]] if dtype is np.uint8 else [[0, -1], [9, 2]], dtype)
    (actual,) = run(
        "OneHot", [indices, np.array(4.0 if dtype is np.float32 else 4, dtype), np.array([2, 5], np.int32)], axis=axis
    )
    whole = indices.astype(np.int64)
    whole = np.where(whole < 0, whole + 4, whole)
    expected = np.where(np.arange(4) == whole[..., None], 5, 2).astype(np.int32)
    same(actual, np.moveaxis(expected, -1, axis))


@pytest.mark.parametrize("attrs", [{}, {"pads": [0, 1, 1, 0]}, {"strides": [2, 1]}, {"dilations": [1, 2]}])
def test_col2im(attrs):
    image, block = np.array([5, 6]), np.array([2, 3])
    pads, strides, dilations = attrs.get("pads", [0] * 4), attrs.get("strides", [1, 1]), attrs.get("dilations", [1, 1])
    counts = [
        (image[k] + pads[k] + pads[k + 2] - dilations[k] * (block[k] - 1) - 1) // strides[k] + 1 for k in range(2)
    ]
    x = random((2, 3 * 6, int(np.prod(counts))))
    check("Col2Im", [x, image, block], rtol=1e-4, **attrs)


@pytest.mark.parametrize("axis", [None, 0, -1])
@pytest.mark.parametrize("condition", [[True, False, True], [False, False], [True]])
def test_compress(axis, condition):
    attrs = {} if axis is None else {"axis": axis}
    check("Compress", [random((3, 4)), np.array(condition)], **attrs)


@pytest.mark.parametrize("shape", [(5,), (3, 4), (2, 3, 2)])
@pytest.mark.parametrize("dtype", [np.float32, bool, np.int8])
def test_non_zero(shape, dtype):
    x = np.where(random(shape, bool), random(shape, dtype, seed=1), np.zeros((), dtype))
    check("NonZero", [x])


@pytest.mark.parametrize("shape", [(0, 3), (2, 3)])
def test_non_zero_of_zeros(shape):
    same(run("NonZero", [np.zeros(shape, np.float32)])[0], np.zeros((2, 0), np.int64))
