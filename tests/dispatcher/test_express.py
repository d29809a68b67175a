"""The short way of a run: taken where it may be, and no different from the long one."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest

import omniop
from omniop.dispatcher.session import Session
from omniop.opset.errors import ExecutionError, FeedError
from tests.gate.case import model, normal

WEIGHT = normal(8, 8)
NET = model(
    """g (float[N, 8] x) => (float[N, 8] y, float[N] m)
    { h = MatMul (x, w) y = Relu (h) m = ReduceMax <keepdims = 0> (y, one) }""",
    w=WEIGHT,
    one=np.array([1]),
)


def loaded(proto: onnx.ModelProto, device: str = "cpu") -> Session:
    return omniop.load(proto, device=device, fallback="error")


def ways(session: Session) -> int:
    return len(session._express)


def test_same_answers_both_ways(device: str) -> None:
    session = loaded(NET, device)
    for rows in (3, 5, 3, 1, 5, 1):
        x = normal(rows, 8, seed=rows)
        expected = np.maximum(x @ WEIGHT, 0)
        for _ in range(2):
            found = session.run({"x": x})
            np.testing.assert_allclose(found["y"], expected, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(found["m"], expected.max(1), rtol=1e-5, atol=1e-5)
    assert ways(session) == 3
    assert session.last_report.segments[0][1].symbols == (1,)


def test_outputs_are_the_callers_own() -> None:
    session = loaded(NET)
    x = normal(4, 8)
    first = session.run({"x": x})["y"]
    kept = first.copy()
    for seed in range(3):
        session.run({"x": normal(4, 8, seed=seed + 5)})
    np.testing.assert_array_equal(first, kept)
    again = session.run({"x": x}, ["m"])
    assert list(again) == ["m"]


@pytest.mark.parametrize(
    "change",
    [
        lambda x: np.asfortranarray(x),
        lambda x: np.concatenate([x, x])[::2],
        lambda x: x.tolist(),
        lambda x: memoryview(x),
    ],
    ids=["by columns", "every second row", "a list", "a buffer"],
)
def test_feeds_of_other_kinds_go_the_long_way(change: Any) -> None:
    session = loaded(NET)
    x = normal(4, 8)
    session.run({"x": x})
    given = change(x)
    np.testing.assert_allclose(
        session.run({"x": given})["y"], np.maximum(np.asarray(given) @ WEIGHT, 0), rtol=1e-5, atol=1e-5
    )
    assert ways(session) == 1


def test_a_read_only_feed_and_one_that_changed_in_place() -> None:
    session = loaded(NET)
    x = normal(4, 8)
    session.run({"x": x})
    x[...] = normal(4, 8, seed=3)
    x.flags.writeable = False
    np.testing.assert_allclose(session.run({"x": x})["y"], np.maximum(x @ WEIGHT, 0), rtol=1e-5, atol=1e-5)


def test_mistakes_are_told_as_before() -> None:
    session = loaded(NET)
    x = normal(4, 8)
    session.run({"x": x})
    for wrong in ({"x": x.astype(np.float64)}, {"x": x[:, :7].copy()}, {"z": x}, {"x": x, "z": x}, {}):
        with pytest.raises(FeedError):
            session.run(wrong)
    with pytest.raises(FeedError, match="no output 'q'"):
        session.run({"x": x}, ["q"])


def test_elements_that_the_plan_depends_on() -> None:
    """A shape that is fed: other elements are another plan, though dtypes and shapes are the same."""
    session = loaded(model("g (float[N] x, int64[2] s) => (float[A, B] y) { y = Reshape (x, s) }"))
    x = normal(6)
    for shape in ((2, 3), (2, 3), (3, 2), (3, 2), (2, 3), (6, 1)):
        np.testing.assert_array_equal(session.run({"x": x, "s": np.array(shape)})["y"], x.reshape(shape))
    assert ways(session) == 1


def test_floats_that_the_plan_depends_on() -> None:
    text = 'g (float[1, 1, 4] x, float[3] s) => (float[A, B, C] y) { y = Resize <mode = "nearest"> (x, , s) }'
    session = loaded(model(text))
    x = normal(1, 1, 4)
    for scale in (2.0, 2.0, 3.0, 2.0):
        found = session.run({"x": x, "s": np.array([1, 1, scale], np.float32)})["y"]
        np.testing.assert_array_equal(found, np.repeat(x, int(scale), 2))


@pytest.mark.parametrize(
    "text",
    [
        "g (float[N] x) => (float[N] y) { y = Identity (x) }",
        "g (float[N] x) => (float[M] y) { i = NonZero (x) k = Shape (i) f = Cast <to = 1> (k) y = Neg (f) }",
        "g (float[N] x) => (float[N] y) { y, = Split <num_outputs = 1, axis = 0> (x) }",
    ],
    ids=["an output that is a feed", "a read-back", "a view of a feed"],
)
def test_other_outputs_are_right_on_any_way(text: str) -> None:
    session = loaded(model(text))
    x = normal(6)
    first = session.run({"x": x})["y"].copy()
    second = session.run({"x": x})["y"]
    np.testing.assert_array_equal(first, second)
    assert not np.shares_memory(second, x)


def test_faults_are_found_and_forgotten(device: str) -> None:
    """An index outside ends the run, by either way; the next run is a new one."""
    session = loaded(model("g (float[5] x, int64[N] i) => (float[N] y) { y = Gather (x, i) }"), device)
    x, good, bad = normal(5), np.array([0, 4, -5]), np.array([0, 5, 1])
    for _ in range(2):
        np.testing.assert_array_equal(session.run({"x": x, "i": good})["y"], x[good])
        with pytest.raises(ExecutionError, match="Gather"):
            session.run({"x": x, "i": bad})


def test_many_threads() -> None:
    session = loaded(NET)
    inputs = [normal(rows, 8, seed=rows) for rows in (1, 2, 3, 4)] * 25

    def check(x: np.ndarray) -> None:
        np.testing.assert_allclose(session.run({"x": x})["y"], np.maximum(x @ WEIGHT, 0), rtol=1e-5, atol=1e-5)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(check, inputs))
