"""Whole kernels, printed and run, against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from omniop.backends.base import Caps
from omniop.backends.codegen.schedule import Schedule, Target, default_schedule
from omniop.opset import dtype as dtypes
from omniop.opset import expr, poly
from omniop.opset.dtype import (
    BFLOAT16,
    BOOL,
    FLOAT8E4M3FN,
    FLOAT8E5M2,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    INT4,
    INT8,
    INT32,
    INT64,
    UINT8,
    DType,
    of_numpy,
)
from omniop.opset.expr import Expr
from omniop.opset.kernel import Carry, Kernel, Param, Store
from omniop.opset.legalise import legalise

RNG = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


def row_kernel(function, rows: Expr, columns: Expr, sizes: int = 2) -> Kernel:
    """``function(x, c, k)`` is the value at column ``c``; ``x(j)`` is the row's element, ``k`` an axis to reduce."""
    r, c, k = expr.raw_axis(0, rows), expr.raw_axis(1, columns), expr.raw_axis(2, columns)
    value = function(lambda j: expr.load(0, (r * columns + j,), FLOAT32), c, k)
    return Kernel((Param(FLOAT32), Param(value.dtype, True)), (r, c), (Store(1, r * columns + c, value),), sizes)


def softmax_value(x, c: Expr, k: Expr) -> Expr:
    top = expr.reduce("max", (k,), (x(k),))
    total = expr.reduce("add", (k,), (expr.alu("exp", x(k) - top),))
    return expr.alu("exp", x(c) - top) / total


def softmax(rows: int | None = None, columns: int | None = None) -> Kernel:
    extents = [expr.size(f"s{k}") if d is None else expr.index(d) for k, d in enumerate((rows, columns))]
    return row_kernel(softmax_value, *extents)


def softmax_of(x: np.ndarray) -> np.ndarray:
    e = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


@pytest.fixture
def lanes(runner) -> int:
    """A work group's size, where there are work groups."""
    if runner.dialect.name == "C":
        pytest.skip("plain C has no work groups")
    return 64


@pytest.mark.parametrize("index_bits", [32, 64])
def test_softmax_rows(run, index_bits: int) -> None:
    x = floats(5, 37)
    y = np.zeros_like(x)
    run(softmax(), x, y, sizes=(5, 37), index_bits=index_bits)
    np.testing.assert_allclose(y, softmax_of(x), rtol=1e-5)


@pytest.mark.parametrize("columns", [1, 63, 64, 1000])
def test_softmax_in_groups(run, lanes: int, columns: int) -> None:
    kernel = softmax()
    assert default_schedule(kernel, Target(lanes=lanes)) == Schedule(("parallel", "group"), lanes)
    x = floats(3, columns)
    y = np.zeros_like(x)
    run(kernel, x, y, sizes=(3, columns), target=Target(lanes=lanes))
    np.testing.assert_allclose(y, softmax_of(x), rtol=1e-5)


def test_in_place(run) -> None:
    x = floats(4, 9)
    y = x.copy()
    r, c = expr.raw_axis(0, expr.index(4)), expr.raw_axis(1, expr.index(9))
    kernel = Kernel((Param(FLOAT32, True),), (r, c), (Store(0, r * 9 + c, expr.load(0, (r * 9 + c,), FLOAT32) * 2.0),))
    run(kernel, y)
    np.testing.assert_array_equal(y, x * 2)


def arg_kernel(monoid: str, dtype: DType, rows: int, columns: int) -> Kernel:
    r, k = expr.raw_axis(0, expr.index(rows)), expr.raw_axis(1, expr.index(columns))
    value = expr.reduce(monoid, (k,), (expr.load(0, (r * columns + k,), dtype), k))
    return Kernel((Param(dtype), Param(INT64, True)), (r,), (Store(1, r, value),))


