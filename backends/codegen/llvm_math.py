"""Elementary functions in LLVM IR: float32 in vectors, the rest by the C library for one lane after another.

The polynomials are minimax fits of our own (Remez exchange in 40 digits; the rational one for erf by reweighted least
squares), written with the relative error of each in exact arithmetic. Errors over all of float32 stay below OpenCL's
full-profile limits: measured ULP are in ``tests/backends/codegen/test_llvm_math.py``. Every function is right for
NaN, infinities, signed zeros and subnormal numbers.

Fused multiply-add is used here and nowhere else: it is part of these algorithms and not a contraction of user
arithmetic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from omniop.backends.codegen.llvm_ir import Code, Value, const, constant_of
from omniop.opset.dtype import FLOAT32, FLOAT64, INT32, INT64

_C_NAMES = ("asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh")
FUNCTIONS = ("exp", "log", "sin", "cos", "tan", "tanh", "erf", *_C_NAMES)
"""The functions of one argument."""

_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 0.693145751953125, 1.4286068203094173e-06  # the high part has 16 bits: n * high is exact
_ROUND_32 = 1.5 * 2.0**23  # adding it leaves the nearest integer in the low bits, also for NaN, with no conversion
_ROUND_64 = 1.5 * 2.0**52

_EXP = (
    *(1.0, 1.0, 0.4999999207499271, 0.16666420072125315),
    *(0.04166822618929449, 0.008374824050589383, 0.0013836835742475305),
)
"""exp(r), |r| <= ln(2) / 2: 2e-9."""
_EXP2_FEW = (1.0, 0.6931241932252254, 0.24024098617787068, 0.055906426208857385, 0.009582853219938374)
"""2**f, |f| <= 1/2: 3e-6."""
_LOG = (
    *(0.33333331707836744, -0.25000821032067394, 0.20001226862979288, -0.16623357410258688),
    *(0.14201758352169613, -0.13160182162950032, 0.12761574549582455, -0.07634493986312678),
)
"""(log(1 + f) - f + f*f/2) / f**3, 1 + f in [sqrt(1/2), sqrt(2)]: 6e-9 of the logarithm."""
_TANH = (
    *(-0.33333331720782744, 0.1333324537112372, -0.05395216696245857),
    *(0.021732721295479464, -0.008262745268736469, 0.002226974713035008),
)
"""(tanh(x) / x - 1) / x**2 over x**2, x <= 0.6: 1e-10."""
_ERF_TOP = (
    *(1.1283791457889498, 0.19059182910226793, 0.05276901540241643),
    *(0.0037724611218355486, 0.00028484052798785663, 2.046028387273285e-06),
)
_ERF_BOTTOM = (
    *(1.0, 0.5022403415904592, 0.11418190047626817),
    *(0.014983018660055568, 0.0011638344210645397, 3.804762935491217e-05),
)
"""erf(x) / x over x**2, |x| <= 3.925, where erf rounds to 1: 2e-8. By 3.97 it has risen above 1, and is cut off."""
_SIN = (-0.166666666405882, 0.008333329280524692, -0.0001983930441557159, 2.718046472320149e-06)
"""(sin(r) / r - 1) / r**2 over r**2, |r| <= pi / 4: 5e-12."""
_COS = (0.04166666661910657, -0.0013888883467240846, 2.4799451546961834e-05, -2.7205046081259384e-07)
"""(cos(r) - 1 + r*r/2) / r**4 over r**2: 1e-13."""
_LOG2 = (2.88539008179008, 0.9617966733500601, 0.5770835832694429, 0.4116728268950977, 0.34072800826039085)
"""log2((1 + s) / (1 - s)) / s over s**2, |s| <= 0.172: 4e-12."""
_EXP2 = (
    *(0.999999999961682, 0.6931471807284456, 0.24022651198157208, 0.055504103534532084),
    *(0.009618027253711369, 0.0013333922559077525, 0.0001546929113080106, 1.5201922641975562e-05),
)
"""2**r, |r| <= 1/2: 4e-11."""


def function(code: Code, name: str, x: Value) -> Value:
    """One of `FUNCTIONS`."""
    vector = _VECTOR.get(name)
    if vector is None or x.dtype is not FLOAT32 or not code.module.target.fma:
        return by_c(code, name, x)
    return vector(code, x)


def by_c(code: Code, name: str, *operands: Value) -> Value:
    """The C library's function; float32 by way of float64, so that the result is the rounded one."""
    if operands[0].dtype is FLOAT64:
        return code.c_function(name, *operands)
    wide = code.c_function(name, *(code.convert("fpext", x, FLOAT64) for x in operands))
    return code.convert("fptrunc", wide, operands[0].dtype)


# Building blocks ------------------------------------------------------------------------------------------------------


