"""Shape arithmetic on the host: exact on numbers, symbolic on dims."""

from __future__ import annotations

import numpy as np
import pytest
from harness import host, random, reference, same, schema_and_attributes

from omniop.opset import dtype as dtypes
from omniop.opset import trace
from omniop.opset.dtype import BOOL, FLOAT32, INT32, INT64, STRING
from omniop.opset.errors import ModelError
from omniop.opset.host_arithmetic import LIMIT, evaluate
from omniop.opset.lowering import HostValue, Node, host_value
from omniop.opset.prims import source
from omniop.opset.sym import SymInt


def compute(op, inputs, opset=28, outputs=1, **attrs):
    since, attributes = schema_and_attributes(op, opset, attrs)
    node = Node(op, "", since, op, attributes, inputs, (True,) * outputs)
    return evaluate(node, inputs)


def plain(value):
    return value.array.astype(value.dtype.numpy)


def check(op, arrays, opset=28, outputs=1, **attrs):
    """The same as onnx's reference on arrays of numbers."""
    values = [None if a is None else host_value(a, dtypes.of_numpy(a.dtype)) for a in arrays]
    result = compute(op, values, opset, outputs, **attrs)
    for actual, expected in zip(
        result if isinstance(result, tuple) else [result], reference(op, arrays, opset, outputs, **attrs), strict=True
    ):
        same(plain(actual), expected)


def ints(*values):
    return np.array(values, np.int64)


@pytest.fixture
def dims():
    """Two dims of 5 and 8, and the trace that they belong to."""
    tr = trace.Trace()
    with trace.tracing(tr):
        yield tr.env.symbol("n", 5), tr.env.symbol("m", 8), tr


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Min", "Max", "Equal", "Less", "GreaterOrEqual"])
@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_binary(op, dtype):
    check(op, [random((2, 3), dtype), random((3,), dtype, seed=1)])


@pytest.mark.parametrize("op", ["Add", "Mul", "Neg", "Abs"])
def test_integers_wrap(op):
    arrays = [np.array([2**31 - 1, -(2**31)], np.int32)]
    if op in ("Add", "Mul"):
        arrays.append(np.array([2, 2], np.int32))
    result = compute(op, [host_value(a, INT32) for a in arrays])
    expected = {"Add": [-(2**31) + 1, -(2**31) + 2], "Mul": [-2, 0], "Neg": [-(2**31) + 1, -(2**31)]}
    assert result.array.tolist() == expected.get(op, [2**31 - 1, -(2**31)])


def test_floats_round_to_their_dtype():
    third = compute("Div", [host([1.0], FLOAT32), host([3.0], FLOAT32)]).array[0]
    assert third == float(np.float32(1) / np.float32(3))
    assert third != 1 / 3


def test_division_truncates():
    result = compute("Div", [host([7, -7, 7, 5], INT64), host([2, 2, -2, 0], INT64)])
    assert result.array.tolist() == [3, -3, -3, 0]


@pytest.mark.parametrize("fmod", [0, 1])
def test_mod(fmod):
    check("Mod", [ints(7, -7, 7, -7), ints(3, 3, -3, -3)], fmod=fmod)


@pytest.mark.parametrize("op", ["Floor", "Ceil", "Round", "Sqrt"])
def test_real_functions(op):
    check(op, [np.array([0.0, 1.5, 2.5, 4.0], np.float32)])


@pytest.mark.parametrize("op", ["And", "Or", "Xor"])
def test_logic(op):
    check(op, [np.array([True, False, True]), np.array([True, True, False])])


def test_not_sign_pow_where():
    check("Not", [np.array([True, False])])
    check("Sign", [ints(-3, 0, 2)])
    check("Pow", [ints(2, 3), ints(3, 2)])
    check("Where", [np.array([True, False]), ints(1, 2), ints(3, 4)])


@pytest.mark.parametrize("to", [np.int32, np.float32, np.bool_, np.float16])
@pytest.mark.parametrize("source_dtype", [np.int64, np.float32])
def test_cast(source_dtype, to):
    check("Cast", [np.array([0, 2, -1], source_dtype)], to=dtypes.of_numpy(to).onnx)


@pytest.mark.parametrize("op", ["ReduceSum", "ReduceProd", "ReduceMin", "ReduceMax"])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_reductions(op, keepdims):
    check(op, [ints(3, 1, 2).reshape(3, 1), ints(0)], keepdims=keepdims)
    check(op, [ints(3, 1, 2)], keepdims=keepdims)


