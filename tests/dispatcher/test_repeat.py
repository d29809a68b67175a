"""Repeats run by the dispatcher: carries, collected rows, direction, memory."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import omniop
from omniop.conformance.compare import compare_outputs
from omniop.conformance.oracles import onnxruntime_engine
from omniop.conformance.tolerance import Relative
from tests.gate.case import model, normal

HIDDEN, FEATURES = 5, 3


def recurrent(op: str, direction: str, gates: int, outputs: str) -> onnx.ModelProto:
    directions = 2 if direction == "bidirectional" else 1
    results = "y, h, c" if op == "LSTM" else "y, h"
    text = f"""g (float[T, B, {FEATURES}] x) => ({outputs})
    {{ e = Sin (x) {results} = {op} <hidden_size = {HIDDEN}, direction = "{direction}"> (e, w, r, b) }}"""
    weights = {
        "w": normal(directions, gates * HIDDEN, FEATURES),
        "r": normal(directions, gates * HIDDEN, HIDDEN, seed=1),
        "b": normal(directions, 2 * gates * HIDDEN, seed=2),
    }
    return model(text, **weights)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_recurrent_against_onnxruntime(device: str, op: str, gates: int, direction: str) -> None:
    """Every step's state and the last one, at several lengths; the longest is not first."""
    proto = recurrent(op, direction, gates, "float[T, D, B, H] y, float[D, B, H] h")
    session, oracle = omniop.load(proto, device=device, fallback="error"), onnxruntime_engine(proto)
    for steps, batch in ((4, 2), (9, 3), (2, 2), (1, 1)):
        feeds = {"x": normal(steps, batch, FEATURES)}
        assert compare_outputs(session.run(feeds), oracle(feeds), Relative(1e-4, 1e-5)) is None, (steps, batch)


def test_a_repeat_inside_a_program() -> None:
    """What comes before is kept while it runs, what comes after waits for it."""
    proto = model(
        f"""g (float[T, B, {FEATURES}] x) => (float[T, B, {FEATURES}] z)
        {{ e = Sin (x) y, h = RNN <hidden_size = {HIDDEN}> (e, w, r) s = ReduceSum <keepdims = 0> (y, axes)
           t = Unsqueeze (s, last) f = Cos (e) z = Add (t, f) }}""",
        w=normal(1, HIDDEN, FEATURES),
        r=normal(1, HIDDEN, HIDDEN, seed=1),
        axes=np.array([1, 3]),
        last=np.array([2]),
    )
    session, oracle = omniop.load(proto, device="reference", fallback="error"), onnxruntime_engine(proto)
    for shape in ((4, 2, FEATURES), (7, 3, FEATURES)):
        feeds = {"x": normal(*shape)}
        assert compare_outputs(session.run(feeds), oracle(feeds), Relative(1e-4, 1e-5)) is None, shape
    (template,) = session.explain().templates
    assert [s.kind for s in template.steps].count("repeat") == 1
    assert template.ends == "the graph's outputs"


def test_a_repeat_on_the_second_device() -> None:
    """Its operands are copied over before it, and its results back."""
    proto = model(
        f"""g (float[T, B, {FEATURES}] x) => (float[D, B, H] z)
        {{ e = Sin (x) y, h = RNN <hidden_size = {HIDDEN}> (e, w, r) z = Neg (h) }}""",
        w=normal(1, HIDDEN, FEATURES),
        r=normal(1, HIDDEN, HIDDEN, seed=1),
    )
    session = omniop.load(proto, device=["reference", "cpu"], fallback="error", exclude={"reference": ["RNN"]})
    oracle = onnxruntime_engine(proto)
    for shape in ((4, 2, FEATURES), (7, 3, FEATURES)):
        feeds = {"x": normal(*shape)}
        assert compare_outputs(session.run(feeds), oracle(feeds), Relative(1e-4, 1e-5)) is None, shape
    assert [c.device for c in session.explain().copies()] == ["cpu", "reference"]
