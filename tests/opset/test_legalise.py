"""Kernels made legal mean what they meant, and are left alone when they are."""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
import pytest

from omniop.opset import dtype as dtypes
from omniop.opset import expr
from omniop.opset.alu import wrap
from omniop.opset.dtype import (
    BFLOAT16,
    BOOL,
    FLOAT8E8M0,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    INT4,
    INT8,
    INT64,
    UINT8,
    UINT16,
    UINT64,
    DType,
)
from omniop.opset.expr import Expr
from omniop.opset.kernel import Carry, Kernel, Param, Store
from omniop.opset.legalise import Refusal, legalise, legalise_expr, stored_dtype
from omniop.opset.narrow import FORMATS, decode, encode, narrow_double, wrap_integer

BASIC = frozenset(d for d in dtypes.ALL if d.kind in "biu" and d.bits >= 8) | {FLOAT32}


@dataclass(frozen=True)
class Caps:
    storage: frozenset[DType] = BASIC
    compute: frozenset[DType] = BASIC
    max_buffers: int = 16


NARROW = [*FORMATS, BFLOAT16, FLOAT8E8M0]


def evaluate(root: Expr, inputs: dict[int, np.ndarray]) -> np.ndarray:
    """Values of an expression of the operations that conversions are made of; ``load(k)`` is ``inputs[k]``."""
    operations = {
        "add": np.add,
        "sub": np.subtract,
        "mul": np.multiply,
        "and": np.bitwise_and,
        "or": np.bitwise_or,
        "xor": np.bitwise_xor,
        "shl": np.left_shift,
        "shr": np.right_shift,
        "lt": np.less,
        "le": np.less_equal,
        "eq": np.equal,
        "ne": np.not_equal,
        "abs": np.abs,
        "neg": np.negative,
        "min": np.minimum,
        "max": np.maximum,
    }
    values: dict[Expr, np.ndarray] = {}
    with np.errstate(all="ignore"):
        for node in expr.walk(root):
            args = [values[a] for a in node.args]
            if node.op == "const":
                values[node] = node.dtype.numpy.type(node.attr)
            elif node.op in ("size", "axis"):
                values[node] = np.int64(0)  # where an input is loaded from does not matter
            elif node.op == "load":
                values[node] = inputs[node.attr.source]
            elif node.op == "alu":
                values[node] = operations[node.attr](*args)
            elif node.op == "cast":
                values[node] = np.asarray(args[0]).astype(node.dtype.numpy)
            elif node.op == "bitcast":
                values[node] = np.asarray(args[0]).view(node.dtype.numpy)
            elif node.op == "select":
                values[node] = np.where(*args)
            else:
                raise AssertionError(node.op)
            assert np.asarray(values[node]).dtype == node.dtype.numpy, node
    return values[root]


def at(buffer: int, dtype: DType) -> Expr:
    return expr.load(buffer, (expr.axis(0, expr.size("s0")),), dtype)


def pointwise(value: Expr, *inputs: DType, result: DType | None = None) -> Kernel:
    i = expr.axis(0, expr.size("s0"))
    params = (*(Param(d) for d in inputs), Param(result or value.dtype, True))
    return Kernel(params, (i,), (Store(len(inputs), i, value),), 1)


def same(actual: np.ndarray, wanted: np.ndarray) -> None:
    """Equal bits, any NaN for NaN."""
    a, b = actual.astype(np.float32), wanted.astype(np.float32)
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(np.signbit(a[~np.isnan(a)]), np.signbit(b[~np.isnan(b)]))


def singles() -> np.ndarray:
    """All float32 whose low bits are around a rounding tie, for every upper half."""
    upper = np.arange(1 << 16, dtype=np.uint32) << 16
    return np.concatenate([upper + low for low in (0, 1, 0x1000, 0x1001, 0x7FFF, 0x8000, 0x8001, 0xFFFF)]).view(
        np.float32
    )


