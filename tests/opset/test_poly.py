"""Index arithmetic against brute force: whatever is simplified has the values it had before."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from math import prod

import numpy as np
import pytest

from omniop.opset import expr, poly
from omniop.opset.dtype import INT64
from omniop.opset.expr import Expr

A, B, C = (expr.size(name) for name in "ABC")
FREE = expr.size("~e")
EXTENTS = (A, B, A * B, expr.index(4), A * 6, B + 1)
AXES = tuple(expr.axis(k, e) for k, e in enumerate(EXTENTS))
DIVISORS = (*map(expr.index, (2, 3, 4, 6, 8)), A, B, A * B, A * 6, B + 1)


def random_index(rng: np.random.Generator, depth: int) -> Expr:
    """An integer expression as lowerings write them: divisors are above 0."""
    if depth == 0 or rng.random() < 0.1:
        leaves = (*AXES, A, B, C, FREE, expr.index(int(rng.integers(-7, 13))))
        return leaves[rng.integers(len(leaves))]
    x = random_index(rng, depth - 1)
    kind = rng.integers(9)
    if kind >= 5:
        divisor = DIVISORS[rng.integers(len(DIVISORS))]
        return x // divisor if kind < 7 else x % divisor
    if kind == 4:
        y = random_index(rng, depth - 1)
        choice = rng.integers(3)
        return expr.select(x < y, x, y + 1) if choice == 0 else (expr.minimum, expr.maximum)[choice - 1](x, y)
    y = random_index(rng, depth - 1)
    return (x + y, x - y, x * y, -x)[kind]


def points(rng: np.random.Generator, count: int) -> list[tuple[dict[str, int], dict[int, int]]]:
    """Values of the sizes and of the axes within their extents."""
    found = []
    for _ in range(count):
        sizes = {name: int(rng.integers(1, 7)) for name in "ABC"} | {"~e": int(rng.integers(-20, 21))}
        axes = {k: int(rng.integers(expr.evaluate(e, sizes))) for k, e in enumerate(EXTENTS)}
        found.append((sizes, axes))
    return found


@pytest.mark.parametrize("seed", range(8))
def test_simplify_keeps_the_value(seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(150):
        node = random_index(rng, int(rng.integers(1, 6)))
        short = poly.simplify(node)
        for sizes, axes in points(rng, 12):
            assert expr.evaluate(short, sizes, axes) == expr.evaluate(node, sizes, axes), (node, short, sizes, axes)
        assert poly.simplify(short) is short, node


@pytest.mark.parametrize("seed", range(4))
def test_bounds_hold(seed: int) -> None:
    """What is provably not negative, or below a limit, is so everywhere."""
    rng = np.random.default_rng(100 + seed)
    proven = 0
    for _ in range(300):
        node = random_index(rng, int(rng.integers(1, 4)))
        limit = DIVISORS[rng.integers(len(DIVISORS))]
        nonnegative = poly.nonnegative(node)
        below = poly.below(poly.poly_of(node), poly.poly_of(limit))
        bound = poly.upper_bound(poly.poly_of(node))
        proven += nonnegative + below
        for sizes, axes in points(rng, 12):
            value = expr.evaluate(node, sizes, axes)
            assert value >= 0 or not nonnegative, (node, sizes, axes)
            assert 0 <= value < expr.evaluate(limit, sizes) or not below, (node, limit, sizes, axes)
            assert bound is None or value <= expr.evaluate(poly.expr_of(bound), sizes), (node, sizes, axes)
    assert proven > 20


@pytest.mark.parametrize("seed", range(4))
def test_same_is_equal(seed: int) -> None:
    rng = np.random.default_rng(200 + seed)
    for _ in range(100):
        a, b, c = (random_index(rng, 2) for _ in range(3))
        assert poly.same((a + b) * c, c * b + a * c)
        if poly.same(a, b):
            for sizes, axes in points(rng, 8):
                assert expr.evaluate(a, sizes, axes) == expr.evaluate(b, sizes, axes), (a, b)
        else:
            assert a is not b


SHAPES = (
    (A, B),
    (expr.index(3), A, expr.index(4)),
    (A, expr.index(1), B, expr.index(2)),
    (A * B, C),
    (expr.index(1), expr.index(1)),
    (expr.index(5),),
    (A + B, expr.index(2), C),
)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_linear_and_delinear_are_numpys(shape: tuple[Expr, ...]) -> None:
    axes = tuple(expr.axis(k, e) for k, e in enumerate(shape))
    offset = poly.linear(axes, shape)
    back = poly.delinear(offset, shape)
    assert back == axes  # nothing is left of the division
    flat = expr.axis(0, poly.simplify(prod(shape, start=expr.index(1))))
    places = poly.delinear(flat, shape)
    assert poly.same(poly.linear(places, shape), flat)
    sizes = {"A": 3, "B": 2, "C": 4}
    extents = [expr.evaluate(e, sizes) for e in shape]
    for k, index in enumerate(product(*map(range, extents))):
        assert expr.evaluate(offset, sizes, dict(enumerate(index))) == k
        assert tuple(expr.evaluate(p, sizes, {0: k}) for p in places) == index


@pytest.mark.parametrize("seed", range(4))
def test_delinear_of_any_offset(seed: int) -> None:
    """Reshape from one random shape into another of as many elements, through both forms."""
    rng = np.random.default_rng(300 + seed)
    atoms = [A, B, C, expr.index(2), expr.index(3), expr.index(4)]
    for _ in range(4):
        chosen = [atoms[k] for k in rng.integers(len(atoms), size=rng.integers(2, 5))]
        old, new = grouped(rng, chosen), grouped(rng, chosen)
        axes = tuple(expr.axis(k, e) for k, e in enumerate(new))
        places = poly.delinear(poly.linear(axes, new), old)
        for sizes, _ in points(rng, 4):
            extents = [expr.evaluate(e, sizes) for e in new]
            index = [int(rng.integers(e)) for e in extents]
            flat = int(np.ravel_multi_index(index, extents))
            expected = np.unravel_index(flat, [expr.evaluate(e, sizes) for e in old])
            assert [expr.evaluate(p, sizes, dict(enumerate(index))) for p in places] == list(expected), (old, new)


def grouped(rng: np.random.Generator, dims: list[Expr]) -> tuple[Expr, ...]:
    """A shape whose product is that of ``dims``: some of them are joined, some dims of 1 put between."""
    result = [expr.index(1)]
    for k in rng.permutation(len(dims)):
        if rng.random() < 0.5:
            result[-1] = poly.simplify(result[-1] * dims[k])
        else:
            result.append(dims[k])
    return tuple(result)


@pytest.mark.parametrize("seed", range(4))
def test_affine_gives_the_strides(seed: int) -> None:
    rng = np.random.default_rng(400 + seed)
    found = 0
    for _ in range(200):
        node = random_index(rng, 3)
        steps = poly.affine(node, AXES)
        if steps is None:
            continue
        found += 1
        offset, strides = steps
        assert not expr.free_axes(offset, *strides), node
        for sizes, axes in points(rng, 6):
            total = expr.evaluate(offset, sizes)
            total += sum(expr.evaluate(s, sizes) * axes[k] for k, s in enumerate(strides))
            assert total == expr.evaluate(node, sizes, axes), (node, offset, strides)
    assert found > 20


K, J = expr.axis(0, A), expr.axis(1, expr.index(64))


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ((K * 64 + J) // 64, K),
        ((K * 64 + J) % 64, J),
        (A * (K // A) + K % A, K),
        ((K * 64 + J) // 8 % 8, J // 8),
        ((B * 6) // 4, (B * 3) // 2),
        ((FREE + 5) - FREE, expr.index(5)),
        ((A * B + A) // A, B + 1),
        (K % A, K),
        (FREE // 2 // 3, FREE // 6),
        (FREE % 12 % 4, FREE % 4),
    ],
    ids=str,
)
def test_known_forms(node: Expr, expected: Expr) -> None:
    """What lets views disappear into their readers."""
    assert poly.simplify(node) is poly.simplify(expected)


def test_a_scalar_symbol_may_be_negative() -> None:
    assert poly.nonnegative(A)
    assert poly.nonnegative(A - 1)
    assert not poly.nonnegative(FREE)
    assert poly.simplify(FREE % A) is not FREE
    assert poly.affine(expr.load(0, (K,), INT64), (K,)) is None


def test_shared_operands_are_looked_at_once() -> None:
    """A bisection: written out in full, its expression would be 2**30 long."""
    place = expr.index(0)
    for k in range(30):
        further = place + (1 << k)
        place = expr.select(expr.load(0, (further,), INT64) <= A, further, place)
    assert poly.simplify(place + K - K) is poly.simplify(place)
    assert len(repr(place)) < 1 << 16


def test_deep_atoms_are_told_apart() -> None:
    """Atoms that read alike for many levels still have an order of their own."""

    def chain(start: Expr) -> Expr:
        for _ in range(20):
            start = expr.load(0, (start,), INT64)
        return start

    a, b = chain(A), chain(B)
    assert poly.simplify(a + b) is poly.simplify(b + a)
    assert poly.simplify(a * b) is poly.simplify(b * a)


def _minimum(node: Expr, k: int) -> Expr:
    return expr.minimum(expr.binary("floormod", node * 3 + k, expr.size(f"e{k}")), expr.size(f"g{k}") - 1)


@pytest.mark.parametrize(
    "step",
    [
        lambda node, k: node + expr.axis(k, expr.size(f"s{k}")),
        lambda node, k: expr.binary("floordiv", node + expr.size(f"~b{k}"), expr.size(f"c{k}")),
        lambda node, k: expr.select(expr.binary("lt", node, 0), node + expr.size(f"d{k}"), node),
        _minimum,
    ],
    ids=["sum", "quotients", "selects", "minima"],
)
def test_deep_expressions(step: Callable[[Expr, int], Expr]) -> None:
    """What a hundred views or fed shapes leave behind is far deeper than Python's stack."""
    node = expr.axis(0, expr.size("n"))
    for k in range(300):
        node = step(node, k)
    simple = poly.simplify(node)
    assert poly.same(simple, node)
    sizes = {n.attr: 5 for n in expr.walk(node) if n.op == "size"}
    axes = {n.attr: 3 for n in expr.walk(node) if n.op == "axis"}
    assert expr.evaluate(simple, sizes, axes) == expr.evaluate(node, sizes, axes)
    poly.nonnegative(simple)
