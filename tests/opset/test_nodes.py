from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from onnx_models import F32, model, op_types, refused, relu_model, value

from omniop.opset.errors import ModelError
from omniop.opset.importer import attributes, bind_attributes, captures, import_model, node_label
from omniop.opset.schemas import schema_for


def test_captures_of_nested_subgraphs() -> None:
    inner = helper.make_graph(
        [helper.make_node("Add", ["deep", "local"], ["s"]), helper.make_node("Mul", ["s", "x"], ["i"])],
        "inner",
        [],
        [value("i")],
    )
    outer = helper.make_graph(
        [
            helper.make_node("Neg", ["x"], ["local"]),
            helper.make_node("If", ["c"], ["o"], then_branch=inner, else_branch=inner),
        ],
        "outer",
        [],
        [value("o")],
    )
    proto = model(
        [
            helper.make_node("Exp", ["x"], ["deep"]),
            helper.make_node("If", ["c"], ["y"], then_branch=outer, else_branch=outer),
        ],
        inputs=["x", value("c", (), TensorProto.BOOL)],
    )
    node = import_model(proto).graph[1]
    assert [v.name for v in captures(node.attributes["then_branch"].as_graph())] == ["x", "c", "deep"]


def test_labels() -> None:
    named = import_model(relu_model()).graph[0]
    assert node_label(named) == 'Relu "r"'
    proto = model([helper.make_node("Thing", ["x"], ["y"], domain="com.custom")])
    assert node_label(import_model(proto).graph[0]) == 'com.custom::Thing of "y"'


# Attributes


def imported_node(*args, **attrs) -> ir.Node:
    return import_model(model([helper.make_node(*args, **attrs)])).graph[0]


def test_attributes_as_python_values_with_defaults() -> None:
    conv = imported_node("Conv", ["x", "x"], ["y"], pads=[1, 2, 3, 4], auto_pad="NOTSET")
    assert attributes(conv, schema_for("", "Conv", 20)) == {"pads": (1, 2, 3, 4), "auto_pad": "NOTSET", "group": 1}
    tree = imported_node("Thing", ["x"], ["y"], domain="com.custom", names=["a", "b"], weights=[0.5, 2.0])
    assert attributes(tree, None) == {"names": ("a", "b"), "weights": (0.5, 2.0)}
    assert attributes(imported_node("Elu", ["x"], ["y"]), schema_for("", "Elu", 20)) == {"alpha": 1.0}


def test_attributes_that_are_tensors_graphs_and_types() -> None:
    bf16 = np.array([1, 2], ml_dtypes.bfloat16)
    tensor = ir.serde.serialize_tensor(ir.Tensor(bf16))
    constant = attributes(imported_node("Constant", [], ["y"], value=tensor), schema_for("", "Constant", 20))
    assert constant["value"].dtype == ml_dtypes.bfloat16
    assert constant["value"].tolist() == [1, 2]
    branch = helper.make_graph([helper.make_node("Neg", ["x"], ["t"])], "then", [], [value("t")])
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=branch)
    proto = model([node], inputs=["x", value("c", (), TensorProto.BOOL)])
    found = attributes(import_model(proto).graph[0], schema_for("", "If", 20))
    assert isinstance(found["then_branch"], ir.Graph)
    kind = helper.make_tensor_type_proto(F32, (2, "n"))
    optional = attributes(imported_node("Optional", [], ["y"], type=kind), schema_for("", "Optional", 20))
    assert optional["type"].type == ir.TensorType(ir.DataType.FLOAT)


def test_attributes_that_are_wrong() -> None:
    schema = schema_for("", "Cast", 19)
    with pytest.raises(ModelError, match=r'Cast of "y": the required attribute \'to\' is missing'):
        attributes(imported_node("Cast", ["x"], ["y"]), schema)
    with pytest.raises(ModelError, match=r"unknown attribute 'too'; Cast has: saturate, to"):
        attributes(imported_node("Cast", ["x"], ["y"], too=1), schema)
    with pytest.raises(ModelError, match=r"attribute 'to' is FLOAT, and INT is needed"):
        attributes(imported_node("Cast", ["x"], ["y"], to=1.0), schema)


# Model-local functions


def scaled_elu(**calls) -> onnx.ModelProto:
    """A function Act(alpha = 0.25, beta) around Elu(alpha) and LeakyRelu(beta), called with attributes."""
    elu = helper.make_node("Elu", ["a"], ["b"])
    elu.attribute.add(name="alpha", ref_attr_name="alpha", type=onnx.AttributeProto.FLOAT)
    leaky = helper.make_node("LeakyRelu", ["b"], ["c"])
    leaky.attribute.add(name="alpha", ref_attr_name="beta", type=onnx.AttributeProto.FLOAT)
    function = helper.make_function(
        "local",
        "Act",
        ["a"],
        ["c"],
        [leaky, elu],
        [helper.make_opsetid("ai.onnx", 16)],
        ["beta"],
        [helper.make_attribute("alpha", 0.25)],
    )
    proto = model([helper.make_node("Act", ["x"], ["y"], domain="local", **calls)])
    proto.functions.append(function)
    return proto


@pytest.mark.parametrize(
    ("calls", "alpha", "beta"), [({}, 0.25, None), ({"alpha": 2.0}, 2.0, None), ({"beta": 3.0}, 0.25, 3.0)]
)
def test_function_attributes(calls: dict, alpha: float, beta: float | None) -> None:
    imported = import_model(scaled_elu(**calls))
    call = imported.graph[0]
    function = imported.functions[call.op_identifier()]
    assert op_types(function) == ["Elu", "LeakyRelu"]
    assert function.opset_imports == {"": 16}
    bound = bind_attributes(function, call)
    elu, leaky = function
    default = attributes(imported_node("LeakyRelu", ["x"], ["y"]), schema_for("", "LeakyRelu", 16))["alpha"]
    assert attributes(elu, schema_for("", "Elu", 16), bound) == {"alpha": alpha}
    assert attributes(leaky, schema_for("", "LeakyRelu", 16), bound) == {"alpha": default if beta is None else beta}


def test_functions_that_are_wrong() -> None:
    imported = import_model(scaled_elu(gamma=1.0))
    call = imported.graph[0]
    with pytest.raises(ModelError, match=r"unknown attribute 'gamma'; Act has: alpha, beta"):
        bind_attributes(imported.functions[call.op_identifier()], call)
    proto = scaled_elu()
    proto.functions[0].node[0].op_type, proto.functions[0].node[0].domain = "Act", "local"
    refused(proto, "local::Act calls itself")
    proto = scaled_elu()
    proto.functions[0].output[0] = "ghost"
    refused(proto, "ghost")