# Conversions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_encode_rounds_as_ml_dtypes(dtype: DType) -> None:
    x = singles()
    codes = evaluate(encode(at(0, FLOAT32), dtype), {0: x})
    with np.errstate(all="ignore"):
        wanted = x.astype(dtype.numpy)
    width = np.uint16 if dtype.bits == 16 else np.uint8
    assert codes.max() < 1 << dtype.bits
    number = ~np.isnan(x)
    np.testing.assert_array_equal(codes[number], wanted.view(width)[number])
    if dtype.bits >= 8:  # what is narrower has no NaN
        assert np.isnan(codes[~number].astype(width).view(dtype.numpy).astype(np.float32)).all()


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_decode_every_code(dtype: DType) -> None:
    codes = np.arange(1 << dtype.bits, dtype=np.uint32)
    width = np.uint16 if dtype.bits == 16 else np.uint8
    same(evaluate(decode(at(0, dtypes.UINT32), dtype), {0: codes}), codes.astype(width).view(dtype.numpy))


def test_doubles_round_once() -> None:
    ties = 1 + np.arange(16) * 2.0**-11
    x = np.concatenate(
        [
            ties,
            ties + 2.0**-40,
            ties - 2.0**-40,
            ties * 2.0**-20 + 2.0**-70,
            -ties,
            [1e300, -1e300, np.inf, np.nan, 0, 1e-320],
        ]
    )
    codes = evaluate(encode(narrow_double(at(0, FLOAT64)), FLOAT16), {0: x})
    with np.errstate(all="ignore"):
        same(codes.astype(np.uint16).view(np.float16), x.astype(np.float16))


@pytest.mark.parametrize("dtype", [INT4, dtypes.UINT4, dtypes.INT2, dtypes.UINT2], ids=str)
def test_wrap_every_byte(dtype: DType) -> None:
    held = INT8 if dtype.kind == "i" else UINT8
    x = np.arange(256).astype(np.uint8).view(held.numpy)
    wanted = [wrap(int(v), dtype) for v in x]
    np.testing.assert_array_equal(evaluate(wrap_integer(at(0, held), dtype), {0: x}), wanted)


# Kernels --------------------------------------------------------------------------------------------------------------


def run(kernel: Kernel | Refusal, *inputs: np.ndarray) -> np.ndarray:
    """The one store of a legal pointwise kernel, in the bytes of its buffer."""
    assert isinstance(kernel, Kernel), kernel
    arrays = {k: a.view(p.dtype.numpy) for k, (a, p) in enumerate(zip(inputs, kernel.params, strict=False))}
    value = evaluate(kernel.stores[0].value, arrays)
    assert np.asarray(value).dtype == kernel.params[-1].dtype.numpy
    return np.broadcast_to(value, inputs[0].shape) if inputs else value


STORES_HALF = Caps(storage=BASIC | {FLOAT16})


@pytest.mark.parametrize("caps", [Caps(), STORES_HALF], ids=["bits", "stored"])
@pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16], ids=str)
def test_narrow_arithmetic_rounds_every_step(dtype: DType, caps: Caps) -> None:
    """(a + b) * a - b, where one rounding at the end would give other numbers."""
    rng = np.random.default_rng(1)
    a, b = (rng.standard_normal(5000).astype(dtype.numpy) for _ in range(2))
    x, y = at(0, dtype), at(1, dtype)
    kernel = legalise(pointwise((x + y) * x - y, dtype, dtype), caps)
    assert isinstance(kernel, Kernel)
    assert {p.dtype for p in kernel.params} == {stored_dtype(dtype, caps)}
    same(run(kernel, a, b).view(dtype.numpy), (a + b) * a - b)
    once = ((a.astype(np.float32) + b) * a - b).astype(dtype.numpy)
    assert (once != (a + b) * a - b).any()


@pytest.mark.parametrize("dtype", NARROW, ids=str)
def test_a_copy_keeps_the_bits(dtype: DType) -> None:
    """A load and a store, also through float32 and a select, convert nothing."""
    kernel = legalise(pointwise(at(0, dtype), dtype), Caps())
    assert isinstance(kernel, Kernel)
    assert kernel.stores[0].value is expr.load(0, (kernel.axes[0],), kernel.params[0].dtype)


def test_constants_are_rounded_to_their_dtype() -> None:
    x = np.ones(3, ml_dtypes.bfloat16)
    kernel = legalise(pointwise(at(0, BFLOAT16) * 0.1, BFLOAT16), Caps())
    same(run(kernel, x).view(ml_dtypes.bfloat16), x * ml_dtypes.bfloat16(0.1))


