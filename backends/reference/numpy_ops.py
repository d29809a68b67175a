"""The arithmetic of the kernel IR in numpy: the living form of the words in `omniop.opset.alu`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from omniop.backends.array_eval import ArrayOps
from omniop.opset.dtype import DType

Array = np.ndarray
_NARROW = {np.dtype(getattr(ml_dtypes, name)) for name in dir(ml_dtypes) if name.startswith(("float", "bfloat"))}
_NARROW |= {np.dtype(np.float16)}
_TINY_INT = {np.dtype(getattr(ml_dtypes, name)) for name in ("int2", "int4", "uint2", "uint4")}
_erf = np.vectorize(math.erf, otypes=[np.float64])


def _quiet(function: Callable[..., Any]) -> Callable[..., Any]:
    """IEEE results without numpy's warnings; narrow floats computed in float32 and rounded, tiny integers in int8."""

    def call(*args: Any) -> Any:
        dtype = np.asarray(args[0]).dtype
        with np.errstate(all="ignore"):
            if dtype in _NARROW or dtype in _TINY_INT:
                wide = np.float32 if dtype in _NARROW else np.int8
                result = function(*(np.asarray(a).astype(wide) for a in args))
                return result if result.dtype == bool else _wrap(result, dtype)
            return np.asarray(function(*args))

    return call


def _wrap(x: Array, dtype: np.dtype) -> Array:
    if dtype in _TINY_INT:
        bits = 2 if "2" in dtype.name else 4
        low = x.astype(np.int64) & ((1 << bits) - 1)
        signed = not dtype.name.startswith("u")
        return np.where(signed & (low >> (bits - 1) == 1), low - (1 << bits), low).astype(np.int8).astype(dtype)
    return x.astype(dtype)


def _int_div(a: Array, b: Array) -> Array:
    zero = b == 0
    safe = np.where(zero, b.dtype.type(1), b)
    overflow = (safe == -1) & (a == np.iinfo(a.dtype).min) if a.dtype.kind == "i" else np.False_
    safe = np.where(overflow, b.dtype.type(1), safe)
    quotient = a // safe
    if a.dtype.kind == "i":
        quotient = quotient + ((a % safe != 0) & ((a < 0) != (safe < 0))).astype(a.dtype)
    return np.where(zero, a.dtype.type(0), quotient)


