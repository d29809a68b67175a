"""Dot products of narrow elements that lie together in 32-bit words: four bytes, or two bfloat16.

What a processor has for them differs: AVX512-VNNI and AVX-VNNI multiply unsigned by signed bytes and add up four, AVX2
and SSE2 multiply and add pairs of 16-bit integers, AVX512-BF16 does pairs of bfloat16. Others do what the words mean.
Sums of bytes are exact in int32 and wrap. AVX2's product of bytes saturates, and is not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from omniop.backends.codegen.llvm_flow import fma
from omniop.backends.codegen.llvm_ir import Code, Value, const
from omniop.opset.dtype import BFLOAT16, FLOAT32, INT8, INT16, INT32, UINT8, UINT16, DType


@dataclass(frozen=True)
class Dot:
    """A kind of product: the elements of its left and of its right operand, and what their sums are kept in."""

    left: DType
    right: DType

    @property
    def name(self) -> str:
        short = {UINT8: "u8", INT8: "s8", BFLOAT16: "bf16"}
        return f"{short[self.left]}_{short[self.right]}"

    @property
    def sums(self) -> DType:
        return INT32 if self.left.is_int else FLOAT32

    @property
    def group(self) -> int:
        """Elements of a word."""
        return 32 // self.left.bits

    @property
    def flipped(self) -> bool:
        """Whether the right operand's sign bits are flipped, since the processor multiplies unsigned by signed: its
        elements are then ``offset`` more than they say."""
        return self.left.is_int and self.left.is_signed == self.right.is_signed

    @property
    def offset(self) -> int:
        return 0 if not self.flipped else 128 if self.right.is_signed else -128

    def right_word(self, code: Code, words: Value) -> Value:
        """Words of the right operand as `add` wants them."""
        return code.op("xor", words, const(_SIGNS, INT32, words.lanes)) if self.flipped else words

    def add(self, code: Code, total: Value, left: Value, right: Value) -> Value:
        """``total`` and the dot products of words, lane by lane."""
        if not self.left.is_int:
            return _add_pairs(code, total, left, right)
        unsigned, signed = (right, left) if self.left.is_signed else (left, right)
        return _add_bytes(code, total, unsigned, signed)


def rounded(code: Code, x: Value) -> Value:
    """Floats as the bits of bfloat16, to the nearest and to even; of numbers below float32's normal ones, which such
    products take for 0, the processor's instruction makes zeros."""
    lanes = code.module.target.vector_bits // 32
    if "vdpbf16ps" in code.module.target.narrow and x.lanes % lanes == 0:
        parts = [code.shuffle(x, range(k, k + lanes)) for k in range(0, x.lanes, lanes)]
        return _joined(code, [_rounded_by_one(code, part) for part in parts])
    bits = code.convert("bitcast", x, INT32)
    odd = code.op("and", _shift(code, "lshr", bits), _number(1, bits))
    nearest = code.op("add", bits, code.op("add", odd, _number(0x7FFF, bits)))
    quiet = code.op("or", bits, _number(1 << 22, bits))
    return code.convert("trunc", _shift(code, "lshr", code.select(code.compare("uno", x, x), quiet, nearest)), UINT16)


def _rounded_by_one(code: Code, x: Value) -> Value:
    name, narrow = f"llvm.x86.avx512bf16.cvtneps2bf16.{_bits(x)}", f"<{x.lanes} x bfloat>"
    code.module.declare(name, narrow, [x.type])
    text = code.let(f"bitcast {narrow} {code.let(f'call {narrow} @{name}({x})')} to <{x.lanes} x i16>")
    return Value(text, UINT16, x.lanes)


