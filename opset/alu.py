"""The arithmetic of the kernel IR: every operation an expression may hold, and what it means at the edges.

These words are the contract of a backend's ``map``; `omniop.backends.reference` is the same in numpy.

- Floating operations follow IEEE 754 in the operands' dtype, rounded to nearest even at every operation; no fast-math.
- Integer add, sub, mul, neg, abs wrap in two's complement.
- Integer ``div`` truncates towards zero, x / 0 = 0 and INT_MIN / -1 = INT_MIN; ``rem`` is the remainder of ``div``
  (sign of the dividend; x rem 0 = 0). For floats ``rem`` is C's fmod.
- ``floordiv`` and ``floormod`` round towards minus infinity; they are for index arithmetic, with a divisor above zero.
- ``shl`` and ``shr`` by a count at or above the width give 0 (-1 for ``shr`` of a negative number).
- ``min`` and ``max`` return NaN when either operand is NaN.
- Comparisons give bool and are false when an operand is NaN, except ``ne``.
- ``and``, ``or``, ``xor``, ``not`` are logical on bool and bitwise on integers.
- ``pow`` is C's pow for floats; for integers, exact in the wrapped ring, with x ** negative = trunc(x ** y)
  (0, 1 or -1; and 0 ** negative = 0).
- ``rint`` rounds halves to even. ``erf``, ``exp``, ... are within OpenCL's full-profile ULP limits.
- A cast from float to an integer truncates and saturates; NaN gives 0. From an integer to a narrower one it wraps.
  To bool it is ``x != 0`` (NaN is true). To a narrower float it rounds to nearest even and overflows to infinity,
  or to the largest finite number or NaN where the type has no infinity.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from omniop.opset.dtype import DType


@dataclass(frozen=True)
class AluOp:
    """``arity`` operands of one dtype out of ``kinds`` (DType.kind letters); ``result`` is "same" or "bool"."""

    name: str
    arity: int
    kinds: str
    result: str = "same"
    cost: int = 1
    """Rough cost against an add: decides whether fusion may compute a value twice."""


_CHEAP_UNARY = [AluOp("neg", 1, "iuf"), AluOp("abs", 1, "iuf"), AluOp("not", 1, "biu")]
_ROUNDING = [AluOp(name, 1, "f") for name in ("floor", "ceil", "rint", "trunc")]
_TRANSCENDENTAL = [
    AluOp(name, 1, "f", cost=16)
    for name in (
        *("exp", "log", "sin", "cos", "tan", "asin", "acos", "atan"),
        *("sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf"),
    )
]
_BINARY = [
    *(AluOp(name, 2, "iuf") for name in ("add", "sub", "mul")),
    *(AluOp(name, 2, "biuf") for name in ("min", "max")),
    AluOp("div", 2, "iuf", cost=4),
    AluOp("rem", 2, "iuf", cost=8),
    AluOp("pow", 2, "iuf", cost=24),
    AluOp("atan2", 2, "f", cost=24),
    AluOp("floordiv", 2, "iu", cost=4),
    AluOp("floormod", 2, "iu", cost=4),
    *(AluOp(name, 2, "biu") for name in ("and", "or", "xor")),
    *(AluOp(name, 2, "iu") for name in ("shl", "shr")),
    *(AluOp(name, 2, "biuf", result="bool") for name in ("eq", "ne", "lt", "le")),
]
_TESTS = [AluOp("isnan", 1, "f", result="bool"), AluOp("isinf", 1, "f", result="bool")]

ALU: dict[str, AluOp] = {
    op.name: op
    for op in (*_CHEAP_UNARY, *_ROUNDING, AluOp("sqrt", 1, "f", cost=4), *_TRANSCENDENTAL, *_BINARY, *_TESTS)
}

MONOIDS = ("add", "mul", "min", "max", "and", "or", "argmin", "argmax")
"""What ``reduce`` combines with. ``argmin`` and ``argmax`` run over (value, index) pairs and give the index: of equal
values the smallest index wins, and the first NaN beats every number."""


def wrap(value: int, dtype: DType) -> int:
    """``value`` modulo 2**bits, in the range of the integer ``dtype``."""
    value &= (1 << dtype.bits) - 1
    return value - (1 << dtype.bits) if dtype.kind == "i" and value >> (dtype.bits - 1) else value


def trunc_div(a: int, b: int) -> int:
    """Integer quotient rounded towards zero; a / 0 = 0."""
    if b == 0:
        return 0
    return -(-a // b) if (a < 0) != (b < 0) else a // b


INTEGER: dict[str, Callable[..., int | bool]] = {
    "neg": lambda a: -a,
    "abs": abs,
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "min": min,
    "max": max,
    "div": trunc_div,
    "rem": lambda a, b: 0 if b == 0 else int(math.fmod(a, b)) if abs(a) < 2**53 else a - b * trunc_div(a, b),
    "floordiv": lambda a, b: a // b,
    "floormod": lambda a, b: a % b,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
}
"""Exact integer arithmetic of the operations that index expressions use."""
