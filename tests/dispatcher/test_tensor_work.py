"""The figure that says where a run's tensor work was done: terms are counted, not nodes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import omniop
from tests.gate.case import model, normal

DENSE = model("""g (float[M, 8] x) => (float[M, 3] y) { z = MatMul (x, w) y = Relu (z) }""", 21, w=normal(8, 3))


def work_of(proto: onnx.ModelProto, feeds: dict[str, np.ndarray], **options: object) -> dict[str, int]:
    session = omniop.load(proto, device="cpu", fallback="silent", **options)
    session.run(feeds)
    return session.explain().tensor_work


def test_products_count_their_terms() -> None:
    assert work_of(DENSE, {"x": normal(4, 8)}) == {"cpu": 4 * 3 * 8 + 4 * 3}


def test_is_of_the_last_run() -> None:
    """The figures follow the sizes, also where the plan is an older run's."""
    session = omniop.load(DENSE, device="cpu", fallback="error")
    assert session.explain().tensor_work == {}
    for rows in (4, 6, 5):
        session.run({"x": normal(rows, 8)})
        assert session.explain().tensor_work == {"cpu": rows * 3 * 9}


@pytest.mark.parametrize(
    ("graph", "shape", "scalars"),
    [
        ("g (float[1, 2, 6, 6] x) => (float[1, 3, 4, 4] y) { y = Conv (x, w) }", (1, 2, 6, 6), 3 * 16 * 2 * 9),
        ("g (float[N, 6] x) => (float[N] y) { a = Constant <value = int64[1] {1}> () "
         "y = ReduceSum <keepdims = 0> (x, a) }", (5, 6), 5 * 6),
        ("g (float[1, 1, 6, 6] x) => (float[1, 1, 3, 3] y) "
         "{ y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x) }", (1, 1, 6, 6), 9 * 4),
        ("g (float[N, 6] x) => (float[6, N] y) { y = Transpose (x) }", (5, 6), 30),
    ],
    ids=["conv", "reduce", "pool", "move"],
)  # fmt: skip
def test_what_counts(graph: str, shape: tuple[int, ...], scalars: int) -> None:
    weights = {"w": normal(3, 2, 3, 3)} if "w)" in graph else {}
    assert work_of(model(graph, 21, **weights), {"x": normal(*shape)}).get("cpu", 0) == scalars


def test_loops_count_each_turn() -> None:
    """A body on the host's road counts as often as it ran; so does an LSTM's, which the device repeats."""
    loop = model(
        """g (float[N] x, int64 n) => (float[N] last)
        { t = Constant <value = bool {1}> ()
          last = Loop (n, t, x) <body = step (int64 i, bool go, float[N] v) => (bool on, float[N] w)
            { on = Identity (go) w = Mul (v, x) }> }"""
    )
    one, five = (work_of(loop, {"x": normal(100), "n": np.array(n)})["cpu"] for n in (1, 5))
    assert five == 5 * one == 500
    lstm = model(
        """g (float[T, 1, 4] x) => (float[T, 1, 1, 8] y) { y = LSTM <hidden_size = 8> (x, w, r) }""",
        21,
        w=normal(1, 32, 4),
        r=normal(1, 32, 8),
    )
    short, long, longer = (work_of(lstm, {"x": normal(steps, 1, 4)})["cpu"] for steps in (2, 3, 4))
    assert longer - long == long - short >= 32 * 8


def test_what_falls_back_is_not_the_device_s() -> None:
    session = omniop.load(DENSE, device="reference", exclude={"reference": ["Relu"]}, fallback="silent")
    session.run({"x": normal(4, 8)})
    explanation = session.explain()
    assert explanation.tensor_work == {"reference": 96, "cpu": 12}
    assert explanation.share() == explanation.share("reference") == 96 / 108
    assert explanation.share("cpu") == 12 / 108
    assert "reference 88.9%, cpu 11.1%" in str(explanation)


def test_host_steps_count_what_they_give() -> None:
    """Joining a sequence's tensors is done on the host, and is no small thing."""
    joined = model(
        """g (float[N] x) => (float[M] y)
        { a = Neg (x) s = SequenceConstruct (a, x) y = ConcatFromSequence <axis = 0> (s) }"""
    )
    assert work_of(joined, {"x": normal(10)}) == {"host": 20, "cpu": 10}


def test_no_work_is_done_where_it_was_asked_for() -> None:
    session = omniop.load(model("g (float[N] x) => (float[N] y) { y = Identity (x) }"), device="cpu")
    session.run({"x": normal(3)})
    assert session.explain().share() == 1.0
