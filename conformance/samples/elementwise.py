"""Arithmetic, functions, comparisons and logic, element by element."""

from __future__ import annotations

from typing import Any

from omniop.conformance.samples.drawing import Values, normal, special, uniform, wide
from omniop.conformance.samples.op import Found, Op, samples, spread

SHAPES = ((), (1,), (0,), (7,), (3, 0, 2), (2, 3, 5), (1, 65), (4, 129))
"""0-d, single, empty, odd, just past what vectors and groups like."""

PAIRS = (
    ((), ()),
    ((), (3,)),
    ((5,), (1,)),
    ((0,), (1,)),
    ((3, 1), (1, 4)),
    ((2, 0, 3), (1, 3)),
    ((2, 3, 4), (4,)),
    ((1, 3, 1, 5), (2, 1, 7, 1)),
    ((33,), (33,)),
    ((2, 515), (2, 515)),
)
"""Broadcasting of 0-d, empty and odd shapes, one-sided, both-sided, and none."""


_UNARY = (
    "Abs Neg Sign Ceil Floor Round Relu Sqrt Reciprocal Exp Log Erf Sigmoid Tanh Sin Cos Tan Asin Acos Atan Sinh Cosh "
    "Asinh Acosh Atanh Softplus Softsign HardSwish Mish Gelu Elu Selu Celu Swish LeakyRelu ThresholdedRelu HardSigmoid "
    "Shrink IsNaN IsInf Not BitwiseNot Identity"
)

_DOMAINS = {
    **{"Sqrt": (0, 50), "Log": (0.01, 50), "Asin": (-1, 1), "Acos": (-1, 1), "Atanh": (-0.97, 0.97), "Acosh": (1, 30)},
    **{"Exp": (-8, 8), "Sinh": (-5, 5), "Cosh": (-5, 5), "Sin": (-20, 20), "Cos": (-20, 20), "Tan": (-1.5, 1.5)},
    **{"Reciprocal": (0.25, 40), "Tanh": (-6, 6), "Erf": (-3, 3), "Sigmoid": (-12, 12), "Softplus": (-12, 12)},
}
"""Where a function is defined and neither overflows nor loses its argument; others get what is normal."""


@samples(_UNARY)
def unary(op: Op) -> Found:
    low, high = _DOMAINS.get(op.name, (-6.0, 6.0))
    for dtype in op.dtypes():
        for shape in spread(op, dtype, SHAPES):
            yield op(uniform(dtype, shape, low, high) if op.name in _DOMAINS else normal(dtype, *shape))
        yield op(special(dtype, 29))
        yield op(wide(dtype, 3, 41))
        yield op.runs([normal(dtype, 3, 4)], [normal(dtype, 1, 9)], [normal(dtype, 0, 2)], [normal(dtype, 3, 4)])
    yield op(normal("string", 3), refused=True) if "string" not in op.dtypes() else None


_ATTRIBUTES: dict[str, list[dict[str, Any]]] = {
    "Elu": [{"alpha": 2.5}, {"alpha": 0.0}],
    "Celu": [{"alpha": 2.0}, {"alpha": 0.25}],
    "Selu": [{"alpha": 2.0, "gamma": 3.0}],
    "LeakyRelu": [{"alpha": 0.5}, {"alpha": -1.5}],
    "ThresholdedRelu": [{"alpha": 0.0}, {"alpha": 2.0}],
    "HardSigmoid": [{"alpha": 0.5, "beta": 0.25}],
    "Swish": [{"alpha": 1.702}, {"alpha": -0.5}],
    "Gelu": [{"approximate": "tanh"}],
    "Shrink": [{"lambd": 1.5, "bias": 1.5}, {"lambd": 0.0}, {"bias": 2.0}],
    "IsInf": [{"detect_negative": 0}, {"detect_positive": 0}, {"detect_negative": 0, "detect_positive": 0}],
}


@samples(" ".join(_ATTRIBUTES))
def with_attributes(op: Op) -> Found:
    for attributes in _ATTRIBUTES[op.name]:
        for dtype in op.dtypes(kinds="f" if attributes.get("bias") else "biuf"):
            yield op(normal(dtype, 5, 7), **attributes)
            yield op(special(dtype, 26), **attributes)


@samples(
    "Add Sub Mul Div Equal Less LessOrEqual Greater GreaterOrEqual And Or Xor BitwiseAnd BitwiseOr BitwiseXor PRelu"
)
def binary(op: Op) -> Found:
    for dtype in op.dtypes():
        for left, right in spread(op, dtype, PAIRS):
            if (op.name == "PRelu" and len(right) > len(left)) or (op.name == "PRelu" and left == (1, 3, 1, 5)):
                continue
            yield op(normal(dtype, *left), _divisor(op, dtype, right))
        yield op(special(dtype, 13, 1), special(dtype, 1, 13)) if op.name != "PRelu" else None
        yield op(wide(dtype, 61), _divisor(op, dtype, (61,)), tag="wide")
        sizes = ((3, 4), (1, 4)), ((2, 5), (1, 5)), ((1, 1), (1, 1)), ((3, 4), (1, 4))
        yield op.runs(*([normal(dtype, *a), _divisor(op, dtype, b)] for a, b in sizes))
        yield op(normal(dtype, 3), normal(dtype, 4), tag="shapes_that_do_not_broadcast", refused=True)