@pytest.mark.parametrize("grouped", [False, True], ids=["serial", "group"])
@pytest.mark.parametrize("monoid", ["argmin", "argmax"])
def test_arg_reductions(run, request, monoid: str, grouped: bool) -> None:
    x = RNG.integers(-3, 4, (8, 100)).astype(np.float32)
    x[1, 40], x[1, 70], x[2, 99], x[3, 0] = np.nan, np.nan, np.nan, np.nan
    x[4], x[5] = np.inf, -np.inf
    x[6] = 1
    indices = np.zeros(8, np.int64)
    schedule = Schedule(("parallel",), request.getfixturevalue("lanes") if grouped else 1)
    run(arg_kernel(monoid, FLOAT32, 8, 100), x, indices, schedule=schedule)
    np.testing.assert_array_equal(indices, getattr(np, monoid)(x, axis=1))


@pytest.mark.parametrize("dtype", [BOOL, INT8, UINT8, INT64, FLOAT64], ids=str)
def test_argmax_of_other_dtypes(run, dtype: DType) -> None:
    x = RNG.integers(-120, 120, (4, 50)).astype(dtype.numpy)
    indices = np.zeros(4, np.int64)
    run(arg_kernel("argmax", dtype, 4, 50), x, indices)
    np.testing.assert_array_equal(indices, np.argmax(x, axis=1))


REDUCTIONS = [
    *[(m, d) for m in ("add", "mul", "min", "max") for d in (INT8, UINT8, INT32, INT64, FLOAT32, FLOAT64)],
    *[(m, d) for m in ("and", "or") for d in (BOOL, INT8, INT64)],
    ("min", BOOL),
    ("max", BOOL),
]
UFUNCS = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}


def test_every_monoid(run, runner) -> None:
    """Over the two inner axes of three; all kernels in one unit."""
    cases = []
    for number, (monoid, dtype) in enumerate(REDUCTIONS):
        i, j, k = (expr.raw_axis(n, expr.index(d)) for n, d in enumerate((3, 4, 5)))
        at = expr.load(0, (i * 20 + j * 5 + k,), dtype)
        store = Store(1, i, expr.reduce(monoid, (j, k), (at,)))
        cases.append((f"k{number}", monoid, dtype, Kernel((Param(dtype), Param(dtype, True)), (i,), (store,))))
    launch = runner.build([runner.dialect.print_kernel(kernel, name) for name, _, _, kernel in cases])
    for name, monoid, dtype, _ in cases:
        x = RNG.integers(-9, 9, (3, 20)).astype(dtype.numpy)
        y = np.zeros(3, dtype.numpy)
        launch(name, [x, y], ())
        ufunc = UFUNCS.get(monoid) or getattr(np, f"{'logical' if dtype is BOOL else 'bitwise'}_{monoid}")
        wanted = ufunc.reduce(x, axis=1, **({} if dtype is BOOL else {"dtype": dtype.numpy}))
        np.testing.assert_array_equal(y, wanted, err_msg=f"{monoid} {dtype}")


def test_nan_wins_min_and_max(run) -> None:
    x = floats(2, 200)
    x[0, 150] = np.nan
    for monoid in ("min", "max"):
        r, k = expr.raw_axis(0, expr.index(2)), expr.raw_axis(1, expr.index(200))
        value = expr.reduce(monoid, (k,), (expr.load(0, (r * 200 + k,), FLOAT32),))
        y = np.zeros(2, np.float32)
        run(Kernel((Param(FLOAT32), Param(FLOAT32, True)), (r,), (Store(1, r, value),)), x, y)
        np.testing.assert_array_equal(y, UFUNCS[monoid].reduce(x, axis=1))


def test_reduce_over_two_axes_in_groups(run, lanes: int) -> None:
    x = RNG.integers(-99, 99, (3, 7, 50)).astype(np.int32)
    r, j, k = (expr.raw_axis(n, expr.index(d)) for n, d in enumerate((3, 7, 50)))
    value = expr.reduce("add", (j, k), (expr.load(0, (r * 350 + j * 50 + k,), INT32) * expr.cast(j + k, INT32),))
    y = np.zeros(3, np.int32)
    kernel = Kernel((Param(INT32), Param(INT32, True)), (r,), (Store(1, r, value),))
    assert default_schedule(kernel, Target(lanes=lanes)).lanes == lanes
    run(kernel, x, y, target=Target(lanes=lanes))
    weights = np.arange(7)[:, None] + np.arange(50)
    np.testing.assert_array_equal(y, (x * weights).sum((1, 2)))


