"""Fusion: what becomes one kernel, and what must not."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from omniop.conformance.oracles import onnxruntime_engine
from omniop.dispatcher.inline import Inliner
from omniop.dispatcher.report import StepReport
from omniop.dispatcher.session import Session
from omniop.opset.errors import ExecutionError
from tests.dispatcher.conftest import LoadPlain
from tests.gate.case import model, normal


def run(session: Session, **feeds: np.ndarray) -> list[StepReport]:
    """The launches, after the answer was checked."""
    expected = onnxruntime_engine(session.source_of_test)(feeds)  # type: ignore[attr-defined]
    for name, value in session.run(feeds).items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-5)
    return session.explain().kernels()


@pytest.fixture
def plan(load_plain: LoadPlain) -> Any:
    """``plan(text, feeds, weights, **caps)``: the launches of a small model that gave the right answer."""

    def planned(text: str, feeds: dict[str, np.ndarray], weights: Any = None, **caps: Any) -> list[StepReport]:
        proto = model(text, **(weights or {}))
        session = load_plain(proto, **caps)
        session.source_of_test = proto  # type: ignore[attr-defined]
        return run(session, **feeds)

    return planned


def kinds(steps: list[StepReport]) -> Counter[str]:
    return Counter(s.kind for s in steps)


X = {"x": normal(40, 50)}


def test_a_chain_is_one_kernel(plan: Any) -> None:
    (step,) = plan("g (float[N, M] x) => (float[N, M] y) { a = Exp (x) b = Neg (a) c = Relu (b) y = Add (c, x) }", X)
    assert len(step.nodes) == 4


def test_views_vanish(plan: Any) -> None:
    """Transpose, Reshape, Slice and Expand are indices of their reader."""
    text = """g (float[N, M] x) => (float[M, N] y)
    { t = Transpose <perm = [1, 0]> (x) u = Unsqueeze (t, zero) s = Squeeze (u, zero) y = Exp (s) }"""
    assert len(plan(text, X, {"zero": np.array([0])})) == 1


def test_a_diamond_is_one_kernel(plan: Any) -> None:
    """Two readers that end in one kernel count as one."""
    text = "g (float[N, M] x) => (float[N, M] y) { a = Exp (x) b = Neg (a) c = Sin (a) y = Mul (b, c) }"
    assert len(plan(text, X)) == 1


def test_what_two_kernels_read_is_kept(plan: Any) -> None:
    text = (
        "g (float[N, M] x) => (float[N, M] y, float[M, N] z) { a = Exp (x) y = Neg (a) t = Sin (a) z = Transpose (t) }"
    )
    assert len(plan(text, X)) == 3


def test_an_output_that_is_also_read_is_computed_once(plan: Any) -> None:
    assert len(plan("g (float[N, M] x) => (float[N, M] y, float[N, M] z) { y = Exp (x) z = Sin (y) }", X)) == 2


@pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
def test_a_row_pattern_is_one_kernel(plan: Any, op: str) -> None:
    """The reduces run along the rows of the kernel that reads them."""
    assert len(plan(f"g (float[N, M] x) => (float[N, M] y) {{ y = {op} <axis = -1> (x) }}", X)) == 1


def test_a_reduce_joins_no_reader_of_other_rows(plan: Any) -> None:
    """Its reader takes the rows from the end: they are not the rows of the reader's kernel."""
    text = """g (float[N, M] x) => (float[N, M] y)
    { s = ReduceMean <keepdims = 1> (x, one) t = Slice (s, last, first, zero, back) y = Sub (x, t) }"""
    operands = {"one": 1, "last": -1, "first": -(1 << 40), "zero": 0, "back": -1}
    assert len(plan(text, X, {name: np.array([value]) for name, value in operands.items()})) == 2


def test_much_recomputing_is_avoided(plan: Any) -> None:
    """Inside a reduce that runs for each of many columns, an operand is computed beforehand; for two it is not."""
    text = """g (float[N, 1, M] x, float[K, M] z) => (float[N, K] y)
    { a = Erf (x) p = Mul (a, z) y = ReduceSum <keepdims = 0> (p, two) }"""
    for columns, kernels in ((40, 2), (2, 1)):
        feeds = {"x": normal(30, 1, 50), "z": normal(columns, 50)}
        assert len(plan(text, feeds, {"two": np.array([2])})) == kernels, columns


def test_an_epilogue_is_part_of_its_call(plan: Any) -> None:
    text = """g (float[N, 16] x, float[N, 8] z) => (float[N, 8] y)
    { p = MatMul (x, w) q = Add (p, b) r = Relu (q) y = Mul (r, z) }"""
    weights = {"w": normal(16, 8), "b": normal(8)}
    (step,) = plan(text, {"x": normal(5, 16), "z": normal(5, 8)}, weights)
    assert step.kind == "call"
    assert len(step.nodes) == 4
    assert "hole" in step.what


@pytest.mark.parametrize(
    ("tail", "extra"),
    [
        ("y = Softmax (p)", 1),  # a reduce
        ("q = Relu (p) y = Add (q, p)", 0),  # read twice, but at its own place and by one kernel
        ("t = Transpose (p) y = Relu (t)", 1),  # another place
    ],
)
def test_what_may_be_an_epilogue(plan: Any, tail: str, extra: int) -> None:
    text = f"g (float[N, 16] x) => (float[A, B] y) {{ p = MatMul (x, w) {tail} }}"
    steps = plan(text, {"x": normal(5, 16)}, {"w": normal(16, 8)})
    assert kinds(steps) == Counter(call=1, kernel=extra)