def test_other_of_a_guarded_load_is_encoded() -> None:
    i = expr.axis(0, expr.size("s0"))
    load = expr.load(0, (i,), BFLOAT16, i < 2, 1.5)
    kernel = legalise(pointwise(load, BFLOAT16), Caps())
    assert isinstance(kernel, Kernel)
    value = kernel.stores[0].value
    assert value.op == "load"
    assert value.dtype is UINT16
    assert evaluate(value.args[-1], {}) == np.float32(1.5).view(np.uint32) >> 16


def test_comparisons_need_no_rounding() -> None:
    a = np.array([1, 2, np.nan, -0.0], np.float16)
    kernel = legalise(pointwise(at(0, FLOAT16) < at(1, FLOAT16), FLOAT16, FLOAT16), Caps())
    assert run(kernel, a, np.zeros(4, np.float16)).tolist() == (a < 0).tolist()


def test_small_integers_wrap_after_every_operation() -> None:
    x = np.repeat(np.arange(16, dtype=np.uint8), 16)
    y = np.tile(np.arange(16, dtype=np.uint8), 16)
    a, b = at(0, INT4), at(1, INT4)
    kernel = legalise(pointwise(expr.maximum((a + b) * a, -b), INT4, INT4), Caps())
    signed = [(np.int64(v) << 60) >> 60 for v in (x, y)]
    wrapped = (((signed[0] + signed[1]) * signed[0] << 60) >> 60, (-signed[1] << 60) >> 60)
    stored = run(kernel, x, y)
    assert (stored.view(np.uint8) < 16).all()
    np.testing.assert_array_equal(stored.view(ml_dtypes.int4).astype(np.int64), np.maximum(*wrapped))


@pytest.mark.parametrize("dtype", [INT4, dtypes.UINT4, dtypes.INT2], ids=str)
def test_float_to_small_integer_saturates(dtype: DType) -> None:
    x = np.array([np.nan, np.inf, -np.inf, 2.9, -2.9, 1e9, -0.5], np.float32)
    low = -(1 << (dtype.bits - 1)) if dtype.kind == "i" else 0
    high = low + (1 << dtype.bits) - 1
    kernel = legalise(pointwise(expr.cast(at(0, FLOAT32), dtype), FLOAT32), Caps())
    wanted = [0, high, low, min(2, high), max(-2, low), high, 0]
    assert run(kernel, x).view(dtype.numpy).astype(int).tolist() == wanted


def test_bool_becomes_uint8() -> None:
    caps = Caps(storage=BASIC - {BOOL})
    kernel = legalise(pointwise(expr.alu("not", at(0, BOOL)), BOOL), caps)
    assert isinstance(kernel, Kernel)
    assert [p.dtype for p in kernel.params] == [UINT8, UINT8]


def test_reduces_of_narrow_floats_are_kept_in_float32() -> None:
    k = expr.axis(1, 100)
    total = expr.reduce("add", (k,), (expr.load(0, (k,), BFLOAT16),))
    largest = expr.reduce("max", (k,), (expr.load(0, (k,), BFLOAT16),))
    kernel = legalise(pointwise(total + largest, BFLOAT16), Caps())
    assert isinstance(kernel, Kernel)
    reduces = [n for n in expr.walk(kernel.stores[0].value) if n.op == "reduce"]
    assert [r.dtype for r in reduces] == [FLOAT32, FLOAT32]


def test_carries_are_held_in_float32() -> None:
    step = expr.raw_axis(0, expr.size("s0"))
    carry = Carry(FLOAT16, expr.const(0.0, FLOAT16), expr.carry(0, FLOAT16) + expr.load(0, (step,), FLOAT16))
    store = Store(1, step, expr.carry(0, FLOAT16))
    kernel = legalise(Kernel((Param(FLOAT16), Param(FLOAT16, True)), (), (store,), 1, step, (carry,)), Caps())
    assert isinstance(kernel, Kernel)
    assert kernel.carries[0].dtype is FLOAT32
    assert kernel.carries[0].update.dtype is FLOAT32


