"""Primitives and what is composed of them, evaluated in numpy against numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from omniop.opset import dtype as dtypes
from omniop.opset import expr, prims
from omniop.opset.definitions import Tensor
from omniop.opset.dtype import BOOL, FLOAT32, INT8, INT32, INT64, UINT8, DType
from omniop.opset.errors import ModelError
from omniop.opset.trace import Trace, tracing
from tests.opset.evaluate import Interpreter


class Bench:
    """A trace with feeds of symbolic shape, and their values."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.feeds: dict[str, np.ndarray] = {}

    def feed(self, array: np.ndarray, static: bool = False) -> Tensor:
        name = f"x{len(self.feeds)}"
        self.feeds[name] = array
        dims = [d if static else self.trace.env.symbol(f"{name}_{k}", d) for k, d in enumerate(array.shape)]
        return prims.source(name, dims, dtypes.of_numpy(array.dtype))

    def value(self, t: Tensor) -> np.ndarray:
        assert [self.trace.env.hint(e) for e in t.extents] == list(self.shape(t))
        return Interpreter(self.trace, self.feeds).value(t)

    def shape(self, t: Tensor) -> Sequence[int]:
        return [int(self.trace.env.hint(e)) for e in t.extents]


@pytest.fixture
def bench() -> Iterator[Bench]:
    with tracing(Trace()) as trace:
        yield Bench(trace)


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)


