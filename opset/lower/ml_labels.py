"""LabelEncoder of ai.onnx.ml between numbers. With strings on either side it runs on the host (dispatcher)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from omniop.opset import dtype as dtypes
from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.definitions import Tensor
from omniop.opset.dtype import FLOAT32, INT64, STRING, DType
from omniop.opset.errors import ModelError
from omniop.opset.expr import Expr
from omniop.opset.lower.ml_common import ml_lowering, table
from omniop.opset.lowering import Node, OnHost

_SUFFIXES = {"floats": FLOAT32, "int64s": INT64, "strings": STRING, "tensor": None}
"""How the attributes that hold keys and values end; a tensor has a dtype of its own."""

NEAR, SMALL = 4, 256
"""Whole numbers within a span of NEAR to a key, and SMALL more, are close enough together for a table."""


def encoder(
    keys: Sequence[float | int],
    key_dtype: DType,
    values: Sequence[float | int],
    value_dtype: DType,
    default: float | int,
) -> Callable[[Expr], Expr]:
    """What gives the value of a key, and ``default`` for what is none. Of equal keys the last one counts, and NaN
    equals NaN.

    Whole numbers that lie close together index a table; other keys are found by bisection, log2(K) loads in one
    expression.
    """
    known = dict(zip(np.asarray(keys, key_dtype.numpy).tolist(), values, strict=True))
    of_nan = [v for k, v in known.items() if k != k]
    ordered = sorted(k for k in known if k == k)
    if not ordered:
        found: Callable[[Expr], Expr] = lambda _: expr.const(default, value_dtype)  # noqa: E731
    elif key_dtype.is_int and ordered[-1] - ordered[0] < NEAR * len(ordered) + SMALL:
        found = _by_index(known, ordered[0], ordered[-1] - ordered[0] + 1, value_dtype, default)
    else:
        found = _by_bisection(known, ordered, key_dtype, value_dtype, default)
    if not of_nan:
        return found
    nan = expr.const(of_nan[-1], value_dtype)
    return lambda x: expr.select(expr.alu("isnan", x), nan, found(x))


def _by_index(
    known: Mapping[Any, float | int], least: int, span: int, dtype: DType, default: float | int
) -> Callable[[Expr], Expr]:
    values = table([known.get(least + k, default) for k in range(span)], dtype)

    def found(x: Expr) -> Expr:
        place = expr.index(x) - least
        return values.at(place, guard=(place >= 0) & (place < span), other=expr.const(default, dtype))

    return found


def _by_bisection(
    known: Mapping[Any, float | int], ordered: Sequence[Any], key_dtype: DType, dtype: DType, default: float | int
) -> Callable[[Expr], Expr]:
    keys, values = table(ordered, key_dtype), table([known[k] for k in ordered], dtype)

    def found(x: Expr) -> Expr:
        place = expr.index(0)
        step = 1 << (len(ordered) - 1).bit_length()
        while step := step // 2:
            further = place + step
            inside = further < len(ordered)
            place = expr.select(inside & (keys.at(further, guard=inside) <= x), further, place)
        return values.at(place, guard=keys.at(place).eq(x), other=expr.const(default, dtype))

    return found


def encoding(attributes: Mapping[str, Any], label: str, side: str) -> tuple[list[Any], DType]:
    """The ``keys_*`` or ``values_*`` of a LabelEncoder, and their dtype. Raises ModelError unless there is one."""
    given = {s: attributes[f"{side}_{s}"] for s in _SUFFIXES if attributes.get(f"{side}_{s}") is not None}
    if len(given) != 1:
        found = ", ".join(f"{side}_{s}" for s in given) or "none"
        raise ModelError(
            f"{label}: one of {side}_floats, {side}_int64s, {side}_strings, {side}_tensor is needed: {found}"
        )
    ((suffix, values),) = given.items()
    dtype = _SUFFIXES[suffix]
    if dtype is None:
        return np.asarray(values).reshape(-1).tolist(), dtypes.of_numpy(np.asarray(values).dtype)
    return list(values), dtype


def default_value(attributes: Mapping[str, Any], label: str, dtype: DType) -> Any:
    """What a LabelEncoder gives for a value that is no key. Raises ModelError when the default is of another type."""
    if (tensor := attributes.get("default_tensor")) is not None:
        array = np.asarray(tensor)
        if array.size != 1 or dtypes.of_numpy(array.dtype) is not dtype:
            raise ModelError(f"{label}: default_tensor is {array.dtype} of shape {list(array.shape)}, not one {dtype}")
        return array.reshape(-1).tolist()[0]
    kind = "string" if dtype is STRING else "float" if dtype.is_float else "int64"
    return attributes[f"default_{kind}"]


def pairs(attributes: Mapping[str, Any], label: str) -> tuple[list[Any], DType, list[Any], DType]:
    """(keys, their dtype, values, their dtype) of a LabelEncoder since version 2. Raises ModelError."""
    keys, key_dtype = encoding(attributes, label, "keys")
    values, value_dtype = encoding(attributes, label, "values")
    if len(keys) != len(values):
        raise ModelError(f"{label}: {len(keys)} keys for {len(values)} values")
    return keys, key_dtype, values, value_dtype


@ml_lowering("LabelEncoder")
def label_encoder_of_strings(node: Node, x: Tensor) -> Tensor:
    """Version 1 has strings on one side always."""
    raise OnHost


@ml_lowering("LabelEncoder", since=2)
def label_encoder(node: Node, x: Tensor) -> Tensor:
    """Each element's value by its key, the default where it is no key; the output is of the values' type."""
    keys, key_dtype, values, value_dtype = pairs(node.attributes, node.label)
    if STRING in (key_dtype, value_dtype):
        raise OnHost
    if key_dtype is not x.dtype:
        raise ModelError(f"{node.label}: keys of {key_dtype} for an input of {x.dtype}")
    default = default_value(node.attributes, node.label, value_dtype)
    return p.elementwise(encoder(keys, key_dtype, values, value_dtype, default), x)
