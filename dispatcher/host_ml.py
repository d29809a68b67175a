"""Ops of ai.onnx.ml on the host: maps, which are Python dicts, and strings.

A map's keys are ints or strs, its values floats, ints or strs. What these ops give is what onnxruntime gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from omniop.dispatcher.host_ops import HOST_FORMS, HOST_OPS, HostOp
from omniop.dispatcher.values import RuntimeValue, to_host
from omniop.opset.errors import ExecutionError, ModelError
from omniop.opset.lower.ml_common import ML
from omniop.opset.lower.ml_labels import default_value, pairs

if TYPE_CHECKING:
    from omniop.dispatcher.graph import NodeInfo

Simple = Callable[["NodeInfo", Any], RuntimeValue]
"""Of the first input on the host, to the only output."""


def _register(table: dict[tuple[str, str], HostOp], name: str) -> Callable[[Simple], Simple]:
    def register(function: Simple) -> Simple:
        def run(runner: Any, info: NodeInfo, inputs: Sequence[RuntimeValue], env: Any, report: Any) -> list[Any]:
            return [function(info, to_host(inputs[0]))]

        table[ML, name] = run
        return function

    return register


def _one(info: NodeInfo, *names: str) -> Sequence[Any]:
    """The one of several attributes that is there. Raises ModelError."""
    given = [info.attributes[n] for n in names if info.attributes.get(n)]
    if len(given) != 1:
        raise ModelError(f"{info.label}: one of {', '.join(names)} is needed, and {len(given)} are there")
    return given[0]


# Maps -----------------------------------------------------------------------------------------------------------------


@_register(HOST_OPS, "ZipMap")
def zip_map(info: NodeInfo, x: np.ndarray) -> list[dict[Any, float]]:
    """[N, E], or [E] for one row, to N maps from labels to scores."""
    labels = _one(info, "classlabels_int64s", "classlabels_strings")
    if x.ndim not in (1, 2) or x.shape[-1] != len(labels):
        raise ModelError(f"{info.label}: scores of shape {list(x.shape)} for {len(labels)} class labels")
    return [dict(zip(labels, row, strict=True)) for row in np.atleast_2d(x).tolist()]


def _maps(info: NodeInfo, value: Any) -> list[Mapping[Any, Any]]:
    """A map, or a sequence of them."""
    found = value if isinstance(value, list) else [value]
    if not all(isinstance(m, Mapping) for m in found):
        raise ExecutionError(f"{info.label}: a map is needed")
    return found


def _typed(values: Sequence[Sequence[Any]], sample: Any) -> np.ndarray:
    """Rows of a map's values as an array: strings, int64, double for numpy's own, else float."""
    if isinstance(sample, str):
        return np.array(values, object)
    if isinstance(sample, int | np.integer):
        return np.array(values, np.int64)
    return np.array(values, np.float64 if isinstance(sample, np.float64) else np.float32)


@_register(HOST_OPS, "DictVectorizer")
def dict_vectorizer(info: NodeInfo, value: Any) -> np.ndarray:
    """[1, vocabulary] of a map, a row for each of several; 0, or "", for a key that it lacks.

    Raises ExecutionError for a key that the vocabulary lacks.
    """
    vocabulary = _one(info, "int64_vocabulary", "string_vocabulary")
    maps = _maps(info, value)
    known = set(vocabulary)
    strange = next((k for m in maps for k in m if k not in known), None)
    if strange is not None:
        raise ExecutionError(f"{info.label}: the key {strange!r} is not in the vocabulary")
    sample = next((v for m in maps for v in m.values()), 0.0)
    nothing: Any = "" if isinstance(sample, str) else 0
    return _typed([[m.get(k, nothing) for k in vocabulary] for m in maps], sample)


_CASTS: dict[str, Callable[[list[Any]], np.ndarray]] = {
    "TO_FLOAT": lambda values: np.array([float(v) for v in values], np.float32),
    "TO_INT64": lambda values: np.array([int(float(v)) for v in values], np.int64),
    "TO_STRING": lambda values: np.array([v if isinstance(v, str) else f"{v:f}" for v in values], object),
}


@_register(HOST_OPS, "CastMap")
def cast_map(info: NodeInfo, value: Any) -> np.ndarray:
    """[1, count] of a map's values by ascending key, or [1, max_map] with each at its key and 0 elsewhere."""
    cast_to, form = info.attributes["cast_to"], info.attributes["map_form"]
    if cast_to not in _CASTS or form not in ("DENSE", "SPARSE"):
        raise ModelError(
            f"{info.label}: cast_to {cast_to!r} and map_form {form!r}; known are {', '.join(_CASTS)}, DENSE, SPARSE"
        )
    (items,) = (sorted(m.items()) for m in _maps(info, value))
    values = [v for _, v in items]
    if form == "SPARSE":
        length = info.attributes["max_map"]
        strange = next((k for k, _ in items if not 0 <= k < length), None)
        if strange is not None:
            raise ExecutionError(f"{info.label}: the key {strange} is outside of 0..{length - 1} (max_map)")
        filled: dict[int, Any] = dict(items)
        nothing: Any = "0" if cast_to == "TO_STRING" else 0
        values = [filled.get(k, nothing) for k in range(length)]
    try:
        return _CASTS[cast_to](values)[None]
    except ValueError as error:
        raise ExecutionError(f"{info.label}: {error}") from None


