"""What the operators of ai.onnx.ml share: rows of features, arrays in attributes, labels, and transforms of scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from functools import partial

import numpy as np

from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.definitions import Tensor
from omniop.opset.dtype import FLOAT32, FLOAT64, INT64, DType
from omniop.opset.errors import ModelError
from omniop.opset.expr import Expr
from omniop.opset.lower.common import choice
from omniop.opset.lower.softmax import softmax
from omniop.opset.lowering import Lowering, Node, lowering
from omniop.opset.sym import known_equal

ML = "ai.onnx.ml"

ml_lowering: Callable[..., Callable[[Lowering], Lowering]] = partial(lowering, domain=ML)


def wide(dtype: DType) -> DType:
    """What scores of inputs of ``dtype`` are computed in: double for double, float for the others, integers too."""
    return FLOAT64 if dtype is FLOAT64 else FLOAT32


def rows(node: Node, x: Tensor) -> Tensor:
    """``x`` as [N, F] in `wide` arithmetic; a vector is one row. Raises ModelError for other ranks."""
    if x.rank not in (1, 2):
        raise ModelError(f"{node.label}: an input of shape {list(x.shape)}, and [N, F] or [F] is needed")
    return p.cast(x if x.rank == 2 else p.unsqueeze(x, [0]), wide(x.dtype))


# Attributes -----------------------------------------------------------------------------------------------------------


def ints(node: Node, name: str) -> list[int]:
    return [int(v) for v in node.attr(name, ())]


def floats(node: Node, name: str) -> list[float]:
    """FLOATS of a node, or the tensor that stands for them under ``name`` + "_as_tensor" in wider types.

    Raises ModelError when both are there.
    """
    given, tensor = node.attr(name), node.attr(f"{name}_as_tensor")
    if given is not None and tensor is not None:
        raise ModelError(f"{node.label}: {name} and {name}_as_tensor are both there, and one is needed")
    values = given if tensor is None else np.asarray(tensor).reshape(-1)
    return [float(v) for v in (() if values is None else values)]


def require_count(node: Node, name: str, values: Sequence[object], *allowed: int) -> None:
    """Raises ModelError unless an attribute's array has one of the allowed lengths."""
    if len(values) not in allowed:
        needed = " or ".join(map(str, dict.fromkeys(allowed)))
        raise ModelError(f"{node.label}: {name} has {len(values)} elements, and {needed} are needed")


def per_feature(node: Node, name: str, values: Sequence[float | int], x: Tensor, dtype: DType) -> Tensor:
    """An attribute of one value for all features, or of one for each (the last axis of ``x``), as a tensor that
    broadcasts to ``x``. Raises ModelError for other lengths."""
    features = x.shape[-1] if x.rank else 1
    if len(values) != 1 and not (known_equal(len(values), features) or bool(features == len(values))):
        raise ModelError(f"{node.label}: {name} has {len(values)} elements for {features} features")
    return table(values, dtype)


def table(values: Sequence[float | int], dtype: DType, shape: Sequence[int] | None = None) -> Tensor:
    """An attribute's array on the device."""
    array = np.asarray(values, np.float64 if dtype.is_float else None).astype(dtype.numpy)
    return p.constant(array if shape is None else array.reshape(tuple(shape)), dtype)


def integer_labels(node: Node, name: str) -> list[int]:
    """A classifier's integer labels. (String labels were taken apart by `rewrite.string_labels`.)"""
    if node.attr("classlabels_strings"):
        raise node.unsupported("string labels are made by a CategoryMapper behind the classifier")
    return ints(node, name)


# Labels ---------------------------------------------------------------------------------------------------------------


def label_at(places: Tensor, labels: Sequence[int]) -> Tensor:
    """int64 labels at ``places``; the places themselves when they count from 0, or there are no labels."""
    if not labels or list(labels) == list(range(len(labels))):
        return p.cast(places, INT64)
    known = table(labels, INT64)
    return p.map_of(places.shape, lambda *i: known.at(places.at(*i)))