def _joined(code: Code, parts: Sequence[Value]) -> Value:
    while len(parts) > 1:
        parts = [code.shuffle_two(a, b, range(2 * a.lanes)) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def _shift(code: Code, shift: str, words: Value) -> Value:
    return code.op(shift, words, _number(16, words))


_SIGNS = 0x80808080 - (1 << 32)
KINDS = (*(Dot(a, b) for a in (UINT8, INT8) for b in (UINT8, INT8)), Dot(BFLOAT16, BFLOAT16))


def kind_of(left: DType, right: DType) -> Dot | None:
    """The kind of product that operands of these dtypes make."""
    return next((kind for kind in KINDS if (kind.left, kind.right) == (left, right)), None)


def _bits(total: Value) -> int:
    return total.lanes * 32


def _add_bytes(code: Code, total: Value, unsigned: Value, signed: Value) -> Value:
    instructions = code.module.target.narrow
    if "vpdpbusd" in instructions and total.lanes > 1:
        name = f"llvm.x86.avx512.vpdpbusd.{_bits(total)}"
        return _call(code, name, total, unsigned, signed)
    if "pmaddwd" in instructions and total.lanes > 1:
        low = _pairs(code, code.op("and", unsigned, _number(0x00FF00FF, unsigned)), _low_signed(code, signed))
        high = _pairs(code, _shifted(code, "lshr", unsigned), _shifted(code, "ashr", signed))
        return code.op("add", total, code.op("add", low, high))
    for k in range(4):
        a = code.op("and", code.op("lshr", unsigned, _number(8 * k, unsigned)), _number(255, unsigned))
        b = code.op("ashr", code.op("shl", signed, _number(24 - 8 * k, signed)), _number(24, signed))
        total = code.op("add", total, code.op("mul", a, b))
    return total


def _add_pairs(code: Code, total: Value, left: Value, right: Value) -> Value:
    if "vdpbf16ps" in code.module.target.narrow and total.lanes > 1:
        lanes = 2 * total.lanes
        parts = [code.let(f"bitcast {v} to <{lanes} x bfloat>") for v in (left, right)]
        name = f"llvm.x86.avx512bf16.dpbf16ps.{_bits(total)}"
        wide = f"<{lanes} x bfloat>"
        code.module.declare(name, total.type, [total.type, wide, wide])
        text = code.let(f"call {total.type} @{name}({total}, {wide} {parts[0]}, {wide} {parts[1]})")
        return Value(text, FLOAT32, total.lanes)
    for part in (_first, _second):
        total = fma(code, part(code, left), part(code, right), total)
    return total


def _first(code: Code, words: Value) -> Value:
    return code.convert("bitcast", code.op("shl", words, _number(16, words)), FLOAT32)


def _second(code: Code, words: Value) -> Value:
    return code.convert("bitcast", code.op("and", words, _number(-65536, words)), FLOAT32)


def _number(value: int, like: Value) -> Value:
    return const(value, INT32, like.lanes)


def _call(code: Code, name: str, *operands: Value) -> Value:
    result = operands[0]
    code.module.declare(name, result.type, [v.type for v in operands])
    return Value(code.let(f"call {result.type} @{name}({', '.join(map(str, operands))})"), result.dtype, result.lanes)


def _halves(code: Code, words: Value) -> Value:
    """Words as twice as many 16-bit integers."""
    lanes = 2 * words.lanes
    return Value(code.let(f"bitcast {words} to <{lanes} x i16>"), INT16, lanes)


def _low_signed(code: Code, words: Value) -> Value:
    """The even bytes, each as a 16-bit integer."""
    halves, eight = _halves(code, words), const(8, INT16)
    return code.op("ashr", code.op("shl", halves, eight), eight)


def _shifted(code: Code, shift: str, words: Value) -> Value:
    """The odd bytes, each as a 16-bit integer."""
    return code.op(shift, _halves(code, words), const(8, INT16))


def _pairs(code: Code, unsigned: Value, signed: Value) -> Value:
    """Products of 16-bit integers, added up in pairs."""
    a, b = (v if v.dtype is INT16 else _halves(code, v) for v in (unsigned, signed))
    lanes = a.lanes // 2
    name = {128: "sse2.pmadd.wd", 256: "avx2.pmadd.wd", 512: "avx512.pmaddw.d.512"}[32 * lanes]
    full = f"llvm.x86.{name}"
    code.module.declare(full, f"<{lanes} x i32>", [a.type, b.type])
    return Value(code.let(f"call <{lanes} x i32> @{full}({a}, {b})"), INT32, lanes)
