"""Arithmetic element by element: one number in, or two, or many, with broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.definitions import Map, Source, Tensor
from omniop.opset.dtype import BOOL, FLOAT64, DType
from omniop.opset.errors import ModelError
from omniop.opset.expr import Expr
from omniop.opset.lower.common import formula, real, scalar_of
from omniop.opset.lowering import Node, OnHost, Value, lowering

_SAME_NAME = (
    *("Abs", "Neg", "Exp", "Log", "Sqrt", "Floor", "Ceil", "Sin", "Cos", "Tan", "Asin", "Acos", "Atan"),
    *("Sinh", "Cosh", "Tanh", "Asinh", "Acosh", "Atanh"),
)
UNARY = {name: name.lower() for name in _SAME_NAME} | {"Round": "rint"}
"""Operators that are one operation of `alu.ALU`."""

BINARY = {"Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div"}


def _unary(name: str) -> Callable[[Node, Tensor], Tensor]:
    return lambda node, x: p.alu(name, x)


def _binary(name: str) -> Callable[[Node, Tensor, Tensor], Tensor]:
    return lambda node, a, b: p.alu(name, a, aligned(node, a, b))


for _op, _name in UNARY.items():
    lowering(_op)(_unary(_name))
for _op, _name in BINARY.items():
    lowering(_op)(_binary(_name))


def aligned(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """The second operand with the dims that broadcasting needs: before opset 7 an attribute says where they lie."""
    axis = node.attr("axis") if node.since < 7 else None
    if axis is None or not node.attr("broadcast") or b.rank == 0:
        return b
    trailing = a.rank - axis % a.rank - b.rank
    if trailing < 0:
        raise ModelError(f"{node.label}: shape {list(b.shape)} at axis {axis} does not fit {list(a.shape)}")
    return p.reshape(b, [*b.shape, *[1] * trailing])


@lowering("Identity")
def identity(node: Node, x: Value) -> Value:
    return x


@lowering("Reciprocal")
def reciprocal(node: Node, x: Tensor) -> Tensor:
    return formula(lambda e: 1 / e, x)


@lowering("Sign")
def sign(node: Node, x: Tensor) -> Tensor:
    """-1, 0 or 1; NaN stays."""
    if x.dtype.kind == "u":
        return p.elementwise(lambda e: expr.minimum(e, 1), x)
    return p.elementwise(lambda e: expr.select(e > 0, expr.const(1, e.dtype), expr.select(e < 0, -1, e)), x)


@lowering("Erf")
def erf(node: Node, x: Tensor) -> Tensor:
    return formula(lambda e: expr.alu("erf", e), x)


@lowering("Sum")
def total(node: Node, *xs: Tensor) -> Tensor:
    return p.cast(_fold("add", xs), xs[0].dtype)


@lowering("Mean")
def mean(node: Node, *xs: Tensor) -> Tensor:
    return p.cast(p.elementwise(lambda e: e / len(xs), _fold("add", xs)), xs[0].dtype)


@lowering("Max")
def largest(node: Node, *xs: Tensor) -> Tensor:
    return _fold("max", xs)


@lowering("Min")
def smallest(node: Node, *xs: Tensor) -> Tensor:
    return _fold("min", xs)


def _fold(name: str, xs: tuple[Tensor, ...]) -> Tensor:
    """All operands combined, eight to a map to keep a kernel's buffers few; sums in the accumulator's dtype."""
    wide = p.accumulator(xs[0].dtype) if name == "add" else xs[0].dtype

    def combine(*elements: Expr) -> Expr:
        return reduce(lambda a, b: expr.alu(name, a, b), (expr.cast(e, wide) for e in elements))

    while len(xs) > 8:
        xs = tuple(p.elementwise(combine, *xs[k : k + 8]) for k in range(0, len(xs), 8))
    return p.elementwise(combine, *xs) if len(xs) > 1 else xs[0]


@lowering("Pow")
def power(node: Node, x: Tensor, y: Tensor) -> Tensor:
    """In the base's dtype. Mixed dtypes meet in one that holds both; small whole exponents are products."""
    y = aligned(node, x, y)
    exponent = _constant(y)
    if exponent in (1, 2, 3) and y.rank <= x.rank:
        small = int(exponent)  # exact, and a product is many times cheaper
        return p.elementwise(lambda a, _: reduce(lambda r, b: r * b, [a] * small), x, y)
    wide = _power_dtype(x.dtype, y.dtype)
    return p.elementwise(lambda a, b: expr.cast(expr.alu("pow", expr.cast(a, wide), expr.cast(b, wide)), x.dtype), x, y)


def _constant(t: Tensor) -> float | int | None:
    """The value when every element is known to be the same number."""
    definition = t.definition
    if isinstance(definition, Map) and definition.value.op == "const":
        value: float | int = definition.value.attr
        return value
    if isinstance(definition, Source) and definition.array is not None and definition.array.size == 1:
        return float(definition.array.reshape(-1)[0])
    return None


def _power_dtype(base: DType, exponent: DType) -> DType:
    if base.is_float:
        return FLOAT64 if exponent is FLOAT64 and base.bits >= 32 else real(base)
    if exponent.is_float:
        return FLOAT64  # a whole result must come out whole, to be truncated to the base's dtype
    return base if base.bits >= exponent.bits or base.kind == "u" else exponent


@lowering("Mod")
def mod(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """The remainder with the dividend's sign (``fmod``) or the divisor's."""
    if node.attr("fmod"):
        return p.alu("rem", a, b)
    return p.elementwise(_floored_remainder, a, b)


def _floored_remainder(x: Expr, y: Expr) -> Expr:
    rest = expr.alu("rem", x, y)
    if x.dtype.kind == "u":
        return rest
    other_side = expr.alu("xor", rest < 0, y < 0)
    # zero takes the divisor's sign, infinities included: rest + y would be wrong for an exact multiple
    moved = expr.select(rest.ne(0) & other_side, rest + y, rest)
    if not x.dtype.is_float:
        return moved
    magnitude = expr.alu("abs", rest)
    return expr.select(rest.eq(0), expr.select(y < 0, -magnitude, magnitude), moved)


@lowering("Clip")
def clip_attributes(node: Node, x: Tensor) -> Tensor:
    low, high = node.attr("min"), node.attr("max")
    if low is not None:
        x = p.elementwise(lambda e: expr.maximum(e, low), x)
    return x if high is None else p.elementwise(lambda e: expr.minimum(e, high), x)


@lowering("Clip", since=11)
def clip(node: Node, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """min(max(x, low), high): where low exceeds high, high wins."""
    if low is not None:
        x = p.elementwise(expr.maximum, x, scalar_of(node, low, "min"))
    return x if high is None else p.elementwise(expr.minimum, x, scalar_of(node, high, "max"))


@lowering("Dropout")
@lowering("Dropout", since=12, host=(1, 2))
def dropout(node: Node, x: Tensor, ratio: Value = None, training: Value = None) -> tuple[Tensor, ...]:
    """Inference: the input. Training with a ratio above 0 draws numpy's random numbers."""
    if node.since >= 12 and training is not None and _flag(node, 2):
        given = node.host(1)
        if given is None or given.array.reshape(-1)[0] > 0:
            raise OnHost
    # the mask was of the data's dtype before opset 10
    mask = p.full(x.shape, True, BOOL if node.since >= 10 else x.dtype)
    return (x, mask)[: max(1, len(node.outputs))]


def _flag(node: Node, position: int) -> bool:
    value = node.host(position)
    return value is not None and bool(value.array.reshape(-1)[0])
