"""Activation functions: one formula each, computed in float32 or wider and rounded once."""

from __future__ import annotations

import math
from collections.abc import Callable

from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.definitions import Tensor
from omniop.opset.dtype import BOOL
from omniop.opset.errors import ModelError
from omniop.opset.expr import Expr
from omniop.opset.lower.common import formula
from omniop.opset.lower.elementwise import aligned
from omniop.opset.lowering import Node, lowering


def exp(x: Expr) -> Expr:
    return expr.alu("exp", x)


def expm1(x: Expr) -> Expr:
    """exp(x) - 1 for x that is not large, exact to the last places near 0, where the difference would cancel."""
    t = expr.alu("tanh", x * 0.5)
    return 2 * t / (1 - t)


def log1p(x: Expr) -> Expr:
    """log(1 + x) for x >= 0, exact to the last places where 1 + x rounds x away."""
    u = 1 + x
    return expr.select(u.eq(1), x, expr.alu("log", u) * x / (u - 1))


def sigmoid(x: Expr) -> Expr:
    return 1 / (1 + exp(-x))


def swish(x: Expr) -> Expr:
    return x * sigmoid(x)


def softplus(x: Expr) -> Expr:
    return expr.maximum(x, 0) + log1p(exp(-expr.alu("abs", x)))


def gelu(x: Expr, approximate: str) -> Expr:
    if approximate == "tanh":
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * (x * x * x))
        return 0.5 * x * (1 + expr.alu("tanh", inner))
    return 0.5 * x * (1 + expr.alu("erf", x * math.sqrt(0.5)))


def _unit(x: Expr) -> Expr:
    """``x`` within 0 .. 1."""
    return expr.maximum(expr.minimum(x, 1), 0)


_SIXTH = 0.1666666716337204
"""1 / 6 as the attribute of 32 bits that HardSwish's function body gives to HardSigmoid."""


FORMULAS: dict[str, Callable[[Expr, Node], Expr]] = {
    "Sigmoid": lambda x, _: sigmoid(x),
    "HardSigmoid": lambda x, n: _unit(x * n.attr("alpha") + n.attr("beta")),
    "HardSwish": lambda x, _: x * _unit(x * _SIXTH + 0.5),
    "LeakyRelu": lambda x, n: expr.select(x < 0, x * n.attr("alpha"), x),
    "ThresholdedRelu": lambda x, n: expr.select(x > n.attr("alpha"), x, 0),
    "Elu": lambda x, n: expr.select(x < 0, n.attr("alpha") * expm1(x), x),
    "Selu": lambda x, n: n.attr("gamma") * expr.select(x > 0, x, n.attr("alpha") * expm1(x)),
    "Celu": lambda x, n: expr.maximum(x, 0) + expr.minimum(n.attr("alpha") * expm1(x / n.attr("alpha")), 0),
    "Softplus": lambda x, _: softplus(x),
    "Softsign": lambda x, _: x / (1 + expr.alu("abs", x)),
    "Mish": lambda x, _: x * expr.alu("tanh", softplus(x)),
    "Swish": lambda x, n: x * sigmoid(n.attr("alpha") * x),
    "Gelu": lambda x, n: gelu(x, n.attr("approximate", "none")),
}


def _activation(function: Callable[[Expr, Node], Expr]) -> Callable[[Node, Tensor], Tensor]:
    return lambda node, x: formula(lambda e: function(e, node), x)


for _op, _function in FORMULAS.items():
    lowering(_op)(_activation(_function))
lowering("Gelu", domain="omniop")(_activation(FORMULAS["Gelu"]))


@lowering("Shrink")
def shrink(node: Node, x: Tensor) -> Tensor:
    """Towards 0 by ``bias``, and to it from within ``lambd``. Integers that stay whole do without floats."""
    limit, bias = node.attr("lambd"), node.attr("bias")
    if x.dtype.is_float or bias != int(bias):
        return formula(lambda e: _shrink(e, limit, bias), x)
    return p.elementwise(lambda e: _shrunk_integer(e, limit, int(bias)), x)


def _shrink(x: Expr, limit: float, bias: float) -> Expr:
    return expr.select(x < -limit, x + bias, expr.select(x > limit, x - bias, 0))


def _shrunk_integer(x: Expr, limit: float, bias: int) -> Expr:
    """The least of the integers above the limit, and the greatest below its negative, are asked for."""
    low, high = math.ceil(-limit) - 1, math.floor(limit) + 1
    least, most = p.identity("max", x.dtype), p.identity("min", x.dtype)
    below = x <= min(low, most) if low >= least else expr.const(False, BOOL)
    above = x >= max(high, least) if high <= most else expr.const(False, BOOL)
    return expr.select(below, x + bias, expr.select(above, x - bias, 0))


@lowering("Relu")
def relu(node: Node, x: Tensor) -> Tensor:
    return p.elementwise(lambda e: expr.maximum(e, 0), x)


@lowering("PRelu")
def prelu(node: Node, x: Tensor, slope: Tensor) -> Tensor:
    """The slope broadcasts to the input; before opset 7 a slope of one axis belongs to the channels."""
    if node.since < 7 and slope.rank == 1 and x.rank > 2:
        slope = p.reshape(slope, [slope.shape[0], *[1] * (x.rank - 2)])
    return p.elementwise(lambda e, s: expr.select(e < 0, e * s, e), x, aligned(node, x, slope))


@lowering("SwiGLU")
def swiglu(node: Node, gate: Tensor, linear: Tensor) -> Tensor:
    """Swish of the gate times the other input, of the same shape."""
    alpha = node.attr("alpha")
    if gate.rank != linear.rank or not all(p.dims_equal(a, b) for a, b in zip(gate.shape, linear.shape, strict=True)):
        raise ModelError(f"{node.label}: shapes {list(gate.shape)} and {list(linear.shape)} differ")
    return formula(lambda a, b: a * sigmoid(alpha * a) * b, gate, linear)
