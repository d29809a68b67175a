"""The partial derivatives of the arithmetic of expressions, each times a cotangent: what reverse mode passes on.

Where a function has none (at a kink, at a step) it is what its neighbours average to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from omniop.opset import expr
from omniop.opset.expr import Expr

Unary = Callable[[Expr, Expr], Expr]
"""(operand, result) gives the derivative."""

_UNARY: dict[str, Unary] = {
    "neg": lambda x, y: expr.const(-1.0, x.dtype),
    "abs": lambda x, y: _sign(x),
    "exp": lambda x, y: y,
    "log": lambda x, y: 1 / x,
    "sqrt": lambda x, y: 0.5 / y,
    "sin": lambda x, y: expr.alu("cos", x),
    "cos": lambda x, y: -expr.alu("sin", x),
    "tan": lambda x, y: 1 + y * y,
    "asin": lambda x, y: 1 / expr.alu("sqrt", 1 - x * x),
    "acos": lambda x, y: -1 / expr.alu("sqrt", 1 - x * x),
    "atan": lambda x, y: 1 / (1 + x * x),
    "sinh": lambda x, y: expr.alu("cosh", x),
    "cosh": lambda x, y: expr.alu("sinh", x),
    "tanh": lambda x, y: 1 - y * y,
    "asinh": lambda x, y: 1 / expr.alu("sqrt", x * x + 1),
    "acosh": lambda x, y: 1 / expr.alu("sqrt", x * x - 1),
    "atanh": lambda x, y: 1 / (1 - x * x),
    "erf": lambda x, y: 2 / math.sqrt(math.pi) * expr.alu("exp", -(x * x)),
}

Binary = Callable[[Expr, Expr, Expr, Expr], tuple[Expr, Expr]]
"""(operands, result, cotangent) gives the cotangents of the operands."""

_BINARY: dict[str, Binary] = {
    "add": lambda a, b, y, c: (c, c),
    "sub": lambda a, b, y, c: (c, -c),
    "mul": lambda a, b, y, c: (c * b, c * a),
    "div": lambda a, b, y, c: (c / b, -(c * y / b)),
    "min": lambda a, b, y, c: (_share(a < b, a.eq(b), c), _share(b < a, a.eq(b), c)),
    "max": lambda a, b, y, c: (_share(b < a, a.eq(b), c), _share(a < b, a.eq(b), c)),
    "rem": lambda a, b, y, c: (c, -(c * expr.alu("trunc", a / b))),
    "pow": lambda a, b, y, c: (c * b * expr.alu("pow", a, b - 1), _times_log(a, c * y)),
    "atan2": lambda a, b, y, c: (c * b / (a * a + b * b), -(c * a / (a * a + b * b))),
}

_STEPS = frozenset({"floor", "ceil", "rint", "trunc"})


def _sign(x: Expr) -> Expr:
    return expr.select(x < 0, expr.const(-1.0, x.dtype), expr.select(x.eq(0), expr.const(0.0, x.dtype), 1.0))


def _share(mine: Expr, tied: Expr, cotangent: Expr) -> Expr:
    return expr.select(mine, cotangent, expr.select(tied, cotangent * 0.5, 0.0))


def _times_log(base: Expr, factor: Expr) -> Expr:
    """``factor * log(base)``; 0 where the power has no derivative by its exponent."""
    positive = base > 0
    return expr.select(positive, factor * expr.alu("log", expr.select(positive, base, 1.0)), 0.0)


def cotangents(node: Expr, cotangent: Expr) -> Sequence[Expr]:
    """For each operand of an arithmetic node of floats its share of the cotangent; none for steps and comparisons."""
    name: str = node.attr
    if name in _UNARY:
        return (cotangent * _UNARY[name](node.args[0], node),)
    if name in _BINARY:
        first, second = node.args
        return _BINARY[name](first, second, node, cotangent)
    assert name in _STEPS or not node.dtype.is_float, name
    return ()