def _rem(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return np.fmod(a, b)
    zero = (b == 0) | ((b == -1) if a.dtype.kind == "i" else np.False_)
    return np.where(zero, a.dtype.type(0), np.fmod(a, np.where(zero, b.dtype.type(1), b)))


def _pow(a: Array, b: Array) -> Array:
    if a.dtype.kind == "f":
        return np.power(a, b)
    a, b = np.broadcast_arrays(a, b)
    result, base, left = np.ones_like(a), a.copy(), np.where(b < 0, b.dtype.type(0), b).copy()
    while left.any():
        result = np.where(left & 1, result * base, result)
        base, left = base * base, left >> 1
    if a.dtype.kind == "i":
        odd = np.where(b & 1, a.dtype.type(-1), a.dtype.type(1))
        inverse = np.where(a == 1, a.dtype.type(1), np.where(a == -1, odd, a.dtype.type(0)))
        result = np.where(b < 0, inverse, result)
    return result


def _shift(function: Callable[..., Any], fill_sign: bool) -> Callable[..., Any]:
    def call(a: Array, b: Array) -> Array:
        bits = a.dtype.itemsize * 8
        inside = (b >= 0) & (b < bits)
        beyond = (
            np.where(a < 0, a.dtype.type(-1), a.dtype.type(0)) if fill_sign and a.dtype.kind == "i" else a.dtype.type(0)
        )
        return np.where(inside, function(a, np.where(inside, b, b.dtype.type(0))), beyond)

    return call


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{"neg": np.negative, "abs": np.abs, "floor": np.floor, "ceil": np.ceil, "rint": np.rint, "trunc": np.trunc},
    **{"sqrt": np.sqrt, "exp": np.exp, "log": np.log, "sin": np.sin, "cos": np.cos, "tan": np.tan},
    **{"asin": np.arcsin, "acos": np.arccos, "atan": np.arctan, "sinh": np.sinh, "cosh": np.cosh, "tanh": np.tanh},
    **{"asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh},
    "erf": lambda x: _erf(x).astype(x.dtype) if x.size else x,
    "not": lambda x: np.logical_not(x) if x.dtype == bool else np.invert(x),
    **{"add": np.add, "sub": np.subtract, "mul": np.multiply, "min": np.minimum, "max": np.maximum},
    "div": lambda a, b: np.divide(a, b) if a.dtype.kind == "f" else _int_div(a, b),
    **{"rem": _rem, "pow": _pow, "atan2": np.arctan2},
    "floordiv": lambda a, b: np.floor_divide(a, np.where(b == 0, b.dtype.type(1), b)),
    "floormod": lambda a, b: np.mod(a, np.where(b == 0, b.dtype.type(1), b)),
    **{"and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor},
    **{"shl": _shift(np.left_shift, False), "shr": _shift(np.right_shift, True)},
    **{"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal},
    **{"isnan": np.isnan, "isinf": np.isinf},
}
ALU = {name: _quiet(function) for name, function in _FUNCTIONS.items()}


def cast(x: Array, dtype: DType) -> Array:
    """Truncating and saturating from float to integer (NaN gives 0), wrapping between integers."""
    x = np.asarray(x)
    target = dtype.numpy
    if x.dtype == target:
        return x
    if x.dtype in _NARROW:
        x = x.astype(np.float32)
    if x.dtype in _TINY_INT:
        x = x.astype(np.int8)
    with np.errstate(all="ignore"):
        if dtype.kind == "b":
            return np.asarray(x != 0)
        if dtype.is_int and x.dtype.kind == "f":
            return _saturate(x, dtype)
        if target in _TINY_INT:
            return _wrap(x, target)
        if target in _NARROW and x.dtype.kind != "f":
            x = x.astype(np.float64 if x.dtype.itemsize > 2 else np.float32)
        return np.asarray(x.astype(target))


def _saturate(x: Array, dtype: DType) -> Array:
    low = 0 if dtype.kind == "u" else -(1 << (dtype.bits - 1))
    high = (1 << dtype.bits) - 1 if dtype.kind == "u" else (1 << (dtype.bits - 1)) - 1
    wide = np.dtype(dtype.numpy) if dtype.bits >= 8 else np.dtype(np.int8)
    whole = np.trunc(np.nan_to_num(x, nan=0.0, posinf=np.inf, neginf=-np.inf)).astype(np.float64)
    inside = np.clip(whole, low, float(high) if dtype.bits < 64 else np.nextafter(float(high), 0))
    result = np.where(whole >= float(high), wide.type(high), inside.astype(wide))
    return np.asarray(np.where(whole <= low, wide.type(low), result).astype(dtype.numpy))


_REDUCE = {
    **{"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum},
    **{"and": np.bitwise_and, "or": np.bitwise_or},
}


def reduce(monoid: str, x: Array, dims: tuple[int, ...]) -> Array:
    ufunc = _REDUCE[monoid]
    if x.dtype == bool and monoid in ("min", "max"):
        ufunc = np.logical_and if monoid == "min" else np.logical_or
    with np.errstate(all="ignore"):
        return np.asarray(ufunc.reduce(x, axis=dims, keepdims=True, dtype=x.dtype))


def arg_reduce(monoid: str, value: Array, index: Array, dims: tuple[int, ...]) -> Array:
    """The least index among the best values; NaN is best of all."""
    value, index = np.broadcast_arrays(value, index)
    if value.dtype in _NARROW or value.dtype in _TINY_INT:
        value = value.astype(np.float32)
    best = (np.max if monoid == "argmax" else np.min)(value, axis=dims, keepdims=True)
    with np.errstate(all="ignore"):
        hit = (value == best) | ((value != value) & (best != best))
    return np.asarray(np.min(np.where(hit, index, np.iinfo(index.dtype).max), axis=dims, keepdims=True))


def strided(flat: Array, offset: int, shape: Sequence[int], strides: Sequence[int]) -> Array:
    """A view by numpy's own constructor: as_strided knows no dtypes of ml_dtypes, and costs more."""
    size = flat.itemsize
    return np.ndarray(shape, flat.dtype, flat.view(f"u{size}"), offset * size, [s * size for s in strides])


def _assign(view: Array, values: Array) -> None:
    view[...] = values


def _put(flat: Array, offsets: Array, values: Array) -> None:
    flat[offsets] = values


def _combine(name: str, flat: Array, offsets: Array, values: Array) -> None:
    with np.errstate(all="ignore"):
        if flat.dtype in _NARROW:
            for place, value in zip(offsets.reshape(-1), values.reshape(-1), strict=True):
                flat[place] = ALU[name](flat[place : place + 1], np.asarray(value).reshape(1))[0]
        else:
            _REDUCE[name].at(flat, offsets, values)


NUMPY = ArrayOps(
    alu=ALU,
    cast=cast,
    bitcast=lambda x, dtype: np.ascontiguousarray(x).view(dtype.numpy).reshape(np.shape(x)),
    select=np.where,
    reduce=reduce,
    arg_reduce=arg_reduce,
    take=lambda flat, offsets: flat[offsets],
    put=_put,
    combine=_combine,
    strided=strided,
    assign=_assign,
    arange=lambda n: np.arange(n, dtype=np.int64),
    full=lambda value, dtype: np.asarray(value).astype(dtype.numpy),
    reshape=np.reshape,
    broadcast=np.broadcast_to,
    any=lambda x: bool(np.any(x)),
)
