"""Linear models of ai.onnx.ml."""

from __future__ import annotations

from collections.abc import Sequence

from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.definitions import Tensor
from omniop.opset.errors import ModelError
from omniop.opset.lower.ml_common import (
    as_float,
    chosen,
    floats,
    integer_labels,
    ml_lowering,
    require_count,
    rows,
    table,
    top_label,
    transform_of,
    two_scores,
)
from omniop.opset.lowering import Node


def affine(node: Node, x: Tensor, coefficients: Sequence[float], targets: int, shift: Sequence[float]) -> Tensor:
    """``x @ coefficients.T + shift``: [N, F] by [targets, F] and [targets], or nothing, to [N, targets].

    Raises ModelError when the coefficients are not one for each target and feature.
    """
    features = x.shape[1]
    if targets < 1 or not coefficients or not bool(features * targets == len(coefficients)):
        raise ModelError(
            f"{node.label}: {len(coefficients)} coefficients for {targets} rows of scores of {features} features"
        )
    weights = table(coefficients, x.dtype, [targets, len(coefficients) // targets])
    scores = p.contract(x, p.transpose(weights, [1, 0]))
    return p.add(scores, table(shift, x.dtype)) if shift else scores


@ml_lowering("LinearRegressor")
def linear_regressor(node: Node, x: Tensor) -> Tensor:
    """[N, targets]."""
    targets, intercepts = node.attr("targets", 1), floats(node, "intercepts")
    if intercepts:
        require_count(node, "intercepts", intercepts, targets)
    scores = affine(node, rows(node, x), floats(node, "coefficients"), targets, intercepts)
    return as_float(transform_of(node)(scores))


@ml_lowering("LinearClassifier")
def linear_classifier(node: Node, x: Tensor) -> tuple[Tensor, Tensor]:
    """Labels [N] and scores [N, E]. Of two classes one row of coefficients is enough: it is the second one's."""
    labels, coefficients = integer_labels(node, "classlabels_ints"), floats(node, "coefficients")
    intercepts = floats(node, "intercepts")
    values = rows(node, x)
    single = bool(values.shape[1] == len(coefficients))
    count = len(intercepts) or (1 if single else len(labels))
    scores = affine(node, values, coefficients, count, intercepts)
    if count > 1:
        require_count(node, "the class labels", labels, count)
        return top_label(scores, labels), as_float(transform_of(node)(scores))
    require_count(node, "the class labels", labels, 0, 2)
    positive = p.map_of([scores.shape[0]], lambda n: scores.at(n, 0) > expr.const(0, scores.dtype))
    final = two_scores(node, scores) if labels else transform_of(node)(scores)
    return chosen(positive, labels), as_float(final)
