"""Memory and monoids in vectors: loads and stores under masks, accumulators, and folding lanes together."""

from __future__ import annotations

from collections.abc import Sequence

from omniop.backends.codegen import llvm_alu
from omniop.backends.codegen.llvm_ir import Code, Value, const, index, memory_type
from omniop.opset.dtype import BOOL, UINT8, DType

# Memory ---------------------------------------------------------------------------------------------------------------

SCRATCH = "%scratch"
"""Eight bytes of the stack that stand in for an element that must not be touched: a select of two addresses in place of
a branch. `prologue` makes them."""


def prologue(code: Code) -> None:
    code.do(f"{SCRATCH} = alloca i64, align 8")
    code.do(f"store i64 0, ptr {SCRATCH}")


def _from_memory(code: Code, text: str, dtype: DType, lanes: int) -> Value:
    if dtype is BOOL:
        return code.compare("ne", Value(text, UINT8, lanes), const(0, UINT8))
    return Value(text, dtype, lanes)


def _to_memory(code: Code, value: Value) -> Value:
    return code.convert("zext", value, UINT8) if value.dtype is BOOL else value


def load(code: Code, pointer: str, dtype: DType, lanes: int = 1) -> Value:
    """Elements in a row."""
    text = code.let(f"load {memory_type(dtype, lanes)}, ptr {pointer}, align {dtype.itemsize}")
    return _from_memory(code, text, dtype, lanes)


def store(code: Code, pointer: str, value: Value) -> None:
    code.do(f"store {_to_memory(code, value)}, ptr {pointer}, align {value.dtype.itemsize}")


def has_masked(code: Code, dtype: DType) -> bool:
    return dtype.bits in code.module.target.masked_bits


def masked_load(code: Code, pointer: str, mask: Value, other: Value) -> Value:
    """Elements in a row where the mask holds, ``other`` elsewhere; for dtypes that `has_masked`."""
    dtype, lanes = other.dtype, mask.lanes
    other = _to_memory(code, code.splat(other, lanes))
    name = f"llvm.masked.load.v{lanes}{_suffix(dtype)}.p0"
    code.module.declare(name, other.type, ["ptr", "i32", mask.type, other.type])
    text = code.let(f"call {other.type} @{name}(ptr {pointer}, i32 {dtype.itemsize}, {mask}, {other})")
    return _from_memory(code, text, dtype, lanes)


def masked_store(code: Code, pointer: str, value: Value, mask: Value) -> None:
    """Elements in a row where the mask holds.

    One lane of a constant mask is stored by itself: LLVM 22 would, too, but with the width that it had before a
    conversion to fewer bits, over what lies behind it.
    """
    kept = _to_memory(code, code.splat(value, mask.lanes))
    lanes = mask.text.strip("<>").split(", ") if mask.text.startswith("<") else []
    if lanes.count("i1 true") == 1:
        lane = lanes.index("i1 true")
        store(code, code.element(pointer, kept.dtype, index(lane)), code.lane(kept, lane))
        return
    name = f"llvm.masked.store.v{mask.lanes}{_suffix(value.dtype)}.p0"
    code.module.declare(name, "void", [kept.type, "ptr", "i32", mask.type])
    code.do(f"call void @{name}({kept}, ptr {pointer}, i32 {value.dtype.itemsize}, {mask})")


def _suffix(dtype: DType) -> str:
    return f"f{dtype.bits}" if dtype.is_float else f"i{dtype.bits}"


def load_every(code: Code, pointer: str, dtype: DType, lanes: int, step: int) -> Value:
    """Elements 0, step, 2 * step, ... by loads of all between them, the last of which ends with the last element."""
    last = step * (lanes - 1)
    held = UINT8 if dtype is BOOL else dtype
    result: Value | None = None
    filled = 0
    for k in range(step):
        start = min(k * lanes, last + 1 - lanes)
        part = load(code, code.element(pointer, held, index(start)), held, lanes)
        until = (start + lanes - 1) // step + 1
        picked = [lanes + step * j - start if filled <= j < until else j for j in range(lanes)]
        result = code.shuffle_two(part if result is None else result, part, picked)
        filled = until
    assert result is not None
    return _from_memory(code, result.text, dtype, lanes)


def load_square(code: Code, pointers: Sequence[str], dtype: DType) -> list[Value]:
    """A square, transposed: a row from each address, as long as there are addresses; value ``k`` holds element ``k`` of
    each."""
    size = len(pointers)
    held = UINT8 if dtype is BOOL else dtype
    rows = transposed(code, [load(code, pointer, held, size) for pointer in pointers])
    return [_from_memory(code, row.text, dtype, size) for row in rows]


