"""Conversions between float32 and the narrow floats, written in expressions on their bits.

For devices that cannot load, store or round a narrow float themselves. Results are those of ml_dtypes (and numpy for
float16), whatever a device does with subnormal numbers of the narrow type.
"""

from __future__ import annotations

from dataclasses import dataclass

from omniop.opset import dtype as dtypes
from omniop.opset import expr
from omniop.opset.dtype import FLOAT32, FLOAT64, INT32, UINT32, DType
from omniop.opset.expr import Expr

_MANTISSA, _BIAS = 23, 127  # of float32
_INFINITY, _NAN, _MAGNITUDE = 0x7F800000, 0x7FC00000, 0x7FFFFFFF


@dataclass(frozen=True)
class Format:
    """A sign bit, ``exponent`` bits, ``mantissa`` bits. The codes are of magnitudes, without the sign.

    ``largest`` is the largest finite number, ``overflow`` what is beyond it (and infinity) becomes, ``nan`` NaN's code.
    ``sign`` is False where 0 has no negative, and its code with the sign bit is the only NaN.
    """

    exponent: int
    mantissa: int
    bias: int
    largest: int
    overflow: int
    nan: int
    sign: bool = True

    @property
    def bits(self) -> int:
        return 1 + self.exponent + self.mantissa

    @property
    def infinite(self) -> bool:
        """Codes from ``overflow`` on are infinity and NaNs, as in IEEE 754."""
        return self.overflow == self.largest + 1 and self.overflow != self.nan


# bfloat16 and float8_e8m0fnu are parts of a float32 and have rules of their own.
FORMATS: dict[DType, Format] = {
    dtypes.FLOAT16: Format(5, 10, 15, 0x7BFF, 0x7C00, 0x7E00),
    dtypes.FLOAT8E4M3FN: Format(4, 3, 7, 0x7E, 0x7F, 0x7F),
    dtypes.FLOAT8E4M3FNUZ: Format(4, 3, 8, 0x7F, 0x80, 0x80, sign=False),
    dtypes.FLOAT8E5M2: Format(5, 2, 15, 0x7B, 0x7C, 0x7E),
    dtypes.FLOAT8E5M2FNUZ: Format(5, 2, 16, 0x7F, 0x80, 0x80, sign=False),
    # Neither infinity nor NaN: what overflows is the largest, NaN is the zero of the other sign.
    dtypes.FLOAT6E2M3: Format(2, 3, 1, 0x1F, 0x1F, 0x20),
    dtypes.FLOAT6E3M2: Format(3, 2, 3, 0x1F, 0x1F, 0x20),
    dtypes.FLOAT4E2M1: Format(2, 1, 1, 0x7, 0x7, 0x8),
}


def encode(x: Expr, dtype: DType) -> Expr:
    """The code (uint32) of float32 ``x`` rounded to ``dtype``, to nearest even; overflow and NaN are the type's own."""
    bits = expr.bitcast(x, UINT32)
    if dtype is dtypes.FLOAT8E8M0:
        return _encode_e8m0(bits)
    magnitude = bits & _MAGNITUDE
    if dtype is dtypes.BFLOAT16:  # the upper half of a float32: an overflow runs into infinity by itself
        odd = expr.binary("shr", bits, 16) & 1
        rounded = expr.binary("shr", bits + (odd + 0x7FFF), 16)
        return expr.select(magnitude <= _INFINITY, rounded, expr.binary("shr", bits, 16) | 0x40)
    form = FORMATS[dtype]
    shift = _MANTISSA - form.mantissa
    odd = expr.binary("shr", magnitude, shift) & 1
    rounded = expr.binary("shr", magnitude + (odd + ((1 << (shift - 1)) - 1)), shift)
    code = rounded - ((_BIAS - form.bias) << form.mantissa)
    # Subnormal: adding a number whose last bit is worth the least step rounds the sum to that step.
    exponent = _MANTISSA + 1 - form.bias - form.mantissa
    step = expr.bitcast(magnitude, FLOAT32) + 2.0**exponent
    small = expr.bitcast(step, UINT32) - ((_BIAS + exponent) << _MANTISSA)
    code = expr.select(magnitude < ((_BIAS + 1 - form.bias) << _MANTISSA), small, code)
    code = expr.select(code <= form.largest, code, form.overflow)
    top = form.bits - 1
    sign = expr.binary("shl", expr.binary("shr", bits, 31), top)
    if form.sign:
        return expr.select(magnitude <= _INFINITY, code | sign, sign ^ form.nan)
    code = expr.select(code - 1 < (1 << top) - 1, code | sign, code)
    return expr.select(magnitude <= _INFINITY, code, form.nan)


