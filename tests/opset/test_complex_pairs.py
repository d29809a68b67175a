"""Kernels over complex elements do to pairs of floats what they did to the numbers."""

from __future__ import annotations

import numpy as np
import pytest

from omniop.backends.array_eval import KernelEvaluator
from omniop.backends.reference.numpy_ops import NUMPY
from omniop.opset import expr
from omniop.opset.complex_pairs import NotPairsError, as_pairs, has_complex
from omniop.opset.dtype import BOOL, COMPLEX64, COMPLEX128, FLOAT32, INT64, DType
from omniop.opset.expr import Expr
from omniop.opset.kernel import Kernel, Param, Store
from omniop.opset.legalise import Refusal, legalise

X = np.array([1 + 2j, 0, 3j, -4, complex(np.nan, 1), complex(-0.0, np.inf)])


def kernel_of(value: Expr, written: DType, combine: str | None = None, dtype: DType = COMPLEX64) -> Kernel:
    """Over six points: a store of ``value`` to the second buffer, the first one holds complex numbers."""
    i = expr.axis(0, 6)
    store = Store(1, i, value, combine=combine)
    return Kernel((Param(dtype), Param(written, True)), (i,), (store,))


def run(kernel: Kernel, x: np.ndarray, out: np.ndarray) -> np.ndarray:
    """``out`` after the kernel over the parts, of arrays of complex numbers."""
    pairs = as_pairs(kernel)
    assert not has_complex(pairs)
    arrays = [a.view(a.real.dtype) if a.dtype.kind == "c" else a for a in (x.copy(), out)]
    KernelEvaluator(pairs, NUMPY)(arrays, ())
    return out


def at(index: Expr, dtype: DType = COMPLEX64, guard: Expr | None = None, other: complex = 0) -> Expr:
    return expr.load(0, (index,), dtype, guard, expr.const(other, dtype))


@pytest.mark.parametrize("dtype", [COMPLEX64, COMPLEX128])
def test_moves_keep_both_parts(dtype: DType) -> None:
    i = expr.axis(0, 6)
    x = X.astype(dtype.numpy)
    found = run(kernel_of(at(5 - i, dtype), dtype, dtype=dtype), x, np.zeros(6, dtype.numpy))
    np.testing.assert_array_equal(found, x[::-1])


def test_guarded_loads_and_choices_give_complex_numbers() -> None:
    i = expr.axis(0, 6)
    x = X.astype(np.complex64)
    padded = at(i, guard=i < 4, other=7 - 1j)
    value = expr.select(i.eq(1), expr.const(0.5j, COMPLEX64), padded)
    found = run(kernel_of(value, COMPLEX64), x, np.zeros(6, np.complex64))
    np.testing.assert_array_equal(found, np.array([x[0], 0.5j, x[2], x[3], 7 - 1j, 7 - 1j], np.complex64))


def test_a_number_is_true_where_either_part_is() -> None:
    x = X.astype(np.complex64)
    found = run(kernel_of(expr.cast(at(expr.axis(0, 6)), BOOL), BOOL), x, np.zeros(6, bool))
    np.testing.assert_array_equal(found, x != 0)


def test_stores_that_add_up_do_so_part_by_part() -> None:
    i = expr.axis(0, 6)
    kernel = Kernel((Param(COMPLEX64), Param(COMPLEX64, True)), (i,), (Store(1, i // 3, at(i), combine="add"),))
    x = np.arange(6).astype(np.complex64) * (1 - 2j)
    found = run(kernel, x, np.ones(2, np.complex64))
    np.testing.assert_array_equal(found, 1 + x.reshape(2, 3).sum(1))


def test_a_sum_is_one_of_each_part() -> None:
    x = np.arange(6).astype(np.complex64) * (1 - 2j)
    total = expr.reduce("add", (expr.axis(1, 6),), (at(expr.axis(1, 6)),))
    np.testing.assert_array_equal(run(kernel_of(total, COMPLEX64), x, np.zeros(6, np.complex64)), np.full(6, x.sum()))


def test_the_bits_of_both_parts_are_a_word() -> None:
    x = X.astype(np.complex64)
    word = expr.bitcast(at(expr.axis(0, 6)), INT64)
    np.testing.assert_array_equal(run(kernel_of(word, INT64), x, np.zeros(6, np.int64)), x.view(np.int64))
    back = expr.bitcast(word, COMPLEX64)
    np.testing.assert_array_equal(run(kernel_of(back, COMPLEX64), x, np.zeros(6, np.complex64)), x)


def test_what_parts_cannot_do_is_refused() -> None:
    i = expr.axis(0, 6)
    with pytest.raises(NotPairsError, match="combines by mul"):
        as_pairs(kernel_of(at(i), COMPLEX64, combine="mul"))
    total = expr.reduce("mul", (expr.axis(1, 6),), (at(expr.axis(1, 6)),))
    with pytest.raises(NotPairsError, match="does reduce in complex64"):
        as_pairs(kernel_of(total, COMPLEX64))
    with pytest.raises(NotPairsError, match="does cast on complex64"):
        as_pairs(kernel_of(expr.cast(at(i), FLOAT32), FLOAT32))


def test_legalising_says_why_not() -> None:
    class Caps:
        storage = compute = frozenset((FLOAT32,))
        max_buffers = 16

    refused = legalise(kernel_of(at(expr.axis(0, 6)), COMPLEX64, combine="mul"), Caps())
    assert refused == Refusal("needs-complex", "it combines by mul, which the device does not have")