def transposed(code: Code, rows: Sequence[Value]) -> list[Value]:
    """As many vectors as they have lanes: value ``k`` holds lane ``k`` of each."""
    half = len(rows) // 2
    for _ in range(len(rows).bit_length() - 1):
        rows = [v for a, b in zip(rows[:half], rows[half:], strict=True) for v in code.interleave(a, b)]
    return list(rows)


def permitted(code: Code, pointer: str, condition: Value) -> str:
    """The address where the condition holds, scratch elsewhere."""
    return code.let(f"select {condition}, ptr {pointer}, ptr {SCRATCH}")


def gather(code: Code, pointers: Sequence[str], dtype: DType, mask: Value | None) -> Value:
    """An element from each address; lanes outside the mask hold anything."""
    parts = []
    for k, pointer in enumerate(pointers):
        if mask is not None:
            pointer = permitted(code, pointer, code.lane(mask, k))
        parts.append(Value(code.let(f"load {memory_type(dtype)}, ptr {pointer}, align {dtype.itemsize}"), dtype))
    if dtype is BOOL:
        lanes = code.gather([Value(p.text, UINT8) for p in parts])
        return _from_memory(code, lanes.text, BOOL, len(parts))
    return code.gather(parts)


def scatter(code: Code, pointers: Sequence[str], value: Value, mask: Value | None) -> None:
    """Each lane to its address; of equal addresses the last lane stays."""
    kept = _to_memory(code, code.splat(value, len(pointers)))
    for k, pointer in enumerate(pointers):
        if mask is not None:
            pointer = permitted(code, pointer, code.lane(mask, k))
        code.do(f"store {code.lane(kept, k)}, ptr {pointer}, align {value.dtype.itemsize}")


# Monoids --------------------------------------------------------------------------------------------------------------

_ALU = ("add", "mul", "min", "max", "and", "or")


def identity(monoid: str, dtypes: Sequence[DType], lanes: int) -> list[Value]:
    """What changes nothing when combined: one value, or (value, index) for argmin and argmax."""
    if monoid in ("argmin", "argmax"):
        worst, index = dtypes
        return [const(_bound(worst, least=monoid == "argmax"), worst, lanes), const(_bound(index, False), index, lanes)]
    (dtype,) = dtypes
    numbers = {"add": 0, "mul": 1, "or": 0, "min": _bound(dtype, False), "max": _bound(dtype, True)}
    ones = True if dtype is BOOL else -1 if dtype.kind == "i" else (1 << dtype.bits) - 1
    return [const(ones if monoid == "and" else numbers[monoid], dtype, lanes)]


def _bound(dtype: DType, least: bool) -> int | float:
    if dtype.is_float:
        return float("-inf") if least else float("inf")
    if dtype is BOOL:
        return 0 if least else 1
    if dtype.kind == "u":
        return 0 if least else (1 << dtype.bits) - 1
    return -(1 << (dtype.bits - 1)) if least else (1 << (dtype.bits - 1)) - 1


def combine(code: Code, monoid: str, a: Sequence[Value], b: Sequence[Value]) -> list[Value]:
    """Two accumulators as one."""
    if monoid in _ALU:
        return [llvm_alu.apply(code, monoid, a[0], b[0])]
    # the better value, or the lesser index of equals; NaN is better than any number and equal to itself
    (x, i), (y, j) = a, b
    better = llvm_alu.apply(code, "lt", *((y, x) if monoid == "argmin" else (x, y)))
    equal = llvm_alu.apply(code, "eq", x, y)
    if x.dtype.is_float:
        x_nan, y_nan = (llvm_alu.apply(code, "isnan", v) for v in (x, y))
        number = code.op("xor", x_nan, const(True, BOOL))
        better = code.op("or", better, code.op("and", y_nan, number))
        equal = code.op("or", equal, code.op("and", x_nan, y_nan))
    earlier = llvm_alu.apply(code, "lt", j, i)
    take = code.op("or", better, code.op("and", equal, earlier))
    return [code.select(take, y, x), code.select(take, j, i)]


def narrowed(code: Code, monoid: str, values: Sequence[Value], lanes: int) -> list[Value]:
    """An accumulator's lanes folded, halves together, until ``lanes`` are left."""
    values = list(values)
    while (wide := values[0].lanes) > lanes:
        low = [code.shuffle(v, range(wide // 2)) for v in values]
        high = [code.shuffle(v, range(wide // 2, wide)) for v in values]
        values = combine(code, monoid, low, high)
    return values
