"""What `omniop.opset.alu` says of each operation, in Python's exact integers and numpy's wide floats."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from omniop.opset.alu import ALU
from omniop.opset.dtype import DType

Array = np.ndarray


def edges(dtype: DType) -> Array:
    """Where operations of a dtype go wrong: ends of its range, zeros of both signs, NaN, halves, its width."""
    if dtype.kind == "b":
        return np.array([False, True])
    if dtype.is_int:
        low, high = integer_range(dtype)
        values = {low, low + 1, high, high - 1, high // 2, *range(10), dtype.bits, dtype.bits - 1, 37}
        values |= {-v for v in (1, 2, 3, 7, dtype.bits)}
        return np.array(sorted(v for v in values if low <= v <= high), np.int64 if low else np.uint64).astype(
            dtype.numpy
        )
    limits = float_limits(dtype)
    sizes = [0.0, float(limits.smallest_subnormal), float(limits.tiny), 0.1, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]
    sizes += [size for size in (1e6, 2.0**31, 2.0**63) if size < float(limits.max)] + [float(limits.max)]
    signed = [math.nan, *(sign * size for size in (*sizes, math.inf) for sign in (1, -1))]
    with np.errstate(all="ignore"):
        return np.array(signed).astype(dtype.numpy)


def pairs(dtype: DType) -> tuple[Array, Array]:
    """Each edge with each."""
    values = edges(dtype)
    return np.repeat(values, len(values)), np.tile(values, len(values))


def operations(dtype: DType) -> list[str]:
    """The names of the operations that take a dtype."""
    return [name for name, op in ALU.items() if dtype.kind in op.kinds]


def expected(name: str, dtype: DType, operands: Sequence[Array]) -> Array:
    """What an operation gives, rounded once to its result's dtype."""
    if dtype.kind == "b":
        return _BOOL[name](*operands)
    if dtype.is_int:
        return _integers(name, dtype, operands)
    # What IEEE 754 rounds, float64 rounds; and powl errs at (-inf) ** -(2 ** 63).
    own = ALU[name].cost < 16 or name == "pow"
    found = _apply(name, operands, np.float64) if own else exact(name, dtype, operands)
    return found if ALU[name].result == "bool" else rounded(found, dtype)


def exact(name: str, dtype: DType, operands: Sequence[Array]) -> Array:
    """A float operation in a wider dtype: float64, or long double where that is the dtype itself."""
    return _apply(name, operands, np.longdouble if dtype.bits == 64 else np.float64)


def _apply(name: str, operands: Sequence[Array], wide: type[np.floating[Any]]) -> Array:
    with np.errstate(all="ignore"):
        if name == "erf":
            return np.vectorize(math.erf, otypes=[np.float64])(operands[0].astype(np.float64))
        function: Callable[..., Any] = getattr(np, _NUMPY.get(name, name))
        return np.asarray(function(*(operand.astype(wide) for operand in operands)))


def rounded(values: Array, dtype: DType) -> Array:
    """To a float dtype; narrow ones by way of float32, which has twice their digits and two more."""
    with np.errstate(all="ignore"):
        return (values.astype(np.float32) if dtype.bits < 32 else values).astype(dtype.numpy)


def cast(values: Array, source: DType, target: DType) -> Array:
    """A cast: floats to integers truncate and saturate, integers wrap, floats round to nearest even."""
    if target.kind == "b":
        return np.asarray(values.astype(np.float64) != 0 if source.is_float else values.astype(np.int64) != 0)
    if target.is_int:
        low, high = integer_range(target)
        if source.is_float:
            return _array([_saturated(float(v), low, high) for v in values], target)
        return _array([_wrapped(int(v), target) for v in values], target)
    with np.errstate(all="ignore"):
        if source.is_float and source.bits < 32:
            values = values.astype(np.float32)
        if target.bits < 16 and (values.dtype == np.float64 or source.bits < 8):
            values = values.astype(np.float32)
        return values.astype(target.numpy)


