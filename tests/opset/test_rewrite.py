from __future__ import annotations

from collections.abc import Callable
from itertools import permutations
from math import pi, sqrt

import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from onnx_models import F16, F32, Builder, op_types

from omniop.opset.importer import ImportedModel, attributes, import_model
from omniop.opset.rewrite import replaced_names, rewrite
from omniop.opset.schemas import schema_for


def composite(model: ImportedModel) -> ir.Node:
    """The one composite of a model."""
    (found,) = [node for node in model.graph if node.domain == "omniop"]
    return found


def values(node: ir.Node) -> dict:
    return attributes(node, schema_for(node.domain, node.op_type, 1))


# LayerNormalization


def spread(b: Builder, centred: str, square: str) -> str:
    if square == "mul":
        return b("Mul", centred, centred)
    if square == "cast":
        centred = b("Cast", centred, to=b.dtype)
    return b("Pow", centred, 2.0)


def normalization(b: Builder, x: str = "x", square: str = "pow", root: str = "div", epsilon: float = 1e-12) -> str:
    """The part before scale and bias, as exporters spell it."""
    centred = b("Sub", x, b.mean(x))
    # Older PyTorch wrote the subtraction twice.
    again = b("Sub", x, b.mean(x)) if square == "twice" else centred
    variance = b("Add", b.mean(spread(b, again, square)), epsilon)
    if root == "power":
        return b("Mul", centred, b("Pow", variance, -0.5))
    deviation = b("Sqrt", variance)
    if root == "div":
        return b("Div", centred, deviation)
    return b("Mul", b("Reciprocal", deviation) if root == "reciprocal" else b("Div", 1.0, deviation), centred)


@pytest.mark.parametrize("opset", [11, 17, 18])
@pytest.mark.parametrize("square", ["pow", "mul", "cast", "twice"])
@pytest.mark.parametrize("root", ["div", "reciprocal", "one over", "power"])
def test_layer_normalization_spellings(opset: int, square: str, root: str) -> None:
    b = Builder(opset)
    scaled = b("Mul", normalization(b, square=square, root=root), b.weight("weight", 8))
    model = b.model(b("Add", b.weight("bias", 8), scaled, output="y"))
    applied = rewrite(model)
    assert op_types(model) == ["LayerNormalization"]
    node = composite(model)
    assert [v.name for v in node.inputs] == ["x", "weight", "bias"]
    assert values(node) == {"axis": -1, "epsilon": pytest.approx(1e-12), "stash_type": 0}
    assert [v.name for v in model.outputs] == ["y"]
    assert model.opset_imports["omniop"] == 1
    (found,) = [a for a in applied if a.rule == "layer-normalization"]
    assert found.into == 'omniop::LayerNormalization "/y"'
    assert set(found.nodes) == set(replaced_names(node))
    assert "/y" in found.nodes
    assert not any(name.startswith("Constant") for name in found.nodes)


@pytest.mark.parametrize("scalars", ["node", "initializer"])
@pytest.mark.parametrize("scalar_shape", [(), (1,)])
def test_layer_normalization_constants(scalars: str, scalar_shape: tuple) -> None:
    b = Builder(scalars=scalars, scalar_shape=scalar_shape)
    model = b.model(b("Mul", normalization(b), b.weight("weight", 8), output="y"), shape=None)
    rewrite(model)
    assert op_types(model) == ["LayerNormalization"]
    # Scale alone; then neither.
    assert [v.name for v in composite(model).inputs] == ["x", "weight"]
    b = Builder(scalars=scalars, scalar_shape=scalar_shape)
    model = b.model(normalization(b))
    rewrite(model)
    assert [v.name for v in composite(model).inputs] == ["x"]


def test_constants_listed_as_inputs_before_ir_version_4() -> None:
    b = Builder(8, scalars="initializer")
    model = b.model(normalization(b), ir_version=3)
    rewrite(model)
    assert op_types(model) == ["LayerNormalization"]


def test_layer_normalization_with_a_scale_of_higher_rank_is_taken_without_it() -> None:
    b = Builder()
    model = b.model(b("Mul", normalization(b), b.weight("modulation", 2, 1, 8)))
    rewrite(model)
    assert op_types(model) == ["LayerNormalization", "Mul"]
    assert [v.name for v in composite(model).inputs] == ["x"]


