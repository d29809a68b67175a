"""ai.onnx.preview.training: optimisers, and derivatives of small networks."""

from __future__ import annotations

from typing import Any

import numpy as np

from omniop.conformance.samples.drawing import normal, uniform
from omniop.conformance.samples.op import Found, Op, samples
from omniop.conformance.samples.sequences import text_type

_DOMAIN = "ai.onnx.preview.training"

_OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "Adagrad": ({}, {"decay_factor": 0.1, "norm_coefficient": 0.01}, {"epsilon": 0.1}),
    "Momentum": (
        {"alpha": 0.9, "beta": 1.0, "norm_coefficient": 0.01, "mode": "standard"},
        {"alpha": 0.9, "beta": 0.7, "norm_coefficient": 0.0, "mode": "nesterov"},
    ),
    "Adam": ({}, {"alpha": 0.5, "beta": 0.8, "norm_coefficient": 0.01}, {"norm_coefficient_post": 0.02}),
}


@samples("Adagrad Momentum Adam", _DOMAIN)
def optimiser(op: Op) -> Found:
    states = 2 if op.name == "Adam" else 1
    for dtype in op.dtypes("T3"):
        for attributes in _OPTIONS[op.name]:
            for steps in (0, 1, 20):
                for shapes in (((3,),), ((2, 3), ())):
                    # a state of one number: nothing may be left of it where signs differ
                    drawn = [normal(dtype, *shape) if shape else uniform(dtype, shape, 0.5, 2) for shape in shapes]
                    inputs = drawn * 2
                    inputs += [uniform(dtype, shape, 0.1, 1) for _ in range(states) for shape in shapes]
                    rate = np.array(0.1).astype(dtype)
                    count = len(shapes) * (1 + states)
                    yield op(
                        rate, np.array(steps), *inputs, outputs=(dtype,) * count, tag=f"steps_{steps}", **attributes
                    )


_FUNCTIONS: tuple[tuple[str, str, str], ...] = (
    ("add", "y = Add (a, b)", "1"),
    ("mul", "y = Mul (a, b)", "b"),
    ("div", "y = Div (a, b)", "1 / b"),
    ("exp", "c = Exp (a) y = Mul (c, b)", "np.exp(a) * b"),
    ("tanh", "y = Tanh (a)", "1 - np.tanh(a) ** 2"),
    ("sigmoid", "y = Sigmoid (a)", "s(a) * (1 - s(a))"),
    ("relu", "y = Relu (a)", "(a > 0) * 1.0"),
    ("square", "y = Mul (a, a)", "2 * a"),
    ("twice", "c = Add (a, a) y = Mul (c, b)", "2 * b"),
    ("log", "c = Abs (b) d = Add (c, c) e = Mul (a, a) f = Add (e, d) y = Log (f)", "2 * a / (a * a + 2 * np.abs(b))"),
    ("sqrt", "c = Mul (a, a) d = Mul (b, b) e = Add (c, d) y = Sqrt (e)", "a / np.sqrt(a * a + b * b)"),
    ("sin", "y = Sin (a)", "np.cos(a)"),
)
"""A network of ``a`` and ``b``, and the derivative of the sum of its output by ``a``, in numpy."""

DERIVATIVES = {tag: formula for tag, _, formula in _FUNCTIONS}


@samples("Gradient", _DOMAIN)
def gradient(op: Op) -> Found:
    for dtype in ("float32", "float64", "float16"):
        kind = text_type(dtype)
        for tag, body, _ in _FUNCTIONS:
            names, fed = ('"a", "b"', "a, b") if _reads_b(body) else ('"a"', "a")
            text = (
                f'<ir_version: 8, opset_import: ["" : 17, "{_DOMAIN}" : 1]> one ({kind}[N] a, {kind}[N] b) => '
                f'({kind}[N] da) {{ {body} da = {_DOMAIN}.Gradient <xs = [{names}], y = "y"> ({fed}) }}'
            )
            sets = [(uniform(dtype, (n,), 0.3, 2), uniform(dtype, (n,), 0.5, 2)) for n in (5, 1, 17)]
            yield op.model(text, *sets, dtype=dtype, tag=tag)


def _reads_b(body: str) -> bool:
    return "b)" in body
