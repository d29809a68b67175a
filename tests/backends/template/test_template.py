"""The template, cloned as its README says, and brought up step by step."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import omniop
from omniop.backends import template
from omniop.backends.array_eval import KernelEvaluator
from omniop.backends.base import Device, Runnable
from omniop.backends.reference.numpy_ops import NUMPY
from omniop.dispatcher.registry import Registry
from omniop.opset.kernel import Kernel

SOURCE = Path(template.__file__).parent


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    """A registry that finds the package ``omniop_mychip``, a copy of the template under another name."""
    package = tmp_path / "omniop_mychip"
    shutil.copytree(SOURCE, package, ignore=shutil.ignore_patterns("__pycache__"))
    for path in package.glob("*.py"):
        text = path.read_text()
        text = text.replace("omniop.backends.template", "omniop_mychip").replace("Template", "MyChip")
        path.write_text(text.replace("template", "mychip"))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Registry([EntryPoint("mychip", "omniop_mychip", "omniop.backends")])
    for name in [m for m in sys.modules if m.split(".")[0] == "omniop_mychip"]:
        del sys.modules[name]


def model(op: str) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node(op, ["x"], ["y"])],
        "one",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def implement(device: Device, *kinds: str) -> None:
    """Kinds of work by numpy, in place of a compiler."""

    def build(work: Kernel) -> Runnable:
        evaluator = KernelEvaluator(work, NUMPY)
        types = [p.dtype.numpy for p in work.params]
        return lambda buffers, sizes: evaluator(
            [np.frombuffer(b, t) for b, t in zip(buffers, types, strict=True)], sizes
        )

    device.builders.update(dict.fromkeys(kinds, build))  # type: ignore[attr-defined]


def test_a_clone_runs_until_unimplemented(clone: Registry) -> None:
    assert clone.devices() == []
    (problem,) = clone.problems()
    assert problem.name == "mychip"
    assert problem.reason.startswith("its trial kernel failed: mychip: not implemented: map")


def test_each_step_takes_it_further(clone: Registry) -> None:
    """With map the device counts; the next operator says what it lacks."""
    backend = import_module("omniop_mychip").BACKEND
    device = backend.devices()[0]
    implement(device, "map")
    backend.devices = lambda: [device]
    x = np.array([[-1, 2, -3], [4, -5, 6]], np.float32)
    y = omniop.Session(model("Relu"), "mychip", fallback="error", devices=clone).run({"x": x})["y"]
    np.testing.assert_array_equal(y, np.maximum(x, 0))
    softmax = omniop.Session(model("Softmax"), "mychip", fallback="error", devices=clone)
    with pytest.raises(omniop.DeviceError, match="mychip: not implemented: reduce"):
        softmax.run({"x": x})
    implement(device, "reduce")
    expected = np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(softmax.run({"x": x})["y"], expected, rtol=1e-6)


def test_kinds_of_work(clone: Registry) -> None:
    """Each is named by what has to be written."""
    from omniop.opset import dtype as dtypes
    from omniop.opset import expr
    from omniop.opset.kernel import Call, Param, Store

    clone.problems()
    kind_of = import_module("omniop_mychip.device").kind_of
    axis = expr.axis(0, 4)
    zero = expr.const(0.0, dtypes.FLOAT32)
    params = (Param(dtypes.FLOAT32, True),)
    summed = expr.reduce("add", (expr.axis(1, 5),), (zero,))
    assert kind_of(Kernel(params, (axis,), (Store(0, axis, zero),))) == "map"
    assert kind_of(Kernel(params, (axis,), (Store(0, axis, summed),))) == "reduce"
    assert kind_of(Kernel(params, (axis,), (Store(0, axis, zero, combine="add"),))) == "scatter"
    assert kind_of(Kernel(params, (axis,), (Store(0, axis, zero, axis < 2),))) == "scatter"
    assert kind_of(Kernel(params, (), (Store(0, axis, zero),), seq=axis)) == "sequence"
    assert kind_of(Call("contract", params, (), ())) == "call"


def test_the_readme_names_what_is_there() -> None:
    text = (SOURCE / "README.md").read_text()
    assert len(text.splitlines()) < 60
    for name in ("builders", "alloc", "h2d", "d2h", "accepts", "fingerprint"):
        assert name in (SOURCE / "device.py").read_text()
    root = SOURCE.parents[1]
    for part in text.replace("`", " ").split():
        if part.startswith("omniop/") and part.endswith(".py"):
            assert (root / part.removeprefix("omniop/")).exists(), part
