"""Activations, the softmax family and its losses."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
from evaluate import lower
from harness import check, random, run, same

from omniop.opset.errors import ModelError

SHAPES = [(), (3, 1, 5), (0, 3)]

ACTIVATIONS = [
    ("Relu", {}),
    ("Sigmoid", {}),
    ("HardSigmoid", {"alpha": 0.3, "beta": 0.4}),
    ("HardSwish", {}),
    ("LeakyRelu", {"alpha": 0.1}),
    ("ThresholdedRelu", {"alpha": 0.7}),
    ("Elu", {"alpha": 1.5}),
    ("Selu", {}),
    ("Celu", {"alpha": 2.0}),
    ("Softplus", {}),
    ("Softsign", {}),
    ("Mish", {}),
    ("Swish", {"alpha": 1.5}),
    ("Gelu", {}),
    ("Gelu", {"approximate": "tanh"}),
    ("Shrink", {"lambd": 1.5, "bias": 0.5}),
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("op", "attrs"), ACTIVATIONS)
def test_activation(op, attrs, shape):
    x = random(shape)
    # onnx's reference has no Swish, and no Softsign of rank 0
    own = {"Swish": lambda: x / (1 + np.exp(-1.5 * x)), "Softsign": lambda: x / (1 + np.abs(x))}
    if op in own:
        same(run(op, [x], **attrs)[0], np.asarray(own[op](), np.float32))
    else:
        check(op, [x], **attrs)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
@pytest.mark.parametrize(("op", "attrs"), ACTIVATIONS)
def test_formulas_round_once(op, attrs, dtype):
    """A narrow float's result is the float32 result, rounded."""
    x = random((40,), dtype)
    wide = run(op, [x.astype(np.float64 if dtype is np.float64 else np.float32)], **attrs)[0]
    same(run(op, [x], **attrs)[0], wide.astype(dtype), rtol=0, atol=0)


@pytest.mark.parametrize("op", ["Sigmoid", "Softplus", "Gelu", "Mish", "Swish", "Elu", "Selu", "Celu", "Softsign"])
def test_activation_stays_finite(op):
    (y,) = run(op, [np.array([-1e4, -100, 100, 1e4], np.float32)])
    assert np.isfinite(y).all()


def test_softplus_of_very_negative_numbers():
    same(run("Softplus", [np.array([-20.0, -50.0], np.float32)])[0], np.exp(np.array([-20, -50], np.float32)), atol=0)


def test_relu_keeps_nan_and_takes_integers():
    check("Relu", [np.array([np.nan, -1, 2], np.float32)])
    same(run("Relu", [np.array([-3, 3], np.int8)])[0], np.array([0, 3], np.int8))


def test_prelu():
    x, slope = random((2, 3, 4)), random((3, 1), seed=1)
    check("PRelu", [x, slope])
    same(run("PRelu", [x, slope[:, 0]], opset=6)[0], np.where(x < 0, x * slope, x))


def test_swiglu():
    gate, linear = random((2, 3)), random((2, 3), seed=1)
    same(run("SwiGLU", [gate, linear])[0], gate / (1 + np.exp(-gate)) * linear)
    with pytest.raises(ModelError, match="differ"):
        run("SwiGLU", [gate, linear[:1]])


def test_composite_gelu():
    x = random((5,))
    (y,) = lower("Gelu", 1, [x], {"approximate": "tanh"}, domain="omniop")
    same(y, run("Gelu", [x], approximate="tanh")[0])


@pytest.mark.parametrize(("shape", "axis"), [((3, 5), -1), ((2, 1, 4), 1), ((2, 3, 4), 0), ((0, 3), 1), ((1,), 0)])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
def test_softmax(op, shape, axis):
    check(op, [random(shape)], axis=axis)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax", "Hardmax"])
def test_softmax_of_a_matrix(op, axis):
    """Before opset 13 all axes from the given one on are one."""
    x = random((2, 3, 4))
    matrix = x.reshape(math.prod(x.shape[:axis]), -1)
    same(run(op, [x], opset=11, axis=axis)[0], run(op, [matrix], axis=-1)[0].reshape(x.shape))


def test_softmax_of_large_numbers():
    check("Softmax", [np.array([[1e4, 1e4, -1e4], [-np.inf, 0, 0]], np.float32)])


def test_softmax_of_narrow_floats():
    check("Softmax", [random((3, 40), np.float16)], rtol=2e-3)
    x = random((3, 40), ml_dtypes.bfloat16)
    same(run("Softmax", [x])[0], run("Softmax", [x.astype(np.float32)])[0].astype(ml_dtypes.bfloat16), rtol=2e-2)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_log_softmax_of_narrow_floats_rounds_once(dtype):
    x = random((3, 40), dtype)
    same(run("LogSoftmax", [x])[0], run("LogSoftmax", [x.astype(np.float32)])[0].astype(dtype), rtol=0, atol=0)


def test_softmax_of_a_long_row_does_not_overflow():
    (y,) = run("Softmax", [np.zeros(70000, np.float16)])
    same(y[:1], np.array([1 / 70000], np.float16))


def test_hardmax_takes_the_first():
    check("Hardmax", [np.array([[1, 3, 3], [2, 2, 2]], np.float32)])


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("ignore", [None, 1, -5])
@pytest.mark.parametrize("op", ["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"])
def test_losses(op, reduction, weighted, ignore):
    x = random((3, 4, 2))
    target = np.array([[0, 1], [3, 2], [1, 0]])
    if ignore == -5:
        target[1, 1] = ignore
    inputs = [x, target, np.array([0.5, 1.0, 2.0, 0.25], np.float32)] if weighted else [x, target]
    attrs = {"reduction": reduction} | ({} if ignore is None else {"ignore_index": ignore})
    check(op, inputs, **attrs)


def test_cross_entropy_gives_the_log_probability():
    x = random((3, 4))
    loss, log_probability = run("SoftmaxCrossEntropyLoss", [x, np.array([0, 1, 2])], outputs=2)
    same(log_probability, run("LogSoftmax", [x], axis=1)[0])
    assert loss.shape == ()


def test_a_target_out_of_range_is_a_fault():
    with pytest.raises(IndexError, match="target"):
        run("NegativeLogLikelihoodLoss", [random((2, 3)), np.array([0, 3])])
