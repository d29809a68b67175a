"""Symbolic dims: arithmetic without questions, questions that leave guards."""

from __future__ import annotations

import operator

import numpy as np
import pytest

from omniop.opset import expr
from omniop.opset.errors import ModelError
from omniop.opset.sym import Dim, ShapeEnv, SymInt, as_expr, hint_of, known_equal, product


@pytest.fixture
def env() -> ShapeEnv:
    return ShapeEnv()


def free_guards(env: ShapeEnv) -> dict[str, bool]:
    """Guards but those of symbols being above 0."""
    return {repr(k): v for k, v in env.guards.items() if not repr(k).endswith("<= 0)")}


def test_arithmetic_asks_nothing(env: ShapeEnv) -> None:
    n, m = env.symbol("n", 6), env.symbol("m", 4)
    values: list[Dim] = [n + 1, 1 + n, n - m, 10 - n, n * m, 2 * n, n // 4, n % 4, -n, n * 3 // 3]
    assert [hint_of(v) for v in values] == [7, 7, 2, 4, 24, 12, 1, 2, -6, 6]
    assert free_guards(env) == {}


def test_what_is_known_becomes_an_int(env: ShapeEnv) -> None:
    n, m = env.symbol("n", 6), env.symbol("m", 4)
    assert type(n - n) is int
    assert (n * m) // m - n == 0
    assert type((n * 4) % 2) is int
    assert known_equal(n * m, m * n)
    assert n + m == m + n
    assert n <= n
    assert free_guards(env) == {}


@pytest.mark.parametrize("name", ["eq", "ne", "lt", "le", "gt", "ge"])
def test_a_comparison_is_answered_and_guarded(env: ShapeEnv, name: str) -> None:
    """By the values of this run; asked again it is answered alike, and the guard tells other runs apart."""
    compare = getattr(operator, name)
    n, m = env.symbol("n", 6), env.symbol("m", 4)
    answer = compare(n, m)
    assert answer == compare(6, 4)
    assert compare(n, m) == answer
    assert len(free_guards(env)) == 1
    ((condition, expected),) = [(k, v) for k, v in env.guards.items() if repr(k) in free_guards(env)]
    for a, b in np.random.default_rng(0).integers(1, 9, (40, 2)).tolist():
        holds = bool(expr.evaluate(condition, {"n": a, "m": b})) == expected
        assert holds == (compare(a, b) == answer)


def test_a_dim_of_zero_is_a_constant(env: ShapeEnv) -> None:
    assert type(env.symbol("n", 0)) is int
    assert list(env.guards.values()) == [True]
    n = env.symbol("m", 3)
    assert env.dim(as_expr(n - 3)) == 0
    assert isinstance(env.dim(as_expr(n - 2)), SymInt)
    with pytest.raises(ModelError, match="a dim would be -1"):
        env.dim(as_expr(n - 4))


def test_a_scalar_may_be_anything(env: ShapeEnv) -> None:
    for hint in (-5, 0, 5):
        value = env.scalar(f"e{hint}", hint)
        assert isinstance(value, SymInt)
        assert (value < 0) == (hint < 0)
        assert hint_of(abs(value)) == abs(hint)


def test_an_int_of_a_symbol_pins_it(env: ShapeEnv) -> None:
    n = env.symbol("n", 6)
    assert int(n) == 6
    assert list(range(10))[n] == 6
    assert free_guards(env) == {"(n == 6)": True}
    assert n != "6"
    assert n != 6.5


def test_no_floats(env: ShapeEnv) -> None:
    with pytest.raises(TypeError, match="float arithmetic"):
        env.symbol("n", 6) * 0.5


def test_product(env: ShapeEnv) -> None:
    n = env.symbol("n", 6)
    assert product(()) == 1
    assert hint_of(product((n, 2, n))) == 72
    assert product((n, 0)) == 0
