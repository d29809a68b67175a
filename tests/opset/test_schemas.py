from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from omniop.opset.errors import ModelError, UnsupportedError
from omniop.opset.importer import attributes
from omniop.opset.nodes import check_arity
from omniop.opset.schemas import function_body, function_graph, schema_for, since_version

FLOAT_2D = helper.make_tensor_type_proto(TensorProto.FLOAT, (2, 3))


def node(op_type: str, inputs: list[str], outputs: list[str], domain: str = "", **attrs) -> ir.Node:
    return ir.from_proto(helper.make_node(op_type, inputs, outputs, domain=domain, **attrs))


# Versions


@pytest.mark.parametrize(
    ("domain", "op_type", "opset", "since"),
    [
        ("", "Relu", 5, 1),
        ("", "Relu", 13, 13),
        ("ai.onnx", "Relu", 13, 13),
        ("", "Softmax", 12, 11),
        ("", "Relu", 10_000, 14),
        ("ai.onnx.ml", "TreeEnsembleClassifier", 3, 3),
        ("omniop", "LayerNormalization", 1, 1),
        ("omniop", "Gelu", 1, 1),
        ("", "Upsample", 11, 10),
    ],
)
def test_the_schema_in_force(domain: str, op_type: str, opset: int, since: int) -> None:
    schema = schema_for(domain, op_type, opset)
    assert (schema.name, schema.since_version) == (op_type, since)
    assert since_version(domain, op_type, opset) == since
    assert schema_for(domain, op_type, opset) is schema


def test_what_there_is_no_schema_for() -> None:
    with pytest.raises(UnsupportedError, match=r"ai\.onnx has no Gelu at opset 17; its versions are 20"):
        schema_for("", "Gelu", 17)
    with pytest.raises(
        UnsupportedError, match=r"no schema is known for Gelu of the domain com\.custom, at opset 3 .*fun"
    ):
        schema_for("com.custom", "Gelu", 3)
    for wrong in ("Reluu", "relu"):
        with pytest.raises(UnsupportedError, match=rf"{wrong} of the domain ai\.onnx, .*; did you mean 'Relu'\?"):
            schema_for("", wrong, 20)


def test_composites_are_not_in_onnx_own_registry() -> None:
    assert not onnx.defs.has("Gelu", 1, "omniop")


def test_defaults_of_composites() -> None:
    normalization = node("LayerNormalization", ["x"], ["y"], "omniop")
    found = attributes(normalization, schema_for("omniop", "LayerNormalization", 1))
    assert found == {"axis": -1, "epsilon": pytest.approx(1e-5), "stash_type": 0}
    gelu = node("Gelu", ["x"], ["y"], "omniop")
    assert attributes(gelu, schema_for("omniop", "Gelu", 1)) == {"approximate": "none"}


# Arity


def test_arity() -> None:
    conv = schema_for("", "Conv", 20)
    check_arity(node("Conv", ["x", "w"], ["y"]), conv)
    check_arity(node("Concat", ["x"] * 40, ["y"]), schema_for("", "Concat", 20))
    with pytest.raises(ModelError, match=r'Conv "c" has 1 inputs, and 2 to 3 are needed'):
        check_arity(node("Conv", ["x"], ["y"], name="c"), conv)
    with pytest.raises(ModelError, match=r"has 2 outputs, and 1 are needed"):
        check_arity(node("Conv", ["x", "w"], ["y", "z"]), conv)
    with pytest.raises(ModelError, match=r"has 0 inputs, and at least 1 are needed"):
        check_arity(node("Concat", [], ["y"]), schema_for("", "Concat", 20))
    with pytest.raises(ModelError, match=r"lacks its input 'X'"):
        check_arity(node("Conv", ["", "w"], ["y"]), conv)


# Functions


def opset(body: onnx.FunctionProto) -> dict[str, int]:
    return {entry.domain: entry.version for entry in body.opset_import}


@pytest.mark.parametrize(("imported", "written_for"), [(13, 13), (17, 13), (18, 18), (28, 18)])
def test_plain_bodies_follow_the_opset(imported: int, written_for: int) -> None:
    body = function_body(node("MeanVarianceNormalization", ["x"], ["y"]), {"": imported})
    assert opset(body) == {"": written_for}
    # ReduceMean takes its axes as an input since opset 18.
    mean = next(n for n in body.node if n.op_type == "ReduceMean")
    assert (len(mean.input), len(mean.attribute)) == ((1, 1) if written_for == 13 else (2, 0))


@pytest.mark.parametrize(("imported", "written_for"), [(13, 13), (17, 13), (18, 18)])
def test_bodies_that_depend_on_their_context(imported: int, written_for: int) -> None:
    softmax = node("Softmax", ["x"], ["y"], axis=1)
    body = function_body(softmax, {"": imported}, [FLOAT_2D])
    assert opset(body) == {"": written_for}
    assert [n.op_type for n in body.node] == ["Constant", "ReduceMax", "Sub", "Exp", "ReduceSum", "Div"]
    assert len(body.node[1].input) == (1 if written_for == 13 else 2)


