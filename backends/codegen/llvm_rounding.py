"""Bytes as quantisation makes them, ``byte(rint(x) + float32(zero))`` with a zero point that is a byte.

`llvm_alu` would go step by step in float32. Here ``x`` is limited to what a byte can come of, so that one instruction
rounds it to an integer; the zero point is added to integers, and x86's packing saturates four registers into one.
"""

from __future__ import annotations

from collections.abc import Sequence

from omniop.backends.codegen import llvm_math
from omniop.backends.codegen.llvm_ir import Code, Value, const
from omniop.opset.dtype import FLOAT32, INT8, INT16, INT32, UINT8, DType
from omniop.opset.expr import Expr

_BYTES = (UINT8, INT8)
_LIMIT = 512.0
"""What is as far from 0 saturates whatever the zero point."""


def operands(node: Expr) -> tuple[Expr, Expr] | None:
    """x and the zero point, where the node is such a byte, or one as an int32."""
    if node.op != "cast":
        return None
    if node.dtype is INT32 and node.args[0].op == "cast":
        (node,) = node.args
    (total,) = node.args
    if node.dtype not in _BYTES or (total.op, total.attr, total.dtype) != ("alu", "add", FLOAT32):
        return None
    value, zero = total.args
    if (value.op, value.attr, zero.op) != ("alu", "rint", "cast") or zero.args[0].dtype not in _BYTES:
        return None
    return value.args[0], zero.args[0]


def rounded(code: Code, node: Expr, x: Value, zero: Value) -> Value:
    """The node's value, from those of its `operands`."""
    if node.dtype is INT32:
        return _saturated(code, x, zero, node.args[0].dtype)
    target = code.module.target
    if "packssdw" in target.narrow and zero.lanes == 1 and x.lanes * 8 == target.vector_bits:
        return _packed(code, x, zero, node.dtype)
    return code.convert("trunc", _saturated(code, x, zero, node.dtype), node.dtype)


def _saturated(code: Code, x: Value, zero: Value, dtype: DType) -> Value:
    """The byte as an int32."""
    total = code.op("add", _nearest(code, _numbers(code, x, zero, dtype)), _widened(code, zero, INT32))
    low, high = (0, 255) if dtype is UINT8 else (-128, 127)
    return code.intrinsic("smin", code.intrinsic("smax", total, const(low, INT32)), const(high, INT32))


def _nearest(code: Code, x: Value) -> Value:
    """``rint(x)`` as int32, within the limit; for NaN what is less than any byte."""
    lowest = const(-_LIMIT, FLOAT32)
    limited = llvm_math.at_most(code, x, _LIMIT)
    limited = code.select(code.compare("ogt", limited, lowest), limited, lowest)
    return code.intrinsic("lrint", limited, dtype=INT32)


def _numbers(code: Code, x: Value, zero: Value, dtype: DType) -> Value:
    """x, with what the zero point makes 0 in place of NaN where that is not the least byte."""
    if dtype is UINT8:
        return x
    back = code.convert("sitofp", code.op("sub", const(0, INT32), _widened(code, zero, INT32)), FLOAT32)
    return code.select(code.compare("uno", x, x), back, x)


def _widened(code: Code, zero: Value, dtype: DType) -> Value:
    return code.convert("sext" if zero.dtype.is_signed else "zext", zero, dtype)


def _packed(code: Code, x: Value, zero: Value, dtype: DType) -> Value:
    """A register of bytes. Packing takes 128 bits of one operand and of the other in turns, which is put right last."""
    numbers, lanes = llvm_math.at_most(code, _numbers(code, x, zero, dtype), _LIMIT), x.lanes // 4
    parts = [_converted(code, code.shuffle(numbers, range(k, k + lanes))) for k in range(0, x.lanes, lanes)]
    offset = _widened(code, zero, INT16)
    halves = [code.intrinsic("sadd.sat", _pack(code, "packssdw", parts[k : k + 2], INT16), offset) for k in (0, 2)]
    mixed = _pack(code, "packuswb" if dtype is UINT8 else "packsswb", halves, dtype)
    words = Value(code.let(f"bitcast {mixed} to <{lanes} x i32>"), INT32, lanes)
    ordered = code.shuffle(words, [4 * k + part for part in range(4) for k in range(lanes // 4)])
    return Value(code.let(f"bitcast {ordered} to {mixed.type}"), dtype, mixed.lanes)


def _converted(code: Code, x: Value) -> Value:
    """A register rounded by x86, which gives the least int32 for what is below it and for NaN."""
    bits, more = code.module.target.vector_bits, ""
    name = {128: "sse2.cvtps2dq", 256: "avx.cvt.ps2dq.256", 512: "avx512.mask.cvtps2dq.512"}[bits]
    result, arguments = Value("", INT32, x.lanes), [x.type]
    if bits == 512:
        arguments += [result.type, "i16", "i32"]
        more = f", {result.type} zeroinitializer, i16 -1, i32 4"
    code.module.declare(f"llvm.x86.{name}", result.type, arguments)
    return Value(code.let(f"call {result.type} @llvm.x86.{name}({x}{more})"), INT32, x.lanes)


def _pack(code: Code, name: str, parts: Sequence[Value], dtype: DType) -> Value:
    bits = code.module.target.vector_bits
    full = "llvm.x86." + {128: f"sse2.{name}.128", 256: f"avx2.{name}", 512: f"avx512.{name}.512"}[bits]
    result = Value("", dtype, bits // dtype.bits)
    code.module.declare(full, result.type, [p.type for p in parts])
    return Value(code.let(f"call {result.type} @{full}({', '.join(map(str, parts))})"), dtype, result.lanes)
