"""The arithmetic of the kernel IR in LLVM IR: one function for each operation, the edges as `omniop.opset.alu` says.

LLVM leaves undefined what alu defines (division by zero, shifts past the width, casts out of range), so operands are
made safe first and the defined result is selected afterwards. No fast-math flags anywhere.
"""

from __future__ import annotations

from collections.abc import Callable

from omniop.backends.codegen import llvm_math
from omniop.backends.codegen.llvm_ir import TYPES, Code, Value, const, constant_of
from omniop.opset.alu import ALU
from omniop.opset.dtype import BOOL, FLOAT16, FLOAT32, FLOAT64, INT32, INT64, UINT32, DType

Emit = Callable[..., Value]


def apply(code: Code, name: str, *operands: Value) -> Value:
    """``alu(name)`` of values of one dtype."""
    if operands[0].dtype is FLOAT16:
        # in float32 and rounded back: for + - * / and sqrt that is the float16 operation itself (24 >= 2 * 11 + 2)
        result = apply(code, name, *(cast(code, x, FLOAT32) for x in operands))
        return cast(code, result, FLOAT16) if result.dtype is FLOAT32 else result
    return _TABLE[name](code, *operands)


def _instruction(floating: str, integer: str) -> Emit:
    return lambda code, *x: code.op(floating if x[0].dtype.is_float else integer, *x)


def _comparison(floating: str, signed: str, unsigned: str) -> Emit:
    def emit(code: Code, a: Value, b: Value) -> Value:
        return code.compare(floating if a.dtype.is_float else signed if a.dtype.kind == "i" else unsigned, a, b)

    return emit


def _rounding(name: str) -> Emit:
    return lambda code, x: code.intrinsic(name, x)


def _neg(code: Code, x: Value) -> Value:
    return code.op("fneg", x) if x.dtype.is_float else code.op("sub", const(0, x.dtype), x)


def _abs(code: Code, x: Value) -> Value:
    if x.dtype.is_float:
        return code.intrinsic("fabs", x)
    return code.intrinsic("abs", x, flags="false") if x.dtype.kind == "i" else x


def _not(code: Code, x: Value) -> Value:
    return code.op("xor", x, const(True if x.dtype is BOOL else -1, x.dtype))


def _extreme(logical: str, integer: str, predicate: str) -> Emit:
    """min or max; a NaN on either side is the result."""

    def emit(code: Code, a: Value, b: Value) -> Value:
        if a.dtype is BOOL:
            return code.op(logical, a, b)
        if not a.dtype.is_float:
            return code.intrinsic(("s" if a.dtype.kind == "i" else "u") + integer, a, b)
        ordered = code.select(code.compare(predicate, a, b), a, b)  # b when either is NaN
        return code.select(code.compare("uno", a, a), a, ordered)

    return emit


def _quotient(signed: str, unsigned: str, keep_zero: bool) -> Emit:
    """Truncating div or rem: 0 for a divisor of 0, and INT_MIN / -1 without a trap."""

    def emit(code: Code, a: Value, b: Value) -> Value:
        instruction = signed if a.dtype.kind == "i" else unsigned
        if constant_of(b) not in (None, 0, -1):
            return code.op(instruction, a, b)
        zero = code.compare("eq", b, const(0, b.dtype))
        unsafe = zero
        if a.dtype.kind == "i":
            lowest = code.compare("eq", a, const(-(1 << (a.dtype.bits - 1)), a.dtype))
            overflow = code.op("and", lowest, code.compare("eq", b, const(-1, b.dtype)))
            unsafe = code.op("or", zero, overflow)
        result = code.op(instruction, a, code.select(unsafe, const(1, b.dtype), b))
        return result if keep_zero else code.select(zero, const(0, a.dtype), result)

    return emit


_int_div = _quotient("sdiv", "udiv", keep_zero=False)
_int_rem = _quotient("srem", "urem", keep_zero=True)  # x rem 1 is the 0 that is wanted


def _div(code: Code, a: Value, b: Value) -> Value:
    return code.op("fdiv", a, b) if a.dtype.is_float else _int_div(code, a, b)


def _rem(code: Code, a: Value, b: Value) -> Value:
    return code.op("frem", a, b) if a.dtype.is_float else _int_rem(code, a, b)


def _divisor(code: Code, b: Value) -> Value:
    """What floordiv and floormod divide by: above zero where it counts, but idle lanes hold zeros."""
    if constant_of(b) is not None:
        return b
    return code.intrinsic("smax" if b.dtype.kind == "i" else "umax", b, const(1, b.dtype))