X = normal(4, 3, 5)
VIEWS: dict[str, tuple[Callable[[Tensor], Tensor], np.ndarray]] = {
    "transpose": (lambda t: prims.transpose(t, [2, 0, 1]), X.transpose(2, 0, 1)),
    "no transpose": (lambda t: prims.transpose(t, [0, 1, 2]), X),
    "join": (lambda t: prims.reshape(t, [t.shape[0] * t.shape[1], t.shape[2]]), X.reshape(12, 5)),
    "split": (lambda t: prims.reshape(t, [2, t.shape[0] // 2, 1, t.shape[1] * t.shape[2]]), X.reshape(2, 2, 1, 15)),
    "flatten": (lambda t: prims.reshape(t, [prims.product(t.shape)]), X.reshape(-1)),
    "mixed": (lambda t: prims.reshape(t, [t.shape[1], t.shape[2], t.shape[0]]), X.reshape(3, 5, 4)),
    "unsqueeze": (lambda t: prims.unsqueeze(t, [0, -1]), X[None, ..., None]),
    "squeeze": (lambda t: prims.squeeze(prims.unsqueeze(t, [1]), [1]), X),
    "narrow": (lambda t: prims.narrow(t, -1, 1, 3), X[..., 1:4]),
    "reversed": (
        lambda t: prims.strided_slice(t, [t.shape[0] - 1, 0, 4], [-1, 1, -2], [t.shape[0], 3, 3]),
        X[::-1, :, ::-2],
    ),
    "broadcast": (lambda t: prims.broadcast_to(t, [2, *t.shape]), np.broadcast_to(X, (2, 4, 3, 5))),
    "pad": (
        lambda t: prims.pad(t, [1, 0, -1], [0, 2, 3], 7.0),
        np.pad(X[..., 1:], ((1, 0), (0, 2), (0, 3)), constant_values=7),
    ),
}


@pytest.mark.parametrize("static", [True, False], ids=["static", "symbolic"])
@pytest.mark.parametrize("name", VIEWS)
def test_views(bench: Bench, name: str, static: bool) -> None:
    function, expected = VIEWS[name]
    np.testing.assert_array_equal(bench.value(function(bench.feed(X, static))), expected)


@pytest.mark.parametrize("count", [1, 2, 5, 9, 70])
@pytest.mark.parametrize("axis", [0, -1])
def test_concat(bench: Bench, count: int, axis: int) -> None:
    """More than eight go through a tree; parts without elements take no part."""
    shapes = [(2, 1 + k % 3) if axis else (k % 3, 2) for k in range(count)]
    arrays = [normal(*shape) for shape in shapes]
    if not any(a.size for a in arrays):
        arrays.append(normal(1, 2))
    joined = prims.concat([bench.feed(a) for a in arrays], axis)
    np.testing.assert_array_equal(bench.value(joined), np.concatenate(arrays, axis))


def test_concat_of_shapes_that_do_not_fit(bench: Bench) -> None:
    with pytest.raises(ModelError, match="do not join along axis 0"):
        prims.concat([bench.feed(normal(2, 3)), bench.feed(normal(2, 4))], 0)


@pytest.mark.parametrize("monoid", ["add", "mul", "min", "max"])
@pytest.mark.parametrize("axes", [(0,), (1, -1), (0, 1, 2), ()], ids=str)
def test_reduce(bench: Bench, monoid: str, axes: tuple[int, ...]) -> None:
    ufunc = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}[monoid]
    for keepdims in (False, True):
        found = bench.value(prims.reduce(monoid, bench.feed(X), axes, keepdims))
        np.testing.assert_allclose(found, ufunc.reduce(X, axis=axes, keepdims=keepdims) if axes else X, rtol=1e-5)


IDENTITIES = [
    ("add", FLOAT32, 0), ("mul", INT32, 1), ("min", FLOAT32, np.inf), ("max", FLOAT32, -np.inf), ("max", UINT8, 0),
    ("min", UINT8, 255), ("max", INT8, -128), ("min", INT8, 127), ("max", BOOL, False), ("min", BOOL, True),
    ("and", BOOL, True), ("or", BOOL, False), ("and", INT32, -1), ("or", INT32, 0), ("argmax", FLOAT32, 0),
]  # fmt: skip


@pytest.mark.parametrize(("monoid", "dtype", "expected"), IDENTITIES, ids=str)
def test_identity_is_neutral(bench: Bench, monoid: str, dtype: DType, expected: Any) -> None:
    """What a reduce over an empty axis gives."""
    assert prims.identity(monoid, dtype) == expected
    if monoid != "argmax":
        empty = bench.feed(np.zeros((3, 0), dtype.numpy))
        np.testing.assert_array_equal(bench.value(prims.reduce(monoid, empty, [1])), np.full(3, expected, dtype.numpy))


@pytest.mark.parametrize("last", [False, True])
def test_arg_reduce_takes_nan_for_the_best(bench: Bench, last: bool) -> None:
    x = np.array([[1, 3, 3, 0], [2, np.nan, 5, np.nan], [0, 0, 0, 0]], np.float32)
    for monoid, first in (("argmax", np.argmax), ("argmin", np.argmin)):
        expected = x.shape[1] - 1 - first(x[:, ::-1], 1) if last else first(x, 1)
        np.testing.assert_array_equal(bench.value(prims.arg_reduce(monoid, bench.feed(x), 1, last)), expected)


@pytest.mark.parametrize(
    ("a", "b"),
    [((4, 3), (3, 5)), ((2, 4, 3), (3, 5)), ((2, 1, 4, 3), (7, 3, 5)), ((1, 3), (3, 1)), ((4, 0), (0, 5))],
)
def test_contract(bench: Bench, a: tuple[int, ...], b: tuple[int, ...]) -> None:
    """Batch dims broadcast; with nothing to sum it is 0."""
    x, y = normal(*a), normal(*b)
    found = bench.value(prims.contract(bench.feed(x), bench.feed(y)))
    np.testing.assert_allclose(found, x @ y, rtol=1e-5, atol=1e-6)


def test_contract_rounds_once(bench: Bench) -> None:
    """Narrow floats are summed in float32: 1 + 255 * 2**-8 would stay 1 in bfloat16."""
    x = np.full((1, 256), 2**-8, ml_dtypes.bfloat16)
    x[0, 0] = 1
    found = bench.value(prims.contract(bench.feed(x), bench.feed(np.ones((256, 1), ml_dtypes.bfloat16))))
    assert found.dtype == ml_dtypes.bfloat16
    assert float(found[0, 0]) == 2.0


def test_contract_of_shapes_that_do_not_meet(bench: Bench) -> None:
    with pytest.raises(ModelError, match="columns meet"):
        prims.contract(bench.feed(normal(2, 3)), bench.feed(normal(4, 5)))


def test_scatter_combines_duplicates(bench: Bench) -> None:
    base, places, values = normal(5), np.array([1, 1, 4, 1]), normal(4)
    x, i, v = map(bench.feed, (base, places, values))
    found = prims.scatter_of(x, i.shape, lambda k: ((i.at(k),), v.at(k), None), "add")
    expected = base.copy()
    np.add.at(expected, places, values)
    np.testing.assert_allclose(bench.value(found), expected, rtol=1e-6)
    np.testing.assert_array_equal(bench.value(x), base)


def test_a_guard_keeps_memory_untouched(bench: Bench) -> None:
    x, i = bench.feed(normal(3)), bench.feed(np.array([0, 7, -1, 2]))

    def element(k: expr.Expr) -> expr.Expr:
        place = i.at(k)
        inside = expr.all_of([place >= 0, place < 3])
        return x.at(place, guard=inside, other=9.0)

    expected = [bench.feeds["x0"][0], 9, 9, bench.feeds["x0"][2]]
    np.testing.assert_array_equal(bench.value(prims.map_of(i.shape, element)), np.array(expected, np.float32))


def test_broadcasting_asks_only_what_it_must(bench: Bench) -> None:
    """One symbol on both sides is known to fit; two symbols leave a guard; what cannot fit is an error."""
    n, m = bench.trace.env.symbol("n", 4), bench.trace.env.symbol("m", 4)
    before = len(bench.trace.env.guards)
    assert prims.broadcast_shapes((n, 1), (n, 5), (5,)) == (n, 5)
    assert len(bench.trace.env.guards) == before
    prims.broadcast_shapes((n,), (m,))
    assert len(bench.trace.env.guards) == before + 1
    with pytest.raises(ModelError, match="do not broadcast together"):
        prims.broadcast_shapes((n,), (bench.trace.env.symbol("k", 3),))


def test_equal_prims_are_one(bench: Bench) -> None:
    x = bench.feed(X)
    assert prims.add(x, x) is prims.add(x, x)
    assert prims.full((3,), 1, INT64) is prims.full((3,), 1, INT64)
    assert prims.constant(np.arange(3)) is prims.constant(np.arange(3))


def test_tensors_without_elements_reach_no_device(bench: Bench) -> None:
    """Whatever is computed from them is a constant."""
    empty = bench.feed(np.zeros((0, 3), np.float32))
    assert empty.empty
    first = len(bench.trace.definitions)
    for t in (prims.add(empty, empty), prims.reshape(empty, (3, 0)), prims.contract(empty, bench.feed(normal(3, 2)))):
        assert t.empty
    made = bench.trace.definitions[first:]
    assert not any(n.op == "load" for d in made for n in expr.walk(*d.expressions()))


def test_repeat_carries_and_collects(bench: Bench) -> None:
    x = bench.feed(normal(6, 2))

    def body(step: Any, total: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        row = prims.squeeze(prims.narrow(x, 0, step, 1), [0])
        added = prims.add(total, row)
        return [added], [prims.mul(added, added)]

    for reverse in (False, True):
        (final,), (rows,) = prims.repeat(x.shape[0], [prims.full((x.shape[1],), 0.0, FLOAT32)], body, reverse)
        array = bench.feeds["x0"]
        sums = np.cumsum(array[::-1], 0)[::-1] if reverse else np.cumsum(array, 0)
        np.testing.assert_allclose(bench.value(final), array.sum(0), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(bench.value(rows), sums**2, rtol=1e-4, atol=1e-6)


def test_a_repeat_whose_state_changes_shape_is_refused() -> None:
    with tracing(Trace()), pytest.raises(ModelError, match=r"a state of shape \[3\] becomes one of \[2\]"):
        prims.repeat(2, [prims.full((3,), 0.0, FLOAT32)], lambda step, state: ([prims.full((2,), 0.0, FLOAT32)], []))
