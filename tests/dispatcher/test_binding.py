"""Size expressions compiled to Python give what `expr.evaluate` gives."""

from __future__ import annotations

import numpy as np
import pytest

from omniop.dispatcher.binding import SizeFunction
from omniop.opset import expr
from omniop.opset.alu import INTEGER
from omniop.opset.dtype import BOOL, INT64
from omniop.opset.expr import Expr

NAMES = ("A", "B", "~e", "~f")
LEAVES = tuple(map(expr.size, NAMES))
BINARY = [name for name in INTEGER if name not in ("neg", "abs", "eq", "ne", "lt", "le", "floordiv", "floormod")]
DIVIDING = ("floordiv", "floormod")
COMPARING = ("eq", "ne", "lt", "le")


def random_size(rng: np.random.Generator, depth: int) -> Expr:
    if depth == 0:
        return LEAVES[rng.integers(4)] if rng.random() < 0.7 else expr.index(int(rng.integers(-9, 10)))
    x, y = random_size(rng, depth - 1), random_size(rng, depth - 1)
    kind = rng.integers(10)
    if kind < 5:
        return expr.binary(BINARY[rng.integers(len(BINARY))], x, y)
    if kind < 7:
        return expr.binary(DIVIDING[rng.integers(2)], x, LEAVES[rng.integers(2)])
    if kind == 7:
        return expr.alu("neg" if rng.random() < 0.5 else "abs", x)
    test = random_test(rng, x, y)
    return expr.select(test, x, y) if kind == 8 else expr.cast(test, INT64) + y


def random_test(rng: np.random.Generator, x: Expr, y: Expr) -> Expr:
    test = expr.binary(COMPARING[rng.integers(4)], x, y)
    other = expr.binary(COMPARING[rng.integers(4)], y, 3)
    return (test, ~test, test & other, test | other, test ^ other)[rng.integers(5)]


@pytest.mark.parametrize("seed", range(10))
def test_compiled_sizes_are_evaluated_ones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    roots = [random_size(rng, int(rng.integers(5))) for _ in range(30)]
    roots += [random_test(rng, roots[k], roots[k + 1]) for k in range(10)]
    compiled = SizeFunction(roots, NAMES)
    for _ in range(20):
        values = [*map(int, rng.integers(1, 9, 2)), *map(int, rng.integers(-30, 31, 2))]
        sizes = dict(zip(NAMES, values, strict=True))
        for root, found in zip(roots, compiled(values), strict=True):
            assert found == expr.evaluate(root, sizes), (root, sizes)


def test_nothing_to_compute() -> None:
    assert SizeFunction([], [])(()) == ()
    assert SizeFunction([expr.index(5), expr.const(True, BOOL)], [])(()) == (5, True)


def test_a_load_is_no_size() -> None:
    with pytest.raises(ValueError, match="not an expression over sizes"):
        SizeFunction([expr.load(0, (expr.size("A"),), INT64)], ["A"])