def _floordiv(code: Code, a: Value, b: Value) -> Value:
    b = _divisor(code, b)
    if a.dtype.kind == "u":
        return code.op("udiv", a, b)
    quotient = code.op("sdiv", a, b)
    above = code.compare("slt", a, code.op("mul", quotient, b))
    return code.select(above, code.op("add", quotient, const(-1, a.dtype)), quotient)


def _floormod(code: Code, a: Value, b: Value) -> Value:
    b = _divisor(code, b)
    if a.dtype.kind == "u":
        return code.op("urem", a, b)
    rest = code.op("srem", a, b)
    return code.select(code.compare("slt", rest, const(0, a.dtype)), code.op("add", rest, b), rest)


def _shl(code: Code, a: Value, count: Value) -> Value:
    inside = code.compare("ult", count, const(a.dtype.bits, a.dtype))
    zero = const(0, a.dtype)
    return code.select(inside, code.op("shl", a, code.select(inside, count, zero)), zero)


def _shr(code: Code, a: Value, count: Value) -> Value:
    if a.dtype.kind == "i":
        return code.op("ashr", a, code.intrinsic("umin", count, const(a.dtype.bits - 1, a.dtype)))
    inside = code.compare("ult", count, const(a.dtype.bits, a.dtype))
    zero = const(0, a.dtype)
    return code.select(inside, code.op("lshr", a, code.select(inside, count, zero)), zero)


def _pow(code: Code, a: Value, b: Value) -> Value:
    if a.dtype.is_float:
        return llvm_math.power(code, a, b)
    name = f"omniop.pow.{a.dtype.kind}{a.dtype.bits}"
    code.module.functions.setdefault(name, _integer_power(name, a.dtype))
    return code.each(name, a, b)


def _integer_power(name: str, dtype: DType) -> str:
    """By repeated squaring; negative exponents give trunc(x ** y)."""
    t = TYPES[dtype]
    negative = f"icmp slt {t} %y, 0" if dtype.kind == "i" else "icmp ne i1 false, false"
    return f"""define internal {t} @{name}({t} %x, {t} %y) nounwind {{
entry:
  %negative = {negative}
  br i1 %negative, label %inverse, label %loop
loop:
  %result = phi {t} [1, %entry], [%result.next, %step]
  %power = phi {t} [%x, %entry], [%power.next, %step]
  %left = phi {t} [%y, %entry], [%left.next, %step]
  %more = icmp ne {t} %left, 0
  br i1 %more, label %step, label %exit
step:
  %bit = and {t} %left, 1
  %odd = icmp ne {t} %bit, 0
  %product = mul {t} %result, %power
  %result.next = select i1 %odd, {t} %product, {t} %result
  %power.next = mul {t} %power, %power
  %left.next = lshr {t} %left, 1
  br label %loop
exit:
  ret {t} %result
inverse:
  %last = and {t} %y, 1
  %even = icmp eq {t} %last, 0
  %sign = select i1 %even, {t} 1, {t} %x
  %one = icmp eq {t} %x, 1
  %minus = icmp eq {t} %x, -1
  %unit = or i1 %one, %minus
  %whole = select i1 %unit, {t} %sign, {t} 0
  ret {t} %whole
}}
"""


def _isinf(code: Code, x: Value) -> Value:
    return code.compare("oeq", code.intrinsic("fabs", x), const(float("inf"), x.dtype))


def _unary_math(name: str) -> Emit:
    return lambda code, x: llvm_math.function(code, name, x)


_TABLE: dict[str, Emit] = {
    "neg": _neg,
    "abs": _abs,
    "not": _not,
    "add": _instruction("fadd", "add"),
    "sub": _instruction("fsub", "sub"),
    "mul": _instruction("fmul", "mul"),
    "div": _div,
    "rem": _rem,
    "pow": _pow,
    "atan2": lambda code, y, x: llvm_math.by_c(code, "atan2", y, x),
    "floordiv": _floordiv,
    "floormod": _floormod,
    "min": _extreme("and", "min", "olt"),
    "max": _extreme("or", "max", "ogt"),
    "and": _instruction("", "and"),
    "or": _instruction("", "or"),
    "xor": _instruction("", "xor"),
    "shl": _shl,
    "shr": _shr,
    "eq": _comparison("oeq", "eq", "eq"),
    "ne": _comparison("une", "ne", "ne"),
    "lt": _comparison("olt", "slt", "ult"),
    "le": _comparison("ole", "sle", "ule"),
    "floor": _rounding("floor"),
    "ceil": _rounding("ceil"),
    "rint": _rounding("roundeven"),
    "trunc": _rounding("trunc"),
    "sqrt": _rounding("sqrt"),
    "isnan": lambda code, x: code.compare("uno", x, x),
    "isinf": _isinf,
    **{name: _unary_math(name) for name in llvm_math.FUNCTIONS},
}