MOVES = [
    ("Gather", [ints(5, 6, 7), np.array(-1)], {}),
    ("Gather", [ints(5, 6, 7), ints(0, 2)], {}),
    ("Slice", [ints(1, 2, 3, 4), ints(-1), ints(-(2**63)), ints(0), ints(-2)], {}),
    ("Slice", [ints(1, 2, 3, 4), ints(1), ints(2**63 - 1)], {}),
    ("Concat", [ints(1), ints(2, 3)], {"axis": 0}),
    ("Squeeze", [ints(4), ints(0)], {}),
    ("Squeeze", [ints(4)], {}),
    ("Unsqueeze", [np.array(4), ints(0)], {}),
    ("Reshape", [ints(1, 2, 3, 4), ints(2, -1)], {}),
    ("Flatten", [ints(1, 2, 3, 4).reshape(2, 1, 2)], {"axis": 2}),
    ("Transpose", [ints(1, 2, 3, 4).reshape(2, 2)], {"perm": [1, 0]}),
    ("Expand", [ints(1), ints(3)], {}),
    ("Tile", [ints(1, 2), ints(2)], {}),
    ("Range", [np.array(1), np.array(9), np.array(3)], {}),
    ("ConstantOfShape", [ints(3)], {"value": ints(-1)}),
    ("ScatterND", [ints(1, 2, 3), ints(-1, 0).reshape(2, 1), ints(8, 9)], {}),
    ("NonZero", [ints(0, 3, 0, 4)], {}),
    ("Identity", [ints(1, 2)], {}),
    ("Constant", [], {"value_ints": [1, 2]}),
    ("Size", [ints(1, 2, 3)], {}),
]


@pytest.mark.parametrize(("op", "arrays", "attrs"), MOVES)
def test_moves(op, arrays, attrs):
    check(op, arrays, **attrs)


def test_split():
    check("Split", [ints(1, 2, 3), ints(1, 2)], outputs=2)
    check("Split", [ints(1, 2, 3)], outputs=2, num_outputs=2)


def test_old_spellings():
    value = host([[4, 5]], INT64)
    assert compute("Squeeze", [value], opset=11, axes=[0]).array.tolist() == [4, 5]
    assert compute("Slice", [value], opset=9, starts=[0], ends=[1], axes=[1]).array.tolist() == [[4]]
    assert compute("ReduceSum", [value], opset=11, axes=[1], keepdims=0).array.tolist() == [9]


def test_dims_stay_symbolic(dims):
    n, m, tr = dims
    x = source("x", [n, m, 3], FLOAT32)
    shape = compute("Shape", [x])
    assert [str(d) for d in shape.array] == ["n=5", "m=8", "3"]
    total = compute("ReduceProd", [shape], keepdims=0)
    assert str(total.array[()]) == str(n * m * 3)
    half = compute("Div", [shape, host([2], INT64)])
    assert [str(d) for d in half.array] == ["(n // 2)=2", "(m // 2)=4", "1"]
    assert compute("Size", [x]).array[()] is not None
    assert not tr.env.guards


def test_expand_pattern_of_exporters_leaves_no_guard(dims):
    """Where(Equal(shape, -1), ones, shape) on dims."""
    n, _, tr = dims
    shape = host([n, -1], INT64)
    test = compute("Equal", [shape, host([-1], INT64)])
    assert test.array.tolist() == [False, True]
    chosen = compute("Where", [test, host([1, 1], INT64), shape])
    assert [str(v) for v in chosen.array] == ["n=5", "1"]
    assert not tr.env.guards


def test_comparisons_of_dims_guard(dims):
    n, m, tr = dims
    assert compute("Less", [host([n], INT64), host([m], INT64)]).array.tolist() == [True]
    assert len(tr.env.guards) == 1
    assert compute("Max", [host([n], INT64), host([3], INT64)]).array[0] is n


def test_floats_of_dims_take_the_value(dims):
    n, _, tr = dims
    real = compute("Cast", [host([n], INT64)], to=dtypes.FLOAT32.onnx)
    assert real.array.tolist() == [5.0]
    assert list(tr.env.guards.values()) == [True]


def test_range_over_a_dim_is_for_its_value(dims):
    n, _, _ = dims
    result = compute("Range", [host(v, INT64) for v in (0, n, 2)])
    assert result.array.tolist() == [0, 2, 4]


def test_negative_dims(dims):
    n, _, _ = dims
    result = compute("Div", [host([-n], INT64), host([2], INT64)])
    assert isinstance(result.array[0], SymInt)
    assert result.array[0].hint == -2
    assert compute("Mod", [host([n], INT64), host([-3], INT64)]).array[0].hint == -1


def test_what_is_no_shape_arithmetic(dims):
    n, _, _ = dims
    x = source("x", [n], FLOAT32)
    assert compute("Add", [x, host([1.0], FLOAT32)]) is None
    assert compute("Exp", [host([1.0], FLOAT32)]) is None
    assert compute("ConstantOfShape", [host([LIMIT + 1], INT64)]) is None
    assert compute("Equal", [host(["a"], STRING), host(["a"], STRING)]) is None
    assert evaluate(Node("Shape", "com.example", 1, "Shape", {}, [x]), [x]) is None


def test_a_small_constant_on_the_device_is_known():
    with trace.tracing(trace.Trace()):
        x = source("weights", [2], INT64, np.array([3, 4]))
        assert compute("Gather", [x, host(1, INT64)]).array[()] == 4


def test_invalid_nodes():
    with pytest.raises(ModelError, match="outside"):
        compute("Gather", [host([1, 2], INT64), host(2, INT64)])
    with pytest.raises(ModelError, match="reshape"):
        compute("Reshape", [host([1, 2], INT64), host([3], INT64)])
    with pytest.raises(ModelError, match="delta"):
        compute("Range", [host(v, INT64) for v in (0, 1, 0)])


def test_bool_results_are_bools():
    result = compute("Equal", [host([1, 2], INT64), host([1], INT64)])
    assert result.dtype is BOOL
    assert all(isinstance(v, bool) for v in result.array)
    assert isinstance(result, HostValue)
