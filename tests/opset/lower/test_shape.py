"""Operators that move elements, or make them from an index."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from harness import check, host, random, run, same, traced
from onnx import TensorProto

from omniop.opset.dtype import FLOAT32, INT64
from omniop.opset.errors import ModelError


def ints(*values):
    return np.array(values, np.int64)


@pytest.mark.parametrize(("start", "end"), [(0, None), (1, None), (-2, -1), (0, 9), (2, 1)])
def test_shape(start, end):
    attrs = {"start": start} | ({} if end is None else {"end": end})
    check("Shape", [random((2, 3, 4))], **attrs)


def test_shape_of_a_scalar():
    check("Shape", [random(())])
    check("Size", [random(())])
    check("Size", [random((2, 0, 3))])


@pytest.mark.parametrize(
    ("shape", "target"),
    [((2, 3, 4), (4, 6)), ((2, 3, 4), (0, -1)), ((2, 3, 4), (-1,)), ((6,), (2, 3, 1)), ((1,), ()), ((0, 3), (0, 0))],
)
def test_reshape(shape, target):
    check("Reshape", [random(shape), ints(*target)])


def test_reshape_of_an_empty_tensor():
    same(run("Reshape", [random((0, 3, 4)), ints(0, -1)])[0], np.zeros((0, 12), np.float32))
    same(run("Reshape", [random((0, 3)), ints(3, 0)], allowzero=1)[0], np.zeros((3, 0), np.float32))


def test_reshape_by_attribute():
    same(run("Reshape", [random((2, 6))], opset=1, shape=[3, -1])[0], random((2, 6)).reshape(3, 4))


@pytest.mark.parametrize(
    ("target", "message"), [((5,), "does not reshape"), ((-1, -1), "more than one"), ((4, -1), "reshape")]
)
def test_impossible_reshape(target, message):
    with pytest.raises(ModelError, match=message):
        run("Reshape", [random((2, 3)), ints(*target)])


def test_reshape_with_a_known_product_leaves_no_guard():
    x, tr = traced("Reshape", [((7, 768), FLOAT32), host([0, 12, 64], INT64)])
    assert [str(d) for d in x.shape] == ["d0_0=7", "12", "64"]
    assert len(tr.env.guards) == 1  # the second dim is 768


@pytest.mark.parametrize("perm", [None, (2, 0, 1), (0, 1, 2)])
def test_transpose(perm):
    check("Transpose", [random((2, 3, 4))], **({} if perm is None else {"perm": perm}))


def test_bad_permutation():
    with pytest.raises(ModelError, match="permutation"):
        run("Transpose", [random((2, 3))], perm=[0, 0])


def test_squeeze():
    x = random((1, 3, 1, 5))
    check("Squeeze", [x, ints(0, -2)])
    check("Squeeze", [x])
    same(run("Squeeze", [x], opset=11, axes=[2])[0], x.squeeze(2))
    with pytest.raises(ModelError, match="squeezed"):
        run("Squeeze", [x, ints(1)])


def test_unsqueeze():
    x = random((3, 4))
    check("Unsqueeze", [x, ints(0, -1)])
    same(run("Unsqueeze", [x], opset=11, axes=[1])[0], x[:, None])


@pytest.mark.parametrize("axis", [0, 1, 3, -1])
def test_flatten(axis):
    check("Flatten", [random((2, 3, 4))], axis=axis)


@pytest.mark.parametrize(
    ("shape", "target"), [((3, 1), (2, 1, 6)), ((3,), (1,)), ((), (2, 2)), ((2, 1), (2, 0)), ((1, 4), (3, 1))]
)
def test_expand(shape, target):
    check("Expand", [random(shape), ints(*target)])


@pytest.mark.parametrize("repeats", [(1, 1), (2, 3), (0, 2)])
def test_tile(repeats):
    check("Tile", [random((2, 3)), ints(*repeats)])


def test_tile_along_one_axis():
    x = random((2, 3))
    same(run("Tile", [x, np.array(2.0, np.float32), np.array(1.0, np.float32)], opset=1)[0], np.tile(x, (1, 2)))


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.parametrize("count", [1, 2, 13])
def test_concat(axis, count):
    shape = [2, 3]
    parts = []
    for k in range(count):
        shape[axis] = k % 3
        parts.append(random(shape, seed=k))
    check("Concat", parts, axis=axis)


@pytest.mark.parametrize(("opset", "attrs"), [(2, {"split": [1, 3]}), (11, {}), (2, {"axis": 0})])
def test_split_by_attribute(opset, attrs):
    x = random((4, 4))
    axis = attrs.get("axis", 0)
    actual = run("Split", [x], opset=opset, outputs=2, **attrs)
    for a, b in zip(actual, np.split(x, [1] if "split" in attrs else 2, axis), strict=True):
        same(a, b)


@pytest.mark.parametrize(("extent", "count"), [(6, 3), (7, 3), (5, 4), (2, 3)])
def test_split_evenly(extent, count):
    x = random((2, extent))
    parts = run("Split", [x], outputs=count, axis=-1, num_outputs=count)
    longest = -(-extent // count)
    for k, part in enumerate(parts):
        same(part, x[:, k * longest : (k + 1) * longest])


def test_split_by_lengths():
    check("Split", [random((2, 7)), ints(3, 0, 4)], outputs=3, axis=1)
    with pytest.raises(ModelError, match="parts"):
        run("Split", [random((2, 7)), ints(3, 3)], outputs=2, axis=1)
    with pytest.raises(ModelError, match="equal parts"):
        run("Split", [random((7,))], opset=13, outputs=2)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space(mode):
    check("DepthToSpace", [random((2, 8, 3, 5))], blocksize=2, mode=mode)


def test_space_to_depth():
    check("SpaceToDepth", [random((2, 3, 4, 6))], blocksize=2)


@pytest.mark.parametrize(("batch", "time"), [(0, 1), (1, 0)])
def test_reverse_sequence(batch, time):
    shape = (3, 5) if batch == 0 else (5, 3)
    check("ReverseSequence", [random((*shape, 2)), ints(5, 1, 0)], batch_axis=batch, time_axis=time)


def test_a_sequence_longer_than_its_axis():
    with pytest.raises(IndexError, match="sequence length"):
        run("ReverseSequence", [random((2, 3)), ints(4, 1)], batch_axis=0, time_axis=1)


@pytest.mark.parametrize("dtype", [np.float32, np.int8, ml_dtypes.bfloat16])
def test_constant(dtype):
    same(run("Constant", [], value=random((3, 2), dtype))[0], random((3, 2), dtype))
    same(run("Constant", [], value=np.array(3, dtype))[0], np.array(3, dtype))


@pytest.mark.parametrize(
    ("attrs", "expected"),
    [
        ({"value_int": 3}, np.array(3)),
        ({"value_ints": [3, 4]}, ints(3, 4)),
        ({"value_float": 1.5}, np.array(1.5, np.float32)),
        ({"value_floats": [1.5, 2.5]}, np.array([1.5, 2.5], np.float32)),
    ],
)
def test_constant_by_attribute(attrs, expected):
    same(run("Constant", [], **attrs)[0], expected)


def test_constant_of_shape():
    check("ConstantOfShape", [ints(2, 3)])
    check("ConstantOfShape", [ints()], value=np.array([7], np.int8))
    check("ConstantOfShape", [ints(0, 2)], value=np.array([True]))


@pytest.mark.parametrize(
    "values", [(1, 10, 3), (10, 4, -2), (5, 5, 1), (3, 1, 1), (0.5, 3.0, 0.25), (1.0, -1.0, -0.5), (0, 1, 5)]
)
def test_range(values):
    dtype = np.float32 if isinstance(values[0], float) else np.int32
    check("Range", [np.array(v, dtype) for v in values])


def test_range_of_narrow_floats_rounds_once():
    (actual,) = run("Range", [np.array(v, np.float16) for v in (0, 3000, 1)])
    same(actual, np.arange(3000, dtype=np.float32).astype(np.float16), rtol=0)


@pytest.mark.parametrize("k", [-1, 0, 2, 9])
def test_eye_like(k):
    check("EyeLike", [random((3, 4))], k=k)
    check("EyeLike", [random((3, 4))], k=k, dtype=TensorProto.INT32)


@pytest.mark.parametrize("upper", [0, 1])
@pytest.mark.parametrize("k", [None, -1, 0, 2, -9])
def test_trilu(upper, k):
    inputs = [random((2, 3, 5))] if k is None else [random((2, 3, 5)), np.array(k)]
    check("Trilu", inputs, upper=upper)


@pytest.mark.parametrize("op", ["HannWindow", "HammingWindow", "BlackmanWindow"])
@pytest.mark.parametrize("periodic", [0, 1])
def test_windows(op, periodic):
    check(op, [np.array(9)], periodic=periodic)
    check(op, [np.array(9)], periodic=periodic, output_datatype=TensorProto.DOUBLE)


@pytest.mark.parametrize("op", ["Tile", "Transpose", "Reshape", "DepthToSpace", "Expand"])
def test_zero_elements(op):
    x = random((0, 4, 2, 2))
    second = {"Tile": ints(1, 1, 2, 1), "Reshape": ints(2, 0, 8), "Expand": ints(2, 1, 1, 1, 1)}
    attrs = {"blocksize": 2} if op == "DepthToSpace" else {"allowzero": 1} if op == "Reshape" else {}
    check(op, [x, second[op]] if op in second else [x], **attrs)