if missing := ALU.keys() - _TABLE.keys():
    raise NotImplementedError(f"the LLVM dialect lacks {sorted(missing)}")


# Casts ----------------------------------------------------------------------------------------------------------------


def cast(code: Code, x: Value, dtype: DType) -> Value:
    """``x`` in another dtype: floats to integers saturate and give 0 for NaN, integers wrap, bool is ``x != 0``."""
    if x.dtype is dtype:
        return x
    if dtype is BOOL:
        return code.compare("une" if x.dtype.is_float else "ne", x, const(0, x.dtype))
    if x.dtype.is_float:
        return _float_to_float(code, x, dtype) if dtype.is_float else _float_to_int(code, x, dtype)
    if dtype.is_float:
        if dtype is FLOAT16:  # what float32 does not hold exactly is beyond float16
            return cast(code, cast(code, x, FLOAT32), FLOAT16)
        return code.convert("sitofp" if x.dtype.kind == "i" else "uitofp", x, dtype)
    width = 1 if x.dtype is BOOL else x.dtype.bits
    if width == dtype.bits:
        return Value(x.text, dtype, x.lanes)
    return code.convert("trunc" if dtype.bits < width else "sext" if x.dtype.kind == "i" else "zext", x, dtype)


def _float_to_int(code: Code, x: Value, dtype: DType) -> Value:
    if x.dtype is FLOAT16:
        x = cast(code, x, FLOAT32)
    if dtype.bits == 64 or dtype is UINT32:
        return code.intrinsic("fptosi.sat" if dtype.kind == "i" else "fptoui.sat", x, dtype=dtype)
    # through int32, which vectors convert to in one instruction where LLVM's saturating casts go lane by lane
    low = 0 if dtype.kind == "u" else -(1 << (dtype.bits - 1))
    high = (1 << (dtype.bits if dtype.kind == "u" else dtype.bits - 1)) - 1
    if low == 0:  # what is not above it is 0, NaN too
        limited = llvm_math.at_most(code, x, float(high))
        zero = const(0.0, x.dtype)
        limited = code.select(code.compare("ogt", limited, zero), limited, zero)
        return cast(code, code.convert("fptosi", limited, INT32), dtype)
    number = code.select(code.compare("uno", x, x), const(0.0, x.dtype), x)
    inexact = x.dtype is FLOAT32 and dtype is INT32  # 2**31 - 1 is no float32
    top = 2.0**31 - 128 if inexact else float(high)
    limited = llvm_math.at_least(code, llvm_math.at_most(code, number, top), float(low))
    result = cast(code, code.convert("fptosi", limited, INT32), dtype)
    if not inexact:
        return result
    return code.select(code.compare("oge", x, const(2.0**31, x.dtype)), const(high, dtype), result)


def _float_to_float(code: Code, x: Value, dtype: DType) -> Value:
    if x.dtype is FLOAT16 and dtype is FLOAT64:
        return cast(code, cast(code, x, FLOAT32), FLOAT64)
    if x.dtype is FLOAT64 and dtype is FLOAT16:
        return code.convert("fptrunc", _round_to_odd(code, x), FLOAT16)
    return code.convert("fptrunc" if dtype.bits < x.dtype.bits else "fpext", x, dtype)


def _round_to_odd(code: Code, x: Value) -> Value:
    """float64 to float32 so that rounding that once more is rounding ``x`` once: inexact results get an odd last bit.

    Straight to float16 would be a call into a compiler's runtime library, which nobody has loaded.
    """
    near = code.convert("fptrunc", x, FLOAT32)
    back = code.convert("fpext", near, FLOAT64)
    exact = code.op("or", code.compare("oeq", back, x), code.compare("uno", x, x))
    away = code.compare("ogt", code.intrinsic("fabs", back), code.intrinsic("fabs", x))
    bits = code.convert("bitcast", near, INT32)
    below = code.op("sub", bits, code.convert("zext", away, INT32))
    odd = code.op("or", below, const(1, INT32))
    return code.convert("bitcast", code.select(exact, bits, odd), FLOAT32)


def bitcast(code: Code, x: Value, dtype: DType) -> Value:
    """The same bits as another dtype of the same width."""
    if TYPES[x.dtype] == TYPES[dtype]:
        return Value(x.text, dtype, x.lanes)
    if BOOL in (x.dtype, dtype):
        return cast(code, x, dtype)
    return code.convert("bitcast", x, dtype)


def index_of(code: Code, x: Value) -> Value:
    """An integer as the int64 that addresses are computed in."""
    return cast(code, x, INT64)
