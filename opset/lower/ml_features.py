"""Features of ai.onnx.ml made ready for a model: scaled, normalized, imputed, one-hot, picked and joined."""

from __future__ import annotations

import math
from collections.abc import Callable

from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.definitions import Tensor
from omniop.opset.dtype import FLOAT32, INT64, DType
from omniop.opset.errors import ExecutionError, ModelError
from omniop.opset.expr import Expr
from omniop.opset.lower.common import at_most, choice
from omniop.opset.lower.ml_common import (
    as_float,
    floats,
    ints,
    ml_lowering,
    per_feature,
    require_count,
    rows,
    table,
    wide,
)
from omniop.opset.lower.ml_labels import encoder
from omniop.opset.lowering import Node
from omniop.opset.sym import Dim, product
from omniop.opset.trace import current


@ml_lowering("Binarizer")
def binarizer(node: Node, x: Tensor) -> Tensor:
    """1 where ``x > threshold``, else 0. A whole number is above t where it is above the floor of t."""
    threshold: float = node.attr("threshold", 0.0)
    if x.dtype.is_int:
        least, most = p.identity("max", x.dtype), p.identity("min", x.dtype)
        if not least <= threshold < most:
            return p.full(x.shape, threshold < least, x.dtype)
        threshold = math.floor(threshold)
    return p.elementwise(lambda v: expr.cast(v > threshold, x.dtype), x)


@ml_lowering("ArrayFeatureExtractor")
def array_feature_extractor(node: Node, x: Tensor, y: Tensor) -> Tensor:
    """The elements of the last axis at the indices ``y``: [*lead, count of y]; a vector gives [1, count].

    Negative indices do not count from the end: they are out of range, as in onnxruntime.
    """
    if not x.rank:
        raise ModelError(f"{node.label}: the last axis of a scalar is asked for")
    count = product(y.shape)
    shape = [*(x.shape[:-1] or (1,)), count]
    if x.empty and not _nothing(shape):
        raise ExecutionError(f"{node.label}: an index into a tensor of shape {list(x.shape)}, which is empty")
    flat = p.reshape(y, [count])

    def element(*i: Expr) -> Expr:
        place = expr.index(flat.at(i[-1]))
        guard = (place >= 0) & (place < x.extents[-1])
        fault = current().fault(f"an index is outside 0..F-1 of the last axis of {x.shape[-1]}")
        return x.at(*i[: x.rank - 1], place, guard=guard, fault=fault)

    return p.map_of(shape, element)


def _nothing(shape: list[Dim]) -> bool:
    return any(isinstance(d, int) and d == 0 for d in shape)


@ml_lowering("Scaler")
def scaler(node: Node, x: Tensor) -> Tensor:
    """``(x - offset) * scale`` in float, each of one value or one per feature."""
    offset, scale = floats(node, "offset"), floats(node, "scale")
    require_count(node, "offset", offset, len(scale))
    dtype = wide(x.dtype)
    shift, factor = (per_feature(node, name, v, x, dtype) for name, v in (("offset", offset), ("scale", scale)))
    return as_float(p.mul(p.sub(p.cast(x, dtype), shift), factor))


def _norm_max(x: Tensor) -> Tensor:
    return p.reduce("max", x, [-1], keepdims=True)


def _norm_l1(x: Tensor) -> Tensor:
    return p.reduce("add", p.alu("abs", x), [-1], keepdims=True)


def _norm_l2(x: Tensor) -> Tensor:
    return p.alu("sqrt", p.reduce("add", p.mul(x, x), [-1], keepdims=True))


_NORMS: dict[str, Callable[[Tensor], Tensor]] = {"MAX": _norm_max, "L1": _norm_l1, "L2": _norm_l2}


