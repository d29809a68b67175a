"""Arithmetic element by element."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from harness import check, random, run, same

from omniop.opset.lowering import OnHost

SHAPES = [(), (1,), (3, 1, 5), (0, 3)]
SPECIAL = np.array([0.0, -0.0, 0.5, -0.5, 1.5, 2.5, -2.5, np.inf, -np.inf, np.nan], np.float32)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "op",
    [
        "Abs",
        "Neg",
        "Exp",
        "Floor",
        "Ceil",
        "Round",
        "Sign",
        "Sin",
        "Cos",
        "Tan",
        "Atan",
        "Sinh",
        "Cosh",
        "Tanh",
        "Asinh",
    ],
)
def test_unary(op, shape):
    check(op, [random(shape)])


@pytest.mark.parametrize(
    "op", ["Log", "Sqrt", "Reciprocal", "Erf", "Abs", "Neg", "Sign", "Round", "Floor", "Ceil", "Exp"]
)
def test_special_values(op):
    with np.errstate(all="ignore"):
        check(op, [SPECIAL])


@pytest.mark.parametrize("op", ["Asin", "Acos", "Atanh"])
def test_unary_within_one(op):
    check(op, [np.linspace(-0.99, 0.99, 7, dtype=np.float32)])


def test_acosh():
    check("Acosh", [np.array([1.0, 1.5, 40.0], np.float32)])


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint8, np.float64, np.float16])
@pytest.mark.parametrize("op", ["Abs", "Sign"])
def test_unary_dtypes(op, dtype):
    check(op, [random((4, 3), dtype)])


def test_int_min_stays():
    least = np.array([-128, 127, -1], np.int8)
    same(run("Abs", [least])[0], np.array([-128, 127, 1], np.int8))
    same(run("Neg", [least])[0], np.array([-128, -127, 1], np.int8))


@pytest.mark.parametrize("shapes", [((2, 3), (3,)), ((2, 1, 4), (3, 1)), ((), (2, 2)), ((0, 3), (1, 3)), ((5,), (5,))])
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
def test_broadcasting(op, shapes):
    check(op, [random(shapes[0]), random(shapes[1], seed=1)])


@pytest.mark.parametrize("dtype", [np.int8, np.uint16, np.int32, np.uint64, np.float16, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("op", ["Add", "Sub", "Mul"])
def test_arithmetic_dtypes(op, dtype):
    a, b = random((3, 4), dtype), random((4,), dtype, seed=1)
    same(run(op, [a, b])[0], {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply}[op](a, b), rtol=0)


def test_integer_division_truncates_and_never_traps():
    a = np.array([7, -7, 7, -7, 5, -(2**31)], np.int32)
    b = np.array([2, 2, -2, -2, 0, -1], np.int32)
    same(run("Div", [a, b])[0], np.array([3, -3, -3, 3, 0, -(2**31)], np.int32))


@pytest.mark.parametrize(("axis", "shape"), [(1, (3, 4)), (0, (2,)), (2, (4, 5)), (-1, (5,)), (None, (4, 5)), (1, ())])
def test_broadcast_attribute(axis, shape):
    a, b = random((2, 3, 4, 5)), random(shape, seed=1)
    attrs = {"broadcast": 1} if axis is None else {"broadcast": 1, "axis": axis}
    lead = 0 if axis is None else axis % 4
    seen = b.reshape(b.shape + (1,) * (4 - lead - b.ndim)) if axis is not None and b.ndim else b
    same(run("Add", [a, b], opset=6, **attrs)[0], a + seen)


@pytest.mark.parametrize("exponent", [0, 1, 2, 3, 0.5, -1.5])
def test_pow(exponent):
    check("Pow", [np.abs(random((3, 4))) + 0.1, np.array(exponent, np.float32)])


@pytest.mark.parametrize(
    ("base", "exponent"),
    [
        (np.int32, np.float32),
        (np.float32, np.int64),
        (np.int64, np.int32),
        (np.float32, np.float64),
        (np.uint8, np.uint8),
    ],
)
def test_pow_in_the_base_dtype(base, exponent):
    check("Pow", [np.array([1, 2, 3, 5], base), np.array([4, 5, 4, 0], exponent)])


def test_pow_of_whole_numbers_to_negative_powers():
    a, b = np.array([2, 1, -1, -1, 0], np.int32), np.array([-1, -3, -3, -2, -1], np.int32)
    same(run("Pow", [a, b])[0], np.array([0, 1, -1, 1, 0], np.int32))


@pytest.mark.parametrize("dtype", [np.int32, np.int8, np.uint8, np.float32, np.float16])
@pytest.mark.parametrize("fmod", [0, 1])
def test_mod(dtype, fmod):
    a, b = random((5, 6), dtype), random((5, 6), dtype, seed=1)
    b = np.where(b == 0, np.ones_like(b), b)
    expected = (np.fmod if fmod else np.mod)(a, b)
    same(run("Mod", [a, b], fmod=fmod)[0], expected, rtol=1e-3 if dtype == np.float16 else 1e-5)


def test_mod_of_special_values():
    a = np.array([0.0, -0.0, 5.0, -5.0, np.inf, 3.0, -3.0, np.nan], np.float32)
    b = np.array([-2.0, 2.0, np.inf, np.inf, 2.0, 0.0, -np.inf, 1.0], np.float32)
    (actual,) = run("Mod", [a, b])
    expected = np.array([-0.0, 0.0, 5.0, np.inf, np.nan, np.nan, -3.0, np.nan], np.float32)
    np.testing.assert_array_equal(actual, expected)
    np.testing.assert_array_equal(np.signbit(actual[:2]), [True, False])


@pytest.mark.parametrize("count", [1, 2, 3, 20])
@pytest.mark.parametrize("op", ["Sum", "Mean", "Max", "Min"])
def test_any_number_of_operands(op, count):
    shapes = [(2, 3), (3,), (2, 1)]
    check(op, [random(shapes[k % 3], seed=k) for k in range(count)])


def test_sum_of_narrow_floats_rounds_once():
    xs = [np.array([value], np.float16) for value in (2048, 1, 1)]
    same(run("Sum", xs)[0], np.array([2050], np.float16), rtol=0)


@pytest.mark.parametrize("op", ["Max", "Min"])
def test_extremes_keep_nan(op):
    a, b = np.array([1, np.nan, 3], np.float32), np.array([np.nan, 2, 4], np.float32)
    check(op, [a, b])


@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (None, 0.5), (0.5, None), (None, None), (2.0, 1.0)])
def test_clip(bounds):
    check("Clip", [random((3, 4)), *(None if b is None else np.array(b, np.float32) for b in bounds)])


def test_clip_attributes():
    x = random((3, 4))
    same(run("Clip", [x], opset=6, min=-1.0, max=2.0)[0], np.clip(x, -1, 2))
    same(run("Clip", [x], opset=6, max=2.0)[0], np.minimum(x, 2))


def test_clip_of_integers():
    check("Clip", [random((9,), np.int8), np.array(-3, np.int8), np.array(4, np.int8)])


def test_dropout_is_the_identity():
    x = random((2, 3))
    same(run("Dropout", [x])[0], x)
    y, mask = run("Dropout", [x, np.array(0.0, np.float32), np.array(True)], outputs=2)
    same(y, x)
    same(mask, np.ones((2, 3), bool))
    assert run("Dropout", [x], opset=7, outputs=2)[1].dtype == np.float32


def test_dropout_in_training_belongs_on_the_host():
    with pytest.raises(OnHost):
        run("Dropout", [random((2, 3)), np.array(0.5, np.float32), np.array(True)])