def test_layer_normalization_in_float32_of_a_float16_model() -> None:
    b = Builder(dtype=F16)
    wide = b("Cast", "x", to=F32)
    b.dtype = F32
    narrow = b("Cast", normalization(b, wide), to=F16)
    b.dtype = F16
    scaled = b("Mul", narrow, b.weight("weight", 8))
    model = b.model(b("Add", scaled, b.weight("bias", 8), output="y"))
    applied = rewrite(model)
    assert op_types(model) == ["LayerNormalization"]
    assert [v.name for v in composite(model).inputs] == ["x", "weight", "bias"]
    assert values(composite(model))["stash_type"] == F32
    assert "layer-normalization in float32" in [a.rule for a in applied]


def test_casts_around_the_whole_are_left_in_place() -> None:
    b = Builder(dtype=F16)
    wide = b("Cast", "x", to=F32)
    b.dtype = F32
    scaled = b("Mul", normalization(b, wide), b.weight("weight", 8))
    result = b("Cast", scaled, to=F16)
    b.dtype = F16
    model = b.model(result)
    rewrite(model)
    assert op_types(model) == ["Cast", "LayerNormalization", "Cast"]
    assert values(composite(model))["stash_type"] == 0


def test_casts_to_another_type_than_the_input_had_are_not_taken_along() -> None:
    b = Builder(dtype=F32)
    wide = b("Cast", "x", to=TensorProto.DOUBLE)
    b.dtype = TensorProto.DOUBLE
    result = b("Cast", normalization(b, wide), to=F16)
    b.dtype = F32
    model = b.model(result)
    rewrite(model)
    assert op_types(model) == ["Cast", "LayerNormalization", "Cast"]


def changed(**how: object) -> ImportedModel:
    """A layer normalization that is none, or is not private."""
    b = Builder()
    axis = how.get("axis", -1)
    mean = b("ReduceMean", "x", axes=[axis], keepdims=how.get("keepdims", 1))
    centred = b("Sub", "x", mean) if how.get("order") != "swapped" else b("Sub", mean, "x")
    other = b("Sub", "x", b("Neg", mean)) if how.get("centre") == "other" else centred
    mean_square = b("ReduceMean", b("Pow", other, how.get("power", 2.0)), axes=[axis])
    epsilon = b("Abs", 1e-5) if how.get("epsilon") == "computed" else 1e-5
    deviation = b("Sqrt", b("Add", mean_square, epsilon))
    y = b("Div", centred, deviation, output="y")
    return b.model(y, *({"mean": [mean], "deviation": [deviation]}.get(str(how.get("output")), [])))


@pytest.mark.parametrize(
    "how",
    [
        {"axis": 1},
        {"axis": -2},
        {"keepdims": 0},
        {"order": "swapped"},
        {"power": 3.0},
        {"centre": "other"},
        {"epsilon": "computed"},
        {"output": "mean"},
        {"output": "deviation"},
    ],
    ids=str,
)
def test_what_is_not_a_layer_normalization(how: dict) -> None:
    assert op_types(changed(**how)).count("ReduceMean") == 2
    model = changed(**how)
    assert [a for a in rewrite(model) if a.into.startswith("omniop")] == []
    assert op_types(model).count("ReduceMean") == 2


def test_the_unchanged_one_is() -> None:
    model = changed()
    rewrite(model)
    assert op_types(model) == ["LayerNormalization"]


def test_a_value_that_a_subgraph_uses_is_not_private() -> None:
    b = Builder()
    centred = b("Sub", "x", b.mean("x"))
    deviation = b("Sqrt", b("Add", b.mean(b("Pow", centred, 2.0)), 1e-5))
    y = b("Div", centred, deviation)
    bool_constant = b.constant(True, TensorProto.BOOL)
    branch = helper.make_graph(
        [helper.make_node("Neg", [deviation], ["t"])], "b", [], [helper.make_tensor_value_info("t", F32, None)]
    )
    z = b("If", bool_constant, then_branch=branch, else_branch=branch)
    model = b.model(y, z)
    rewrite(model)
    assert "Div" in op_types(model)