def test_a_result_that_is_wanted_has_no_epilogue(plan: Any) -> None:
    text = "g (float[N, 16] x) => (float[N, 8] p, float[N, 8] y) { p = MatMul (x, w) y = Relu (p) }"
    assert kinds(plan(text, {"x": normal(5, 16)}, {"w": normal(16, 8)})) == {"call": 1, "kernel": 1}


@pytest.mark.parametrize(("kept", "sizes"), [("FLOAT16", [2, 4]), ("DOUBLE", [1, 5])])
def test_what_narrows_a_result_ends_its_call(plan: Any, kept: str, sizes: list[int]) -> None:
    """Of two products that one kernel adds up, the first is kept in the fewer bits; the second one adds it."""
    text = f"""g (float[N, M] x) => (float[N, K] y)
    {{ p = MatMul (x, v) h = Cast <to = {TensorProto.DataType.Value(kept)}> (p) a = Cast <to = 1> (h) q = MatMul (x, w)
      b = Exp (q) y = Add (a, b) }}"""
    steps = plan(text, X, {"v": normal(50, 30, seed=1), "w": normal(50, 30, seed=2)})
    assert kinds(steps) == {"call": 2}
    assert sorted(len(s.nodes) for s in steps) == sizes


@pytest.mark.parametrize(("buffers", "kernels"), [(64, 1), (10, 3), (6, 11)])
def test_a_kernel_of_too_many_buffers_is_cut(plan: Any, buffers: int, kernels: int) -> None:
    names = [f"x{k}" for k in range(12)]
    parts = [f"e{k} = Exp (x{k})" for k in range(12)]
    sums = ["s0 = Add (e0, e1)", *(f"s{k} = Add (s{k - 1}, e{k + 1})" for k in range(1, 10)), "y = Add (s9, e11)"]
    text = f"g ({', '.join(f'float[N] {n}' for n in names)}) => (float[N] y) {{ {' '.join(parts + sums)} }}"
    feeds = {n: normal(9, seed=k) for k, n in enumerate(names)}
    steps = plan(text, feeds, max_buffers=buffers)
    assert len(steps) == kernels


def test_equal_layers_share_their_kernels(load_plain: LoadPlain) -> None:
    """Weights are buffers, so the second of two equal layers builds nothing."""
    from omniop.dispatcher.build import builds_of

    text = (
        "g (float[N, 8] x) => (float[N, 8] y) { a = MatMul (x, u) b = Softmax (a) c = MatMul (b, v) y = Softmax (c) }"
    )
    session = load_plain(model(text, u=normal(8, 8), v=normal(8, 8, seed=1)))
    built = builds_of(session.devices[0]).count
    session.run({"x": normal(3, 8)})
    assert len(session.explain().kernels()) == 4
    assert builds_of(session.devices[0]).count == built + 2


def test_a_checked_index_stays_out_of_guarded_reads(plan: Any) -> None:
    """A Gather whose result is read through views under a guard: where the guard is false, no index is at fault."""
    text = """g (float[N, 4] x, int64[M] i, float[K, 2] z) => (float[C, 2] y)
    { p = Gather (x, i) q = Mul (p, p) r = Reshape (q, s) t = Transpose <perm = [1, 0]> (r)
      u = Transpose <perm = [1, 0]> (t) y = Concat <axis = 0> (u, z) }"""
    feeds = {"x": normal(5, 4), "i": np.array([4, 0, -1]), "z": normal(3, 2, seed=1)}
    plan(text, feeds, {"s": np.array([-1, 2])})


def test_layers_that_look_up_one_index_share_their_kernels(load_plain: LoadPlain) -> None:
    """The first node that checks the index is the one at fault, so the second's kernel has no code of its own."""
    from omniop.dispatcher.build import builds_of

    text = """g (float[N, 8] x, int64[M] i) => (float[M, 8] y)
    { a = Gather (u, i) b = Exp (a) c = MatMul (b, w)
      d = Gather (v, i) e = Exp (d) f = MatMul (e, w) y = Add (c, f) }"""
    session = load_plain(model(text, u=normal(5, 8), v=normal(5, 8, seed=1), w=normal(8, 8)))
    built = builds_of(session.devices[0]).count
    feeds = {"x": normal(3, 8), "i": np.array([4, 0, -1])}
    session.run(feeds)
    assert len(session.explain().kernels()) == 4
    assert builds_of(session.devices[0]).count == built + 3
    with pytest.raises(ExecutionError, match=r"Gather.*5"):
        session.run(feeds | {"i": np.array([0, 5, 1])})


def test_a_wide_kernel_is_not_written_out_for_each_map(plan: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a sum of branches, a branch's map looks at its own branch."""
    looked_at = [0]
    element = Inliner.element

    def counted(self: Inliner, *arguments: Any) -> Any:
        looked_at[0] += 1
        return element(self, *arguments)

    monkeypatch.setattr(Inliner, "element", counted)
    work = []
    for branches in (8, 32):
        nodes = ["t0 = Exp (x)"]
        weights = {f"w{k}": np.float32(k) for k in range(1, branches)}
        for k in range(1, branches):
            nodes.append(f"a{k} = Mul (x, w{k}) b{k} = Floor (a{k}) c{k} = Mul (a{k}, b{k}) d{k} = Sin (c{k})")
            nodes.append(f"e{k} = Cos (c{k}) f{k} = Sub (d{k}, e{k}) t{k} = Add (t{k - 1}, f{k})")
        looked_at[0] = 0
        plan(f"g (float[N, M] x) => (float[N, M] y) {{ {' '.join(nodes)} y = Neg (t{branches - 1}) }}", X, weights)
        work.append(looked_at[0])
    assert work[1] < 12 * work[0]
