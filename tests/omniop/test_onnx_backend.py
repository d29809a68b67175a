"""omniop behind ONNX's backend interface: ONNX's own runner, and the calls by hand."""

from __future__ import annotations

import importlib
import unittest
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx.backend.test
import pytest
from onnx import helper
from small_models import affine

import omniop
import omniop.onnx_backend as backend
from omniop.onnx_backend import OmniopBackend

X = np.array([[1, -2, 3], [-4, 5, -6]], np.float32)
B = np.array([1, 1, 1], np.float32)
EXPECTED = np.maximum(X + B, 0)

INCLUDED = {
    "relu": "test_relu_cpu",
    "softmax": "test_softmax_axis_1_cpu",
    "matmul": "test_matmul_3d_cpu",
    "gather": "test_gather_0_cpu",
    "sequenceinsert": "test_sequence_insert_at_front_cpu",
    "loop": "test_loop11_cpu",
    "optionalhaselement": "test_optional_has_element_empty_optional_input_cpu",
}
"""Cases by the module of onnx's that makes them."""


@pytest.fixture(scope="module")
def onnx_cases() -> type[unittest.TestCase]:
    """Of these modules alone: making all cases takes ten seconds."""

    def import_some(package: Any) -> None:
        for module in INCLUDED:
            importlib.import_module(f"{package.__name__}.{module}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx.backend.test.loader, "import_recursive", import_some)
        runner = onnx.backend.test.runner.Runner(backend, __name__)
    for name in INCLUDED.values():
        runner.include(f"^{name}$")
    return runner.test_cases["OnnxBackendNodeModelTest"]


@pytest.mark.parametrize("name", INCLUDED.values())
def test_onnx_s_own_runner(name: str, onnx_cases: Callable[[str], unittest.TestCase]) -> None:
    result = unittest.TestResult()
    onnx_cases(name).run(result)
    assert (result.testsRun, result.skipped, result.failures, result.errors) == (1, [], [], [])


def test_prepare_and_run() -> None:
    prepared = backend.prepare(affine())
    for inputs in ([X, B], (X, B), {"x": X, "b": B}):
        found = prepared.run(inputs)
        np.testing.assert_array_equal(found[0], EXPECTED)
        np.testing.assert_array_equal(found["y"], EXPECTED)
        np.testing.assert_array_equal(found.y, EXPECTED)
    np.testing.assert_array_equal(backend.run_model(affine(), [X, B], device="reference")[0], EXPECTED)


def test_a_lone_input_and_weights_that_are_inputs() -> None:
    model = affine()
    model.graph.initializer.append(onnx.numpy_helper.from_array(B, "b"))
    prepared = backend.prepare(model)
    np.testing.assert_array_equal(prepared.run(X)[0], EXPECTED)
    np.testing.assert_array_equal(prepared.run([X])[0], EXPECTED)
    np.testing.assert_array_equal(prepared.run([X, B + 1])[0], np.maximum(X + B + 1, 0))


@pytest.mark.parametrize(
    ("node", "inputs", "options", "expected"),
    [
        (helper.make_node("Add", ["a", "b"], ["c"]), [X, B], {}, X + B),
        (helper.make_node("Add", ["a", "a"], ["c"]), {"a": X}, {}, X + X),
        (helper.make_node("Clip", ["a", "", "c"], ["y"]), [X, np.float32(2)], {}, np.minimum(X, 2)),
        (helper.make_node("Clip", ["a"], ["y"], max=2.0), [X], {"opset_version": 6}, np.minimum(X, 2)),
    ],
    ids=["two", "one twice", "one left out", "of an old opset"],
)
def test_run_node(node: onnx.NodeProto, inputs: Any, options: dict[str, Any], expected: np.ndarray) -> None:
    np.testing.assert_array_equal(backend.run_node(node, inputs, **options)[0], expected)


def test_devices() -> None:
    assert backend.supports_device("CPU")
    assert backend.supports_device("reference")
    assert not backend.supports_device("CUDA:77")
    assert not backend.supports_device("abacus")
    assert backend.is_compatible(affine(), "CPU")
    with pytest.raises(omniop.DeviceError, match="abacus"):
        backend.prepare(affine(), "abacus")


def test_mistakes() -> None:
    with pytest.raises(omniop.FeedError, match="3 inputs are given; the model has: x, b"):
        backend.run_model(affine(), [X, B, B])
    with pytest.raises(omniop.FeedError, match="no option 'fast'"):
        backend.prepare(affine()).run([X, B], fast=True)
    with pytest.raises(omniop.ModelError, match="not an ONNX model"):
        OmniopBackend.prepare(b"nothing")  # type: ignore[arg-type]