# Gelu


def gelu(b: Builder, order: tuple[int, ...], left: bool, term: Callable[[], str], x: str = "x") -> str:
    """x, 0.5 and the term multiplied in an order and association."""
    factors = [[x, 0.5, term()][i] for i in order]
    if left:
        return b("Mul", b("Mul", factors[0], factors[1]), factors[2])
    return b("Mul", factors[0], b("Mul", factors[1], factors[2]))


@pytest.mark.parametrize("order", list(permutations(range(3))))
@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("divides", [True, False])
def test_gelu_by_erf(order: tuple, left: bool, divides: bool) -> None:
    b = Builder()

    def term() -> str:
        scaled = b("Div", "x", 1.4142) if divides else b("Mul", 0.70710678, "x")
        return b("Add", b("Erf", scaled), 1.0)

    model = b.model(gelu(b, order, left, term))
    (applied,) = [a for a in rewrite(model) if a.rule.startswith("gelu")]
    assert op_types(model) == ["Gelu"]
    assert [v.name for v in composite(model).inputs] == ["x"]
    assert values(composite(model)) == {"approximate": "none"}
    assert len(applied.nodes) == 5


def cubic(b: Builder, spelling: str) -> str:
    """sqrt(2 / pi) * (x + 0.044715 * x^3)"""
    if spelling == "pow":
        return b("Mul", sqrt(2 / pi), b("Add", "x", b("Mul", b("Pow", "x", 3.0), 0.044715)))
    if spelling == "products":
        cube = b("Mul", b("Mul", b("Mul", 0.044715, "x"), "x"), "x")
        return b("Mul", b("Add", cube, "x"), sqrt(2 / pi))
    if spelling == "cube":
        cube = b("Mul", "x", b("Mul", "x", "x"))
        return b("Mul", b("Add", "x", b("Mul", 0.044715, cube)), sqrt(2 / pi))
    inner = b("Add", 1.0, b("Mul", b("Mul", 0.044715, "x"), "x"))
    return b("Mul", b("Mul", "x", 0.7978845608), inner)


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (0, 2, 1)])
@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("spelling", ["pow", "products", "cube", "factored"])
@pytest.mark.parametrize("dtype", [F32, F16, TensorProto.BFLOAT16])
def test_gelu_by_tanh(order: tuple, left: bool, spelling: str, dtype: int) -> None:
    b = Builder(dtype=dtype)
    model = b.model(gelu(b, order, left, lambda: b("Add", 1.0, b("Tanh", cubic(b, spelling)))))
    rewrite(model)
    assert op_types(model) == ["Gelu"]
    assert values(composite(model)) == {"approximate": "tanh"}


def erf_model(*, half: float = 0.5, root: float = sqrt(2), other: bool = False, **options: object) -> ImportedModel:
    shape = options.pop("shape", (2, 4, 8))
    b = Builder(**options)
    z = b("Neg", "x") if other else "x"
    return b.model(b("Mul", b("Mul", "x", half), b("Add", b("Erf", b("Div", z, root)), 1.0)), shape=shape)


@pytest.mark.parametrize(
    "how",
    [
        {"half": 0.501},
        {"root": 1.5},
        {"other": True},
        {"scalar_shape": (1, 1, 1, 1)},
        {"scalar_shape": (1,), "shape": ()},
    ],
    ids=str,
)
def test_what_is_not_a_gelu(how: dict) -> None:
    model = erf_model(**how)
    rewrite(model)
    assert "Erf" in op_types(model)


@pytest.mark.parametrize("how", [{}, {"scalar_shape": (1,)}, {"scalar_shape": (1, 1, 1)}, {"shape": None}], ids=str)
def test_what_is_a_gelu(how: dict) -> None:
    model = erf_model(**how)
    rewrite(model)
    assert op_types(model) == ["Gelu"]