def decode(code: Expr, dtype: DType) -> Expr:
    """The float32 value of a ``code`` (uint32, no bits above the type's)."""
    if dtype is dtypes.FLOAT8E8M0:
        return _decode_e8m0(code)
    if dtype is dtypes.BFLOAT16:
        return expr.bitcast(expr.binary("shl", code, 16), FLOAT32)
    form = FORMATS[dtype]
    top = form.bits - 1
    magnitude = code & ((1 << top) - 1)
    shifted = expr.binary("shl", magnitude, _MANTISSA - form.mantissa)
    small = expr.cast(magnitude, FLOAT32) * 2.0 ** (1 - form.bias - form.mantissa)
    bits = shifted + ((_BIAS - form.bias) << _MANTISSA)
    bits = expr.select(magnitude < (1 << form.mantissa), expr.bitcast(small, UINT32), bits)
    if form.infinite:
        beyond = shifted + ((255 - ((1 << form.exponent) - 1)) << _MANTISSA)
        bits = expr.select(magnitude < form.overflow, bits, beyond)
    elif form.sign and form.nan < 1 << top:
        bits = expr.select(magnitude.eq(form.nan), _NAN, bits)
    bits = bits | expr.binary("shl", expr.binary("shr", code, top), 31)
    if not form.sign:
        bits = expr.select(code.eq(form.nan), _NAN, bits)
    return expr.bitcast(bits, FLOAT32)


def _encode_e8m0(bits: Expr) -> Expr:
    """An exponent alone; halves go up, and whatever is between the two least numbers. Zero and below are NaN."""
    half = 1 << (_MANTISSA - 1)
    code = expr.select(bits <= half, 0, expr.binary("shr", bits + half, _MANTISSA))
    return expr.select(bits - 1 < _INFINITY - 1, code, 0xFF)


def _decode_e8m0(code: Expr) -> Expr:
    bits = expr.select(code.eq(0), 1 << (_MANTISSA - 1), expr.binary("shl", code, _MANTISSA))
    return expr.bitcast(expr.select(code.eq(0xFF), _NAN, bits), FLOAT32)


def narrow_double(x: Expr) -> Expr:
    """float64 to float32, rounded to odd: rounding that to fewer bits gives what rounding ``x`` itself would."""
    near = expr.cast(x, FLOAT32)
    back = expr.cast(near, FLOAT64)
    bits = expr.bitcast(near, UINT32)
    inexact_even = expr.alu("and", back.ne(x), (bits & 1).eq(0))
    outward = expr.alu("abs", back) < expr.alu("abs", x)
    moved = bits + expr.select(outward, expr.const(1, UINT32), expr.const(-1, UINT32))
    return expr.bitcast(expr.select(inexact_even, moved, bits), FLOAT32)


def wrap_integer(x: Expr, dtype: DType) -> Expr:
    """``x``, held in 8 bits, wrapped into the 2- or 4-bit integer ``dtype``."""
    if dtype.kind == "u":
        return x & ((1 << dtype.bits) - 1)
    return expr.binary("shr", expr.binary("shl", x, 8 - dtype.bits), 8 - dtype.bits)


def saturate_integer(x: Expr, dtype: DType) -> Expr:
    """Float ``x`` clamped to what the integer ``dtype`` holds, and truncated to int32; NaN gives 0."""
    low = -(1 << (dtype.bits - 1)) if dtype.kind == "i" else 0
    high = low + (1 << dtype.bits) - 1
    return expr.cast(expr.minimum(expr.maximum(x, float(low)), float(high)), INT32)
