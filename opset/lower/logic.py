"""Comparisons, logic and bits."""

from __future__ import annotations

from collections.abc import Callable

from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.definitions import Tensor
from omniop.opset.expr import Expr
from omniop.opset.lower.common import choice
from omniop.opset.lower.elementwise import aligned
from omniop.opset.lowering import Node, lowering

LOGIC: dict[str, Callable[[Expr, Expr], Expr]] = {
    "And": lambda a, b: a & b,
    "Or": lambda a, b: a | b,
    "Xor": lambda a, b: a ^ b,
    "BitwiseAnd": lambda a, b: a & b,
    "BitwiseOr": lambda a, b: a | b,
    "BitwiseXor": lambda a, b: a ^ b,
    "Equal": lambda a, b: a.eq(b),
    "Greater": lambda a, b: a > b,
    "GreaterOrEqual": lambda a, b: a >= b,
    "Less": lambda a, b: a < b,
    "LessOrEqual": lambda a, b: a <= b,
}


def _binary(function: Callable[[Expr, Expr], Expr]) -> Callable[[Node, Tensor, Tensor], Tensor]:
    return lambda node, a, b: p.elementwise(function, a, aligned(node, a, b))


for _op, _function in LOGIC.items():
    lowering(_op)(_binary(_function))


@lowering("Not")
@lowering("BitwiseNot")
def invert(node: Node, x: Tensor) -> Tensor:
    return p.alu("not", x)


@lowering("BitShift")
def bit_shift(node: Node, x: Tensor, amount: Tensor) -> Tensor:
    return p.alu(choice(node, "direction", {"LEFT": "shl", "RIGHT": "shr"}), x, amount)


@lowering("Where")
def where(node: Node, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
    return p.where(condition, x, y)


@lowering("IsNaN")
def is_nan(node: Node, x: Tensor) -> Tensor:
    return p.alu("isnan", x)


@lowering("IsInf")
def is_inf(node: Node, x: Tensor) -> Tensor:
    positive, negative = bool(node.attr("detect_positive")), bool(node.attr("detect_negative"))

    def test(e: Expr) -> Expr:
        found = expr.alu("isinf", e)
        if positive and negative:
            return found
        return found & ((e > 0) & positive | (e < 0) & negative)

    return p.elementwise(test, x)