@ml_lowering("Normalizer")
def normalizer(node: Node, x: Tensor) -> Tensor:
    """Each row over its greatest element (MAX), or its L1 or L2 norm; a row whose divisor is 0 stays."""
    norm = choice(node, "norm", _NORMS)
    values = rows(node, x)
    scaled = p.elementwise(lambda v, d: expr.select(d.eq(0), v, v / d), values, norm(values))
    return p.reshape(as_float(scaled), x.shape)


@ml_lowering("Imputer")
def imputer(node: Node, x: Tensor) -> Tensor:
    """``x`` with one value, which may be NaN, replaced by another, for all features or for each."""
    kind = "float" if x.dtype.is_float else "int64"
    name, other = f"imputed_value_{kind}s", "imputed_value_int64s" if x.dtype.is_float else "imputed_value_floats"
    values = floats(node, name) if x.dtype.is_float else ints(node, name)
    if not values or node.attr(other):
        raise ModelError(f"{node.label}: an input of {x.dtype} takes {name}, and no {other}")
    replaced = node.attr(f"replaced_value_{kind}", 0)
    _require_fit(node, x.dtype, *values, replaced)
    imputed = per_feature(node, name, values, x, x.dtype)
    missing = (
        (lambda v: expr.alu("isnan", v)) if isinstance(replaced, float) and math.isnan(replaced) else _equals(replaced)
    )
    return p.elementwise(lambda v, new: expr.select(missing(v), new, v), x, imputed)


def _equals(value: float) -> Callable[[Expr], Expr]:
    return lambda v: v.eq(value)


def _require_fit(node: Node, dtype: DType, *values: float) -> None:
    for value in values if dtype.is_int else ():
        if not p.identity("max", dtype) <= value <= p.identity("min", dtype):
            raise ModelError(f"{node.label}: {value} does not fit into {dtype}")


@ml_lowering("FeatureVectorizer")
def feature_vectorizer(node: Node, *inputs: Tensor) -> Tensor:
    """Inputs [N, C] (or [C], one row) joined along C in float; each cut, or filled with zeros, to the number of
    columns that ``inputdimensions`` gives it."""
    parts = [as_float(rows(node, x)) for x in inputs]
    widths: list[Dim] = [x.shape[1] for x in parts]
    if (given := node.attr("inputdimensions")) is not None:
        widths = [*ints(node, "inputdimensions")]
        require_count(node, "inputdimensions", given, len(parts))
        if min(widths, default=0) < 0:
            raise ModelError(f"{node.label}: inputdimensions {list(widths)} with a negative number")
    return p.concat([_to_width(x, w) for x, w in zip(parts, widths, strict=True)], 1)


def _to_width(x: Tensor, width: Dim) -> Tensor:
    if at_most(width, x.shape[1]):
        return p.narrow(x, 1, 0, width)
    return p.pad(x, [0, 0], [0, width - x.shape[1]])


@ml_lowering("OneHotEncoder")
def one_hot_encoder(node: Node, x: Tensor) -> Tensor:
    """[*shape, categories] with a 1 where the element, made a whole number, meets its category.

    An element of no category gives zeros, or with ``zeros=0`` is a fault. (String categories were made numbers by
    `rewrite.string_labels`.)
    """
    categories = ints(node, "cats_int64s")
    if not categories or node.attr("cats_strings"):
        raise ModelError(f"{node.label}: an input of {x.dtype} takes cats_int64s, and no cats_strings")
    count = len(categories)
    number = encoder(categories, INT64, range(count), INT64, -1)
    places = p.elementwise(lambda v: number(expr.cast(v, INT64)), x)
    if not node.attr("zeros", 1):
        places = _checked(places, count)
    return p.map_of([*x.shape, count], lambda *i: expr.cast(places.at(*i[:-1]).eq(i[-1]), FLOAT32))


def _checked(places: Tensor, count: int) -> Tensor:
    """``places``, of which one that is below 0 is a fault."""
    same, fault = table(range(count), INT64), current().fault("an element is of no category")
    return p.elementwise(lambda k: same.at(k, guard=k >= 0, fault=fault), places)