def _fma(code: Code, a: Value, b: Value, c: Value) -> Value:
    return code.intrinsic("fma", a, b, c)


def _polynomial(code: Code, x: Value, coefficients: Sequence[float]) -> Value:
    """Sum of ``coefficients[k] * x**k``."""
    result = const(coefficients[-1], x.dtype, x.lanes)
    for c in reversed(coefficients[:-1]):
        result = _fma(code, result, x, const(c, x.dtype, x.lanes))
    return result


def at_most(code: Code, x: Value, limit: float) -> Value:
    """The lesser; NaN stays NaN."""
    bound = const(limit, x.dtype, x.lanes)
    return code.select(code.compare("ogt", x, bound), bound, x)


def at_least(code: Code, x: Value, limit: float) -> Value:
    bound = const(limit, x.dtype, x.lanes)
    return code.select(code.compare("olt", x, bound), bound, x)


def _bits(code: Code, x: Value) -> Value:
    return code.convert("bitcast", x, INT32 if x.dtype is FLOAT32 else INT64)


def _float(code: Code, x: Value) -> Value:
    return code.convert("bitcast", x, FLOAT32 if x.dtype is INT32 else FLOAT64)


def _integer(value: int, like: Value) -> Value:
    return const(value, INT32 if like.dtype.bits == 32 else INT64, like.lanes)


def _real(value: float, like: Value) -> Value:
    return const(value, like.dtype, like.lanes)


def _abs(code: Code, x: Value) -> Value:
    return code.intrinsic("fabs", x)


def _nearest(code: Code, x: Value, scale: float) -> tuple[Value, Value]:
    """The integer nearest to ``x * scale``, as a number and in the low bits of an integer."""
    magic = _ROUND_32 if x.dtype is FLOAT32 else _ROUND_64
    shifted = _fma(code, x, _real(scale, x), _real(magic, x))
    return code.op("fsub", shifted, _real(magic, x)), _bits(code, shifted)


def _out_of_line(code: Code, name: str, x: Value) -> Value:
    """`by_c` in a function of its own, to keep what is rare out of the loop's body."""
    symbol = f"omniop.{name}.{x.lanes}"
    if symbol not in code.module.functions:
        inner = Code(code.module)
        result = by_c(inner, name, Value("%x", x.dtype, x.lanes))
        head = f"define internal {x.type} @{symbol}({x.type} %x) noinline cold nounwind {{"
        code.module.functions[symbol] = "\n".join([head, "entry:", *inner.lines, f"  ret {result}", "}"])
    return Value(code.let(f"call {x.type} @{symbol}({x})"), x.dtype, x.lanes)


# float32 --------------------------------------------------------------------------------------------------------------


def _exp(code: Code, x: Value) -> Value:
    """2**n * exp(r) with x = n * ln(2) + r; the power of two in two factors, so that results may be subnormal."""
    x = at_least(code, at_most(code, x, 89.0), -104.5)
    n, bits = _nearest(code, x, _LOG2_E)
    r = _fma(code, n, _real(-_LN2_HIGH, x), x)
    r = _fma(code, n, _real(-_LN2_LOW, x), r)
    p = _polynomial(code, r, _EXP)
    whole = code.op("sub", bits, _integer(_ROUND_32_BITS, x))
    half = code.op("ashr", whole, _integer(1, x))
    p = code.op("fmul", p, _power_of_two(code, half))
    return code.op("fmul", p, _power_of_two(code, code.op("sub", whole, half)))


def short_exp(code: Code, x: Value) -> Value:
    """exp(x) of float32 that is not above 0, off by 5e-6 of it: for what is rounded to less. What is below the normal
    numbers is 0."""
    x = at_least(code, x, -126.9 / _LOG2_E)  # down here the power of two has the bits of 0
    n, bits = _nearest(code, x, _LOG2_E)
    f = _fma(code, x, _real(_LOG2_E, x), code.op("fsub", _real(0.0, x), n))
    whole = code.op("sub", bits, _integer(_ROUND_32_BITS, x))
    return code.op("fmul", _polynomial(code, f, _EXP2_FEW), _power_of_two(code, whole))


_ROUND_32_BITS = 0x4B400000


def _power_of_two(code: Code, n: Value) -> Value:
    biased = code.op("add", n, _integer(127, n))
    return _float(code, code.op("shl", biased, _integer(23, n)))