def test_nested_reduce_inside_another(run) -> None:
    """sum over k of x[k] * (sum over d of w[k, d]): the inner loop stays inside the outer one."""
    x, w = floats(3, 6), floats(6, 4)
    r, k, d = (expr.raw_axis(n, expr.index(e)) for n, e in enumerate((3, 6, 4)))
    inner = expr.reduce("add", (d,), (expr.load(1, (k * 4 + d,), FLOAT32),))
    value = expr.reduce("add", (k,), (expr.load(0, (r * 6 + k,), FLOAT32) * inner,))
    y = np.zeros(3, np.float32)
    run(Kernel((Param(FLOAT32), Param(FLOAT32), Param(FLOAT32, True)), (r,), (Store(2, r, value),)), x, w, y)
    np.testing.assert_allclose(y, x @ w.sum(1), rtol=1e-5)


@pytest.mark.parametrize("reverse", [False, True])
def test_prefix_sum(run, reverse: bool) -> None:
    rows, columns = expr.size("s0"), expr.size("s1")
    x = RNG.integers(-99, 99, (4, 31)).astype(np.int64)
    r, step = expr.raw_axis(0, rows), expr.raw_axis(1, columns)
    place = r * columns + ((columns - 1) - step if reverse else step)
    total = expr.carry(0, INT64) + expr.load(0, (place,), INT64)
    kernel = Kernel(
        (Param(INT64), Param(INT64, True)),
        (r,),
        (Store(1, place, total),),
        2,
        seq=step,
        carries=(Carry(INT64, expr.const(0, INT64), total),),
    )
    y = np.zeros_like(x)
    run(kernel, x, y, sizes=x.shape)
    wanted = x[:, ::-1].cumsum(1)[:, ::-1] if reverse else x.cumsum(1)
    np.testing.assert_array_equal(y, wanted)


def test_carries_change_at_once(run) -> None:
    """Fibonacci: each update reads the other carry as it was before the step."""
    a, b = expr.carry(0, INT32), expr.carry(1, INT32)
    step = expr.raw_axis(0, expr.index(10))
    carries = (Carry(INT32, expr.const(0, INT32), b), Carry(INT32, expr.const(1, INT32), a + b))
    y = np.zeros(10, np.int32)
    run(Kernel((Param(INT32, True),), (), (Store(0, step, a),), seq=step, carries=carries), y)
    assert y.tolist() == [0, 1, 1, 2, 3, 5, 8, 13, 21, 34]


def test_one_step(run) -> None:
    """A sequential axis of extent 1 is the constant 0."""
    r, step = expr.raw_axis(0, expr.index(3)), expr.axis(1, 1)
    total = expr.carry(0, INT32) + expr.load(0, (r + step,), INT32)
    carries = (Carry(INT32, expr.const(7, INT32), total),)
    y = np.zeros(3, np.int32)
    run(
        Kernel((Param(INT32), Param(INT32, True)), (r,), (Store(1, r, total),), seq=step, carries=carries),
        np.arange(3, dtype=np.int32),
        y,
    )
    assert y.tolist() == [7, 8, 9]


