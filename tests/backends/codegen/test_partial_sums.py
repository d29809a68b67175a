"""Sums in parts are the sums, nearer to the truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from omniop.backends.array_eval import KernelEvaluator
from omniop.backends.codegen.partial_sums import LONG, in_parts
from omniop.backends.codegen.schedule import SHORT
from omniop.backends.reference.numpy_ops import NUMPY
from omniop.opset import expr
from omniop.opset.dtype import FLOAT32, INT64, DType
from omniop.opset.expr import Expr
from omniop.opset.kernel import Kernel, Param, Store

ROWS = 3


def squares(extent: int | Expr, monoid: str = "add", dtype: DType = FLOAT32) -> Kernel:
    """The sum of each row's squares of what is left of them without their mean."""
    i, length = expr.axis(0, ROWS), expr.index(extent)
    first, second = expr.axis(1, length), expr.axis(2, length)
    mean = expr.reduce(monoid, (first,), (expr.load(0, (i * length + first,), dtype),))
    apart = expr.load(0, (i * length + second,), dtype) - mean
    total = expr.reduce(monoid, (second,), (apart * apart,))
    return Kernel((Param(dtype), Param(dtype, True)), (i,), (Store(1, i, total),))


@pytest.mark.parametrize("extent", [LONG, 515, 768, 1030, 1031, 4096, 50257])
def test_the_sum_is_the_same_in_parts(extent: int) -> None:
    kernel = squares(extent)
    parts = in_parts(kernel)
    assert parts != kernel
    x = np.random.default_rng(1).integers(-3, 4, (ROWS, extent)).astype(np.float32)
    x[:, 0] -= x.sum(1)  # whole numbers with a sum of 0: nothing is rounded
    found = [np.zeros(ROWS, np.float32) for _ in range(2)]
    for one, y in zip((kernel, parts), found, strict=True):
        KernelEvaluator(one, NUMPY)([x.reshape(-1), y], ())
    np.testing.assert_array_equal(found[1], (x.astype(np.float64) ** 2).sum(1))
    np.testing.assert_array_equal(found[0], found[1])


@pytest.mark.parametrize("extent", [64, 100, 128, 1030])
def test_the_sum_of_a_row_of_open_length_is_the_same_in_parts(extent: int) -> None:
    kernel = replace(squares(expr.size("s0")), sizes=1)
    x = np.random.default_rng(2).integers(-3, 4, (ROWS, extent)).astype(np.float32)
    x[:, 0] -= x.sum(1)
    found = np.zeros(ROWS, np.float32)
    KernelEvaluator(in_parts(kernel), NUMPY)([x.reshape(-1), found], (extent,))
    np.testing.assert_array_equal(found, (x.astype(np.float64) ** 2).sum(1))
    reduces = [n for n in expr.walk(*in_parts(kernel).roots()) if n.op == "reduce"]
    assert sum(not expr.is_const(n.args[0].args[0]) for n in reduces) == len(reduces) - 2  # a mean's parts, and a sum's


@pytest.mark.parametrize("extent", [LONG, 515, 768, 1030, 1031, 4096, 50257])
def test_no_part_is_short_enough_to_be_computed_at_every_point(extent: int) -> None:
    reduces = [n for n in expr.walk(*in_parts(squares(extent)).roots()) if n.op == "reduce"]
    extents = [n.args[0].args[0].attr for n in reduces]
    assert min(extents) > SHORT
    assert max(extents) < extent / SHORT


@pytest.mark.parametrize(
    "kernel",
    [squares(LONG - 1), squares(1024, "max"), squares(1024, dtype=INT64)],
    ids=["short", "no sum", "exact"],
)
def test_other_kernels_stay(kernel: Kernel) -> None:
    assert in_parts(kernel) is kernel