def _log(code: Code, x: Value) -> Value:
    """n * ln(2) + log(1 + f) with x = 2**n * (1 + f)."""
    small = code.compare("olt", x, _real(2.0**-126, x))
    scaled = code.select(small, code.op("fmul", x, _real(2.0**23, x)), x)
    bits = _bits(code, scaled)
    exponent = code.op("ashr", code.op("sub", bits, _integer(0x3F3504F3, x)), _integer(23, x))
    mantissa = _float(code, code.op("sub", bits, code.op("shl", exponent, _integer(23, x))))
    n = code.convert("sitofp", exponent, FLOAT32)
    n = code.op("fadd", n, code.select(small, _real(-23.0, x), _real(0.0, x)))
    f = code.op("fadd", mantissa, _real(-1.0, x))
    square = code.op("fmul", f, f)
    tail = code.op("fmul", code.op("fmul", square, f), _polynomial(code, f, _LOG))
    tail = _fma(code, n, _real(_LN2_LOW, x), tail)
    tail = _fma(code, square, _real(-0.5, x), tail)
    result = _fma(code, n, _real(_LN2_HIGH, x), code.op("fadd", f, tail))
    # what is no positive finite number: log(inf) = inf, log(0) = -inf, NaN below 0 and for NaN
    result = code.select(code.compare("oeq", x, _real(math.inf, x)), x, result)
    result = code.select(code.compare("oeq", x, _real(0.0, x)), _real(-math.inf, x), result)
    return code.select(code.compare("ult", x, _real(0.0, x)), _real(math.nan, x), result)


def _tanh(code: Code, x: Value) -> Value:
    """A polynomial near 0, 1 - 2 / (exp(2|x|) + 1) farther out."""
    a = _abs(code, x)
    square = code.op("fmul", x, x)
    near = _fma(code, code.op("fmul", a, square), _polynomial(code, square, _TANH), a)
    limited = at_most(code, a, 10.0)
    grown = _exp(code, code.op("fadd", limited, limited))
    ratio = code.op("fdiv", _real(2.0, x), code.op("fadd", grown, _real(1.0, x)))
    far = code.op("fsub", _real(1.0, x), ratio)
    return code.intrinsic("copysign", code.select(code.compare("olt", a, _real(0.6, x)), near, far), x)


def _erf(code: Code, x: Value) -> Value:
    """x * P(x**2) / Q(x**2)."""
    x = at_least(code, at_most(code, x, 3.97), -3.97)
    square = code.op("fmul", x, x)
    top = code.op("fmul", x, _polynomial(code, square, _ERF_TOP))
    result = code.op("fdiv", top, _polynomial(code, square, _ERF_BOTTOM))
    return at_least(code, at_most(code, result, 1.0), -1.0)


# pi / 2 in three parts; with |x| below the limit, x - n * part is exact until it is small
_HALF_PI = (1.5707963705062866, -4.371138828673793e-08, -1.7151245100058628e-15)
_SMALL_ANGLE = 65536.0


def _quarter_turns(code: Code, x: Value) -> tuple[Value, Value, Value]:
    """(sine, cosine, quotient in the low bits) of x modulo pi / 2; without meaning beyond the small angles."""
    n, bits = _nearest(code, x, 2 / math.pi)
    r = x
    for part in _HALF_PI:
        r = _fma(code, n, _real(-part, x), r)
    square = code.op("fmul", r, r)
    sine = _fma(code, code.op("fmul", r, square), _polynomial(code, square, _SIN), r)
    cosine = _fma(code, square, _real(-0.5, x), _real(1.0, x))
    cosine = _fma(code, code.op("fmul", square, square), _polynomial(code, square, _COS), cosine)
    return sine, cosine, bits


def _any_angle(code: Code, name: str, x: Value, result: Value) -> Value:
    """``result``, the C library's where an angle is large, and the signed zero of a zero."""
    if name != "cos":
        result = code.select(code.compare("oeq", x, _real(0.0, x)), x, result)
    far = code.compare("ogt", _abs(code, x), _real(_SMALL_ANGLE, x))
    return code.either(code.any_lane(far), lambda: _out_of_line(code, name, x), lambda: result)


def _odd(code: Code, turns: Value) -> Value:
    return code.compare("ne", code.op("and", turns, _integer(1, turns)), _integer(0, turns))


def _circular(quadrant: int, name: str) -> Callable[[Code, Value], Value]:
    """sin (quadrant 0) or cos (quadrant 1): the quotient's last two bits say which of the two, and the sign."""

    def emit(code: Code, x: Value) -> Value:
        sine, cosine, turns = _quarter_turns(code, x)
        turns = code.op("add", turns, _integer(quadrant, x)) if quadrant else turns
        sign = code.op("shl", code.op("and", turns, _integer(2, x)), _integer(30, x))
        size = _bits(code, code.select(_odd(code, turns), cosine, sine))
        return _any_angle(code, name, x, _float(code, code.op("xor", size, sign)))

    return emit


def _tan(code: Code, x: Value) -> Value:
    sine, cosine, turns = _quarter_turns(code, x)
    odd = _odd(code, turns)
    top = code.select(odd, code.op("fneg", cosine), sine)
    return _any_angle(code, "tan", x, code.op("fdiv", top, code.select(odd, sine, cosine)))


