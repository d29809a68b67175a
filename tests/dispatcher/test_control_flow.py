"""If, Loop and Scan: bodies are graphs of their own, with captured values, on every device."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

import omniop
from omniop.conformance.compare import compare_outputs
from omniop.conformance.oracles import onnxruntime_engine
from omniop.conformance.tolerance import Relative
from omniop.dispatcher.report import templates_of
from omniop.opset.errors import ExecutionError
from tests.gate.case import model, normal

IF = model(
    """g (float[N] x, bool c) => (float[M] y)
    { s = Sin (x)
      y = If (c) <then_branch = yes () => (float[A] a) { a = Neg (s) },
                  else_branch = no () => (float[B] b) { b = Concat <axis = 0> (s, x) }> }"""
)
LOOP = model(
    """g (float[N] x, int64 n) => (float[N] last, float[T, N] all)
    { t = Constant <value = bool {1}> ()
      last, all = Loop (n, t, x) <body = step (int64 i, bool go, float[N] v) => (bool on, float[N] w, float[N] row)
        { on = Identity (go) f = Cast <to = 1> (i) u = Mul (v, x) w = Add (u, f) row = Sin (w) }> }"""
)
WHILE = model(
    """g (float[N] x) => (float[N] last)
    { t = Constant <value = bool {1}> ()
      last = Loop (, t, x) <body = step (int64 i, bool go, float[N] v) => (bool on, float[N] w)
        { w = Add (v, v) m = ReduceMax <keepdims = 0> (w) on = Less (m, limit) }> }""",
    limit=np.array(100, np.float32),
)
SCAN = model(
    """g (float[T, N] x, float[N] start) => (float[N] last, float[T, N] all)
    { last, all = Scan <num_scan_inputs = 1,
        body = step (float[N] state, float[N] row) => (float[N] next, float[N] out)
        { next = Add (state, row) out = Mul (next, start) }> (start, x) }"""
)
NESTED = model(
    """g (float[N] x, int64 n, bool c) => (float[N] last)
    { t = Constant <value = bool {1}> () k = Cos (x)
      last = Loop (n, t, x) <body = step (int64 i, bool go, float[N] v) => (bool on, float[N] w)
        { on = Identity (go) e = Exp (k)
          w = If (c) <then_branch = yes () => (float[N] a) { a = Add (v, e) },
                      else_branch = no () => (float[N] b) { q = Mul (v, k) b = Sub (q, x) }> }> }"""
)


def integer(value: int) -> np.ndarray:
    return np.array(value, np.int64)


CASES: dict[str, tuple[onnx.ModelProto, list[dict[str, Any]]]] = {
    "if": (IF, [{"x": normal(n), "c": np.array(c)} for n in (3, 5) for c in (True, False)]),
    "loop": (LOOP, [{"x": normal(n), "n": integer(k)} for n, k in ((3, 4), (5, 1), (2, 7))]),
    "while": (WHILE, [{"x": np.abs(normal(n)) + 0.1} for n in (3, 6)]),
    "scan": (SCAN, [{"x": normal(t, n), "start": normal(n, seed=1)} for t, n in ((4, 3), (1, 2), (6, 3))]),
    "nested": (NESTED, [{"x": normal(4), "n": integer(k), "c": np.array(c)} for k in (0, 3) for c in (True, False)]),
}


@pytest.mark.parametrize("name", CASES)
def test_against_onnxruntime(device: str, name: str) -> None:
    proto, feeds = CASES[name]
    session, oracle = omniop.load(proto, device=device, fallback="error"), onnxruntime_engine(proto)
    for given in (*feeds, feeds[0]):
        assert compare_outputs(session.run(given), oracle(given), Relative(1e-5, 1e-6)) is None


def test_a_loop_that_never_runs() -> None:
    """The carried values are the initial ones; what is collected has no rows."""
    session = omniop.load(LOOP, device="reference", fallback="error")
    x = normal(3)
    outputs = session.run({"x": x, "n": integer(0)})
    np.testing.assert_array_equal(outputs["last"], x)
    assert outputs["all"].shape[0] == 0


def test_bodies_keep_their_templates() -> None:
    """A second run of the same shapes traces nothing, however often the body runs."""
    session = omniop.load(NESTED, device="reference", fallback="error")
    session.run({"x": normal(4), "n": integer(2), "c": np.array(True)})
    count = sum(1 for _ in templates_of(session.runner))
    session.run({"x": normal(4, seed=1), "n": integer(9), "c": np.array(True)})
    assert session.last_report.templates_made == 0
    assert sum(1 for _ in templates_of(session.runner)) == count


def test_a_fault_in_a_body_names_the_body_s_node() -> None:
    proto = model(
        """g (float[N] x, int64[M] i, bool c) => (float[M] y)
        { y = If (c) <then_branch = yes () => (float[A] a) { a = Gather (x, i) },
                      else_branch = no () => (float[B] b) { b = Neg (x) }> }"""
    )
    session = omniop.load(proto, device="reference", fallback="error")
    x, good, bad = normal(4), np.array([1, -1]), np.array([7])
    with pytest.raises(ExecutionError, match='Gather of "a"'):
        session.run({"x": x, "i": bad, "c": np.array(True)})
    np.testing.assert_array_equal(session.run({"x": x, "i": bad, "c": np.array(False)})["y"], -x)
    np.testing.assert_array_equal(session.run({"x": x, "i": good, "c": np.array(True)})["y"], x[good])


def test_explain_names_host_steps() -> None:
    """A node that runs between segments has a decision like any other, and is no fallback."""
    session = omniop.load(LOOP, device="reference", fallback="error")
    session.run({"x": np.ones(3, np.float32), "n": integer(2)})
    routes = {n.op: (n.device, n.route) for n in session.explain().nodes}
    assert routes["Loop"][0] == "host"
    assert "control flow" in routes["Loop"][1]
    assert routes["Sin"][0] == "reference"


def test_a_branch_takes_the_place_of_an_if_that_the_host_decides() -> None:
    """Nested branches too: one segment, whose guard is the condition. The other branch is another template."""
    source = """g (float[N] x, int64 rate) => (float[M] y)
    { s = Sin (x) sixteen = Constant <value = int64 {16000}> () c = Equal (rate, sixteen)
      y = If (c) <then_branch = yes () => (float[A] a)
                  { m = Shape (x) four = Constant <value = int64[1] {4}> () l = Less (m, four) k = Squeeze (l)
                    a = If (k) <then_branch = few () => (float[D] d) { d = Neg (s) },
                                else_branch = many () => (float[E] e) { e = Exp (s) }> },
                  else_branch = no () => (float[B] b) { b = Concat <axis = 0> (s, x) }> }"""
    session = omniop.load(model(source), device="reference", fallback="error")
    expected = onnxruntime_engine(model(source))
    for count, rate, templates in ((3, 16000, 1), (3, 8000, 1), (2, 16000, 0), (5, 16000, 1), (6, 8000, 0)):
        feeds = {"x": normal(count), "rate": integer(rate)}
        assert compare_outputs(session.run(feeds), expected(feeds), Relative(1e-5, 1e-6)) is None
        assert session.last_report.templates_made == templates, (count, rate)
        assert len(session.last_report.segments) == 1
    (first, *_) = [n for n in session.explain().nodes if n.op == "If"]
    assert first.device == "-"
    assert "takes its place" in first.route


def test_an_if_on_computed_data_is_a_host_step() -> None:
    source = """g (float[N] x) => (float[M] y)
    { zero = Constant <value = float {0}> () s = ReduceSum <keepdims = 0> (x) c = Greater (s, zero)
      y = If (c) <then_branch = yes () => (float[A] a) { a = Neg (x) },
                  else_branch = no () => (float[B] b) { b = Concat <axis = 0> (x, x) }> }"""
    session = omniop.load(model(source), device="reference", fallback="error")
    for sign in (1, -1):
        x = sign * np.ones(3, np.float32)
        np.testing.assert_array_equal(session.run({"x": x})["y"], -x if sign > 0 else np.concatenate([x, x]))
    assert {n.op: n.device for n in session.explain().nodes}["If"] == "host"