def top_label(scores: Tensor, labels: Sequence[int]) -> Tensor:
    """The label of each row's greatest score, the first of equals: [N]."""
    return label_at(p.arg_reduce("argmax", scores, -1), labels)


def chosen(positive: Tensor, labels: Sequence[int]) -> Tensor:
    """Of two labels the second where ``positive`` is true; 1 and 0 when there are no labels."""
    negative_label, positive_label = labels or (0, 1)
    return p.elementwise(lambda c: expr.select(c, expr.const(positive_label, INT64), negative_label), positive)


# Scores ---------------------------------------------------------------------------------------------------------------


def logistic(x: Expr) -> Expr:
    """1 / (1 + exp(-x)), by the exponential of a negative number, which cannot overflow."""
    v = 1 / (1 + expr.alu("exp", -expr.alu("abs", x)))
    return expr.select(x < 0, 1 - v, v)


def probit(x: Expr) -> Expr:
    """The inverse of the normal distribution, by Winitzki's approximation of the inverse error function.

    S. Winitzki, "A handy approximation for the error function and its inverse" (2008), with a = 0.147.
    """
    centred = 2 * x - 1
    log = expr.alu("log", (1 - centred) * (1 + centred))
    v = 2 / (math.pi * 0.147) + 0.5 * log
    root = expr.alu("sqrt", expr.alu("sqrt", v * v - log * (1 / 0.147)) - v)
    return math.sqrt(2) * expr.select(centred < 0, -root, root)


def softmax_zero(x: Tensor) -> Tensor:
    """Softmax along the last axis in which scores of 0 stay 0."""
    best = p.reduce("max", x, [-1], keepdims=True)

    def weight(v: Expr, m: Expr) -> Expr:
        return expr.select(expr.alu("abs", v) > 1e-7, expr.alu("exp", v - m), v * expr.alu("exp", -m))

    weights = p.elementwise(weight, x, best)
    return p.div(weights, p.reduce("add", weights, [-1], keepdims=True))


def _unchanged(x: Tensor) -> Tensor:
    return x


TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "NONE": _unchanged,
    "SOFTMAX": lambda x: softmax(x, [-1]),
    "LOGISTIC": lambda x: p.elementwise(logistic, x),
    "SOFTMAX_ZERO": softmax_zero,
    "PROBIT": lambda x: p.elementwise(probit, x),
}
"""post_transform, on scores [N, E]. TreeEnsemble numbers them in this order."""

TransformOf = Callable[[Tensor], Tensor]


def transform_of(node: Node) -> TransformOf:
    """What ``post_transform`` does. Scores in one column are only ever transformed by PROBIT, as onnxruntime does."""
    transform = choice(node, "post_transform", TRANSFORMS)
    return partial(transformed, transform)


def transformed(transform: TransformOf, scores: Tensor) -> Tensor:
    single = isinstance(scores.shape[-1], int) and scores.shape[-1] == 1
    return scores if single and transform is not TRANSFORMS["PROBIT"] else transform(scores)


def two_scores(node: Node, score: Tensor, mirrored: Collection[str] = ()) -> Tensor:
    """The transformed scores [N, 2] of two classes of which one has a score, [N, 1].

    With s the score they are (1 - s, s), or (-s, s) for LOGISTIC and the transforms in ``mirrored``. Softmax does
    nothing to a pair made so: a second score is not evidence. This is what onnxruntime does, and converters rely on.
    """
    kind = node.attr("post_transform", "NONE")
    transform = choice(node, "post_transform", TRANSFORMS)

    def pair(n: Expr, k: Expr) -> Expr:
        s = score.at(n, 0)
        opposite = -s if kind == "LOGISTIC" or kind in mirrored else 1 - s
        return expr.select(k.eq(0), opposite, s)

    scores = p.map_of([score.shape[0], 2], pair)
    return transform(scores) if kind in ("LOGISTIC", "PROBIT") else scores


def as_float(scores: Tensor) -> Tensor:
    """Scores in the type that ai.onnx.ml gives them."""
    return p.cast(scores, FLOAT32)
