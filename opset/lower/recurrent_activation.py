"""The activation functions that recurrent nodes name in their attributes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from omniop.opset import expr
from omniop.opset.expr import Expr
from omniop.opset.lowering import Node

Activation = Callable[[Expr, Expr], Expr]
"""(direction, value) gives the activated value."""


@dataclass(frozen=True)
class Function:
    """``apply(x, alpha, beta)``, with the defaults of those of the two parameters that it takes."""

    apply: Callable[[Expr, float, float], Expr]
    alpha: float | None = None
    beta: float | None = None


def _sigmoid(x: Expr, alpha: float, beta: float) -> Expr:
    return 1 / (1 + expr.alu("exp", -x))


def _softplus(x: Expr, alpha: float, beta: float) -> Expr:
    """log(1 + exp(x)) without overflow."""
    return expr.maximum(x, 0.0) + expr.alu("log", 1 + expr.alu("exp", -expr.alu("abs", x)))


FUNCTIONS = {
    "relu": Function(lambda x, a, b: expr.maximum(x, 0.0)),
    "tanh": Function(lambda x, a, b: expr.alu("tanh", x)),
    "sigmoid": Function(_sigmoid),
    "affine": Function(lambda x, a, b: x * a + b, 1.0, 0.0),
    "leakyrelu": Function(lambda x, a, b: expr.select(x >= 0.0, x, x * a), 0.01),
    "thresholdedrelu": Function(lambda x, a, b: expr.select(x >= a, x, 0.0), 1.0),
    "scaledtanh": Function(lambda x, a, b: expr.alu("tanh", x * b) * a, 1.0, 1.0),
    "hardsigmoid": Function(lambda x, a, b: expr.minimum(expr.maximum(x * a + b, 0.0), 1.0), 0.2, 0.5),
    "elu": Function(lambda x, a, b: expr.select(x >= 0.0, x, (expr.alu("exp", x) - 1) * a), 1.0),
    "softsign": Function(lambda x, a, b: x / (1 + expr.alu("abs", x))),
    "softplus": Function(_softplus),
}


def activations(node: Node, defaults: Sequence[str], directions: int) -> list[Activation]:
    """A cell's functions, each choosing by direction where the two differ.

    The first two take clipped values where the node clips; LSTM's third, of the cell, does not (as in onnxruntime).

    Raises UnsupportedError on an unknown name or too few names.
    """
    names = [name.lower() for name in node.attr("activations") or (*defaults,) * directions]
    count = len(defaults)
    if len(names) < count * directions:
        raise node.unsupported(f"{len(names)} activations where {count * directions} are needed")
    names = names[: count * directions]  # RNN's default is for two directions
    for name in names:
        if name not in FUNCTIONS:
            raise node.unsupported(f"activation {name!r}; known: {', '.join(FUNCTIONS)}")
    functions = [FUNCTIONS[name] for name in names]
    alphas = _values(node.attr("activation_alpha") or (), [function.alpha for function in functions])
    betas = _values(node.attr("activation_beta") or (), [function.beta for function in functions])
    bound = list(zip(functions, alphas, betas, strict=True))
    clip = node.attr("clip", 0.0)

    def of_direction(k: int) -> Activation:
        first, last = bound[k], bound[k + count * (directions - 1)]

        def activate(direction: Expr, x: Expr) -> Expr:
            x = expr.minimum(expr.maximum(x, -clip), clip) if clip > 0 and k < 2 else x
            value = first[0].apply(x, *first[1:])
            if last == first:
                return value
            return expr.select(direction.eq(0), value, last[0].apply(x, *last[1:]))

        return activate

    return [of_direction(k) for k in range(count)]


def _values(given: Sequence[float], defaults: Sequence[float | None]) -> list[float]:
    """A parameter of each function: by place, or, where fewer are given, in order to the functions that take one."""
    if len(given) == len(defaults):
        return list(given)
    rest = iter(given)
    return [0.0 if default is None else next(rest, default) for default in defaults]