def test_the_context_decides() -> None:
    scalar = helper.make_tensor_type_proto(TensorProto.FLOAT, ())
    for lowest, steps in (("", ["Less", "Where"]), ("lo", ["Less", "Where", "Less", "Where"])):
        clip = node("Clip", ["x", lowest, "hi"], ["y"])
        body = function_body(clip, {"": 13}, [FLOAT_2D, scalar if lowest else None, scalar])
        assert [n.op_type for n in body.node] == steps


def test_ops_without_a_body() -> None:
    assert function_body(node("Relu", ["x"], ["y"]), {"": 6}) is None
    assert function_graph(node("Conv", ["x", "w"], ["y"]), {"": 20}) is None
    # Softmax became a function in opset 13; LayerNormalization has no body for a type it was not told.
    assert function_body(node("Softmax", ["x"], ["y"]), {"": 12}) is None
    assert function_body(node("LayerNormalization", ["x", "s"], ["y"]), {"": 17}, [None, None]) is None
    with pytest.raises(UnsupportedError):
        function_body(node("Nothing", ["x"], ["y"]), {"": 20})


@pytest.mark.parametrize(("attrs", "alpha"), [({}, 1.0), ({"alpha": 0.5}, 0.5)])
def test_function_graphs_have_nothing_left_to_bind(attrs: dict, alpha: float) -> None:
    function = function_graph(node("Elu", ["x"], ["y"], **attrs), {"": 22})
    assert function.opset_imports == {"": 18}
    constant = next(n for n in function.all_nodes() if "value_float" in n.attributes)
    assert constant.attributes["value_float"].value == alpha
    assert not any(a.is_ref() for n in function.all_nodes() for a in n.attributes.values())


def test_defaults_reach_the_body() -> None:
    window = function_graph(node("HannWindow", ["n"], ["y"]), {"": 17})
    cast = [n for n in window if n.op_type == "Cast"][-1]
    assert cast.attributes["to"].value == TensorProto.FLOAT


def test_references_in_the_calling_node_are_resolved_first() -> None:
    call = node("Softmax", ["x"], ["y"])
    call.attributes["axis"] = ir.RefAttr("axis", "outer", ir.AttributeType.INT)
    function = function_graph(call, {"": 18}, [FLOAT_2D], {"outer": ir.AttrInt64("outer", 0)})
    axes = next(n for n in function if n.op_type == "Constant")
    assert axes.attributes["value"].value.numpy().reshape(()) == 0


def test_optional_outputs_that_nobody_asks_for() -> None:
    inputs = [helper.make_tensor_type_proto(TensorProto.FLOAT, (3, 5)), helper.make_tensor_type_proto(7, (3,))]
    plain = node("SoftmaxCrossEntropyLoss", ["s", "l"], ["loss"])
    both = node("SoftmaxCrossEntropyLoss", ["s", "l"], ["loss", "log_prob"])
    assert len(function_graph(plain, {"": 13}, inputs).outputs) == 1
    assert len(function_graph(both, {"": 13}, inputs).outputs) == 2
    # Asked for the last of four alone: the places between are kept.
    names = ["Y", "", "", "scores"]
    attention = node("Attention", ["q", "k", "v"], names)
    types = [helper.make_tensor_type_proto(TensorProto.FLOAT, (1, 2, 4, 8))] * 3
    assert len(function_graph(attention, {"": 23}, types).outputs) == 4


def test_preview_operators_get_the_opset_of_their_caller() -> None:
    preview = {"ai.onnx.preview": 1, "": 26}
    types = [helper.make_tensor_type_proto(TensorProto.FLOAT, (1, 2, 4, 8))] * 3
    function = function_graph(node("FlexAttention", ["q", "k", "v"], ["y"], "ai.onnx.preview"), preview, types)
    assert function.opset_imports == preview


def test_every_node_of_every_body_has_a_schema_and_its_attributes() -> None:
    """Of the operators with a plain body, at the newest opset."""
    newest = onnx.defs.onnx_opset_version()
    names = {s.name for s in onnx.defs.get_all_schemas() if s.domain == "" and s.has_function}
    assert len(names) > 20
    for name in sorted(names):
        schema = schema_for("", name, newest)
        arguments = [f"i{k}" for k in range(schema.min_input)]
        required = {a.name: 1 for a in schema.attributes.values() if a.required}
        results = [f"o{k}" for k in range(schema.min_output)]
        function = function_graph(node(name, arguments, results, **required), {"": newest})
        assert function is not None, name
        for inner in function.all_nodes():
            attributes(inner, schema_for(inner.domain, inner.op_type, function.opset_imports[inner.domain]))
