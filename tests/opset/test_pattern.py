from __future__ import annotations

from collections.abc import Callable
from math import pi, sqrt

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from onnx_models import F16, F32, Builder

from omniop.opset.importer import import_model
from omniop.opset.rewrite.pattern import anything, constant, one_of, op, product


def matches(pattern: object, build: Callable[[Builder], str]) -> int:
    b = Builder()
    model = b.model(build(b))
    return len(list(pattern.match(model.outputs[0], {})))


def test_a_shared_pattern_is_one_value() -> None:
    x = anything()
    assert matches(op("Relu", x) * op("Abs", x), lambda b: b("Mul", b("Abs", "x"), b("Relu", "x"))) == 1
    assert matches(op("Relu", x) * op("Abs", x), lambda b: b("Mul", b("Abs", b("Neg", "x")), b("Relu", "x"))) == 0
    shared = op("Relu", x)
    assert matches(shared - shared, lambda b: (lambda r: b("Sub", r, r))(b("Relu", "x"))) == 1
    assert matches(shared - shared, lambda b: b("Sub", b("Relu", "x"), b("Relu", "x"))) == 0


def test_order_matters_where_it_does() -> None:
    x = anything()
    assert matches(1.0 / x, lambda b: b("Div", 1.0, "x")) == 1
    assert matches(1.0 / x, lambda b: b("Div", "x", 1.0)) == 0
    assert matches(x**2.0, lambda b: b("Pow", "x", 2.0)) == 1
    assert matches(x + constant(), lambda b: b("Add", 2.0, "x")) == 1


def test_alternatives_and_products_backtrack() -> None:
    x, y = anything(), anything()
    either = one_of(op("Relu", x), op("Relu", op("Abs", x)))
    assert matches(either - x, lambda b: b("Sub", b("Relu", b("Abs", "x")), "x")) == 1
    four = product(x, x, op("Abs", y), 3.0)
    assert matches(four, lambda b: b("Mul", b("Mul", 3.0, "x"), b("Mul", b("Abs", "x"), "x"))) > 0
    assert matches(four, lambda b: b("Mul", b("Mul", 3.0, "x"), b("Mul", b("Abs", "x"), b("Neg", "x")))) == 0


def test_constants_are_near_by_what_their_type_can_tell() -> None:
    for dtype, near, far in ((F32, 0.79788, 0.7975), (F16, 0.7983, 0.8), (TensorProto.BFLOAT16, 0.796875, 0.79)):
        b = Builder(dtype=dtype)
        names = [b.constant(near), b.constant(far)]
        model = b.model(*names)
        found = [len(list(constant(sqrt(2 / pi)).match(v, {}))) for v in model.outputs]
        assert found == [1, 0], dtype


def test_what_a_feed_may_replace_is_no_constant() -> None:
    tensor = numpy_helper.from_array(np.array(2, np.float32), "two")
    info = helper.make_tensor_value_info("two", F32, ())
    graph = helper.make_graph([helper.make_node("Relu", ["two"], ["y"])], "g", [info], [info], [tensor])
    graph.output[0].name = "y"
    model = import_model(helper.make_model(graph))
    assert list(constant().match(model.inputs[0], {})) == []