def _divisor(op: Op, dtype: str, shape: tuple[int, ...]) -> Values:
    return uniform(dtype, shape, 1, 9) if op.name == "Div" else normal(dtype, *shape)


@samples("Mod")
def mod(op: Op) -> Found:
    for dtype in op.dtypes():
        modes = (1,) if dtype in op.dtypes(kinds="f") else (0, 1)
        for fmod in modes:
            for left, right in spread(op, dtype, PAIRS):
                yield op(normal(dtype, *left), uniform(dtype, right, 1, 7), fmod=fmod)
            yield op(wide(dtype, 45), uniform(dtype, (45,), 1, 50), fmod=fmod)
            if dtype in op.dtypes(kinds="if"):
                yield op(normal(dtype, 45), uniform(dtype, (45,), -7, -1), fmod=fmod, tag="negative")
    yield op(special("float32", 13, 1), special("float32", 1, 13), fmod=1)


@samples("Pow")
def power(op: Op) -> Found:
    for dtype in op.dtypes("T"):
        for other in op.dtypes("T1") if "T1" in op.type_names else (dtype,):
            yield op(uniform(dtype, (5, 1), 1, 4), uniform(other, (1, 3), 0, 4), tag=other)
        for left, right in spread(op, dtype, PAIRS):
            yield op(uniform(dtype, left, 1, 4), uniform(dtype, right, 0, 4))
        if dtype in op.dtypes("T", kinds="f"):
            yield op(special(dtype, 13, 1), special(dtype, 1, 13))


@samples("BitShift")
def shift(op: Op) -> Found:
    for dtype in op.dtypes():
        for direction in ("LEFT", "RIGHT"):
            for left, right in spread(op, dtype, PAIRS):
                yield op(wide(dtype, *left), uniform(dtype, right, 0, 7), direction=direction)
    yield op(normal("uint8", 3), normal("uint8", 3), direction="UP", refused=True)


@samples("Max Min Sum Mean")
def variadic(op: Op) -> Found:
    for dtype in op.dtypes():
        yield op(normal(dtype, 2, 3))
        yield op(special(dtype, 26))
        for left, right in spread(op, dtype, PAIRS):
            yield op(normal(dtype, *left), normal(dtype, *right))
        yield op(normal(dtype, 3, 1), normal(dtype, 1, 4), normal(dtype))
        yield op(*(normal(dtype, 5) for _ in range(9)))
        if op.name != "Mean":  # two of the largest overflow before they are halved
            yield op(special(dtype, 13, 1), special(dtype, 1, 13))
        yield op.runs(*([normal(dtype, n, 3), normal(dtype, 3)] for n in (4, 1, 0, 4)))


@samples("Clip")
def clip(op: Op) -> Found:
    for dtype in op.dtypes():
        low, high = ("-1", "2") if dtype in op.dtypes(kinds="if") else ("1", "5")
        bounds = uniform(dtype, (), float(low), float(low) + 1), uniform(dtype, (), float(high), float(high) + 1)
        if op.has("min") and "min" not in op.schema.attributes:
            for shape in spread(op, dtype, SHAPES):
                yield op(normal(dtype, *shape), *bounds)
            yield op(special(dtype, 26), *bounds)
            yield op(normal(dtype, 9), bounds[0])
            yield op(normal(dtype, 9), None, bounds[1])
            yield op(normal(dtype, 9))
            yield op(normal(dtype, 9), *bounds[::-1], tag="bounds_crossed") if op.version > 12 else None
        else:
            yield op(normal(dtype, 9), min=-1.0, max=1.5)
            yield op(normal(dtype, 9), min=-1.0)


@samples("Where")
def where(op: Op) -> Found:
    for dtype in op.dtypes("T"):
        for left, right in spread(op, dtype, PAIRS):
            yield op(normal("bool", *right), normal(dtype, *left), normal(dtype, *right))
        yield op(normal("bool", 3, 1), normal(dtype, 4), normal(dtype))
        yield op(normal("bool", 26), special(dtype, 26), normal(dtype, 1))
    yield op(normal("bool", 3), normal("float32", 4), normal("float32", 4), refused=True)


@samples("SwiGLU")
def swiglu(op: Op) -> Found:
    for dtype in op.dtypes():
        for shape in spread(op, dtype, SHAPES):
            yield op(normal(dtype, *shape), normal(dtype, *shape))
        yield op(normal(dtype, 3, 4), normal(dtype, 3, 4), alpha=1.7)
        yield op(special(dtype, 26), normal(dtype, 26))


@samples("Dropout")
def dropout(op: Op) -> Found:
    """Inference: training draws a mask, as numpy does, and is ONNX's own cases' to judge."""
    for dtype in op.dtypes("T"):
        for shape in spread(op, dtype, SHAPES):
            yield op(normal(dtype, *shape), outputs=(dtype, "bool"))
        yield op(normal(dtype, 3, 4), ratio=0.75) if "ratio" in op.schema.attributes else None
