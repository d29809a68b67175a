"""Models on the worker team: outputs do not depend on the number of threads, nor on who else runs what."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import omniop
from omniop.backends.cpu import recording
from omniop.backends.cpu.team.cpus import VARIABLE


@pytest.fixture(autouse=True)
def _tiny_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every point is worth a task."""
    monkeypatch.setattr(recording, "TASK", 0.0)


def network() -> onnx.ModelProto:
    """Convolutions of each kind, pooling, products of floats and of bytes with epilogues, softmax, large sums."""
    rng = np.random.default_rng(0)
    shapes = {"w": (13, 3, 3, 3), "d": (13, 1, 3, 3), "m": (13, 100), "b": (100,), "q": (100, 21)}
    shapes |= {"w0": (64, 3, 3, 3), "w1": (64, 64, 3, 3), "w2": (96, 64, 1, 1)}
    weights = [numpy_helper.from_array(rng.normal(size=s).astype(np.float32), name) for name, s in shapes.items()]
    weights.append(numpy_helper.from_array(rng.integers(-128, 128, (21, 40), np.int8), "i8"))
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "d"], ["e"], group=13, pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("MaxPool", ["e"], ["p"], kernel_shape=[2, 2]),
        helper.make_node("Transpose", ["p"], ["t"], perm=[0, 2, 3, 1]),
        helper.make_node("MatMul", ["t", "m"], ["u"]),
        helper.make_node("Add", ["u", "b"], ["v"]),
        helper.make_node("Softmax", ["v"], ["s"], axis=-1),
        helper.make_node("MatMul", ["s", "q"], ["k"]),
        helper.make_node("ReduceMean", ["e"], ["n"], keepdims=0),
        helper.make_node("CumSum", ["k", "axis"], ["y"]),
        helper.make_node("DynamicQuantizeLinear", ["k"], ["k8", "k8_scale", "k8_zero"]),
        helper.make_node("MatMulInteger", ["k8", "i8", "k8_zero"], ["z"]),
        helper.make_node("Conv", ["x", "w0"], ["c0"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c0"], ["r0"]),
        helper.make_node("Conv", ["r0", "w1"], ["c1"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["c1", "w2"], ["f"]),
    ]
    weights.append(numpy_helper.from_array(np.array(1, np.int64), "axis"))
    x = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3, "h", "w"])
    outputs = [
        helper.make_tensor_value_info(name, onnx.TensorProto.INT32 if name == "z" else onnx.TensorProto.FLOAT, None)
        for name in ("y", "k", "n", "z", "f")
    ]
    return helper.make_model(
        helper.make_graph(nodes, "network", [x], outputs, weights), opset_imports=[helper.make_opsetid("", 18)]
    )


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (2, 3, 33, 47)])
def test_results_do_not_depend_on_the_number_of_threads(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    feeds = {"x": np.random.default_rng(1).normal(size=shape).astype(np.float32)}
    expected: dict[str, np.ndarray] = {}
    for threads in (1, 2, 3, 4, 16):
        monkeypatch.setenv(VARIABLE, str(threads))  # work is cut up for so many
        session = omniop.load(network())
        for _ in range(3):
            outputs = session.run(feeds)
            for name, value in (expected or outputs).items():
                np.testing.assert_array_equal(outputs[name], value, strict=True)
            expected = expected or outputs


def test_many_python_threads_call_one_session() -> None:
    session = omniop.load(network(), threads=3)
    rng = np.random.default_rng(2)
    feeds = [{"x": rng.normal(size=(1, 3, 9 + k, 11)).astype(np.float32)} for k in range(5)]
    expected = [session.run(f)["y"] for f in feeds]

    def runs(first: int) -> bool:
        return all(np.array_equal(session.run(feeds[k % 5])["y"], expected[k % 5]) for k in range(first, first + 20))

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(runs, range(12)))


def test_many_sessions_at_once() -> None:
    feeds = {"x": np.random.default_rng(3).normal(size=(1, 3, 16, 16)).astype(np.float32)}
    sessions = [omniop.load(network(), threads=threads) for threads in (1, 2, 3, 4)]
    expected = sessions[0].run(feeds)["y"]

    def runs(session: omniop.Session) -> bool:
        return all(np.array_equal(session.run(feeds)["y"], expected) for _ in range(20))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(runs, sessions * 2))
