"""Gradient nodes: the graph that they name, differentiated at the values that they are given, on every device."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, parser

import omniop
from omniop.opset.errors import ModelError, UnsupportedError
from omniop.opset.lower.training import DOMAIN
from tests.gate.case import normal


def model(text: str) -> onnx.ModelProto:
    graph = parser.parse_graph(text.replace("Gradient", f"{DOMAIN}.Gradient"))
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


# The loss is used by nobody else; its graph goes through an initializer and through a tensor that Gradient names.
CLASSIFIER = model(
    """g (float[N, 4] x, float[4, 3] w, float[3] b, int64[N] label) => (float[A, B] dw, float[C] db, float[D, E] dh)
    <float two = {2}> {
        h = Gemm (x, w, b)
        s = Mul (h, two)
        loss = SoftmaxCrossEntropyLoss (s, label)
        dw, db = Gradient <xs = ["w", "b"], zs = ["x", "label"], y = "loss"> (w, b, x, label)
        other = Add (h, h)
        dh = Gradient <xs = ["h"], zs = ["label"], y = "loss"> (other, label)
    }"""
)
CURVED = model(
    """g (float[N] x) => (float[N] first, float[N] second) {
        t = Tanh (x)
        y = Mul (t, x)
        first = Gradient <xs = ["x"], y = "y"> (x)
        second = Gradient <xs = ["x"], y = "first"> (x)
    }"""
)


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_a_classifier(device: str) -> None:
    session = omniop.load(CLASSIFIER, device=device, fallback="error")
    for rows in (5, 2):
        x, w, b = normal(rows, 4), normal(4, 3, seed=1), normal(3, seed=2)
        label = np.arange(rows) % 3
        found = session.run({"x": x, "w": w, "b": b, "label": label})
        target = np.eye(3)[label]
        slope = (softmax(2 * (x @ w + b)) - target) * 2 / rows
        np.testing.assert_allclose(found["dw"], x.T @ slope, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found["db"], slope.sum(0), rtol=1e-4, atol=1e-5)
        # at another value than the graph's own
        elsewhere = (softmax(4 * (x @ w + b)) - target) * 2 / rows
        np.testing.assert_allclose(found["dh"], elsewhere, rtol=1e-4, atol=1e-5)


def test_a_second_derivative(device: str) -> None:
    x = normal(9)
    found = omniop.load(CURVED, device=device, fallback="error").run({"x": x})
    slope = 1 - np.tanh(x) ** 2
    np.testing.assert_allclose(found["first"], np.tanh(x) + x * slope, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["second"], 2 * slope - 2 * x * np.tanh(x) * slope, rtol=1e-4, atol=1e-5)


def test_one_tensor_given_twice() -> None:
    proto = model(
        """g (float[N] x) => (float[N] a, float[N] b) {
            u = Neg (x) v = Abs (x) y = Mul (u, v)
            a, b = Gradient <xs = ["u", "v"], y = "y"> (x, x)
        }"""
    )
    x = normal(5)
    found = omniop.load(proto, device="reference").run({"x": x})
    np.testing.assert_array_equal(found["a"], x)
    np.testing.assert_array_equal(found["b"], x)


def test_explain_names_it() -> None:
    session = omniop.load(CURVED, device="reference")
    session.run({"x": normal(3)})
    assert "gradient" in "".join(session.explain().rewrites)


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ('y = Abs (x) d = Gradient <xs = ["x"], y = "nothing"> (x)', ModelError, "nothing"),
        ('y = Add (x, k) d = Gradient <xs = ["x"], y = "y"> (x)', ModelError, "k"),
        ('y = ReduceProd (x) d = Gradient <xs = ["x"], y = "y"> (x)', UnsupportedError, "reduce by 'mul'"),
        ('y = RandomNormalLike (x) d = Gradient <xs = ["x"], y = "y"> (x)', UnsupportedError, "on the host"),
    ],
)
def test_mistakes(text: str, error: type[Exception], words: str) -> None:
    proto = model(f"g (float[N] x, float[N] k) => (float[N] d) {{ {text} }}")
    with pytest.raises(error, match=words):
        omniop.load(proto, device="reference", fallback="error").run({"x": normal(3), "k": normal(3)})
