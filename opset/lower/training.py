"""ai.onnx.preview.training: optimizers, which update tensors by their gradients. Several may share one node."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.definitions import Tensor
from omniop.opset.dtype import DType
from omniop.opset.errors import ModelError
from omniop.opset.expr import Expr
from omniop.opset.lower.common import choice, element, require_shape, scalar_of
from omniop.opset.lowering import Node, lowering

DOMAIN = "ai.onnx.preview.training"

Update = Callable[..., Sequence[Expr]]
"""(tensor, gradient with its regularization, *states) gives the new tensor and the new states."""


def _updated(node: Node, given: Sequence[Tensor], states: int, update: Update) -> tuple[Tensor, ...]:
    """``given``: all tensors, then all gradients, then of each kind of state all; the outputs likewise, without the
    gradients. Computed in float32 for narrower floats."""
    kinds = 2 + states
    if not given or len(given) % kinds:
        raise ModelError(f"{node.label}: {len(given)} tensors behind R and T; each that is updated needs {kinds}")
    count, decay = len(given) // kinds, node.attr("norm_coefficient", 0.0)
    columns = []
    for own in (given[k::count] for k in range(count)):
        for t in own[1:]:
            require_shape(node, t, own[0].shape, "a gradient or a state")
        columns.append([_output(own, k, update, decay) for k in range(1 + states)])
    return tuple(column[k] for k in range(1 + states) for column in columns)


def _output(own: Sequence[Tensor], number: int, update: Update, decay: float) -> Tensor:
    dtype = own[0].dtype
    wide = p.accumulator(dtype)

    def value(x: Expr, gradient: Expr, *states: Expr) -> Expr:
        x, gradient, *old = (expr.cast(e, wide) for e in (x, gradient, *states))
        return expr.cast(update(x, gradient + decay * x if decay else gradient, *old)[number], dtype)

    return p.elementwise(value, *own)


def _scalar(node: Node, t: Tensor, what: str, like: DType) -> Expr:
    return expr.cast(element(scalar_of(node, t, what)), p.accumulator(like))


@lowering("Adagrad", domain=DOMAIN)
def adagrad(node: Node, rate: Tensor, count: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
    """Duchi, Hazan, Singer, "Adaptive subgradient methods", 2011. States: the sum of squared gradients."""
    epsilon, decay = node.attr("epsilon"), node.attr("decay_factor")
    steps = _scalar(node, count, "T", rate.dtype)
    pace = _scalar(node, rate, "R", rate.dtype) / (1 + steps * decay)

    def update(x: Expr, gradient: Expr, squares: Expr) -> Sequence[Expr]:
        total = squares + gradient * gradient
        return x - expr.cast(pace, x.dtype) * gradient / (expr.alu("sqrt", total) + epsilon), total

    return _updated(node, given, 1, update)


@lowering("Adam", domain=DOMAIN)
def adam(node: Node, rate: Tensor, count: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
    """Kingma and Ba, "Adam", 2015. States: means of the gradients and of their squares."""
    alpha, beta, epsilon = node.attr("alpha"), node.attr("beta"), node.attr("epsilon")
    after = 1 - node.attr("norm_coefficient_post")
    steps, pace = (_scalar(node, t, name, rate.dtype) for t, name in ((count, "T"), (rate, "R")))
    corrected = pace * expr.alu("sqrt", _lost(beta, steps)) / _lost(alpha, steps)
    pace = expr.select(steps > 0, corrected, pace)

    def update(x: Expr, gradient: Expr, mean: Expr, square: Expr) -> Sequence[Expr]:
        mean = alpha * mean + (1 - alpha) * gradient
        square = beta * square + (1 - beta) * (gradient * gradient)
        new = x - expr.cast(pace, x.dtype) * mean / (expr.alu("sqrt", square) + epsilon)
        return new * after, mean, square

    return _updated(node, given, 2, update)


def _lost(rate: float, steps: Expr) -> Expr:
    """1 - rate ** steps for steps above 0, also where that is far below 1: 1 - exp(y) = -2 exp(y / 2) sinh(y / 2)."""
    if rate <= 0:
        return expr.const(1.0, steps.dtype)
    half = expr.maximum(steps * (math.log(rate) / 2), -40.0)  # less changes nothing, and sinh would overflow
    return -2 * expr.alu("exp", half) * expr.alu("sinh", half)


_MODES = {"standard": False, "nesterov": True}


@lowering("Momentum", domain=DOMAIN)
def momentum(node: Node, rate: Tensor, count: Tensor, *given: Tensor) -> tuple[Tensor, ...]:
    """With Nesterov's look ahead or without. States: the momentum; the first gradient counts whole."""
    alpha, beta, ahead = node.attr("alpha"), node.attr("beta"), choice(node, "mode", _MODES)
    steps, pace = (_scalar(node, t, name, rate.dtype) for t, name in ((count, "T"), (rate, "R")))
    share = expr.select(steps > 0, expr.const(beta, steps.dtype), 1.0)

    def update(x: Expr, gradient: Expr, old: Expr) -> Sequence[Expr]:
        new = alpha * old + expr.cast(share, x.dtype) * gradient
        move = gradient + alpha * new if ahead else new
        return x - expr.cast(pace, x.dtype) * move, new

    return _updated(node, given, 1, update)