def integer_range(dtype: DType) -> tuple[int, int]:
    """Of an integer dtype, of less than a byte too."""
    if dtype.kind == "u":
        return 0, (1 << dtype.bits) - 1
    return -(1 << (dtype.bits - 1)), (1 << (dtype.bits - 1)) - 1


def float_limits(dtype: DType) -> Any:
    """numpy's finfo, of ml_dtypes' floats too."""
    import ml_dtypes

    return ml_dtypes.finfo(dtype.numpy)  # type: ignore[no-untyped-call]


# -- integers ----------------------------------------------------------------------------------------------------------


def truncated(a: int, b: int) -> int:
    """Division towards zero; by zero, zero."""
    return 0 if b == 0 else int(math.copysign(1, a) * math.copysign(1, b)) * (abs(a) // abs(b))


def _power(a: int, b: int) -> int:
    return pow(a, b, 1 << 64) if b >= 0 else {1: 1, -1: -1 if b % 2 else 1}.get(a, 0)


_INTEGER: Mapping[str, Callable[[int, int, int], int | bool]] = {
    "neg": lambda a, b, bits: -a,
    "abs": lambda a, b, bits: abs(a),
    "not": lambda a, b, bits: ~a,
    "add": lambda a, b, bits: a + b,
    "sub": lambda a, b, bits: a - b,
    "mul": lambda a, b, bits: a * b,
    "min": lambda a, b, bits: min(a, b),
    "max": lambda a, b, bits: max(a, b),
    "div": lambda a, b, bits: truncated(a, b),
    "rem": lambda a, b, bits: 0 if b == 0 else a - b * truncated(a, b),
    "floordiv": lambda a, b, bits: 0 if b == 0 else a // b,
    "floormod": lambda a, b, bits: 0 if b == 0 else a % b,
    "pow": lambda a, b, bits: _power(a, b),
    "and": lambda a, b, bits: a & b,
    "or": lambda a, b, bits: a | b,
    "xor": lambda a, b, bits: a ^ b,
    "shl": lambda a, b, bits: a << b if 0 <= b < bits else 0,
    "shr": lambda a, b, bits: a >> b if 0 <= b < bits else -1 if a < 0 else 0,
    "eq": lambda a, b, bits: a == b,
    "ne": lambda a, b, bits: a != b,
    "lt": lambda a, b, bits: a < b,
    "le": lambda a, b, bits: a <= b,
}


def _integers(name: str, dtype: DType, operands: Sequence[Array]) -> Array:
    function = _INTEGER[name]
    left, right = operands[0], operands[-1]
    found = [function(int(a), int(b), dtype.bits) for a, b in zip(left, right, strict=True)]
    if ALU[name].result == "bool":
        return np.array(found)
    return _array([_wrapped(value, dtype) for value in found], dtype)


def _wrapped(value: int, dtype: DType) -> int:
    low, _ = integer_range(dtype)
    return (value - low) % (1 << dtype.bits) + low


def _saturated(value: float, low: int, high: int) -> int:
    if math.isnan(value):
        return 0
    if math.isinf(value):
        return low if value < 0 else high
    return max(low, min(high, math.trunc(value)))


def _array(values: Sequence[int], dtype: DType) -> Array:
    return np.array(values, np.int64 if integer_range(dtype)[0] else np.uint64).astype(dtype.numpy)


# -- numpy's names -----------------------------------------------------------------------------------------------------

_NUMPY: Mapping[str, str] = {
    **{"abs": "abs", "neg": "negative", "sub": "subtract", "mul": "multiply", "div": "divide", "rem": "fmod"},
    **{"min": "minimum", "max": "maximum", "eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal"},
    **{name: f"arc{name[1:]}" for name in ("asin", "acos", "atan", "asinh", "acosh", "atanh", "atan2")},
    **{"pow": "power"},
}

_BOOL: Mapping[str, Callable[..., Any]] = {
    **{"and": np.logical_and, "or": np.logical_or, "xor": np.logical_xor, "not": np.logical_not},
    **{"min": np.logical_and, "max": np.logical_or, "eq": np.equal, "ne": np.not_equal},
    **{"lt": np.less, "le": np.less_equal},
}
