"""Is an output what was expected? Values, dtypes and shapes are compared, and the answer is a reason or None.

Beside the answer, `error_of` measures how far off an output is at worst.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from omniop.conformance.tolerance import Tolerance
from omniop.conformance.verdict import Error


def compare(actual: Any, expected: Any, tolerance: Tolerance) -> str | None:
    """Why ``actual`` is not ``expected``, or None where it is.

    Arrays (0-d ones and numpy scalars too) must have the expected dtype and shape. Booleans, integers of any width and
    strings must be equal; floats must be as near as ``tolerance`` says, NaN is equal to NaN, and an infinity only to
    itself. Sequences are lists, optionals are the value
    or None, maps are dicts; they are compared element by element.
    """
    if expected is None:
        return None if actual is None else f"{_kind(actual)}, expected None"
    if isinstance(expected, list | tuple):
        return _compare_lists(actual, expected, tolerance)
    if isinstance(expected, Mapping):
        return _compare_maps(actual, expected, tolerance)
    if isinstance(expected, str | int | float) and type(actual) is type(expected):
        return _compare_arrays(np.asarray(actual), np.asarray(expected), tolerance)  # a map's value
    return _compare_arrays(actual, np.asarray(expected), tolerance)


def compare_outputs(actual: Mapping[str, Any], expected: Mapping[str, Any], tolerance: Tolerance) -> str | None:
    """Compare a run's outputs by name; an output that is missing is a reason, one more than expected is not."""
    for name, value in expected.items():
        if name not in actual:
            return f"output {name!r} is missing; there are {', '.join(actual) or 'none'}"
        if reason := compare(actual[name], value, tolerance):
            return f"output {name!r}: {reason}"
    return None


def _compare_lists(actual: Any, expected: list[Any] | tuple[Any, ...], tolerance: Tolerance) -> str | None:
    if not isinstance(actual, list | tuple):
        return f"{_kind(actual)}, expected a list"
    if len(actual) != len(expected):
        return f"{len(actual)} elements, expected {len(expected)}"
    for i, (one, other) in enumerate(zip(actual, expected, strict=True)):
        if reason := compare(one, other, tolerance):
            return f"element {i}: {reason}"
    return None


def _compare_maps(actual: Any, expected: Mapping[Any, Any], tolerance: Tolerance) -> str | None:
    if not isinstance(actual, Mapping):
        return f"{_kind(actual)}, expected a dict"
    if set(actual) != set(expected):
        return f"keys {sorted(actual)}, expected {sorted(expected)}"
    for key, value in expected.items():
        if reason := compare(actual[key], value, tolerance):
            return f"key {key!r}: {reason}"
    return None


def _compare_arrays(actual: Any, expected: np.ndarray, tolerance: Tolerance) -> str | None:
    if not isinstance(actual, np.ndarray | np.generic):
        return f"{_kind(actual)}, expected an array"
    actual = np.asarray(actual)
    if actual.dtype != expected.dtype:
        return f"dtype {actual.dtype.name}, expected {expected.dtype.name}"
    if actual.shape != expected.shape:
        return f"shape {list(actual.shape)}, expected {list(expected.shape)}"
    if expected.dtype.kind == "c":
        halves = ((actual.real, expected.real), (actual.imag, expected.imag))
        return next((reason for one, other in halves if (reason := _compare_arrays(one, other, tolerance))), None)
    if not _is_float(expected.dtype):
        return _describe(actual, expected, np.asarray(actual == expected), "")
    return _describe(actual, expected, *tolerance.near(actual, expected))


def _is_float(dtype: np.dtype[Any]) -> bool:
    # The narrow floats of ml_dtypes (bfloat16, float8_e4m3fn, float4_e2m1fn, ...) are no numpy kind "f": go by name.
    return dtype.name.startswith(("float", "bfloat"))


def _describe(actual: np.ndarray, expected: np.ndarray, equal: np.ndarray, tolerance: str) -> str | None:
    """None where all is equal, else how many are not, and the first of them."""
    if equal.all():
        return None
    wrong = np.argwhere(~equal)
    index = tuple(int(i) for i in wrong[0])
    where = f" at {list(index)}" if index else ""
    pair = f"{actual[index]!s}, expected {expected[index]!s}"
    return f"{len(wrong)} of {expected.size} values differ, first{where}: {pair}{tolerance}"


# -- how far off -----------------------------------------------------------------------------------------------------


def error_of(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> Error | None:
    """The worst error of a run's float outputs, over the values that are finite on both sides; None without any.
    Nothing is relative to 0."""
    pairs = (pair for name, value in expected.items() for pair in _float_pairs(actual.get(name), value))
    found = [error for one, other in pairs if (error := _array_error(one, other))]
    if not found:
        return None
    return Error(max(e.absolute for e in found), max(e.relative for e in found), max(e.ulp for e in found))


def _float_pairs(actual: Any, expected: Any) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Float arrays of the same dtype and shape, wherever they are inside of lists."""
    if isinstance(expected, list | tuple) and isinstance(actual, list | tuple):
        for one, other in zip(actual, expected, strict=False):
            yield from _float_pairs(one, other)
    elif isinstance(expected, np.ndarray | np.generic) and isinstance(actual, np.ndarray | np.generic):
        one, other = np.asarray(actual), np.asarray(expected)
        if one.dtype == other.dtype and one.shape == other.shape and _is_float(one.dtype):
            yield one, other


def _array_error(actual: np.ndarray, expected: np.ndarray) -> Error | None:
    one, other = actual.astype(np.float64).reshape(-1), expected.astype(np.float64).reshape(-1)
    finite = np.isfinite(one) & np.isfinite(other)
    if not finite.any():
        return None
    distance = np.abs(one - other)[finite]
    with np.errstate(all="ignore"):
        relative = np.where(other[finite] == 0, 0.0, distance / np.abs(other[finite]))
    steps = _steps(_ordinal(actual)[finite], _ordinal(expected)[finite])
    return Error(float(distance.max()), float(relative.max()), float(steps.max()))


def _steps(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Exact on one side of zero; across it, where a difference may not fit, the sum of both distances from it."""
    wide, far = one.astype(np.int64), other.astype(np.int64)
    across = np.abs(one.astype(np.float64)) + np.abs(other.astype(np.float64))
    return np.where((wide < 0) == (far < 0), np.abs(wide - far).astype(np.float64), across)


def _ordinal(values: np.ndarray) -> np.ndarray:
    """Each float's place in the order of its dtype, both zeros at 0: a step is a unit in the last place."""
    flat = np.ascontiguousarray(values).reshape(-1)
    if values.dtype.name == "float8_e8m0fnu":
        return flat.view(np.uint8)  # it has no sign
    if values.dtype.name.startswith(("float4_", "float6_")):  # one to a byte, the sign above the rest
        code, sign = flat.view(np.uint8), 8 if values.dtype.name.startswith("float4_") else 32
        return np.where(code & sign, -(code & (sign - 1)).astype(np.int8), code.astype(np.int8))
    bits = flat.view(f"i{flat.itemsize}")
    return np.where(bits < 0, np.iinfo(bits.dtype).min - bits, bits)


def _kind(value: Any) -> str:
    """What a value is, with its article."""
    if value is None:
        return "None"
    return "an array" if isinstance(value, np.ndarray | np.generic) else f"a {type(value).__name__}"
