"""Support vector machines of ai.onnx.ml, which are those of libsvm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.definitions import Scatter, Tensor, TensorCarry, TensorStore
from omniop.opset.dtype import BOOL, INT64
from omniop.opset.errors import ModelError
from omniop.opset.expr import Expr
from omniop.opset.lower.common import choice
from omniop.opset.lower.ml_common import (
    as_float,
    floats,
    integer_labels,
    ints,
    logistic,
    ml_lowering,
    require_count,
    rows,
    table,
    top_label,
    transform_of,
    two_scores,
)
from omniop.opset.lower.ml_linear import affine
from omniop.opset.lowering import Node

# Kernels --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Params:
    """kernel_params."""

    gamma: float = 0.0
    coef0: float = 0.0
    degree: float = 0.0


def _of_dot(function: Callable[[Expr, Params], Expr]) -> Callable[[Tensor, Tensor, Params], Tensor]:
    """A kernel that is a function of the scalar product."""

    def kernel(x: Tensor, vectors: Tensor, params: Params) -> Tensor:
        dots = p.contract(x, p.transpose(vectors, [1, 0]))
        return p.elementwise(lambda d: function(d, params), dots)

    return kernel


def _rbf(x: Tensor, vectors: Tensor, params: Params) -> Tensor:
    """By the differences themselves: |a|^2 + |b|^2 - 2ab would cancel."""

    def squared(n: Expr, v: Expr, f: Expr) -> Expr:
        difference = x.at(n, f) - vectors.at(v, f)
        return difference * difference

    distance = p.reduce_of([x.shape[0], vectors.shape[0]], [x.shape[1]], "add", squared)
    return p.elementwise(lambda d: expr.alu("exp", d * -params.gamma), distance)


def _power(x: Expr, exponent: float) -> Expr:
    return expr.binary("pow", x, exponent)


KERNELS: dict[str, Callable[[Tensor, Tensor, Params], Tensor]] = {
    "LINEAR": _of_dot(lambda d, _: d),
    "POLY": _of_dot(lambda d, k: _power(d * k.gamma + k.coef0, k.degree)),
    "RBF": _rbf,
    "SIGMOID": _of_dot(lambda d, k: expr.alu("tanh", d * k.gamma + k.coef0)),
}
"""kernel_type: rows [N, F] and support vectors [S, F] to [N, S]."""


def kernel_values(node: Node, x: Tensor, count: int) -> Tensor:
    """The kernel of each row and each of ``count`` support vectors. Raises ModelError when their sizes disagree."""
    vectors, params = floats(node, "support_vectors"), floats(node, "kernel_params")
    kernel = choice(node, "kernel_type", KERNELS)
    require_count(node, "kernel_params", params, 0, 3)
    if not vectors or not bool(x.shape[1] * count == len(vectors)):
        raise ModelError(
            f"{node.label}: support_vectors has {len(vectors)} elements for {count} vectors of {x.shape[1]} features"
        )
    return kernel(x, table(vectors, x.dtype, [count, len(vectors) // count]), Params(*params))


# Regression -----------------------------------------------------------------------------------------------------------


@ml_lowering("SVMRegressor")
def svm_regressor(node: Node, x: Tensor) -> Tensor:
    """[N, 1]; with ``one_class`` 1 for what is like the training data and -1 for what is not."""
    count, coefficients, rho = node.attr("n_supports", 0), floats(node, "coefficients"), floats(node, "rho")
    require_count(node, "rho", rho, 1)
    values = rows(node, x)
    if count:
        values = kernel_values(node, values, count)
        require_count(node, "coefficients", coefficients, count)
    scores = affine(node, values, coefficients, 1, rho)
    if node.attr("one_class", 0):
        scores = p.elementwise(lambda s: expr.select(s > 0, expr.const(1, s.dtype), -1), scores)
    return as_float(transform_of(node)(scores))


# Classification -------------------------------------------------------------------------------------------------------


@ml_lowering("SVMClassifier")
def svm_classifier(node: Node, x: Tensor) -> tuple[Tensor, Tensor]:
    """Labels [N] and scores: a score a pair of classes, a probability a class when there are ``prob_a`` and ``prob_b``,
    and a score a class without support vectors (liblinear's models)."""
    labels = integer_labels(node, "classlabels_ints")
    values = rows(node, x)
    if not node.attr("vectors_per_class"):
        return _linear(node, values, labels)
    per_class = ints(node, "vectors_per_class")
    classes = len(per_class)
    if classes < 2 or min(per_class) < 0:
        raise ModelError(f"{node.label}: vectors_per_class {per_class}, and two classes or more are needed")
    require_count(node, "the class labels", labels, 0, classes)
    pairs = list(combinations(range(classes), 2))
    scores = pair_scores(node, values, per_class, pairs)
    label = top_label(_votes(scores, classes, pairs), labels)
    first, second = floats(node, "prob_a"), floats(node, "prob_b")
    require_count(node, "prob_a", first, 0, len(pairs))
    require_count(node, "prob_b", second, len(first))
    if first:
        scores = _probabilities(scores, first, second, classes, pairs)
    elif classes == 2:
        return label, as_float(two_scores(node, scores, ["NONE"]))
    return label, as_float(transform_of(node)(scores))


def _linear(node: Node, x: Tensor, labels: list[int]) -> tuple[Tensor, Tensor]:
    """One score a class; all have the first of ``rho`` added, as in onnxruntime."""
    rho = floats(node, "rho")
    if not rho or floats(node, "support_vectors") or floats(node, "prob_a"):
        raise ModelError(f"{node.label}: rho, and without vectors_per_class no support_vectors and prob_a, are needed")
    count = max(len(labels), 1)
    scores = affine(node, x, floats(node, "coefficients"), count, rho[:1] * count)
    return top_label(scores, labels), as_float(transform_of(node)(scores))


def pair_scores(node: Node, x: Tensor, per_class: list[int], pairs: list[tuple[int, int]]) -> Tensor:
    """[N, pairs]: above 0 where the first of the pair's classes wins.

    libsvm keeps, for the vectors of a class, a row of coefficients for each of the other classes; here each pair has a
    row of them, with zeros for the vectors of the classes that it does not have.
    """
    count, classes = sum(per_class), len(per_class)
    coefficients, rho = floats(node, "coefficients"), floats(node, "rho")
    kernel = kernel_values(node, x, count)
    require_count(node, "coefficients", coefficients, (classes - 1) * count)
    require_count(node, "rho", rho, len(pairs))
    given = np.array(coefficients).reshape(classes - 1, count)
    ends = np.cumsum([0, *per_class])
    weights = np.zeros((len(pairs), count))
    for row, (i, j) in zip(weights, pairs, strict=True):
        of_i, of_j = slice(ends[i], ends[i + 1]), slice(ends[j], ends[j + 1])
        row[of_i], row[of_j] = given[j - 1, of_i], given[i, of_j]
    return affine(node, kernel, weights.reshape(-1).tolist(), len(pairs), rho)


def _votes(scores: Tensor, classes: int, pairs: list[tuple[int, int]]) -> Tensor:
    """int64 [N, classes]: how many pairs each class wins."""
    first, second = (table([pair[side] for pair in pairs], INT64) for side in (0, 1))

    def won(n: Expr, c: Expr, k: Expr) -> Expr:
        winner = expr.select(scores.at(n, k) > 0, first.at(k), second.at(k))
        return expr.cast(winner.eq(c), INT64)

    return p.reduce_of([scores.shape[0], classes], [len(pairs)], "add", won)


def _probabilities(
    scores: Tensor, first: list[float], second: list[float], classes: int, pairs: list[tuple[int, int]]
) -> Tensor:
    """[N, classes], from the scores of the pairs by Platt's sigmoids and `coupled`."""
    a, b = table(first, scores.dtype), table(second, scores.dtype)
    numbers = np.zeros((classes, classes), np.int64)
    for k, (i, j) in enumerate(pairs):
        numbers[i, j] = numbers[j, i] = k
    place = p.constant(numbers, INT64)

    def beats(n: Expr, i: Expr, j: Expr) -> Expr:
        """The probability of class i against class j; of no use where they are equal."""
        k = place.at(i, j)
        value = 1 - logistic(scores.at(n, k) * a.at(k) + b.at(k))
        value = expr.maximum(expr.minimum(value, 1 - 1e-7), 1e-7)
        return expr.select(i < j, value, 1 - value)

    return coupled(p.map_of([scores.shape[0], classes, classes], beats), classes)


def coupled(beats: Tensor, classes: int) -> Tensor:
    """Probabilities [N, k] of classes from those of pairs, ``beats`` [N, k, k].

    T.-F. Wu, C.-J. Lin, R. C. Weng, "Probability estimates for multi-class classification by pairwise coupling",
    JMLR 5 (2004), algorithm 2, with libsvm's bounds on steps and error. It is a fold that takes one class a step and
    carries p, Qp, pQp, and whether it has converged.
    """
    rows_, dtype = beats.shape[0], beats.dtype

    def square(n: Expr, t: Expr, i: Expr) -> Expr:
        return expr.select(i.eq(t), 0, beats.at(n, i, t) * beats.at(n, i, t))

    diagonal = p.reduce_of([rows_, classes], [classes], "add", square)
    q = p.map_of(
        [rows_, classes, classes],
        lambda n, t, j: expr.select(t.eq(j), diagonal.at(n, t), -(beats.at(n, j, t) * beats.at(n, t, j))),
    )
    start = p.reduce_of([rows_, classes], [classes], "add", lambda n, t, j: q.at(n, t, j) / classes)
    total = p.reduce_of([rows_], [classes], "add", lambda n, t: start.at(n, t) / classes)
    axes = p.axes_of([rows_])
    seq = expr.raw_axis(1, expr.index(max(100, classes) * classes))
    chance = [expr.carry(k, dtype) for k in range(classes)]
    gradient = [expr.carry(classes + k, dtype) for k in range(classes)]
    product, done = expr.carry(2 * classes, dtype), expr.carry(2 * classes + 1, BOOL)
    t = seq % classes
    errors = [expr.alu("abs", g - product) for g in gradient]
    worst, own = errors[0], gradient[0]
    for k in range(1, classes):
        worst, own = expr.maximum(worst, errors[k]), expr.select(t.eq(k), gradient[k], own)
    ended = done | (t.eq(0) & (worst < 0.005 / classes))
    slope = q.at(*axes, t, t)
    step = (product - own) / slope
    scale = 1 + step
    moved = [(c + expr.select(t.eq(k), step, 0)) / scale for k, c in enumerate(chance)]
    turned = [(g + step * q.at(*axes, t, k)) / scale for k, g in enumerate(gradient)]
    product_after = (product + step * (step * slope + 2 * own)) / (scale * scale)
    inits = [
        *(expr.const(1 / classes, dtype) for _ in chance),
        *(start.at(*axes, k) for k in range(classes)),
        total.at(*axes),
        expr.const(False, BOOL),
    ]
    old, new = [*chance, *gradient, product], [*moved, *turned, product_after]
    updates = [*(expr.select(ended, o, n) for o, n in zip(old, new, strict=True)), ended]
    carries = tuple(TensorCarry(i, u) for i, u in zip(inits, updates, strict=True))
    stores = tuple(TensorStore(0, (*axes, expr.index(k)), c) for k, c in enumerate(chance))
    return p.record(Scatter(axes, stores, (None,), seq, carries, done), [((rows_, classes), dtype)])[0]
