"""Which axes the default schedule makes parallel, serial or shared by a work group."""

from __future__ import annotations

import pytest

from omniop.backends.codegen.linearise import linearise
from omniop.backends.codegen.program import Loop, Store
from omniop.backends.codegen.schedule import Schedule, Target, default_schedule
from omniop.opset import expr
from omniop.opset.dtype import FLOAT32, INT8, INT64, DType
from omniop.opset.expr import Expr, Scalar
from omniop.opset.kernel import Carry, Kernel, Param
from omniop.opset.kernel import Store as KernelStore

GPU = Target(lanes=256, atomic_bits=frozenset((32, 64)))
CPU = Target()


def reduction(points: Scalar, steps: Scalar, along: bool) -> Kernel:
    """Sums of a matrix: over its rows when ``along``, so that steps lie side by side, or over its columns."""
    i, k = expr.raw_axis(0, expr.index(points)), expr.raw_axis(1, expr.index(steps))
    offset = i * expr.index(steps) + k if along else k * expr.index(points) + i
    value = expr.reduce("add", (k,), (expr.load(0, (offset,), FLOAT32),))
    return Kernel((Param(FLOAT32), Param(FLOAT32, True)), (i,), (KernelStore(1, i, value),), 2)


def normalisation(columns: Scalar) -> Kernel:
    n = expr.index(columns)
    i, j, k = expr.raw_axis(0, expr.size("s0")), expr.raw_axis(1, n), expr.raw_axis(2, n)

    def x(c: Expr) -> Expr:
        return expr.load(0, (i * n + c,), FLOAT32)

    value = x(j) - expr.reduce("max", (k,), (x(k),))
    return Kernel((Param(FLOAT32), Param(FLOAT32, True)), (i, j), (KernelStore(1, i * n + j, value),), 2)


def scatter(dtype: DType) -> Kernel:
    i = expr.raw_axis(0, expr.size("s0"))
    store = KernelStore(2, expr.load(1, (i,), INT64), expr.load(0, (i,), dtype), None, "add")
    return Kernel((Param(dtype), Param(INT64), Param(dtype, True)), (i,), (store,), 1)


@pytest.mark.parametrize("target", [GPU, CPU], ids=["gpu", "cpu"])
def test_a_map_is_parallel(target: Target) -> None:
    axes = tuple(expr.raw_axis(n, expr.size(f"s{n}")) for n in range(3))
    whole = Kernel((Param(FLOAT32, True),), axes, (KernelStore(0, axes[0], expr.const(0.0, FLOAT32)),), 3)
    assert default_schedule(whole, target) == Schedule(("parallel",) * 3)


def test_rows_of_a_normalisation() -> None:
    long = normalisation(expr.size("s1"))
    assert default_schedule(long, CPU) == Schedule(("parallel", "serial"))
    assert default_schedule(long, GPU) == Schedule(("parallel", "group"), 256)
    assert default_schedule(normalisation(100), GPU) == Schedule(("parallel", "group"), 128)
    assert default_schedule(normalisation(20), GPU) == Schedule(("parallel", "serial"))


def test_a_short_reduce_is_computed_again_at_every_point() -> None:
    assert default_schedule(normalisation(4), CPU) == Schedule(("parallel", "parallel"))


def test_reductions_take_groups_where_lanes_read_side_by_side() -> None:
    assert default_schedule(reduction(1 << 20, 512, along=True), GPU).lanes == 256
    assert default_schedule(reduction(1 << 20, 512, along=False), GPU).lanes == 1
    assert default_schedule(reduction(16, 1 << 20, along=False), GPU).lanes == 256  # too few points otherwise
    assert default_schedule(reduction(1 << 20, 20, along=True), GPU).lanes == 1
    assert default_schedule(reduction(1 << 20, 512, along=True), CPU).lanes == 1


def test_an_inner_reduce_of_a_reduce_orders_nothing() -> None:
    """sum over k of x[i, k] * (sum over d of w[k, d]): the inner sum is a part of the outer one's loop."""
    i, j = expr.raw_axis(0, expr.size("s0")), expr.raw_axis(1, expr.size("s0"))
    k, d = expr.raw_axis(2, expr.size("s0")), expr.raw_axis(3, expr.size("s0"))
    inner = expr.reduce("add", (d,), (expr.load(1, (k * 64 + d,), FLOAT32),))
    value = expr.reduce("add", (k,), (expr.load(0, (i * 64 + j * 8 + k,), FLOAT32) * inner,))
    whole = Kernel((Param(FLOAT32), Param(FLOAT32), Param(FLOAT32, True)), (i, j), (KernelStore(2, i + j, value),), 1)
    assert default_schedule(whole, CPU) == Schedule(("parallel", "parallel"))


def test_combining_stores_are_parallel_where_there_are_atomics() -> None:
    assert default_schedule(scatter(FLOAT32), CPU).kinds == ("parallel",)
    assert default_schedule(scatter(INT64), CPU).kinds == ("serial",)
    assert default_schedule(scatter(INT64), GPU).kinds == ("parallel",)
    assert default_schedule(scatter(INT8), GPU).kinds == ("serial",)


def test_only_parallel_combining_stores_are_atomic() -> None:
    for target, atomic in ((GPU, True), (Target(atomic_bits=frozenset()), False)):
        program = linearise(scatter(FLOAT32), default_schedule(scatter(FLOAT32), target))
        assert [s.atomic for s in program.walk() if isinstance(s, Store)] == [atomic]
        assert len(program.grid) == atomic


def test_the_sequential_axis_is_an_ordered_loop() -> None:
    i, step = expr.raw_axis(0, expr.size("s0")), expr.raw_axis(1, expr.size("s1"))
    total = expr.carry(0, FLOAT32) + expr.load(0, (i * expr.size("s1") + step,), FLOAT32)
    carries = (Carry(FLOAT32, expr.const(0.0, FLOAT32), total),)
    store = KernelStore(1, i * expr.size("s1") + step, total)
    whole = Kernel((Param(FLOAT32), Param(FLOAT32, True)), (i,), (store,), 2, step, carries)
    schedule = default_schedule(whole, GPU)
    assert schedule == Schedule(("parallel",))
    (loop,) = (s for s in linearise(whole, schedule).body if isinstance(s, Loop))
    assert loop.ordered
    assert loop.axis is step
    assert loop.carried[0].init.value == 0.0


def test_lanes_are_dealt_out_once() -> None:
    program = linearise(normalisation(300), Schedule(("parallel", "group"), 64))
    loops = [s for s in program.walk() if isinstance(s, Loop)]
    assert [loop.lanes for loop in loops] == [True, True]
    assert not any(isinstance(s, Loop) for loop in loops for s in loop.body)
