"""What the gate asks beyond right answers: templates, kernels, layouts, routes, threads, several devices."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

import numpy as np
import onnx
import pytest

import omniop
from omniop.backends.array_device import ArrayDevice
from omniop.backends.base import Backend, Device, KernelSpec, OpContext, Runnable
from omniop.backends.reference import ReferenceDevice
from omniop.conformance.compare import compare_outputs
from omniop.conformance.oracles import onnxruntime_engine
from omniop.conformance.tolerance import Relative
from omniop.dispatcher.build import builds_of
from omniop.dispatcher.registry import Registry
from omniop.dispatcher.report import NodeReport, templates_of
from omniop.dispatcher.session import FallbackWarning, Session
from omniop.opset import expr
from omniop.opset.errors import ExecutionError, PlacementError
from omniop.opset.kernel import Call, View
from omniop.opset.layout import ROW_MAJOR, blocked
from tests.conftest import unavailable
from tests.gate.case import model, normal
from tests.gate.models import bert, bert_feeds, two_convs

SHAPES = [*product((1, 2, 3, 4, 5), (1, 2, 3, 5, 8, 9, 12, 16, 17, 24))]
CHECKED = {(1, 1), (2, 5), (3, 17), (5, 24)}


def template_count(session: Session) -> int:
    return sum(1 for _ in templates_of(session.runner))


def built(session: Session) -> int:
    """How many works the session's devices had to build so far."""
    return sum(builds_of(d).count for d in session.devices)


def report_of(session: Session, op: str) -> list[NodeReport]:
    return [n for n in session.explain().nodes if n.op == op]


@pytest.fixture(scope="module")
def small_bert() -> onnx.ModelProto:
    return bert()


# -- (a) one template for all shapes -----------------------------------------------------------------------------------


def test_one_template_serves_fifty_shapes(device: str, small_bert: onnx.ModelProto) -> None:
    """From the second shape on nothing is traced, planned or compiled. ``benchmarks/binding.py`` times what is left."""
    assert len(set(SHAPES)) == 50
    session = omniop.load(small_bert, device=device, fallback="error")
    oracle = onnxruntime_engine(small_bert)
    session.run(bert_feeds(2, 7))
    compiled = built(session)
    for shape in SHAPES:
        feeds = bert_feeds(*shape)
        outputs = session.run(feeds)
        assert session.last_report.templates_made == 0, shape
        if shape in CHECKED:
            assert compare_outputs(outputs, oracle(feeds), Relative(1e-3, 1e-4)) is None, shape
    assert template_count(session) == 1
    assert built(session) == compiled


def test_a_guard_that_fails_makes_another_template(device: str) -> None:
    """A dim of 1 broadcasts, another does not, and one of 0 has nothing to add; each keeps its template."""
    proto = model("g (float[N] a, float[M] b) => (float[K] y) { y = Add (a, b) }")
    session = omniop.load(proto, device=device, fallback="error")
    for n, m, templates in ((4, 4, 1), (6, 6, 1), (1, 5, 2), (7, 7, 2), (1, 3, 2), (3, 1, 3), (0, 0, 4), (5, 5, 4)):
        a, b = normal(n), normal(m, seed=1)
        np.testing.assert_allclose(session.run({"a": a, "b": b})["y"], a + b, rtol=1e-6)
        assert template_count(session) == templates, (n, m)


# -- (b) kernels a layer -----------------------------------------------------------------------------------------------


def test_a_layer_is_at_most_fourteen_kernels(device: str) -> None:
    launches = []
    for layers in (2, 4):
        session = omniop.load(bert(layers), device=device, fallback="error")
        session.run(bert_feeds(2, 7))
        launches.append(len(session.explain().kernels()))
    assert (launches[1] - launches[0]) / 2 <= 14


# -- (c) layouts -------------------------------------------------------------------------------------------------------

NCHW16C = blocked(4, 1, 16)