def test_scaling_a_gelu_from_outside() -> None:
    """A gate: its Mul has the shape of the product but is not one of the factors."""
    b = Builder()
    term = b("Add", b("Erf", b("Div", "x", sqrt(2))), 1.0)
    model = b.model(b("Mul", b("Exp", "x"), b("Mul", b("Mul", "x", 0.5), term), output="y"))
    rewrite(model)
    assert sorted(op_types(model)) == ["Exp", "Gelu", "Mul"]
    assert op_types(model)[-1] == "Mul"


# Where


def test_subgraphs_and_functions_are_rewritten_too() -> None:
    inner = Builder()
    gelu_nodes = inner("Mul", inner("Mul", "x", 0.5), inner("Add", inner("Erf", inner("Div", "x", sqrt(2))), 1.0))
    info = helper.make_tensor_value_info(gelu_nodes, F32, None)
    branch = helper.make_graph(inner.nodes, "branch", [], [info])
    opsets = [helper.make_opsetid("", 17)]
    function = helper.make_function("local", "Act", ["x"], [gelu_nodes], inner.nodes, opsets)
    x = helper.make_tensor_value_info("x", F32, (2, 4))
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, ())
    nodes = [
        helper.make_node("If", ["c"], ["i"], then_branch=branch, else_branch=branch),
        helper.make_node("Act", ["i"], ["y"], domain="local"),
    ]
    graph = helper.make_graph(nodes, "g", [x, condition], [helper.make_tensor_value_info("y", F32, None)])
    proto = helper.make_model(graph, opset_imports=[*opsets, helper.make_opsetid("local", 1)], functions=[function])
    model = import_model(proto)
    applied = rewrite(model)
    assert [a.rule for a in applied if a.into.startswith("omniop")] == ["gelu"] * 3
    for scope in (*model.graph.subgraphs(), *model.functions.values()):
        assert [n.op_type for n in scope] == ["Gelu"]
    (act,) = model.functions.values()
    assert act.opset_imports["omniop"] == model.opset_imports["omniop"] == 1


def test_an_unsorted_model_with_several() -> None:
    b = Builder(12)
    first = b("Add", b("Mul", normalization(b), b.weight("w1", 8)), b.weight("b1", 8))
    hidden = b("Mul", b("Mul", first, 0.5), b("Add", b("Erf", b("Div", first, sqrt(2))), 1.0))
    b("Add", b("Mul", normalization(b, hidden), b.weight("w2", 8)), b.weight("b2", 8), output="y")
    b.nodes.reverse()
    model = b.model("y")
    rewrite(model)
    assert op_types(model) == ["LayerNormalization", "Gelu", "LayerNormalization"]
    assert rewrite(model) == []


def test_a_model_without_anything_to_rewrite() -> None:
    b = Builder()
    model = b.model(b("Relu", "x"))
    assert rewrite(model) == []
    assert model.opset_imports == {"": 17}


# Batch normalisation behind a convolution


def normalized_convolution(computed: str = "", **attributes: int | float) -> ImportedModel:
    """``computed``: the name of what is no constant."""
    b = Builder(17)
    shapes = {"w": (4, 3, 1, 1), "scale": (4,), "shift": (4,), "mean": (4,), "variance": (4,)}
    w, *others = (b.weight(name, *shape) for name, shape in shapes.items())
    names = [b("Abs", name) if name == computed else name for name in (w, *others)]
    convolved = b("Conv", "x", names[0], group=1, strides=[2, 1])
    return b.model(b("BatchNormalization", convolved, *names[1:], output="y", **attributes), shape=(1, 3, 8, 8))


def test_batch_normalization_goes_into_a_convolution() -> None:
    model = normalized_convolution(epsilon=1e-3)
    (applied,) = rewrite(model)
    assert applied.rule == "batch normalization"
    assert len(applied.nodes) == 2
    node = composite(model)
    assert node.op_type == "ConvBatchNormalization"
    found = values(node)
    assert found["strides"] == (2, 1)
    assert found["epsilon"] == pytest.approx(1e-3)


@pytest.mark.parametrize("computed", ["w", "scale", "variance"])
def test_batch_normalization_by_computed_numbers_stays(computed: str) -> None:
    assert not rewrite(normalized_convolution(computed))


def test_batch_normalization_in_training_stays() -> None:
    assert not rewrite(normalized_convolution(training_mode=1))
