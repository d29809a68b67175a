"""What C's operators do not do by themselves: helper functions, and the words that call them.

One text serves all C dialects. Types are named i8, u8, ..., i64, u64, f32, f64 (and f16, the bits of a half that is
only stored); a unit of source holds the helpers that its kernels use.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np

from omniop.backends.codegen.program import Const, Let
from omniop.opset import dtype as dtypes
from omniop.opset.dtype import BOOL, FLOAT16, FLOAT32, FLOAT64, DType

Use = Callable[[str], str]
"""Notes that a helper is used and gives its name."""


def type_name(dtype: DType) -> str:
    """The C name of a value's type."""
    if dtype is BOOL:
        return "bool"
    return f"{dtype.kind}{dtype.bits}"


def memory_name(dtype: DType) -> str:
    """The C name of an element's type."""
    return "u8" if dtype is BOOL else type_name(dtype)


def _unsigned(dtype: DType) -> str:
    """The unsigned type that arithmetic wraps in without undefined behaviour: 32 bits at least."""
    return f"u{max(dtype.bits, 32)}"


# Literals -------------------------------------------------------------------------------------------------------------


def literal(const: Const, use: Use) -> str:
    """A constant, exact to the bit."""
    value, dtype = const.value, const.dtype
    if dtype is BOOL:
        return "true" if value else "false"
    if dtype is FLOAT16:
        return str(int(np.float16(value).view(np.uint16)))
    if dtype.is_float:
        return _float_literal(float(value), dtype, use)
    number = int(value)
    if dtype.kind == "u":
        return f"{number}u"
    if number == -(1 << 63):
        return "(-9223372036854775807 - 1)"
    return str(number) if number >= 0 else f"({number})"


def _float_literal(value: float, dtype: DType, use: Use) -> str:
    single = dtype is FLOAT32
    with np.errstate(over="ignore"):
        value = float(np.float32(value)) if single else value
    if not np.isfinite(value):
        bits = struct.unpack("<I" if single else "<Q", struct.pack("<f" if single else "<d", value))[0]
        return f"{use(f'bits_{type_name(dtype)}')}({bits:#x}u)"
    text = f"{value:.1f}" if value == int(value) and abs(value) < 1 << 24 else value.hex()
    text += "f" if single else ""
    return f"({text})" if text.startswith("-") else text


# Operations -----------------------------------------------------------------------------------------------------------


def _infix(template: str, **signs: str) -> dict[str, str]:
    return {name: template.format(sign) for name, sign in signs.items()}


_COMPARISONS = _infix("{{0}} {} {{1}}", eq="==", ne="!=", lt="<", le="<=")

_BOOL = _COMPARISONS | {
    "and": "{0} && {1}",
    "min": "{0} && {1}",
    "or": "{0} || {1}",
    "max": "{0} || {1}",
    "xor": "{0} != {1}",
    "not": "!{0}",
}

_INTEGER = (
    _COMPARISONS
    | _infix("({{T}})(({{W}}){{0}} {} ({{W}}){{1}})", add="+", sub="-", mul="*")
    | _infix("({{T}})({{0}} {} {{1}})", **{"and": "&", "or": "|", "xor": "^"})
    | {
        "neg": "({T})(0 - ({W}){0})",
        "not": "({T})~{0}",
        "min": "{0} < {1} ? {0} : {1}",
        "max": "{0} > {1} ? {0} : {1}",
    }
)

_EXACT = _infix("{{0}} {} {{1}}", add="+", sub="-", mul="*") | {
    "neg": "-{0}",
    "floordiv": "{0} / {1} - ({0} % {1} < 0)",
    "floormod": "{0} % {1} + ({0} % {1} < 0 ? {1} : 0)",
}
"""Index arithmetic: no overflow, divisors above zero."""

_NONNEGATIVE = _infix("({{T}})(({{W}}){{0}} {} ({{W}}){{1}})", floordiv="/", floormod="%")

_POWER_OF_TWO = {"floordiv": "{0} >> {log}", "floormod": "{0} & {mask}"}