def test_combining_store_of_a_narrow_float_is_made_in_order() -> None:
    i, j = expr.raw_axis(0, expr.size("s0")), expr.raw_axis(1, expr.size("s1"))
    store = Store(2, expr.load(1, (i,), INT64), expr.load(0, (i * expr.size("s1") + j,), BFLOAT16), None, "add")
    kernel = legalise(Kernel((Param(BFLOAT16), Param(INT64), Param(BFLOAT16, True)), (i, j), (store,), 2), Caps())
    assert isinstance(kernel, Kernel)
    assert kernel.axes == ()
    assert kernel.seq is not None
    assert expr.evaluate(kernel.seq.args[0], {"s0": 3, "s1": 5}) == 15
    assert kernel.stores[0].combine is None
    assert any(n.op == "load" and n.attr.source == 2 for n in expr.walk(kernel.stores[0].value))


def test_doubles_can_be_moved_without_fp64() -> None:
    kernel = legalise(pointwise(expr.load(0, (expr.axis(0, 3),), FLOAT64, expr.axis(0, 3) < 2, 1.0), FLOAT64), Caps())
    assert isinstance(kernel, Kernel)
    assert [p.dtype for p in kernel.params] == [UINT64, UINT64]
    assert evaluate(kernel.stores[0].value.args[-1], {}) == np.float64(1).view(np.uint64)


def test_refusals() -> None:
    added = legalise(pointwise(at(0, FLOAT64) + 1.0, FLOAT64), Caps())
    assert isinstance(added, Refusal)
    assert added.code == "needs-fp64"
    cast = legalise(pointwise(expr.cast(at(0, FLOAT64), FLOAT32), FLOAT64), Caps())
    assert isinstance(cast, Refusal)
    assert cast.code == "needs-fp64"
    many = legalise(pointwise(at(0, FLOAT32) + at(1, FLOAT32), FLOAT32, FLOAT32), Caps(max_buffers=2))
    assert isinstance(many, Refusal)
    assert many.code == "too-many-buffers"
    assert "3 buffers" in many.detail
    word = legalise(pointwise(at(0, INT64) + 1, INT64), Caps(compute=BASIC - {INT64}))
    assert isinstance(word, Refusal)
    assert word.code == "needs-int64"


@pytest.mark.parametrize("caps", [Caps(), STORES_HALF, Caps(BASIC | {FLOAT16, FLOAT64}, BASIC | {FLOAT64})])
@pytest.mark.parametrize("dtype", [*NARROW, INT4, BOOL, FLOAT32], ids=str)
def test_a_legal_kernel_is_returned_as_it_is(dtype: DType, caps: Caps) -> None:
    value = at(0, dtype)
    value = expr.select(value.eq(at(1, dtype)), value, at(1, dtype)) if dtype is BOOL else value + at(1, dtype)
    once = legalise(pointwise(value, dtype, dtype), caps)
    assert isinstance(once, Kernel)
    assert legalise(once, caps) is once


def test_epilogue_with_a_hole() -> None:
    i = expr.axis(0, 8)
    root = expr.alu("max", expr.hole(BFLOAT16) + expr.load(3, (i,), BFLOAT16), expr.const(0.0, BFLOAT16))
    legal = legalise_expr(root, Caps())
    assert isinstance(legal, Expr)
    assert legal.dtype is UINT16
    holes = [n for n in expr.walk(legal) if n.op == "hole"]
    assert [h.dtype for h in holes] == [FLOAT32]
    plain = expr.hole(FLOAT32) * 2.0
    assert legalise_expr(plain, Caps()) is plain


def test_bitcast_of_a_narrow_float_gives_its_code() -> None:
    x = np.array([1.5, -2, 0.1], ml_dtypes.bfloat16)
    kernel = legalise(pointwise(expr.bitcast(at(0, BFLOAT16), UINT16), BFLOAT16), Caps())
    np.testing.assert_array_equal(run(kernel, x), x.view(np.uint16))
    back = legalise(pointwise(expr.bitcast(at(0, UINT8), dtypes.FLOAT8E5M2), UINT8), Caps())
    codes = np.arange(256, dtype=np.uint8)
    same(run(back, codes).view(ml_dtypes.float8_e5m2), codes.view(ml_dtypes.float8_e5m2))
