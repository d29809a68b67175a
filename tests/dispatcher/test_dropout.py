"""Dropout: a device's work at inference; in training the host draws as numpy does."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import omniop
from omniop.opset.errors import ExecutionError
from tests.gate.case import model, normal

DROPOUT = model(
    """g (float[N, M] x, float ratio, bool training) => (float[N, M] y, bool[N, M] mask)
    { t = Mul (x, x) d, mask = Dropout <seed = 5> (t, ratio, training) y = Neg (d) }"""
)
HALF = model("""g (float16[N, M] x, bool training) => (float16[N, M] y) { y = Dropout <seed = 3> (x, , training) }""")


def feeds(ratio: float, training: bool) -> dict[str, np.ndarray]:
    return {"x": normal(6, 7), "ratio": np.array(ratio, np.float32), "training": np.array(training)}


def kept(seed: int, ratio: float) -> np.ndarray:
    return np.random.RandomState(seed).uniform(0, 1, (6, 7)) >= ratio


def test_one_session_trains_and_infers(device: str) -> None:
    session = omniop.load(DROPOUT, device=device, fallback="error")
    for ratio, training in ((0.75, True), (0.75, False), (0.0, True), (0.25, True)):
        given = feeds(ratio, training)
        found = session.run(given)
        mask = kept(5, ratio) if training else np.ones((6, 7), bool)
        scale = 1 / (1 - ratio) if training else 1
        np.testing.assert_array_equal(found["mask"], mask)
        np.testing.assert_allclose(found["y"], -(given["x"] ** 2) * mask * scale, rtol=1e-6)


def test_explain_tells_where_it_ran() -> None:
    session = omniop.load(DROPOUT, device="cpu")
    session.run(feeds(0.5, True))
    places = {node.op: node.device for node in session.explain().nodes}
    assert places["Dropout"] == "host"
    assert places["Neg"] == places["Mul"] != "host"


def test_keeps_the_dtype_and_the_default_ratio() -> None:
    x = normal(6, 7).astype(np.float16)
    found = omniop.load(HALF, device="cpu").run({"x": x, "training": np.array(True)})["y"]
    assert found.dtype == np.float16
    np.testing.assert_allclose(found, x * kept(3, 0.5) * np.float16(2), rtol=1e-3)


def test_without_a_seed_every_run_draws_anew() -> None:
    proto = onnx.ModelProto()
    proto.CopyFrom(HALF)
    del proto.graph.node[0].attribute[:]
    session = omniop.load(proto, device="cpu")
    given = {"x": np.ones((6, 7), np.float16), "training": np.array(True)}
    first, second = (session.run(given)["y"] for _ in range(2))
    assert (first != second).any()


def test_a_ratio_of_1_leaves_nothing_to_scale() -> None:
    with pytest.raises(ExecutionError, match=r"a ratio of 1\.0; at least 0 and below 1 is needed"):
        omniop.load(DROPOUT, device="cpu").run(feeds(1.0, True))