_VECTOR: dict[str, Callable[[Code, Value], Value]] = {
    "exp": _exp,
    "log": _log,
    "tanh": _tanh,
    "erf": _erf,
    "sin": _circular(0, "sin"),
    "cos": _circular(1, "cos"),
    "tan": _tan,
}


# Powers ---------------------------------------------------------------------------------------------------------------


def power(code: Code, x: Value, y: Value) -> Value:
    """C's pow. Constant exponents that a few multiplications do are done so, at most one rounding from pow."""
    exponent = constant_of(y)
    simple = _SIMPLE_POWERS.get(exponent) if exponent is not None else None
    if simple is not None:
        return simple(code, x)
    x, y = code.level(x, y)
    return _pow32(code, x, y) if x.dtype is FLOAT32 and code.module.target.fma else by_c(code, "pow", x, y)


def _root(code: Code, x: Value) -> Value:
    """x ** 0.5, which unlike sqrt is inf for -inf and +0 for -0."""
    root = code.intrinsic("sqrt", code.op("fadd", x, _real(0.0, x)))
    return code.select(code.compare("oeq", x, _real(-math.inf, x)), _real(math.inf, x), root)


_SIMPLE_POWERS: dict[float, Callable[[Code, Value], Value]] = {
    1.0: lambda code, x: x,
    2.0: lambda code, x: code.op("fmul", x, x),
    3.0: lambda code, x: code.op("fmul", code.op("fmul", x, x), x),
    -1.0: lambda code, x: code.op("fdiv", _real(1.0, x), x),
    0.5: _root,
}


def _pow32(code: Code, x: Value, y: Value) -> Value:
    """exp2(y * log2(|x|)) in float64, then C's list of special cases."""
    a = _abs(code, x)
    exponent = code.op("fmul", code.convert("fpext", y, FLOAT64), _log2(code, code.convert("fpext", a, FLOAT64)))
    size = code.convert("fptrunc", _exp2(code, exponent), FLOAT32)

    zero, one, infinity = _real(0.0, x), _real(1.0, x), _real(math.inf, x)
    rising = code.compare("ogt", y, zero)
    size = code.select(code.compare("oeq", a, zero), code.select(rising, zero, infinity), size)
    size = code.select(code.compare("oeq", a, infinity), code.select(rising, infinity, zero), size)
    size = code.select(code.compare("oeq", a, one), one, size)

    whole = code.compare("oeq", code.intrinsic("floor", y), y)
    half = code.op("fmul", y, _real(0.5, y))
    odd = code.op("and", whole, code.compare("une", code.intrinsic("floor", half), half))
    result = code.select(odd, code.intrinsic("copysign", size, x), size)
    below = code.op("and", code.compare("olt", x, zero), code.compare("olt", a, infinity))
    bad = code.op("and", below, code.compare("one", y, code.intrinsic("floor", y)))
    bad = code.op("or", bad, code.compare("uno", x, y))
    result = code.select(bad, _real(math.nan, x), result)
    always = code.op("or", code.compare("oeq", y, zero), code.compare("oeq", x, one))
    return code.select(always, one, result)


def _log2(code: Code, x: Value) -> Value:
    """log2 of a positive normal float64 to 4e-12; anything else gives a number without meaning."""
    bits = _bits(code, x)
    shifted = code.op("add", bits, _integer(0x3FF0000000000000 - 0x3FE6A09E667F3BCD, x))
    exponent = code.op("lshr", shifted, _integer(52, x))
    fraction = code.op("and", shifted, _integer(0xFFFFFFFFFFFFF, x))
    mantissa = _float(code, code.op("add", fraction, _integer(0x3FE6A09E667F3BCD, x)))
    # an integer below 2**52 as a float64: put it behind the bits of 2**52
    n = _float(code, code.op("or", exponent, _integer(0x4330000000000000, x)))
    n = code.op("fsub", n, _real(2.0**52 + 1023, x))
    s = code.op("fdiv", code.op("fadd", mantissa, _real(-1.0, x)), code.op("fadd", mantissa, _real(1.0, x)))
    return _fma(code, s, _polynomial(code, code.op("fmul", s, s), _LOG2), n)


def _exp2(code: Code, x: Value) -> Value:
    """2**x to 4e-11, with x cut off beyond what float32 can hold."""
    x = at_least(code, at_most(code, x, 200.0), -200.0)
    n, bits = _nearest(code, x, 1.0)
    p = _polynomial(code, code.op("fsub", x, n), _EXP2)
    # the low bits of the shifted sum hold n in two's complement: shifted up, only its last bits stay
    scale = code.op("shl", bits, _integer(52, x))
    return _float(code, code.op("add", _bits(code, p), scale))
