"""Bytes that quantisation makes, on each kind of processor's instructions, against the reference."""

from __future__ import annotations

import platform

import numpy as np
import pytest
from llvm_runner import element, launch, reads, reference, writes

from omniop.backends.codegen.llvm_ir import Target
from omniop.backends.codegen.llvm_rounding import find
from omniop.opset import expr
from omniop.opset.dtype import FLOAT32, INT8, INT32, UINT8, DType
from omniop.opset.expr import Expr
from omniop.opset.kernel import Kernel, Store

_PACKS = frozenset(("packssdw",))
TARGETS = {
    "wide": Target(512, frozenset((8, 16, 32, 64)), narrow=_PACKS),
    "middle": Target(256, frozenset((32, 64)), narrow=_PACKS),
    "short": Target(128, narrow=_PACKS),
    "plain": Target(128),
}
if platform.machine() not in ("x86_64", "AMD64"):
    TARGETS = {"plain": TARGETS["plain"]}
LENGTHS = (1, 15, 16, 17, 49, 64, 65, 200)


def quantised(x: Expr, zero: Expr, dtype: DType) -> Expr:
    return expr.cast(expr.alu("rint", x) + expr.cast(zero, FLOAT32), dtype)


def numbers(length: int) -> np.ndarray:
    """Halves, what lies around the ends of a byte's range with any zero point, and what no integer holds."""
    edges = [0.0, -0.0, 0.5, 1.5, -0.5, -2.5, 126.5, 127.5, -128.5, 254.5, 255.5, 382.5, 383.5, -255.5, -383.5, 511.5]
    edges += [513.0, -513.0, 2.0**24 + 2, 2.0**31, -(2.0**31), 3e38, -3e38, np.inf, -np.inf, np.nan, -np.nan, 1e-40]
    random = np.random.default_rng(length)
    return random.permutation(np.resize(np.array([*edges, *random.normal(0, 200, 40)], np.float32), length))


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("dtype", [UINT8, INT8], ids=str)
def test_bytes_are_rounded_and_saturate(target: Target, dtype: DType) -> None:
    i = expr.raw_axis(0, expr.size("s0"))
    ends = np.iinfo(dtype.numpy)
    value = quantised(element(0, i), element(1, expr.index(0), dtype), dtype)
    assert find(value) is not None
    kernel = Kernel((reads(), reads(dtype), writes(dtype)), (i,), (Store(2, i, value),), 1)
    for length in LENGTHS:
        for zero in (ends.min, ends.max, 0, 3):
            arrays = [numbers(length), np.array([zero], dtype.numpy), np.zeros(length, dtype.numpy)]
            expected = reference(kernel, arrays, [length])[2]
            np.testing.assert_array_equal(launch(kernel, arrays, [length], target=target)[2], expected, f"{zero}")


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("dtype", [UINT8, INT8], ids=str)
def test_bytes_that_are_read_as_integers(target: Target, dtype: DType) -> None:
    """As where a residual is added to what was rounded; zero points differ from element to element."""
    i = expr.raw_axis(0, expr.size("s0"))
    ends = np.iinfo(dtype.numpy)
    value = expr.cast(quantised(element(0, i), element(1, i, dtype), dtype), INT32)
    assert find(value) is not None
    kernel = Kernel((reads(), reads(dtype), writes(INT32)), (i,), (Store(2, i, value * 3),), 1)
    for length in LENGTHS:
        zeros = np.random.default_rng(length).integers(ends.min, ends.max, length, dtype.numpy, endpoint=True)
        arrays = [numbers(length), zeros, np.zeros(length, np.int32)]
        expected = reference(kernel, arrays, [length])[2]
        np.testing.assert_array_equal(launch(kernel, arrays, [length], target=target)[2], expected)


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
@pytest.mark.parametrize("dtype", [UINT8, INT8], ids=str)
def test_bytes_that_are_dequantised_at_once(target: Target, dtype: DType) -> None:
    """By zero points that are constant or loaded; 0 is never -0."""
    i = expr.raw_axis(0, expr.size("s0"))
    ends = np.iinfo(dtype.numpy)
    for point in (ends.min, ends.max, 7, None):
        zero = element(1, expr.index(0), dtype) if point is None else expr.const(point, dtype)
        more = expr.cast(quantised(element(0, i), zero, dtype), INT32) - expr.cast(zero, INT32)
        value = expr.cast(more, FLOAT32)
        assert find(value) is not None
        kernel = Kernel((reads(), reads(dtype), writes(FLOAT32)), (i,), (Store(2, i, value),), 1)
        for length in LENGTHS:
            arrays = [numbers(length), np.array([9], dtype.numpy), np.zeros(length, np.float32)]
            expected = reference(kernel, arrays, [length])[2]
            found = launch(kernel, arrays, [length], target=target)[2]
            np.testing.assert_array_equal(found.view(np.int32), expected.view(np.int32), str(point))


def test_what_is_not_rounded_to_a_byte() -> None:
    x, zero = element(0, expr.index(0)), element(1, expr.index(0), INT8)
    assert find(quantised(x, zero, INT32)) is None
    assert find(expr.cast(x + expr.cast(zero, FLOAT32), INT8)) is None
    assert find(expr.cast(expr.alu("rint", x) - expr.cast(zero, FLOAT32), INT8)) is None
    assert find(quantised(x, expr.cast(zero, INT32), INT8)) is None
    assert find(quantised(x, expr.const(0.5, FLOAT32), INT8)) is None
    assert find(quantised(x, expr.const(200, UINT8), INT8)) is None
    byte = expr.cast(quantised(x, zero, INT8), INT32)
    assert find(expr.cast(byte - 3, FLOAT32)) is None
    assert find(expr.cast(byte + expr.cast(zero, INT32), FLOAT32)) is None
