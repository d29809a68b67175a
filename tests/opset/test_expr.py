"""Expressions: one object per content, folded as they are built, rebuilt without loss."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from omniop.opset import expr
from omniop.opset.dtype import BOOL, FLOAT16, FLOAT32, FLOAT64, INT8, INT32, INT64, UINT8, DType
from omniop.opset.expr import Expr

N, M = expr.size("N"), expr.size("M")
K, J = expr.axis(0, N), expr.axis(1, M)
X = expr.load(0, (K,), FLOAT32)


def test_equal_content_is_one_object() -> None:
    assert K * 4 + J is expr.axis(0, expr.size("N")) * 4 + J
    assert K + J is not J + K  # order is kept; poly knows that they are equal
    assert expr.const(1, INT64) is not expr.const(1, INT32)
    assert expr.const(True, BOOL) is not expr.const(1, INT8)
    assert expr.const(0.0, FLOAT32) is not expr.const(-0.0, FLOAT32)
    assert expr.const(float("nan"), FLOAT32) is expr.const(float("nan"), FLOAT32)


def test_copies_are_the_same_object() -> None:
    node = expr.select(X < 0, X * 2, expr.reduce("add", (J,), (expr.load(1, (K, J), FLOAT32),)))
    for other in (copy.copy(node), copy.deepcopy(node), pickle.loads(pickle.dumps(node))):
        assert other is node


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        (K + 0, K),
        (0 + K, K),
        (K - 0, K),
        (K * 1, K),
        (K * 0, expr.index(0)),
        (K - K, expr.index(0)),
        (K // 1, K),
        (K % 1, expr.index(0)),
        (K + 2 + 3, K + 5),
        (K * 2 * 3, K * 6),
        (expr.index(7) // 2, expr.index(3)),
        (expr.index(-7) // 2, expr.index(-4)),
        (expr.index(-7) % 4, expr.index(1)),
        (expr.alu("div", expr.index(-7), expr.index(2)), expr.index(-3)),
        (expr.alu("rem", expr.index(-7), expr.index(2)), expr.index(-1)),
        (expr.minimum(K, K), K),
        (K <= K, expr.const(True, BOOL)),
        (K < K, expr.const(False, BOOL)),
        ((K < J) & True, K < J),
        ((K < J) & False, expr.const(False, BOOL)),
        ((K < J) | True, expr.const(True, BOOL)),
        (expr.select(expr.const(False, BOOL), K, J), J),
        (expr.select(K < J, K, K), K),
        (expr.axis(3, 1), expr.index(0)),
        (expr.reduce("add", (expr.index(0),), (X,)), X),
        (expr.load(0, (K,), FLOAT32, expr.const(True, BOOL), 5), X),
        (expr.load(0, (K,), FLOAT32, expr.const(False, BOOL), 5), expr.const(5, FLOAT32)),
        (X.cast(FLOAT32), X),
        (expr.const(3, INT32).cast(FLOAT32), expr.const(3.0, FLOAT32)),
        (expr.const(300, INT32).cast(UINT8), expr.const(44, UINT8)),
    ],
    ids=str,
)
def test_folding(node: Expr, expected: Expr) -> None:
    assert node is expected


@pytest.mark.parametrize(
    "node",
    [
        X + 0,  # -0.0 + 0 is 0.0
        X * 0,  # NaN
        X - X,
        X.eq(X),
        expr.const(0.1, FLOAT32) + expr.const(0.2, FLOAT32),  # rounding is the device's
        expr.const(0.1, FLOAT64).cast(FLOAT16),
        expr.index(1) // expr.index(0),
        expr.load(0, (K,), FLOAT32, expr.const(False, BOOL), 0, fault=1),  # it has to be reported
    ],
    ids=str,
)
def test_what_must_not_fold(node: Expr) -> None:
    assert node.op != "const"
    assert node is not X


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [(130, INT8, -126), (-1, UINT8, 255), (1 << 63, INT64, -(1 << 63)), (256, UINT8, 0), (2, BOOL, True)],
)
def test_constants_wrap(value: int, dtype: DType, expected: int) -> None:
    assert expr.const(value, dtype).attr == expected


def test_operands_are_of_one_dtype() -> None:
    with pytest.raises(TypeError, match="one dtype"):
        expr.alu("add", X, K)
    with pytest.raises(TypeError, match="floormod"):
        X % 2
    with pytest.raises(ValueError, match="widths differ"):
        expr.bitcast(X, INT64)
    with pytest.raises(ValueError, match="unknown monoid"):
        expr.reduce("mean", (K,), (X,))


def test_walking_is_operands_first_and_once() -> None:
    node = (K + J) * (K + J) + K
    nodes = list(expr.walk(node))
    assert len(nodes) == len(set(nodes))
    assert nodes[-1] is node
    for position, found in enumerate(nodes):
        assert all(nodes.index(a) < position for a in found.args)


def test_deep_expressions_need_no_stack() -> None:
    node = X
    for k in range(3000):
        node = expr.alu("sin", node) if k % 2 else node * 2.0
    assert sum(1 for _ in expr.walk(node)) > 3000
    replaced = expr.substitute(node, {X: expr.load(1, (K,), FLOAT32)})
    assert expr.substitute(replaced, {expr.load(1, (K,), FLOAT32): X}) is node


def test_substitution_folds_again() -> None:
    node = expr.select(K < M, K * 2 + J, J)
    assert expr.substitute(node, {K: expr.index(0), M: expr.index(5)}) is expr.axis(1, 5)
    swapped = expr.substitute(K - J, {K: J, J: K})
    assert swapped is J - K


def test_free_axes() -> None:
    inner = expr.reduce("add", (J,), (expr.load(0, (K, J), FLOAT32),))
    assert expr.free_axes(inner) == {K}
    assert expr.free_axes(inner + expr.load(1, (J,), FLOAT32)) == {K, J}
    assert expr.free_axes() == set()


def test_evaluate() -> None:
    node = expr.select(K < M, (K * 7 - M) // 3, N % 4) + (K <= 2).cast(INT64)
    for n, m, i in np.random.default_rng(0).integers(1, 9, (50, 3)).tolist():
        expected = ((i * 7 - m) // 3 if i < m else n % 4) + (i <= 2)
        assert expr.evaluate(node, {"N": n, "M": m}, {0: i}) == expected
    with pytest.raises(ValueError, match="not an expression over sizes"):
        expr.evaluate(X, {"N": 1})


def test_text() -> None:
    assert repr(X * 2.0 + 1.0) == "((0[i0] * 2.0) + 1.0)"
    assert repr(expr.reduce("max", (J,), (expr.load(1, (K, J), FLOAT32),))) == "max[i1](1[i0, i1])"
    assert repr(expr.load(0, (K,), FLOAT32, K < M, 0)) == "0[i0 if (i0 < M) else 0.0]"
