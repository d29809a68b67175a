from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from onnx_models import F32, Builder, op_types

from omniop.opset.importer import import_model
from omniop.opset.rewrite import Applied, rewrite


def test_duplicates_are_merged_down_the_line() -> None:
    b = Builder()
    one = b("Exp", b("Relu", "x", output="r1"), output="e1")
    two = b("Exp", b("Relu", "x", output="r2"), output="e2")
    model = b.model(b("Sub", one, two, output="y"))
    applied = rewrite(model)
    assert op_types(model) == ["Relu", "Exp", "Sub"]
    assert applied == [
        Applied("duplicate", ("/r2",), 'Relu "/r1"'),
        Applied("duplicate", ("/e2",), 'Exp "/e1"'),
    ]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"op_type": "Elu", "alpha": 0.0}, {"op_type": "Elu", "alpha": -0.0}),
        ({"op_type": "Elu", "alpha": 1.0}, {"op_type": "Elu", "alpha": 2.0}),
        ({"op_type": "Relu"}, {"op_type": "Abs"}),
        ({"op_type": "RandomNormalLike"}, {"op_type": "RandomNormalLike"}),
        ({"op_type": "Bernoulli"}, {"op_type": "Bernoulli"}),
        ({"op_type": "Dropout"}, {"op_type": "Dropout"}),
        ({"op_type": "Thing", "domain": "com.custom"}, {"op_type": "Thing", "domain": "com.custom"}),
    ],
    ids=lambda case: f"{case['op_type']} {case.get('alpha', '')}",
)
def test_what_is_not_a_duplicate(one: dict, other: dict) -> None:
    b = Builder()
    model = b.model(b("Add", b(one.pop("op_type"), "x", **one), b(other.pop("op_type"), "x", **other)))
    assert rewrite(model) == []
    assert len(model.graph) == 3


def test_constants_are_told_apart_by_bits_and_type() -> None:
    b = Builder()
    names = [b.constant(0.0), b.constant(-0.0), b.constant(0, TensorProto.INT32), b.constant(0.0)]
    model = b.model(*names)
    assert rewrite(model) == []
    sums = [b("Add", "x", names[0]), b("Mul", "x", names[3]), b("Sub", "x", names[1]), b("Cast", names[2], to=F32)]
    model = b.model(*sums)
    assert [a.nodes for a in rewrite(model)] == [("Constant_c_4",)]


def test_outputs_keep_their_names_and_nodes() -> None:
    b = Builder()
    model = b.model(b("Relu", "x", output="first"), b("Relu", "x", output="second"))
    assert rewrite(model) == []
    assert [v.name for v in model.outputs] == ["first", "second"]


def test_other_outputs_make_another_node() -> None:
    b = Builder()
    b.nodes.append(helper.make_node("MaxPool", ["x"], ["p"], kernel_shape=[2]))
    b.nodes.append(helper.make_node("MaxPool", ["x"], ["q", "i"], kernel_shape=[2]))
    model = b.model(b("Add", "p", "q"), "i")
    rewrite(model)
    assert op_types(model) == ["MaxPool", "MaxPool", "Add"]


def test_references_to_two_attributes_are_two() -> None:
    nodes = []
    for name in ("alpha", "beta"):
        node = helper.make_node("Elu", ["x"], [name])
        node.attribute.add(name="alpha", ref_attr_name=name, type=onnx.AttributeProto.FLOAT)
        nodes.append(node)
    nodes.append(helper.make_node("Add", ["alpha", "beta"], ["y"]))
    opsets = [helper.make_opsetid("", 17)]
    b = Builder()
    model = b.model(b("Relu", "x"))
    function = helper.make_function("local", "F", ["x"], ["y"], nodes, opsets, ["alpha", "beta"])
    proto = ir.to_proto(model.model)
    proto.functions.append(function)
    model = import_model(proto)
    rewrite(model)
    (kept,) = model.functions.values()
    assert len(kept) == 3


def test_unused_nodes_initializers_and_outputs_go() -> None:
    b = Builder()
    b.weight("unused", 3)
    b("Neg", b("Exp", "x", output="e"), output="n")
    b.nodes.append(helper.make_node("MaxPool", ["x"], ["y", "indices"], kernel_shape=[2]))
    model = b.model("y")
    assert rewrite(model) == [Applied("unused", ("/e", "/n"))]
    assert op_types(model) == ["MaxPool"]
    assert [v.name for v in model.graph[0].outputs] == ["y"]
    assert list(model.graph.initializers) == []


def test_what_only_an_unused_subgraph_uses_goes_too() -> None:
    b = Builder()
    used_inside = b("Exp", "x")
    flag = b.constant(True, TensorProto.BOOL)
    branch = helper.make_graph(
        [helper.make_node("Neg", [used_inside], ["t"])], "b", [], [helper.make_tensor_value_info("t", F32, None)]
    )
    b("If", flag, then_branch=branch, else_branch=branch)
    model = b.model(b("Relu", "x"))
    rewrite(model)
    assert op_types(model) == ["Relu"]