# Strings --------------------------------------------------------------------------------------------------------------


def _encoded(x: np.ndarray, known: Mapping[Any, Any], default: Any, dtype: np.dtype) -> np.ndarray:
    result = np.empty(x.size, dtype)
    result[:] = [known.get(v, default) for v in x.reshape(-1).tolist()]
    return result.reshape(x.shape)


def _by_direction(info: NodeInfo, x: np.ndarray, strings: Sequence[str], integers: Sequence[int]) -> np.ndarray:
    """Strings to integers, or integers to strings, whichever the input asks for."""
    if len(strings) != len(integers):
        raise ModelError(f"{info.label}: {len(integers)} integers for {len(strings)} strings")
    if x.dtype == object:
        known: Mapping[Any, Any] = dict(zip(strings, integers, strict=True))
        return _encoded(x, known, info.attributes["default_int64"], np.dtype(np.int64))
    known = dict(zip(integers, strings, strict=True))
    return _encoded(x, known, info.attributes["default_string"], np.dtype(object))


@_register(HOST_OPS, "CategoryMapper")
def category_mapper(info: NodeInfo, x: np.ndarray) -> np.ndarray:
    return _by_direction(info, x, info.attributes.get("cats_strings") or (), info.attributes.get("cats_int64s") or ())


@_register(HOST_FORMS, "LabelEncoder")
def label_encoder(info: NodeInfo, x: np.ndarray) -> np.ndarray:
    """Version 1 counts the classes from 0; since version 2 there are keys and values of any types. NaN equals NaN."""
    if info.since < 2:
        classes = info.attributes.get("classes_strings") or ()
        return _by_direction(info, x, classes, range(len(classes)))
    keys, key_dtype, values, value_dtype = pairs(info.attributes, info.label)
    if x.dtype != key_dtype.numpy:
        raise ModelError(f"{info.label}: keys of {key_dtype} for an input of {x.dtype}")
    default = default_value(info.attributes, info.label, value_dtype)
    known = dict(zip(np.array(keys, key_dtype.numpy).tolist(), values, strict=True))
    result = _encoded(x, known, default, value_dtype.numpy)
    nan = [v for k, v in known.items() if isinstance(k, float) and k != k]
    if nan:
        result[np.isnan(x)] = nan[-1]
    return result


@_register(HOST_FORMS, "OneHotEncoder")
def one_hot_of_strings(info: NodeInfo, x: np.ndarray) -> np.ndarray:
    """Refused: an encoder with string categories was rewritten into a CategoryMapper and one of integers."""
    raise ModelError(f"{info.label}: the input holds strings, and cats_int64s are categories of numbers")


def _array_feature_extractor(
    runner: Any, info: NodeInfo, inputs: Sequence[RuntimeValue], env: Any, report: Any
) -> list[Any]:
    """Of strings; as the lowering does it for numbers."""
    x, places = (to_host(v) for v in inputs)
    places = places.reshape(-1)
    if not x.ndim or ((places < 0) | (places >= x.shape[-1])).any():
        raise ExecutionError(f"{info.label}: an index is outside of the last axis of shape {list(x.shape)}")
    return [np.atleast_2d(x[..., places])]


HOST_FORMS[ML, "ArrayFeatureExtractor"] = _array_feature_extractor
