"""Launches in a row: by compiled code or through Python, they give what each gives alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from omniop.backends.base import Launched, LaunchError
from omniop.backends.cpu.sequence import sequence
from omniop.dispatcher.registry import registry
from omniop.opset import expr
from omniop.opset.dtype import FLOAT32
from omniop.opset.expr import Expr
from omniop.opset.kernel import Kernel, Param, Store

DEVICE = registry().device("cpu")


def plus(value: float) -> Kernel:
    """out[i] = in[i] + value, over s0 elements."""
    i = expr.axis(0, expr.size("s0"))
    result: Expr = expr.load(0, (i,), FLOAT32) + value
    return Kernel((Param(FLOAT32), Param(FLOAT32, True)), (i,), (Store(1, i, result),), 1)


def chain(launches: Sequence[Launched], entries: int, x: np.ndarray) -> list[np.ndarray]:
    """The contents of a table of buffers as long as ``x`` after the launches; the first begins as ``x``."""
    table = [DEVICE.alloc(x.nbytes) for _ in range(entries)]
    DEVICE.h2d(table[0], x)
    sequence(launches)(table)
    found = [np.empty_like(x) for _ in table]
    for array, buffer in zip(found, table, strict=True):
        DEVICE.d2h(array, buffer)
    return found


@pytest.mark.parametrize("count", [1, 2, 70])
def test_each_launch_sees_what_those_before_it_wrote(count: int) -> None:
    kernels = [plus(float(k % 5)) for k in range(count)]
    runs = DEVICE.build(kernels)
    launches = [Launched(run, (k, k + 1), (11,)) for k, run in enumerate(runs)]
    x = np.arange(11, dtype=np.float32)
    expected = x.copy()
    for k, found in enumerate(chain(launches, count + 1, x)):
        np.testing.assert_array_equal(found, expected)
        expected = expected + k % 5


def test_other_work_in_between() -> None:
    """A launch that is not compiled splits the row, and keeps its place."""
    (first, second) = DEVICE.build([plus(1.0), plus(2.0)])

    def double(buffers: Sequence[Any], sizes: Sequence[int]) -> None:
        (n,) = sizes
        buffers[1].typed(FLOAT32)[:n] = 2 * buffers[0].typed(FLOAT32)[:n]

    launches = [Launched(first, (0, 1), (4,)), Launched(double, (1, 2), (4,)), Launched(second, (2, 3), (4,))]
    x = np.array([1, 2, 3, 4], np.float32)
    np.testing.assert_array_equal(chain(launches, 4, x)[3], 2 * (x + 1) + 2)


def test_memory_that_runs_out_is_told_with_the_place() -> None:
    def greedy(buffers: Sequence[Any], sizes: Sequence[int]) -> None:
        raise MemoryError("no more")

    (run,) = DEVICE.build([plus(1.0)])
    launches = [Launched(run, (0, 1), (4,)), Launched(run, (1, 0), (4,)), Launched(greedy, (0,), ())]
    with pytest.raises(LaunchError, match="no more") as caught:
        chain(launches, 2, np.zeros(4, np.float32))
    assert caught.value.position == 2