def collatz(steps: Expr) -> Kernel:
    """How many steps it takes each number to come to 1, and where it then is: a fold that ends when all are there."""
    r, step = expr.raw_axis(0, expr.size("s0")), expr.axis(1, steps)
    at, count = expr.carry(0, INT64), expr.carry(1, INT32)
    odd, going = (at % 2).ne(0), at.ne(1)
    carries = (
        Carry(INT64, expr.load(0, (r,), INT64), expr.select(going, expr.select(odd, at * 3 + 1, at // 2), at)),
        Carry(INT32, expr.const(0, INT32), count + expr.cast(going, INT32)),
    )
    stores = (Store(1, r, at), Store(2, r, count))
    params = (Param(INT64), Param(INT64, True), Param(INT32, True))
    return Kernel(params, (r,), stores, 1, step, carries, until=at.eq(1))


def collatz_steps(start: int, most: int) -> tuple[int, int]:
    at, count = start, 0
    while at != 1 and count < most:
        at, count = at * 3 + 1 if at % 2 else at // 2, count + 1
    return at, count


@pytest.mark.parametrize("most", [1, 5, 1 << 40])
def test_fold(run, most: int) -> None:
    """The stores see the final carries; 2**40 steps are never made."""
    start = np.arange(1, 38)
    at, count = np.zeros(37, np.int64), np.zeros(37, np.int32)
    run(collatz(expr.index(most)), start, at, count, sizes=(37,))
    assert list(zip(at.tolist(), count.tolist(), strict=True)) == [collatz_steps(n, most) for n in start.tolist()]


def gather_kernel(fault: int) -> Kernel:
    """y[i, j] = x[index[i], j], guarded, with an error word when ``fault`` is above 0."""
    rows, columns = expr.size("s0"), expr.size("s1")
    i, j = expr.raw_axis(0, expr.size("s2")), expr.raw_axis(1, columns)
    at = expr.load(1, (i,), INT64)
    at = expr.select(at < 0, at + rows, at)
    inside = expr.alu("and", at >= 0, at < rows)
    value = expr.load(0, (at * columns + j,), FLOAT32, inside, -1.0, fault)
    params = (Param(FLOAT32), Param(INT64), Param(FLOAT32, True), Param(INT32))
    return Kernel(params, (i, j), (Store(2, i * columns + j, value),), 3, error=3)


def test_gather_with_faults(run) -> None:
    x, good = floats(6, 5), np.array([0, 5, -1, -6], np.int64)
    y, error = np.zeros((4, 5), np.float32), np.zeros(1, np.int32)
    run(gather_kernel(7), x, good, y, error, sizes=(6, 5, 4))
    np.testing.assert_array_equal(y, x[good])
    assert error[0] == 0
    bad = np.array([0, 6, 1 << 40, -7], np.int64)
    run(gather_kernel(7), x, bad, y, error, sizes=(6, 5, 4))
    np.testing.assert_array_equal(y[0], x[0])
    assert (y[1:] == -1).all()
    assert error[0] == 7


def test_guarded_store_with_fault(run) -> None:
    i = expr.raw_axis(0, expr.index(4))
    at = expr.load(0, (i,), INT64)
    inside = expr.alu("and", at >= 0, at < 4)
    store = Store(1, at, expr.cast(i, INT32) + 1, inside, fault=9)
    kernel = Kernel((Param(INT64), Param(INT32, True), Param(INT32)), (i,), (store,), error=2)
    y, error = np.zeros(4, np.int32), np.zeros(1, np.int32)
    run(kernel, np.array([3, 4, 0, 1 << 33], np.int64), y, error)
    assert y.tolist() == [3, 0, 0, 1]
    assert error[0] == 9


SCATTERED = [BOOL, INT8, INT32, INT64, FLOAT32, FLOAT64]


@pytest.mark.parametrize("combine", ["add", "mul", "min", "max"])
def test_combining_scatter(runner, combine: str) -> None:
    """Many points at one element: atomic where the device has it, in one work item elsewhere."""
    n, m = 300, 7
    index = RNG.integers(0, m, n)
    i = expr.raw_axis(0, expr.index(n))
    cases = {}
    for dtype in SCATTERED:
        if dtype is BOOL and combine in ("add", "mul"):
            continue
        store = Store(2, expr.load(1, (i,), INT64), expr.load(0, (i,), dtype), None, combine)
        cases[f"k_{dtype}"] = Kernel((Param(dtype), Param(INT64), Param(dtype, True)), (i,), (store,))
    launch = runner.build([runner.dialect.print_kernel(k, name, target=runner.target) for name, k in cases.items()])
    for name, kernel in cases.items():
        dtype = kernel.params[0].dtype
        x = (RNG.choice([-1, 1], n) if combine == "mul" else RNG.integers(-5, 6, n)).astype(dtype.numpy)
        start = RNG.integers(1, 3, m).astype(dtype.numpy)
        y = start.copy()
        launch(name, [x, index, y], ())
        UFUNCS[combine].at(start, index, x)
        np.testing.assert_array_equal(y, start, err_msg=name)


def test_atomics_propagate_nan(run) -> None:
    i = expr.raw_axis(0, expr.index(64))
    store = Store(1, i % 2, expr.load(0, (i,), FLOAT32), None, "max")
    x, y = floats(64), np.full(2, -5, np.float32)
    x[31] = np.nan
    run(Kernel((Param(FLOAT32), Param(FLOAT32, True)), (i,), (store,)), x, y)
    np.testing.assert_array_equal(y, [x[::2].max(), np.nan])


def test_strides_zero_and_negative(run) -> None:
    """A broadcast row and a reversed column, with a bool and a float result from one kernel."""
    x, row = floats(4, 6), floats(6)
    i, j = expr.raw_axis(0, expr.index(4)), expr.raw_axis(1, expr.index(6))
    a, b = expr.load(0, (poly.simplify(18 - i * 6 + j),), FLOAT32), expr.load(1, (j,), FLOAT32)
    params = (Param(FLOAT32), Param(FLOAT32), Param(FLOAT32, True), Param(BOOL, True))
    kernel = Kernel(params, (i, j), (Store(2, i * 6 + j, a + b), Store(3, i * 6 + j, a < b)))
    y, less = np.zeros_like(x), np.zeros((4, 6), bool)
    run(kernel, x, row, y, less)
    np.testing.assert_array_equal(y, x[::-1] + row)
    np.testing.assert_array_equal(less, x[::-1] < row)


@pytest.mark.parametrize("index_bits", [32, 64])
def test_index_division_of_negatives(run, index_bits: int) -> None:
    n, shift = 40, expr.size("~s0")
    i = expr.raw_axis(0, expr.index(n))
    x = i - shift
    values = [x // 7, x % 7, x // 8, x % 8, x // expr.size("s1"), x % expr.size("s1"), i // 8, i % 8]
    stores = tuple(Store(k, i, v) for k, v in enumerate(values))
    outputs = [np.zeros(n, np.int64) for _ in values]
    run(Kernel((Param(INT64, True),) * 8, (i,), stores, 2), *outputs, sizes=(23, 5), index_bits=index_bits)
    numbers = np.arange(n) - 23
    wanted = [numbers // 7, numbers % 7, numbers // 8, numbers % 8, numbers // 5, numbers % 5]
    for actual, want in zip(outputs, [*wanted, np.arange(n) // 8, np.arange(n) % 8], strict=True):
        np.testing.assert_array_equal(actual, want)


def test_constants_are_exact(run) -> None:
    values = [0.1, -0.0, 1e-45, 3.4028235e38, float("inf"), float("-inf"), float("nan"), 1 / 3, -2.5, 16777217.0, 1e300]
    for dtype in (FLOAT32, FLOAT64, INT8, INT64):
        numbers = values if dtype.is_float else [0, 1, -1, -(1 << (dtype.bits - 1)), (1 << (dtype.bits - 1)) - 1]
        stores = tuple(Store(0, expr.index(k), expr.const(v, dtype)) for k, v in enumerate(numbers))
        y = np.zeros(len(numbers), dtype.numpy)
        run(Kernel((Param(dtype, True),), (), stores), y)
        with np.errstate(over="ignore"):
            wanted = np.array(numbers, dtype.numpy)
        np.testing.assert_array_equal(y.view(f"u{dtype.itemsize}"), wanted.view(f"u{dtype.itemsize}"))


def test_bitcasts(run) -> None:
    for source, target in ((np.float32, np.int32), (np.float64, np.uint64), (np.int16, np.uint16)):
        a, b = of_numpy(source), of_numpy(target)
        i = expr.raw_axis(0, expr.index(4))
        there, back = expr.bitcast(expr.load(0, (i,), a), b), expr.bitcast(expr.load(1, (i,), b), a)
        params = (Param(a), Param(b), Param(b, True), Param(a, True))
        x = np.array([-1, 0, 1, 300], source)
        y, z = np.zeros(4, target), np.zeros(4, source)
        run(Kernel(params, (i,), (Store(2, i, there), Store(3, i, back))), x, x.view(target), y, z)
        np.testing.assert_array_equal(y, x.view(target))
        np.testing.assert_array_equal(z, x)


# Legalised kernels ----------------------------------------------------------------------------------------------------


def legal(kernel: Kernel, runner) -> Kernel:
    """For a device without narrow floats; OpenCL can store a half."""
    basic = frozenset(d for d in dtypes.ALL if d.kind in "biu" and d.bits >= 8) | {FLOAT32, FLOAT64}
    halves = frozenset({FLOAT16} if runner.dialect.name == "OpenCL C" else ())
    result = legalise(kernel, Caps(storage=basic | halves, compute=basic))
    assert isinstance(result, Kernel)
    return result


@pytest.mark.parametrize("dtype", [FLOAT16, BFLOAT16, FLOAT8E4M3FN, FLOAT8E5M2], ids=str)
def test_narrow_float_arithmetic(run, runner, dtype: DType) -> None:
    n = 1 << 12
    a, b = (RNG.standard_normal(n).astype(dtype.numpy) for _ in range(2))
    a[:4] = np.array([np.nan, np.inf, -0.0, 1e-7]).astype(dtype.numpy)
    i = expr.raw_axis(0, expr.index(n))
    x, y = expr.load(0, (i,), dtype), expr.load(1, (i,), dtype)
    kernel = Kernel((Param(dtype), Param(dtype), Param(dtype, True)), (i,), (Store(2, i, (x + y) * x),))
    result = np.zeros_like(a)
    run(legal(kernel, runner), a, b, result)
    wanted = (a + b) * a
    number = ~np.isnan(wanted.astype(np.float32))
    width = f"u{dtype.itemsize}"
    np.testing.assert_array_equal(result.view(width)[number], wanted.view(width)[number])
    assert np.isnan(result.astype(np.float32)[~number]).all()


def test_every_half_survives_a_round_trip(run, runner) -> None:
    codes = np.arange(1 << 16, dtype=np.uint16)
    i = expr.raw_axis(0, expr.index(len(codes)))
    x = expr.cast(expr.load(0, (i,), FLOAT16), FLOAT32)
    stores = (Store(1, i, x), Store(2, i, expr.cast(x * 1.0001, FLOAT16)))
    kernel = Kernel((Param(FLOAT16), Param(FLOAT32, True), Param(FLOAT16, True)), (i,), stores)
    wide, back = np.zeros(len(codes), np.float32), np.zeros(len(codes), np.float16)
    run(legal(kernel, runner), codes.view(np.float16), wide, back)
    np.testing.assert_array_equal(wide, codes.view(np.float16).astype(np.float32))
    with np.errstate(over="ignore", invalid="ignore"):
        np.testing.assert_array_equal(back, (wide * np.float32(1.0001)).astype(np.float16))


def test_four_bit_integers(run, runner) -> None:
    x = np.arange(16, dtype=np.uint8)
    i = expr.raw_axis(0, expr.index(16))
    value = expr.load(0, (i,), INT4)
    stores = (Store(1, i, expr.cast(value, FLOAT32) * 0.5), Store(2, i, value + value))
    kernel = Kernel((Param(INT4), Param(FLOAT32, True), Param(INT4, True)), (i,), stores)
    half, twice = np.zeros(16, np.float32), np.zeros(16, np.uint8)
    run(legal(kernel, runner), x, half, twice)
    signed = x.view(INT4.numpy).astype(int)
    np.testing.assert_array_equal(half, signed * 0.5)
    np.testing.assert_array_equal(twice, (2 * signed) & 15)


def test_scatter_add_into_bfloat16(run, runner) -> None:
    """Rounded at every addition, in the order of the points; two stores at one place see each other."""
    n, index = 40, RNG.integers(0, 3, 40)
    x = RNG.standard_normal(n).astype(BFLOAT16.numpy)
    i, j = expr.raw_axis(0, expr.index(n // 8)), expr.raw_axis(1, expr.index(8))
    at, value = expr.load(1, (i * 8 + j,), INT64), expr.load(0, (i * 8 + j,), BFLOAT16)
    twice = (Store(2, at, value, None, "add"), Store(2, at, value, None, "add"))
    kernel = Kernel((Param(BFLOAT16), Param(INT64), Param(BFLOAT16, True)), (i, j), twice)
    y = np.zeros(3, BFLOAT16.numpy)
    run(legal(kernel, runner), x, index, y)
    wanted = np.zeros(3, BFLOAT16.numpy)
    for place, v in zip(index, x, strict=True):
        wanted[place] = wanted[place] + v + v
    np.testing.assert_array_equal(y.view(np.uint16), wanted.view(np.uint16))
