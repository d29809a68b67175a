"""Models of one or two nodes for the tests of the public face."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import TensorProto, helper

F32, I64 = TensorProto.FLOAT, TensorProto.INT64

Dims = Sequence[int | str | None]


def model(nodes: Sequence[onnx.NodeProto], inputs: dict[str, tuple[int, Dims]], *outputs: str) -> onnx.ModelProto:
    """A model of opset 20; each output is f32 of any shape."""
    graph = helper.make_graph(
        list(nodes),
        "small",
        [helper.make_tensor_value_info(name, dtype, list(dims)) for name, (dtype, dims) in inputs.items()],
        [helper.make_tensor_value_info(name, F32, None) for name in outputs],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def affine() -> onnx.ModelProto:
    """``y = Relu(x + b)``, x f32 [batch, 3], b f32 [3]."""
    nodes = [helper.make_node("Add", ["x", "b"], ["sum"]), helper.make_node("Relu", ["sum"], ["y"])]
    return model(nodes, {"x": (F32, ["batch", 3]), "b": (F32, [3])}, "y")


def pair() -> onnx.ModelProto:
    """``y = p + q``, two f32 inputs of the same [n]."""
    return model([helper.make_node("Add", ["p", "q"], ["y"])], {"p": (F32, ["n"]), "q": (F32, ["n"])}, "y")


def gather() -> onnx.ModelProto:
    """``y = table[index]``, table f32 [4, unnamed], index i64 [k]."""
    nodes = [helper.make_node("Gather", ["table", "index"], ["y"])]
    return model(nodes, {"table": (F32, [4, None]), "index": (I64, ["k"])}, "y")