_BY_CONST = _infix("({{T}})({{0}} {} {{1}})", shr=">>", div="/", rem="%") | {"shl": "({T})(({W}){0} << {1})"}
"""With a constant on the right that needs no care."""

_SAME_UNSIGNED = {"floordiv": "div", "floormod": "rem"}

_FLOAT = (
    _COMPARISONS | _infix("{{0}} {} {{1}}", add="+", sub="-", mul="*", div="/") | {"neg": "-{0}", "isnan": "{0} != {0}"}
)

_SAME_NAME = (
    *("floor", "ceil", "rint", "trunc", "sqrt", "exp", "log", "sin", "cos", "tan", "asin", "acos", "atan", "atan2"),
    *("sinh", "cosh", "tanh", "asinh", "acosh", "atanh", "erf", "pow"),
)
_MATH = {name: name for name in _SAME_NAME} | {"abs": "fabs", "rem": "fmod"}
"""Operations that are functions of C's and OpenCL's libraries."""


def operation(let: Let, args: list[str], use: Use, suffix: Callable[[DType], str]) -> str:
    """The right-hand side of ``let``; ``suffix`` ends the name of a library function of a dtype."""
    dtype = let.args[-1].dtype
    if let.op == "select":
        return f"{args[0]} ? {args[1]} : {args[2]}"
    if let.op == "cast":
        return cast(args[0], dtype, let.var.dtype, use)
    if let.op == "bitcast":
        return bitcast(args[0], dtype, let.var.dtype, use)
    if dtype is BOOL:
        return _BOOL[let.op].format(*args)
    if dtype.is_float:
        if let.op in _MATH:
            return f"{_MATH[let.op]}{suffix(dtype)}({', '.join(args)})"
        if let.op == "isinf":
            return f"fabs{suffix(dtype)}({args[0]}) == {literal(Const(float('inf'), dtype), use)}"
        template = _FLOAT.get(let.op)
    else:
        template = _integer_template(let, dtype)
    if template is None:
        name = _SAME_UNSIGNED.get(let.op, let.op) if dtype.kind == "u" else let.op
        return f"{use(f'{name}_{type_name(dtype)}')}({', '.join(args)})"
    right = let.args[-1]
    number = int(right.value) if isinstance(right, Const) and not dtype.is_float else 0
    facts = {"T": type_name(dtype), "W": _unsigned(dtype), "log": number.bit_length() - 1, "mask": number - 1}
    return template.format(*args, **facts)


def _integer_template(let: Let, dtype: DType) -> str | None:
    right = let.args[-1]
    if let.exact and let.op in _EXACT:
        if (
            isinstance(right, Const)
            and let.op in _POWER_OF_TWO
            and int(right.value).bit_count() == 1
            and right.value > 0
        ):
            return _POWER_OF_TWO[let.op]
        return _NONNEGATIVE[let.op] if let.nonnegative else _EXACT[let.op]
    if isinstance(right, Const) and let.op in _BY_CONST:
        careless = 0 <= right.value < dtype.bits if let.op in ("shl", "shr") else right.value not in (0, -1)
        return _BY_CONST[let.op] if careless else None
    if let.op == "abs" and dtype.kind == "u":
        return "{0}"
    return _INTEGER.get(let.op)


def cast(x: str, source: DType, target: DType, use: Use) -> str:
    """A conversion with the edges of `alu`. A half meets other dtypes by way of float32, which holds all of its values;
    what is wider has been rounded to it before."""
    if FLOAT16 in (source, target) and FLOAT32 not in (source, target) and source is not target:
        return cast(f"({cast(x, source, FLOAT32, use)})", FLOAT32, target, use)
    if target is BOOL:
        return f"{x} != 0"
    if FLOAT16 in (source, target) or (source.is_float and target.is_int):
        return f"{use(f'{type_name(source)}_to_{type_name(target)}')}({x})"
    return f"({type_name(target)}){x}"


