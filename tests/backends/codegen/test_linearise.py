"""Where values are computed, in which dtype, and which loops there are."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from omniop.backends.codegen.indexing import fits32, host_function
from omniop.backends.codegen.linearise import linearise, linearise_expr
from omniop.backends.codegen.program import Const, Let, Load, Loop, Program, Stmt, Store, Var
from omniop.backends.codegen.schedule import Schedule, default_schedule
from omniop.opset import expr
from omniop.opset.dtype import FLOAT32, INT32, INT64
from omniop.opset.expr import Expr
from omniop.opset.kernel import Kernel, Param
from omniop.opset.kernel import Store as KernelStore

ROWS, COLUMNS = expr.size("s0"), expr.size("s1")
R, C, K = expr.raw_axis(0, ROWS), expr.raw_axis(1, COLUMNS), expr.raw_axis(2, COLUMNS)


def x(column: Expr) -> Expr:
    return expr.load(0, (R * COLUMNS + column,), FLOAT32)


def kernel(*values: Expr) -> Kernel:
    stores = tuple(KernelStore(k + 1, R * COLUMNS + C, v) for k, v in enumerate(values))
    return Kernel((Param(FLOAT32), *(Param(v.dtype, True) for v in values)), (R, C), stores, 2)


def program(*values: Expr, index_bits: int = 32) -> Program:
    whole = kernel(*values)
    return linearise(whole, default_schedule(whole), index_bits)


def of(kind: type, stmts: Iterable[Stmt]) -> list:
    return [s for s in stmts if isinstance(s, kind)]


def test_a_value_is_computed_once() -> None:
    e = expr.alu("exp", x(C))
    result = program(e + 1.0, e * e)
    assert len(of(Load, result.walk())) == 1
    assert sum(let.op == "exp" for let in of(Let, result.walk())) == 1


def test_row_values_stay_outside_of_the_columns() -> None:
    top = expr.reduce("max", (K,), (x(K),))
    result = program(x(C) - expr.alu("exp", top))
    assert [axis.axis for axis in result.grid] == [R]
    assert [type(s) for s in result.body] == [Let, Loop, Let, Loop]
    reduce, exp, columns = result.body[1], result.body[2], result.body[3]
    assert reduce.reductions[0].monoid == "max"
    assert (exp.op, exp.args) == ("exp", (reduce.carried[0].var,))
    assert [type(s) for s in columns.body] == [Let, Load, Let, Store]
    assert columns.axis is C


def test_sizes_are_read_in_the_prologue() -> None:
    result = program(x(C))
    assert {(let.op, let.attr) for let in result.prologue} == {("size", 0), ("size", 1)}
    assert all(axis.extent in [let.var for let in result.prologue] for axis in result.grid)


def test_independent_reduces_share_a_loop() -> None:
    total, squares = expr.reduce("add", (K,), (x(K),)), expr.reduce("add", (K,), (x(K) * x(K),))
    result = program(x(C) - total * squares)
    loops = [s for s in result.body if isinstance(s, Loop) and s.reductions]
    assert [[r.first for r in loop.reductions] for loop in loops] == [[0, 1]]
    assert len(of(Load, loops[0].body)) == 1


def test_a_reduce_waits_for_the_one_it_needs() -> None:
    mean = expr.reduce("add", (K,), (x(K),))
    deviation = expr.reduce("add", (K,), (expr.alu("abs", x(K) - mean),))
    largest = expr.reduce("max", (K,), (x(K),))
    result = program(x(C) - deviation * largest)
    loops = [s for s in result.body if isinstance(s, Loop) and s.reductions]
    assert [[r.monoid for r in loop.reductions] for loop in loops] == [["add"], ["add", "max"]]


def test_argmax_carries_value_and_index() -> None:
    result = program(expr.cast(expr.reduce("argmax", (K,), (x(K), K)), FLOAT32))
    loop = next(s for s in result.walk() if isinstance(s, Loop) and s.reductions)
    assert [c.var.dtype for c in loop.carried] == [FLOAT32, INT32]
    assert [c.init for c in loop.carried] == [Const(float("-inf"), FLOAT32), Const((1 << 31) - 1, INT32)]


@pytest.mark.parametrize("bits", [32, 64])
def test_index_arithmetic_has_the_index_dtype(bits: int) -> None:
    result = program(x(C), index_bits=bits)
    index = {32: INT32, 64: INT64}[bits]
    assert result.index is index
    assert {s.offset.dtype for s in result.walk() if isinstance(s, Load | Store)} == {index}
    assert all(let.exact for let in of(Let, result.walk()) if let.op in ("add", "mul"))


def test_int64_data_stays_int64() -> None:
    """What an axis counts is widened where it meets data, and only data is computed in 64 bits."""
    value = expr.load(0, (C,), INT64) * 3 + (C + 1)
    result = linearise(
        Kernel((Param(INT64), Param(INT64, True)), (R, C), (KernelStore(1, R * COLUMNS + C, value),), 2),
        Schedule(("parallel", "parallel")),
    )
    wide = [let.op for let in of(Let, result.body) if let.var.dtype is INT64]
    assert sorted(wide) == ["add", "cast", "mul"]


def test_a_loaded_index_is_narrowed_before_the_arithmetic() -> None:
    row = expr.load(1, (R,), INT64)
    inside = expr.alu("and", row >= 0, row < ROWS)
    value = expr.load(0, (row * COLUMNS + C,), FLOAT32, inside, 0.0)
    params = (Param(FLOAT32), Param(INT64), Param(FLOAT32, True))
    gather = Kernel(params, (R, C), (KernelStore(2, R * COLUMNS + C, value),), 2)
    result = linearise(gather, Schedule(("parallel", "parallel")))
    wide = [let for let in of(Let, result.walk()) if let.var.dtype is INT64]
    assert [let.op for let in wide] == ["cast"]  # the limit, to compare with
    wrapped = [let for let in of(Let, result.body) if let.op == "mul" and not let.exact]
    assert [let.var.dtype for let in wrapped] == [INT32]


def test_a_store_of_the_rows_is_outside_of_the_columns() -> None:
    total = expr.reduce("add", (K,), (x(K),))
    stores = (KernelStore(1, R, total), KernelStore(2, R * COLUMNS + C, x(C) * total))
    params = (Param(FLOAT32), Param(FLOAT32, True), Param(FLOAT32, True))
    whole = Kernel(params, (R, C), stores, 2)
    result = linearise(whole, default_schedule(whole))
    assert [s.buffer for s in result.body if isinstance(s, Store)] == [1]
    assert sorted(s.buffer for s in of(Store, result.walk())) == [1, 2]


def test_deep_expressions_need_no_recursion() -> None:
    value = x(C)
    for _ in range(3000):
        value = expr.alu("tanh", value)
    assert sum(let.op == "tanh" for let in of(Let, program(value).walk())) == 3000


def test_epilogue_expression() -> None:
    i, j, hole = expr.axis(0, ROWS), expr.axis(1, COLUMNS), expr.hole(FLOAT32)
    bound = {i: Var(0, INT64), j: Var(1, INT64), hole: Var(2, FLOAT32)}
    stmts, (value,) = linearise_expr([expr.maximum(hole + expr.load(3, (j,), FLOAT32), 0.0)], bound, first=3)
    assert [type(s) for s in stmts] == [Load, Let, Let]
    assert stmts[0].offset is bound[j]
    assert value is stmts[-1].var
    assert stmts[1].args == (bound[hole], stmts[0].var)


@pytest.mark.parametrize("name", ["div", "rem", "shl", "pow", "xor"])
def test_other_arithmetic_on_indices_is_data(name: str) -> None:
    """It may leave 32 bits, or the range that was worked out."""
    result = program(expr.alu(name, C, expr.index(40)))
    (let,) = (s for s in result.walk() if isinstance(s, Let) and s.op == name)
    assert not let.exact
    assert {let.var.dtype, *(a.dtype for a in let.args)} == {INT64}


def test_sums_of_indices_are_kept_in_their_own_dtype() -> None:
    for monoid, dtype in (("add", INT64), ("mul", INT64), ("max", INT32)):
        result = program(expr.reduce(monoid, (K,), (K + 1,)))
        loop = next(s for s in result.walk() if isinstance(s, Loop) and s.reductions)
        assert loop.carried[0].var.dtype is dtype
        store = next(s for s in result.walk() if isinstance(s, Store))
        assert store.value.dtype is INT64


def test_a_reduce_may_end_where_an_outer_axis_says() -> None:
    """A triangular sum: the extent depends on the row."""
    below = expr.raw_axis(2, R + 1)
    value = x(C) - expr.reduce("add", (below,), (expr.load(0, (below,), FLOAT32),))
    result = linearise(kernel(value), Schedule(("parallel", "serial")))
    loop = next(s for s in result.body if isinstance(s, Loop) and s.reductions)
    assert loop.extent in [s.var for s in result.body if isinstance(s, Let)]


def test_fits32() -> None:
    static = fits32(Kernel((Param(FLOAT32, True),), (C,), (KernelStore(0, C * 3, expr.const(0.0, FLOAT32)),), 2))
    assert static((1, 1000))
    assert not static((1, 1 << 30))
    # what is divided need not be an offset of any buffer
    flat = expr.raw_axis(0, ROWS) * 70000 + expr.raw_axis(1, expr.index(70000))
    axes = (expr.raw_axis(0, ROWS), expr.raw_axis(1, expr.index(70000)))
    divided = fits32(Kernel((Param(FLOAT32, True),), axes, (KernelStore(0, flat // 4096, x(C)),), 2))
    assert divided((1000, 8))
    assert not divided((70000, 8))
    # a constant that is data does not count
    data = expr.load(0, (C,), INT64) + (1 << 40)
    assert fits32(Kernel((Param(INT64), Param(INT64, True)), (C,), (KernelStore(1, C, data),), 2))((1, 8))
    assert not fits32(Kernel((Param(FLOAT32, True),), (R, C), (KernelStore(0, C, x(C)),), 2))((1 << 16, 1 << 16))
    # one that indices are compared with does
    far = expr.cast(C < (1 << 40), FLOAT32)
    assert not fits32(Kernel((Param(FLOAT32, True),), (C,), (KernelStore(0, C, far),), 2))((1, 8))


def test_host_function() -> None:
    step = expr.size("~s2")
    nodes = [ROWS * 3 + COLUMNS // 2, -step % 4, expr.select(ROWS < COLUMNS, ROWS, COLUMNS), expr.minimum(step, 0)]
    assert host_function(nodes)((5, 7, -3)) == (18, 3, 5, -3)
    assert host_function([])(()) == ()
