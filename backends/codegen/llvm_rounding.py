"""Bytes as quantisation makes them, ``byte(rint(x) + float32(zero))`` with a zero point that is a byte, and what they
are more than it, which is all that is asked of those that are dequantised at once.

`llvm_alu` would go step by step in float32. Here ``x`` is limited to what a byte can come of, so that one instruction
rounds it to an integer; the zero point is added to integers, and x86's packing saturates four registers into one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from omniop.backends.codegen import llvm_math
from omniop.backends.codegen.llvm_ir import Code, Value, const
from omniop.opset import expr
from omniop.opset.dtype import FLOAT32, INT8, INT16, INT32, UINT8, DType
from omniop.opset.expr import Expr

_ENDS = {UINT8: (0, 255), INT8: (-128, 127)}
_LIMIT = 512.0
"""What is as far above 0 saturates whatever the zero point."""


@dataclass(frozen=True)
class Rounded:
    """A byte ``dtype(rint(x) + zero)``: itself, as an int32, or, in float32, what it is more than its zero point."""

    x: Expr
    zero: Expr
    dtype: DType
    form: DType

    @property
    def operands(self) -> tuple[Expr, Expr]:
        return self.x, self.zero


def find(node: Expr) -> Rounded | None:
    """What the node is of these."""
    if node.op != "cast":
        return None
    (inner,) = node.args
    if node.dtype in _ENDS:
        return _byte(node)
    if node.dtype is INT32:
        return _byte(inner, INT32)
    whole, zero = inner.args if (inner.op, inner.attr) == ("alu", "sub") else (inner, expr.const(0, INT32))
    if node.dtype is not FLOAT32 or whole.op != "cast" or whole.dtype is not INT32:
        return None
    found = _byte(whole.args[0], FLOAT32)
    return None if found is None or expr.cast(found.zero, INT32) is not zero else found


def _byte(node: Expr, form: DType | None = None) -> Rounded | None:
    if node.op != "cast" or node.dtype not in _ENDS:
        return None
    (total,) = node.args
    if (total.op, total.attr, total.dtype) != ("alu", "add", FLOAT32):
        return None
    value, point = total.args
    zero = _zero(point, node.dtype)
    if (value.op, value.attr) != ("alu", "rint") or zero is None:
        return None
    return Rounded(value.args[0], zero, node.dtype, form or node.dtype)


def _zero(point: Expr, dtype: DType) -> Expr | None:
    """The byte that a float32 is made of."""
    if point.op == "cast":
        return point.args[0] if point.args[0].dtype in _ENDS else None
    low, high = _ENDS[dtype]
    known = point.op == "const" and low <= point.attr <= high and point.attr == int(point.attr)
    return expr.const(int(point.attr), dtype) if known else None


def rounded(code: Code, node: Rounded, x: Value, zero: Value) -> Value:
    """The node's value, from those of its `operands`."""
    if node.dtype is INT8:  # in place of NaN what the zero point makes 0; of the least byte that is so already
        back = code.convert("sitofp", code.op("sub", const(0, INT32), _widened(code, zero, INT32)), FLOAT32)
        x = code.select(code.compare("uno", x, x), back, x)
    target = code.module.target
    packs = "packssdw" in target.narrow and zero.lanes == 1 and x.lanes * 8 == target.vector_bits
    if packs and node.form is node.dtype:
        return _packed(code, x, zero, node.dtype)
    more = _above_zero(code, x, zero, node.dtype)
    if node.form is FLOAT32:
        return code.convert("sitofp", more, FLOAT32)
    total = code.op("add", more, _widened(code, zero, INT32))
    return total if node.form is INT32 else code.convert("trunc", total, node.dtype)


def _above_zero(code: Code, x: Value, zero: Value, dtype: DType) -> Value:
    """What the byte is more than its zero point."""
    low, high = (
        code.convert("sitofp", code.op("sub", const(end, INT32), _widened(code, zero, INT32)), FLOAT32)
        for end in _ENDS[dtype]
    )
    x = code.select(code.compare("ogt", x, high), high, x)
    x = code.select(code.compare("ogt", x, low), x, low)
    return code.intrinsic("lrint", x, dtype=INT32)


def _widened(code: Code, zero: Value, dtype: DType) -> Value:
    return code.convert("sext" if zero.dtype.is_signed else "zext", zero, dtype)


def _packed(code: Code, x: Value, zero: Value, dtype: DType) -> Value:
    """A register of bytes. Packing takes 128 bits of one operand and of the other in turns, which is put right last."""
    numbers, lanes = llvm_math.at_most(code, x, _LIMIT), x.lanes // 4
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
