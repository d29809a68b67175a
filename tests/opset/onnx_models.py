"""Small models for the tests of importing and rewriting."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from omniop.opset.errors import ModelError
from omniop.opset.importer import ImportedModel, import_model

F32, F16 = TensorProto.FLOAT, TensorProto.FLOAT16


def value(name: str, shape=(2, 3), dtype: int = F32) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def model(nodes, inputs=("x",), outputs=("y",), initializers=(), opset: int = 20, **options) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [v if isinstance(v, onnx.ValueInfoProto) else value(v) for v in inputs],
        [v if isinstance(v, onnx.ValueInfoProto) else value(v) for v in outputs],
        initializers,
    )
    options.setdefault("opset_imports", [helper.make_opsetid("", opset)])
    return helper.make_model(graph, **options)


def relu_model(**options) -> onnx.ModelProto:
    return model([helper.make_node("Relu", ["x"], ["y"], name="r")], **options)


def op_types(scope) -> list[str]:
    """The operators of an imported model, graph or function, in order."""
    return [node.op_type for node in (scope.graph if isinstance(scope, ImportedModel) else scope)]


def refused(source, *words: str, **options) -> None:
    """Importing fails in one line that holds the words."""
    with pytest.raises(ModelError) as caught:
        import_model(source, **options)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message


class Builder:
    """Builds a graph call by call: ``b("Add", "x", 1.0)`` is the name of a new value. Numbers become constants."""

    def __init__(self, opset: int = 17, dtype: int = F32, scalars: str = "node", scalar_shape: tuple = ()) -> None:
        self.opset, self.dtype = opset, dtype
        self.scalars, self.scalar_shape = scalars, scalar_shape
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.count = 0

    def fresh(self, stem: str) -> str:
        self.count += 1
        return f"{stem}_{self.count}"

    def constant(self, number: object, dtype: int | None = None) -> str:
        kind = helper.tensor_dtype_to_np_dtype(dtype or self.dtype)
        shape = self.scalar_shape if np.ndim(number) == 0 else np.shape(number)
        array = np.broadcast_to(np.asarray(number, kind), shape)
        name = self.fresh("c")
        if self.scalars == "node":
            tensor = numpy_helper.from_array(array, name)
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor, name=f"Constant_{name}"))
        else:
            self.initializers.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, name: str, *shape: int, dtype: int | None = None) -> str:
        kind = helper.tensor_dtype_to_np_dtype(dtype or self.dtype)
        self.initializers.append(numpy_helper.from_array(np.ones(shape, kind), name))
        return name

    def __call__(self, op_type: str, *inputs: str | float, output: str = "", **attrs: object) -> str:
        names = [self.constant(i) if isinstance(i, (int, float)) else i for i in inputs]
        output = output or self.fresh(op_type)
        self.nodes.append(helper.make_node(op_type, names, [output], name=f"/{output}", **attrs))
        return output

    def mean(self, x: str, axis: int = -1, **attrs: object) -> str:
        if self.opset < 18:
            return self("ReduceMean", x, axes=[axis], **attrs)
        return self("ReduceMean", x, self.constant([axis], TensorProto.INT64), **attrs)

    def model(self, *outputs: str, shape: tuple | None = (2, 4, 8), ir_version: int = 10) -> ImportedModel:
        x = helper.make_tensor_value_info("x", self.dtype, shape)
        results = [helper.make_tensor_value_info(o, self.dtype, None) for o in outputs]
        graph = helper.make_graph(self.nodes, "g", [x], results, self.initializers)
        opsets = [helper.make_opsetid("", self.opset)]
        return import_model(helper.make_model(graph, opset_imports=opsets, ir_version=ir_version))
