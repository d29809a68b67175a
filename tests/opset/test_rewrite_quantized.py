"""Operators between DequantizeLinear and QuantizeLinear: which become operators on integers, and what these give."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_models import op_types

import omniop
from omniop.opset.importer import import_model
from omniop.opset.rewrite import rewrite

RANDOM = np.random.default_rng(3)


def numbers(dtype: Any, *shape: int) -> np.ndarray:
    ends = np.iinfo(dtype)
    return RANDOM.integers(ends.min // 2, ends.max // 2, shape, dtype)


class Layer:
    """``op`` on dequantized operands, quantized again; every tensor may be replaced."""

    def __init__(self, op: str, operands: dict[str, np.ndarray], channels: int, **attributes: Any) -> None:
        self.op, self.attributes, self.channels = op, attributes, channels
        self.arrays = dict(operands)
        scales = np.linspace(0.01, 0.02, channels).astype("f")
        self.arrays |= {"x_scale": np.float32(0.05), "x_zero": np.uint8(100)}
        self.arrays |= {"w_scale": scales, "w_zero": np.zeros(channels, np.int8)}
        if "b" in operands:
            self.arrays |= {"b_scale": np.float32(0.05) * scales, "b_zero": np.zeros(channels, np.int32)}
        self.arrays |= {"y_scale": np.float32(0.3), "y_zero": np.uint8(128)}
        self.x = self.arrays.pop("x")
        self.axis = 0 if op == "Conv" else 1
        self.outputs = ["y"]

    def model(self) -> onnx.ModelProto:
        operands = [name for name in ("x", "w", "b") if name == "x" or name in self.arrays]
        nodes = []
        for name in operands:
            inputs = [name, f"{name}_scale", f"{name}_zero"]
            axis = {"w": self.axis, "b": 0}.get(name, 1)
            nodes.append(helper.make_node("DequantizeLinear", inputs, [f"real_{name}"], axis=axis))
        nodes.append(helper.make_node(self.op, [f"real_{n}" for n in operands], ["real"], "layer", **self.attributes))
        nodes.append(helper.make_node("QuantizeLinear", ["real", "y_scale", "y_zero"], ["y"], "quantize"))
        constants = [numpy_helper.from_array(np.asarray(a), n) for n, a in self.arrays.items()]
        kinds = {"y": TensorProto.UINT8, "real": TensorProto.FLOAT}
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.UINT8, self.x.shape)],
            [helper.make_tensor_value_info(name, kinds[name], None) for name in self.outputs],
            constants,
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 19)], ir_version=9)

    def rewritten(self) -> list[str]:
        model = import_model(self.model())
        rewrite(model)
        return op_types(model)


def convolution(**attributes: Any) -> Layer:
    operands = {"x": numbers(np.uint8, 1, 3, 9, 8), "w": numbers(np.int8, 5, 3, 3, 3), "b": numbers(np.int32, 5)}
    operands["b"] >>= 20
    return Layer("Conv", operands, 5, **attributes)


def product() -> Layer:
    layer = Layer("MatMul", {"x": numbers(np.uint8, 4, 6), "w": numbers(np.int8, 6, 5)}, 5)
    layer.arrays |= {"w_scale": np.float32(0.02), "w_zero": np.int8(3)}
    return layer


def gemm(transposed: int = 1) -> Layer:
    shape = (5, 6) if transposed else (6, 5)
    operands = {"x": numbers(np.uint8, 4, 6), "w": numbers(np.int8, *shape), "b": numbers(np.int32, 5) >> 20}
    layer = Layer("Gemm", operands, 5, transB=transposed)
    layer.axis = 0 if transposed else 1
    return layer


LAYERS = {
    "QLinearConv": convolution(strides=[2, 1], pads=[1, 0, 2, 1]),
    "QLinearMatMul": product(),
    "QGemm": gemm(),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_results_are_at_most_one_quantum_apart(name: str, device: str) -> None:
    layer = LAYERS[name]
    assert layer.rewritten() == [name]
    (y,) = omniop.load(layer.model(), device=device).run({"x": layer.x}).values()
    (expected,) = ReferenceEvaluator(layer.model()).run(None, {"x": layer.x})
    assert np.ptp(expected) > 30  # neither one number nor all saturated
    assert np.abs(y.astype(int) - expected.astype(int)).max() <= 1


def test_explain_says_so() -> None:
    session = omniop.load(LAYERS["QLinearConv"].model(), device="cpu")
    session.run({"x": LAYERS["QLinearConv"].x})
    assert "rewritten: integers between scales, 1 times" in str(session.explain())


def test_a_matrix_in_its_own_order() -> None:
    assert gemm(transposed=0).rewritten() == ["QGemm"]


def _bias_on_another_scale(layer: Layer) -> None:
    layer.arrays["b_scale"] = layer.arrays["b_scale"] * np.float32(1.5)


def _bias_from_another_zero(layer: Layer) -> None:
    layer.arrays["b_zero"] = np.ones(5, np.int32)


def _weights_by_input_channel(layer: Layer) -> None:
    layer.axis = 1
    layer.arrays |= {"w_scale": np.full(3, 0.01, "f"), "w_zero": np.zeros(3, np.int8)}


def _words(layer: Layer) -> None:
    layer.arrays |= {"w": numbers(np.int32, 5, 3, 3, 3), "w_zero": np.zeros(5, np.int32)}


def _seen_outside(layer: Layer) -> None:
    layer.outputs = ["y", "real"]


REFUSED = (_bias_on_another_scale, _bias_from_another_zero, _weights_by_input_channel, _words, _seen_outside)


@pytest.mark.parametrize("change", REFUSED, ids=lambda f: f.__name__.strip("_"))
def test_left_alone(change: Any) -> None:
    layer = convolution()
    change(layer)
    assert "Conv" in layer.rewritten()