def bitcast(x: str, source: DType, target: DType, use: Use) -> str:
    """The same bits; a half that is only stored is its bits already."""
    wide = (FLOAT32, FLOAT64)
    if source in wide:
        return f"({type_name(target)}){use(f'{type_name(source)}_bits')}({x})"
    if target in wide:
        return f"{use(f'bits_{type_name(target)}')}((u{source.bits}){x})"
    return f"({type_name(target)}){x}"


# Helper functions -----------------------------------------------------------------------------------------------------

_SAFE = "{T} d = b == 0{orminus} ? 1 : b;"

_HELPERS = {
    "abs": "return a < 0 ? ({T})(0 - ({W})a) : a;",
    "div": _SAFE + " return b == 0 ? 0 : {minus}({T})(a / d);",
    "rem": _SAFE + " return ({T})(a % d);",
    "floordiv": _SAFE + " {T} q = ({T})(a / d), r = ({T})(a % d);"
    " return b == 0 ? 0 : {minus}({T})(q - (r != 0 && (r < 0) != (d < 0)));",
    "floormod": _SAFE + " {T} r = ({T})(a % d); return r != 0 && (r < 0) != (d < 0) ? ({T})(r + d) : r;",
    "shl": "return ({U})b < {bits} ? ({T})(({W})a << b) : 0;",
    "shr": "return ({U})b < {bits} ? ({T})(a >> b) : {beyond};",
    "pow": "{negative} {W} r = 1, x = ({W})a; {U} n = ({U})b;"
    " while (n) {{ if (n & 1) r *= x; x *= x; n >>= 1; }} return ({T})r;",
    "min": "return a < b || a != a ? a : b;",
    "max": "return a > b || a != a ? a : b;",
}
"""Bodies of functions of ``a`` and ``b``; division never sees a divisor that traps, so that it may be vectorised."""

_SIGNED = {
    "orminus": " || b == -1",
    "minus": "b == -1 ? ({T})(0 - ({W})a) : ",
    "beyond": "({T})(a < 0 ? -1 : 0)",
    "negative": "if (b < 0) return ({T})(a == 1 || (a == -1 && !(b & 1)) ? 1 : a == -1 ? -1 : 0);",
}
_UNSIGNED = {"orminus": "", "minus": "", "beyond": "0", "negative": ""}

_BY_NAME = {type_name(d): d for d in dtypes.ALL if d.kind in "iuf" and 8 <= d.bits}


def helper(name: str, function: str) -> str:
    """The definition of a helper that a `Use` was told of; ``function`` is what the dialect puts before it.

    Raises KeyError for the helpers that a dialect defines itself (atomics, halves).
    """
    first, _, second = name.partition("_")
    if first == "bits":
        return f"{function}{second} {name}(u{second[1:]} a) {{ {_union(second)} x.u = a; return x.f; }}"
    if second == "bits":
        return f"{function}u{first[1:]} {name}({first} a) {{ {_union(first)} x.f = a; return x.u; }}"
    if second.startswith("to_"):
        return f"{function}{second[3:]} {name}({first} a) {{ {_saturating(_BY_NAME[first], _BY_NAME[second[3:]])} }}"
    dtype = _BY_NAME[second]
    facts = {"T": second, "U": f"u{dtype.bits}", "W": _unsigned(dtype), "bits": dtype.bits}
    signs = {k: v.format(**facts) for k, v in (_SIGNED if dtype.is_signed else _UNSIGNED).items()}
    body = _HELPERS[first].format(**facts, **signs)
    arguments = f"{second} a" if first == "abs" else f"{second} a, {second} b"
    return f"{function}{second} {name}({arguments}) {{ {body} }}"


def _union(real: str) -> str:
    return f"union {{ u{real[1:]} u; {real} f; }} x;"


def _saturating(source: DType, target: DType) -> str:
    low = -(1 << (target.bits - 1)) if target.kind == "i" else 0
    high = low + (1 << target.bits)
    ends = [literal(Const(v, target), str) for v in (low, high - 1)]
    bounds = [literal(Const(float(v), source), str) for v in (low, high)]
    name = type_name(target)
    return f"return a != a ? 0 : a < {bounds[0]} ? {ends[0]} : a >= {bounds[1]} ? {ends[1]} : ({name})a;"
