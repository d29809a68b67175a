"""Comparisons, logic, bits and casts."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from harness import check, random, run, same
from onnx import TensorProto

from omniop.opset import dtype as dtypes
from omniop.opset.errors import UnsupportedError

ODD = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0], np.float32)


@pytest.mark.parametrize("op", ["And", "Or", "Xor"])
def test_logic(op):
    check(op, [random((3, 4), bool), random((4,), bool, seed=1)])


@pytest.mark.parametrize("op", ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"])
@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8, np.float16])
def test_comparisons(op, dtype):
    check(op, [random((3, 1), dtype), random((3, 7), dtype, seed=1)])


@pytest.mark.parametrize("op", ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"])
def test_comparisons_with_nan(op):
    check(op, [ODD, ODD[::-1].copy()])


def test_equal_of_bool():
    check("Equal", [np.array([True, False]), np.array([True, True])])


def test_comparison_with_the_broadcast_attribute():
    a, b = random((2, 3, 4)), random((3,), seed=1)
    same(run("Less", [a, b], opset=6, broadcast=1, axis=1)[0], a < b[:, None])


def test_not():
    check("Not", [random((0,), bool)])
    check("BitwiseNot", [random((5,), np.int16)])


@pytest.mark.parametrize("op", ["BitwiseAnd", "BitwiseOr", "BitwiseXor"])
@pytest.mark.parametrize("dtype", [np.int8, np.uint64])
def test_bitwise(op, dtype):
    check(op, [random((3, 4), dtype), random((4,), dtype, seed=1)])


@pytest.mark.parametrize("direction", ["LEFT", "RIGHT"])
def test_shift_past_the_width(direction):
    x, by = np.array([255, 1, 16, 16], np.uint8), np.array([1, 7, 8, 200], np.uint8)
    expected = {"LEFT": [254, 128, 0, 0], "RIGHT": [127, 0, 0, 0]}[direction]
    same(run("BitShift", [x, by], direction=direction)[0], np.array(expected, np.uint8))


def test_signed_shift_keeps_the_sign():
    x, by = np.array([-5, -5, 5, -5], np.int32), np.array([1, 40, 40, -1], np.int32)
    same(run("BitShift", [x, by], direction="RIGHT")[0], np.array([-3, -1, 0, -1], np.int32))


def test_where():
    check("Where", [random((3, 1), bool), random((1, 4)), random((3, 4), seed=1)])
    check("Where", [random((2,), bool), random((2,), bool), random((2,), bool, seed=1)])


def test_is_nan():
    check("IsNaN", [ODD])


@pytest.mark.parametrize("positive", [0, 1])
@pytest.mark.parametrize("negative", [0, 1])
def test_is_inf(positive, negative):
    check("IsInf", [ODD], detect_positive=positive, detect_negative=negative)


WHOLE = [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64]


@pytest.mark.parametrize("to", [*WHOLE, np.bool_, np.float16, np.float32, np.float64])
@pytest.mark.parametrize("source", [np.int8, np.uint32, np.float32, np.bool_])
def test_cast(source, to):
    x = random((3, 5), source)
    if np.dtype(source).kind == "f" and np.dtype(to).kind == "u":
        x = np.abs(x)
    same(run("Cast", [x], to=dtypes.of_numpy(to).onnx)[0], x.astype(to), rtol=1e-3)


def test_cast_out_of_range():
    x = np.array([300.0, -300.0, np.nan, np.inf, -1.5], np.float32)
    same(run("Cast", [x], to=TensorProto.INT8)[0], np.array([127, -128, 0, 127, -1], np.int8))
    same(run("Cast", [np.array([200, -200], np.int16)], to=TensorProto.INT8)[0], np.array([-56, 56], np.int8))
    same(run("Cast", [np.array([1e6], np.float32)], to=TensorProto.FLOAT16)[0], np.array([np.inf], np.float16))


def test_cast_by_name():
    same(run("Cast", [np.array([1.5], np.float32)], opset=5, to="DOUBLE")[0], np.array([1.5]))
    same(run("Cast", [np.array([1.5], np.float32)], opset=5, to="INT32")[0], np.array([1], np.int32))


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e5m2"])
@pytest.mark.parametrize("source", [np.float32, np.float16, np.int32])
def test_cast_to_float8_saturates(name, source):
    to = getattr(ml_dtypes, name)
    values = np.array([0, 1, -3, 1000, 60000, -60000], source)
    limit = float(ml_dtypes.finfo(to).max)
    expected = np.clip(values.astype(np.float32), -limit, limit).astype(to)
    same(run("Cast", [values], to=dtypes.of_name(name).onnx)[0], expected, rtol=0)


@pytest.mark.parametrize("name", ["float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e5m2"])
def test_cast_to_float8_without_saturation(name):
    to = getattr(ml_dtypes, name)
    values = np.array([0.3, 1e6, -1e6, np.nan], np.float32)
    same(run("Cast", [values], to=dtypes.of_name(name).onnx, saturate=0)[0], values.astype(to), rtol=0)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("up", [0, 126, 127, 128, 129]), ("down", [0, 126, 127, 127, 128]), ("nearest", [0, 126, 127, 128, 128])],
)
def test_cast_to_powers_of_two(mode, expected):
    values = np.array([0.0, 0.5, 1.0, 1.5, 2.2], np.float32)
    (actual,) = run("Cast", [values], to=TensorProto.FLOAT8E8M0, round_mode=mode)
    np.testing.assert_array_equal(actual.view(np.uint8), expected)


@pytest.mark.parametrize(("saturate", "expected"), [(1, [0xFF, 0xFE, 0]), (0, [0xFF, 0xFF, 0xFF])])
def test_what_has_no_power_of_two(saturate, expected):
    values = np.array([np.nan, np.inf, 0.0], np.float32)
    (actual,) = run("Cast", [values], to=TensorProto.FLOAT8E8M0, saturate=saturate)
    np.testing.assert_array_equal(actual.view(np.uint8), expected)


def test_cast_to_four_bits():
    x = np.array([-9.0, 7.9, 3.0, -8.0], np.float32)
    same(run("Cast", [x], to=TensorProto.INT4)[0], np.array([7, 7, 3, -8], ml_dtypes.int4))


def test_cast_like():
    same(run("CastLike", [np.array([1.5], np.float32), np.zeros((2,), np.int16)])[0], np.array([1], np.int16))


def test_strings_are_refused():
    with pytest.raises(UnsupportedError, match="host"):
        run("Cast", [np.zeros(2, np.float32)], to=TensorProto.STRING)


def test_bit_cast():
    x = random((3,))
    same(run("BitCast", [x], to=TensorProto.INT32)[0], x.view(np.int32))