def make_blocked_conv(device: ArrayDevice, call: Call) -> Runnable:
    """A 3x3 convolution, padded by 1, from NCHW16c to NCHW16c; weights and bias are row-major."""
    x, w, b = call.operands
    (y,) = call.results

    def run(buffers: Sequence[Any], sizes: Sequence[int]) -> None:
        values = {f"s{k}": v for k, v in enumerate(sizes)}

        def array(view: View, shape: Sequence[int]) -> np.ndarray:
            flat = device.typed(buffers[view.buffer], view.dtype)
            return flat[: int(np.prod(shape))].reshape(shape)

        def physical(view: View) -> list[int]:
            n, c, h, wide = (expr.evaluate(d, values) for d in view.shape)
            return [n, c // 16, h, wide, 16]

        source, target = array(x, physical(x)), array(y, physical(y))
        weights = array(w, [expr.evaluate(d, values) for d in w.shape])
        out, channels = weights.shape[:2]
        padded = np.pad(source, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
        taps = weights.reshape(out // 16, 16, channels // 16, 16, 3, 3)
        target[...] = array(b, [out]).reshape(1, out // 16, 1, 1, 16)
        for i, j in product(range(3), range(3)):
            part = padded[:, :, i : i + target.shape[2], j : j + target.shape[3]]
            target += np.einsum("nchwk,omck->nohwm", part, taps[..., i, j])

    return run


class Shelf(Backend):
    """A backend of one device that a test made."""

    name = "shelf"

    def __init__(self, device: Device) -> None:
        self.device = device
        device.name = "shelf:0"

    def devices(self) -> list[Device]:
        return [self.device]


def registry_of(device: Device) -> Registry:
    registry = Registry(points=())
    registry.register(Shelf(device))
    return registry


def blocked_conv(cost: float) -> KernelSpec:
    return KernelSpec(
        "Conv",
        "conv16c",
        make_blocked_conv,
        cost=lambda context: cost,
        input_layouts=(NCHW16C, ROW_MAJOR, ROW_MAJOR),
        output_layouts=(NCHW16C,),
    )


def load_with_blocked_conv(cost: float) -> Session:
    device = ReferenceDevice()
    device.kernels.add(blocked_conv(cost))
    return Session(two_convs(), "shelf", fallback="error", devices=registry_of(device))


CONV_SHAPES = ((1, 32, 8, 8), (2, 32, 5, 13))


@pytest.mark.parametrize("cost", [0.0, 1e3])
def test_two_convs_with_a_blocked_kernel(cost: float) -> None:
    """NCHW16c in and out of a chain of conv, relu, conv: one relayout at each end, none between."""
    session = load_with_blocked_conv(cost)
    oracle = onnxruntime_engine(two_convs())
    for shape in CONV_SHAPES:
        feeds = {"x": normal(*shape)}
        assert compare_outputs(session.run(feeds), oracle(feeds), Relative(1e-4, 1e-5)) is None, shape
    kinds = Counter(step.kind for step in session.explain().kernels())
    convs = report_of(session, "Conv")
    if cost:
        assert kinds["relayout"] == 0
        for node in convs:
            assert ("shelf:0 kernel conv16c", "slower") in [(r["candidate"], r["code"]) for r in node.rejected]
        assert "1.00e+03 s" in str(session.explain())
    else:
        assert kinds == {"relayout": 2, "call": 2, "kernel": 1}
        assert [n.route for n in convs] == ["tuned kernel conv16c"] * 2


# -- (d) a prim taken whole, and one declined --------------------------------------------------------------------------


class Watched(ReferenceDevice):
    """Remembers how much was allocated."""

    def __init__(self) -> None:
        super().__init__()
        self.allocated: list[int] = []

    def alloc(self, nbytes: int) -> Any:
        self.allocated.append(nbytes)
        return super().alloc(nbytes)


def direct_conv(device: ArrayDevice, call: Call, operands: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    """The prim ``conv`` by a sum over the window."""
    x, w = operands
    pads = call.attr("pads")
    assert [int(p.attr) if isinstance(p, expr.Expr) else int(p) for p in pads] == [1, 1, 1, 1]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    h, wide = x.shape[2:]
    parts = [
        np.einsum("nchw,oc->nohw", padded[:, :, i : i + h, j : j + wide], w[:, :, i, j])
        for i, j in product(range(3), range(3))
    ]
    return [np.sum(parts, axis=0)]


class TakesConv(Watched):
    prims = {"conv": direct_conv}  # noqa: RUF012 - the base class declares it


def run_convs(device: Watched) -> Session:
    session = Session(two_convs(), "shelf", fallback="error", devices=registry_of(device))
    feeds = {"x": normal(1, 32, 16, 16)}
    expected = onnxruntime_engine(two_convs())(feeds)
    assert compare_outputs(session.run(feeds), expected, Relative(1e-4, 1e-5)) is None
    return session


def test_conv_is_expanded_where_it_is_declined() -> None:
    device = Watched()
    session = run_convs(device)
    for node in report_of(session, "Conv"):
        assert node.route.startswith("conv expanded into")
        assert [(r["candidate"], r["code"]) for r in node.rejected] == [("shelf:0 conv", "expands")]
    assert max(device.allocated) == 32 * 9 * 16 * 16 * 4  # the windows side by side


def test_conv_taken_whole_has_no_im2col() -> None:
    device = TakesConv()
    session = run_convs(device)
    assert [n.route for n in report_of(session, "Conv")] == ["conv taken whole"] * 2
    image, weights = 32 * 16 * 16 * 4, 32 * 32 * 9 * 4
    assert max(device.allocated) <= max(image, weights)
    assert [s.kind for s in session.explain().kernels()] == ["call", "call"]


# -- (e) threads -------------------------------------------------------------------------------------------------------


def test_four_threads_share_a_session(device: str, small_bert: onnx.ModelProto) -> None:
    """Each thread feeds shapes of its own, the first of them before there is a template."""
    session = omniop.load(small_bert, device=device, fallback="error")
    oracle = onnxruntime_engine(small_bert)
    shapes = [(1 + k % 3, 2 + k) for k in range(12)]
    feeds = [bert_feeds(*shape, seed=k) for k, shape in enumerate(shapes)]
    expected = [oracle(f) for f in feeds]

    def work(first: int) -> list[str | None]:
        turns = [first + 4 * k for k in range(3)] * 2
        return [compare_outputs(session.run(feeds[k]), expected[k], Relative(1e-3, 1e-4)) for k in turns]

    with ThreadPoolExecutor(4) as pool:
        found = [reason for reasons in pool.map(work, range(4)) for reason in reasons]
    assert found == [None] * 24
    assert template_count(session) == 1


# -- (f) several devices -----------------------------------------------------------------------------------------------


def first_of(pair: Sequence[str]) -> str:
    for name in pair:
        reason = unavailable(name)
        if reason is not None:
            pytest.skip(reason)
    return pair[0]


@pytest.mark.parametrize("pair", [("opencl", "cpu"), ("reference", "cpu"), ("cuda:emu", "reference")], ids="+".join)
def test_an_excluded_op_runs_on_the_second_device(pair: tuple[str, str], small_bert: onnx.ModelProto) -> None:
    first = first_of(pair)
    session = omniop.load(small_bert, device=pair, fallback="error", exclude={first: ["Softmax"]})
    oracle = onnxruntime_engine(small_bert)
    for shape in ((2, 5), (1, 9)):
        feeds = bert_feeds(*shape)
        assert compare_outputs(session.run(feeds), oracle(feeds), Relative(1e-3, 1e-4)) is None, shape
    main, second = (d.name for d in session.devices)
    explanation = session.explain()
    softmax = report_of(session, "Softmax")
    assert len(softmax) == 2
    for node in softmax:
        assert node.device == second
        assert [(r["candidate"], r["code"]) for r in node.rejected] == [(main, "excluded")]
    assert {n.device for n in explanation.nodes if n.op != "Softmax"} <= {main, "-"}
    assert Counter(c.device for c in explanation.copies()) == {main: 2, second: 2}
    scores = 1 * 4 * 9 * 9 * 4  # batch, heads, sequence, sequence, float32: to the second device and back in each layer
    assert explanation.copied_bytes == session.last_report.copied_bytes == 4 * scores
    assert f"{4 * scores} bytes" in str(explanation)


def test_a_node_that_no_device_takes_is_an_error(small_bert: onnx.ModelProto) -> None:
    session = omniop.load(small_bert, device="reference", fallback="error", exclude={"reference": ["Softmax"]})
    with pytest.raises(PlacementError, match=r"Softmax of .*reference.*excluded.*keeps Softmax off reference"):
        session.run(bert_feeds(1, 3))


def test_fallback_warns_once(small_bert: onnx.ModelProto) -> None:
    first_of(("cpu",))
    session = omniop.load(small_bert, device="reference", exclude={"reference": ["Softmax"]})
    with pytest.warns(FallbackWarning) as caught:
        session.run(bert_feeds(1, 3))
    (warning,) = caught
    text = str(warning.message)
    for part in ("Softmax of", "and 1 more", "on cpu", "not on reference", "excluded", f"{4 * 4 * 3 * 3 * 4} bytes"):
        assert part in text
    assert warning.filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session.run(bert_feeds(1, 4))


def test_fallback_can_be_silent(small_bert: onnx.ModelProto) -> None:
    first_of(("cpu",))
    silent = omniop.load(small_bert, device="reference", exclude={"reference": ["Softmax"]}, fallback="silent")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        silent.run(bert_feeds(1, 3))
    assert {n.device for n in report_of(silent, "Softmax")} == {"cpu"}


def test_a_fault_on_one_device_leaves_no_trace_on_the_other() -> None:
    """Both devices meet a bad index in one run; the run after it is good."""
    first_of(("cpu",))
    proto = model(
        """g (float[N, 3] x, int64[M] i, int64[M, 1] j) => (float[M, 3] y, float[M, 3] z)
        { y = Gather (x, i) z = GatherND (x, j) }"""
    )
    session = omniop.load(proto, device=["reference", "cpu"], exclude={"reference": ["GatherND"]}, fallback="error")
    x, good = normal(4, 3), np.array([0, -4, 3])
    for bad in (np.array([4, 0, 0]), np.array([-5, 1, 2])):
        with pytest.raises(ExecutionError, match="Gather"):
            session.run({"x": x, "i": bad, "j": bad[:, None]})
        outputs = session.run({"x": x, "i": good, "j": good[:, None]})
        np.testing.assert_array_equal(outputs["y"], x[good])
        np.testing.assert_array_equal(outputs["z"], x[good])


# -- cuts and faults ---------------------------------------------------------------------------------------------------


def test_a_read_back_cuts_the_program(device: str) -> None:
    """NonZero's count is known only when it ran; what follows is a segment of its own."""
    proto = model("g (float[N] x) => (int64[K] y) { i = NonZero (x) y = Reshape (i, minus) }", minus=np.array([-1]))
    session = omniop.load(proto, device=device, fallback="error")
    for x in ([0, 1, 2, 0, 3], [1, 0], [0, 0, 0]):
        array = np.array(x, np.float32)
        np.testing.assert_array_equal(session.run({"x": array})["y"], np.flatnonzero(array))
        assert session.last_report.read_backs == 1
    ends = [t.ends for t in session.explain().templates]
    assert "a read-back" in ends
    assert "the graph's outputs" in ends


def test_a_bad_index_raises_and_the_next_run_is_good(device: str) -> None:
    proto = model("g (float[N, 3] x, int64[M] i) => (float[M, 3] y) { y = Gather (x, i) }")
    session = omniop.load(proto, device=device, fallback="error")
    x, good = normal(4, 3), np.array([0, -4, 3])
    for bad in ([4], [0, -5], [1 << 40, 1, 1]):
        with pytest.raises(ExecutionError, match=r'Gather of "y".*outside its axis'):
            session.run({"x": x, "i": np.array(bad)})
        np.testing.assert_array_equal(session.run({"x": x, "i": good})["y"], x[good])


def test_context_of_a_kernel_is_pure() -> None:
    """A kernel's condition sees what the node declares: types, attributes and capabilities."""
    seen: list[OpContext] = []

    def cost(context: OpContext) -> float:
        seen.append(context)
        return 0.0

    device = ReferenceDevice()
    device.kernels.add(KernelSpec("Relu", "relu", lambda device, call: lambda buffers, sizes: None, cost=cost))
    proto = model("g (float[N, 3] x) => (float[N, 3] y) { y = Relu (x) }")
    Session(proto, "shelf", fallback="error", devices=registry_of(device)).run({"x": normal(2, 3)})
    (context,) = seen
    assert (context.op, context.caps) == ("Relu", device.caps)
    assert [t and t.shape for t in (*context.inputs, *context.outputs)] == [(None, 3), (None, 3)]
