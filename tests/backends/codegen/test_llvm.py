"""Kernels printed as LLVM IR and run, against the reference: sizes around vectors' widths, every kind of access."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from llvm_runner import element, launch, reads, reference, writes

from omniop.backends.codegen.llvm_ir import Target
from omniop.opset import expr, poly
from omniop.opset.dtype import BOOL, FLOAT16, FLOAT32, FLOAT64, INT32, INT64, UINT8, DType
from omniop.opset.expr import Expr
from omniop.opset.kernel import Carry, Kernel, Param, Store

ROWS = 5
RNG = np.random.default_rng(0)

NARROW = Target(128)
"""Narrow vectors, and no masked access."""
WIDE = Target(512, frozenset((32, 64)))


@dataclass
class Matrix:
    """Axes over ``ROWS`` x ``columns``, with constant extents or with size arguments."""

    columns: int
    symbolic: bool

    @property
    def sizes(self) -> list[int]:
        return [ROWS, self.columns]

    @property
    def height(self) -> Expr:
        return expr.size("s0") if self.symbolic else expr.index(ROWS)

    @property
    def width(self) -> Expr:
        return expr.size("s1") if self.symbolic else expr.index(self.columns)

    def row(self, number: int = 0) -> Expr:
        return expr.raw_axis(number, self.height)

    def column(self, number: int = 1) -> Expr:
        return expr.raw_axis(number, self.width)

    def at(self, row: Expr, column: Expr) -> Expr:
        return row * self.width + column

    def data(self, dtype: DType = FLOAT32) -> np.ndarray:
        return (RNG.standard_normal((ROWS, self.columns)) * 4).astype(dtype.numpy)


Case = tuple[Kernel, list[np.ndarray]]
CASES: dict[str, Callable[[Matrix], Case]] = {}


def case(make: Callable[[Matrix], Case]) -> Callable[[Matrix], Case]:
    CASES[make.__name__] = make
    return make


def mapped(
    m: Matrix, value: Expr, inputs: Sequence[np.ndarray], params: Sequence[Param] = (), error: bool = False
) -> Case:
    """``value`` over rows and columns, into a buffer behind the inputs; behind that the error word."""
    out = np.zeros((ROWS, m.columns), value.dtype.numpy)
    params = (*(params or [reads() for _ in inputs]), writes(value.dtype))
    store = Store(len(inputs), m.at(m.row(), m.column()), value)
    if not error:
        return Kernel(params, (m.row(), m.column()), (store,), 2), [*inputs, out]
    word = np.zeros(1, np.int32)
    kernel = Kernel((*params, writes(INT32)), (m.row(), m.column()), (store,), 2, error=len(inputs) + 1)
    return kernel, [*inputs, out, word]


@case
def biased(m: Matrix) -> Case:
    i, j = m.row(), m.column()
    value = element(0, m.at(i, j)) * element(1, j) + element(2, i)
    return mapped(m, value, [m.data(), m.data()[0], m.data()[:, 0].copy()])


@case
def softmax(m: Matrix) -> Case:
    i, j, k = m.row(), m.column(), m.column(2)
    top = expr.reduce("max", (k,), (element(0, m.at(i, k)),))
    total = expr.reduce("add", (k,), (expr.alu("exp", element(0, m.at(i, k)) - top),))
    return mapped(m, expr.alu("exp", element(0, m.at(i, j)) - top) / total, [m.data()])


@case
def softmax_of_columns(m: Matrix) -> Case:
    i, j, k = m.row(), m.column(), m.row(2)
    top = expr.reduce("max", (k,), (element(0, m.at(k, j)),))
    total = expr.reduce("add", (k,), (expr.alu("exp", element(0, m.at(k, j)) - top),))
    return mapped(m, expr.alu("exp", element(0, m.at(i, j)) - top) / total, [m.data()])


@case
def layer_norm(m: Matrix) -> Case:
    i, j, k = m.row(), m.column(), m.column(2)
    count = expr.cast(m.width, FLOAT32)
    mean = expr.reduce("add", (k,), (element(0, m.at(i, k)),)) / count
    centred = element(0, m.at(i, k)) - mean
    variance = expr.reduce("add", (k,), (centred * centred,)) / count
    value = (element(0, m.at(i, j)) - mean) / expr.alu("sqrt", variance + 1e-5) * element(1, j) + element(2, j)
    return mapped(m, value, [m.data(), m.data()[0], m.data()[1]])


@case
def scaled_by_the_whole(m: Matrix) -> Case:
    i, j, r, k = m.row(), m.column(), m.row(2), m.column(3)
    top = expr.reduce("max", (r, k), (expr.alu("abs", element(0, m.at(r, k))),))
    return mapped(m, element(0, m.at(i, j)) / top, [m.data()])


@case
def sum_of_row_maxima(m: Matrix) -> Case:
    r, k = m.row(0), m.column(1)
    top = expr.reduce("max", (k,), (element(0, m.at(r, k)),))
    value = expr.reduce("add", (r,), (top,))
    return Kernel((reads(), writes()), (), (Store(1, expr.index(0), value),), 2), [m.data(), np.zeros(1, np.float32)]


def _row_reduce(monoid: str, m: Matrix) -> Case:
    i, k = m.row(), m.column()
    value = expr.reduce(monoid, (k,), (element(0, m.at(i, k)),))
    return Kernel((reads(), writes()), (i,), (Store(1, i, value),), 2), [m.data(), np.zeros(ROWS, np.float32)]


for _monoid in ("add", "mul", "min", "max"):
    CASES[f"row_{_monoid}"] = lambda m, monoid=_monoid: _row_reduce(monoid, m)


@case
def row_max_with_nans(m: Matrix) -> Case:
    kernel, (x, out) = _row_reduce("max", m)
    x[1, -1] = x[2, 0] = np.nan
    return kernel, [x, out]


@case
def row_all(m: Matrix) -> Case:
    i, k = m.row(), m.column()
    value = expr.reduce("and", (k,), (element(0, m.at(i, k)) < 6.0,))
    return Kernel((reads(), writes(BOOL)), (i,), (Store(1, i, value),), 2), [m.data(), np.zeros(ROWS, bool)]


@case
def column_sum(m: Matrix) -> Case:
    j, k = m.column(0), m.row(1)
    value = expr.reduce("add", (k,), (element(0, m.at(k, j)),))
    return Kernel((reads(), writes()), (j,), (Store(1, j, value),), 2), [m.data(), np.zeros(m.columns, np.float32)]


def _odd_values(m: Matrix) -> np.ndarray:
    """Rows with a NaN, two NaNs, all equal, all -inf."""
    x = m.data()
    x[0, m.columns // 2] = np.nan
    x[1, m.columns // 2 :] = np.nan
    x[2], x[3] = 1, -np.inf
    return x


@case
def argmax(m: Matrix) -> Case:
    i, k = m.row(), m.column()
    value = expr.reduce("argmax", (k,), (element(0, m.at(i, k)), k))
    return Kernel((reads(), writes(INT64)), (i,), (Store(1, i, value),), 2), [_odd_values(m), np.zeros(ROWS, np.int64)]


@case
def last_argmin_of_columns(m: Matrix) -> Case:
    j, k = m.column(0), m.row(1)
    last = m.height - 1
    value = last - expr.reduce("argmin", (k,), (element(0, m.at(k, j)), last - k))
    store = Store(1, j, value)
    return Kernel((reads(), writes(INT64)), (j,), (store,), 2), [_odd_values(m), np.zeros(m.columns, np.int64)]


@case
def product_of_matrices(m: Matrix) -> Case:
    i, j, k = m.row(), expr.raw_axis(1, expr.index(9)), m.column(2)
    value = expr.reduce("add", (k,), (element(0, m.at(i, k)) * element(1, k * 9 + j),))
    arrays = [m.data(), RNG.standard_normal((m.columns, 9)).astype(np.float32), np.zeros((ROWS, 9), np.float32)]
    return Kernel((reads(), reads(), writes()), (i, j), (Store(2, i * 9 + j, value),), 2), arrays


@case
def transposed(m: Matrix) -> Case:
    i, j = m.column(0), m.row(1)
    store = Store(1, i * m.height + j, element(0, m.at(j, i)))
    return Kernel((reads(), writes()), (i, j), (store,), 2), [m.data(), np.zeros((m.columns, ROWS), np.float32)]


@case
def flipped(m: Matrix) -> Case:
    i, j = m.row(), m.column()
    return mapped(m, element(0, m.at(i, m.width - 1 - j)), [m.data()])


@case
def flipped_into(m: Matrix) -> Case:
    i, j = m.row(), m.column()
    store = Store(1, m.at(i, m.width - 1 - j), element(0, m.at(i, j)))
    return Kernel((reads(), writes()), (i, j), (store,), 2), [m.data(), m.data()]


def _every(m: Matrix, step: int) -> Case:
    i, j = m.row(), m.column()
    x = RNG.standard_normal((ROWS, step * m.columns)).astype(np.float32)
    return mapped(m, element(0, i * (m.width * step) + j * step), [x[:, : step * m.columns]])


CASES["every_second"] = lambda m: _every(m, 2)
CASES["every_third"] = lambda m: _every(m, 3)
CASES["every_fifth"] = lambda m: _every(m, 5)


@case
def pairs_of_bools_compared(m: Matrix) -> Case:
    i, j = m.row(), m.column()
    left, right = (element(0, (i * m.width + j) * 2 + k, BOOL) for k in (0, 1))
    return mapped(m, expr.alu("and", left, right), [RNG.random((ROWS, 2 * m.columns)) < 0.5], [reads(BOOL)])


def _padded(m: Matrix, dtype: DType) -> Case:
    i, j = m.row(), expr.raw_axis(1, m.width + 5)
    inside = expr.alu("and", j - 2 >= 0, j - 2 < m.width)
    value = element(0, m.at(i, j - 2), dtype, inside, 3)
    out = np.zeros((ROWS, m.columns + 5), dtype.numpy)
    kernel = Kernel((reads(dtype), writes(dtype)), (i, j), (Store(1, i * (m.width + 5) + j, value),), 2)
    return kernel, [m.data(dtype) if dtype is not UINT8 else np.abs(m.data()).astype(np.uint8), out]


for _dtype in (FLOAT32, FLOAT64, UINT8, BOOL):
    CASES[f"padded_{_dtype}"] = lambda m, dtype=_dtype: _padded(m, dtype)


@case
def joined(m: Matrix) -> Case:
    i, j = m.row(), m.column()
    left = element(0, i * 3 + j, guard=j < 3)
    right = element(1, i * m.width + (j - 3), guard=j >= 3)
    return mapped(m, expr.select(j < 3, left, right), [m.data()[:, :3].copy(), m.data()])


def _stacked(m: Matrix, dtype: DType) -> Case:
    """Two arrays one below the other: the guards hold in all lanes or in none."""
    i, j = m.row(), m.column()
    upper = element(0, m.at(i, j), dtype, i < 2)
    lower = element(1, m.at(i - 2, j), dtype, i >= 2, 7)
    value = expr.select(i < 2, upper, lower)
    return mapped(m, value, [m.data(dtype)[:2].copy(), m.data(dtype)], [reads(dtype), reads(dtype)])


CASES["stacked"] = lambda m: _stacked(m, FLOAT32)
CASES["stacked_halves"] = lambda m: _stacked(m, FLOAT16)


@case
def lower_triangle(m: Matrix) -> Case:
    i, j = m.row(), m.column()
    kept = expr.select(j <= i, element(0, m.at(i, j)), expr.const(-1.0, FLOAT32))
    return mapped(m, kept + expr.cast((j - i).eq(2), FLOAT32) + expr.cast((i - j).ne(1), FLOAT32), [m.data()])


@case
def positions(m: Matrix) -> Case:
    i, j = m.row(), m.column()
    return mapped(m, expr.cast(j * 2 - i, FLOAT32) + element(0, m.at(i, j)), [m.data()])


@case
def nearest_neighbour(m: Matrix) -> Case:
    i, j = m.row(), expr.raw_axis(1, m.width + 5)
    source = m.at(i, (j * m.width) // (m.width + 5))
    store = Store(1, i * (m.width + 5) + j, element(0, source) + element(0, m.at(i, j % m.width)))
    out = np.zeros((ROWS, m.columns + 5), np.float32)
    return Kernel((reads(), writes()), (i, j), (store,), 2), [m.data(), out]


def _indices(m: Matrix, high: int) -> np.ndarray:
    return RNG.integers(0, high, (ROWS, m.columns))


@case
def rows_looked_up(m: Matrix) -> Case:
    i, j = m.row(), m.column()
    value = element(0, m.at(element(1, i, INT64), j))
    return mapped(m, value, [m.data(), np.array([4, 0, 0, 2, 3])], [reads(), reads(INT64)])


@case
def elements_looked_up(m: Matrix) -> Case:
    i, j = m.row(), m.column()
    value = element(0, m.at(i, element(1, m.at(i, j), INT64)))
    return mapped(m, value, [m.data(), _indices(m, m.columns)], [reads(), reads(INT64)])


def _looked_up_with_faults(m: Matrix, indices: np.ndarray) -> Case:
    i, j = m.row(), m.column()
    place = element(1, m.at(i, j), INT64)
    inside = expr.alu("and", place >= 0, place < m.width)
    value = expr.load(0, (m.at(i, place),), FLOAT32, inside, 0.5, fault=7)
    return mapped(m, value, [m.data(), indices], [reads(), reads(INT64)], error=True)


@case
def indices_within_range(m: Matrix) -> Case:
    return _looked_up_with_faults(m, _indices(m, m.columns))


@case
def indices_out_of_range(m: Matrix) -> Case:
    indices = _indices(m, m.columns)
    indices[1, 0], indices[-1, -1] = -1, 1 << 40
    return _looked_up_with_faults(m, indices)


def _scattered(m: Matrix, combine: str | None, guarded: bool) -> Case:
    i, j = m.row(), m.column()
    value = element(0, m.at(i, j))
    place = m.at(i, element(1, m.at(i, j), INT64))
    indices = _indices(m, m.columns) if combine else np.stack([RNG.permutation(m.columns) for _ in range(ROWS)])
    store = Store(2, place, value, value < 0.0 if guarded else None, combine)
    return Kernel((reads(), reads(INT64), writes()), (i, j), (store,), 2), [m.data(), indices, m.data()]


CASES["scattered"] = lambda m: _scattered(m, None, False)
CASES["scattered_where"] = lambda m: _scattered(m, None, True)
CASES["scatter_add"] = lambda m: _scattered(m, "add", False)
CASES["scatter_max_where"] = lambda m: _scattered(m, "max", True)


@case
def stored_where(m: Matrix) -> Case:
    i, j = m.row(), m.column()
    value = element(0, m.at(i, j))
    store = Store(1, m.at(i, j), value, value < 0.0)
    return Kernel((reads(), writes()), (i, j), (store,), 2), [m.data(), m.data()]


@case
def store_that_faults(m: Matrix) -> Case:
    i, j = m.row(), m.column()
    value = element(0, m.at(i, j))
    store = Store(1, m.at(i, j), value, value < 1.0, fault=3)
    arrays = [m.data(), m.data(), np.zeros(1, np.int32)]
    return Kernel((reads(), writes(), writes(INT32)), (i, j), (store,), 2, error=2), arrays


@case
def two_outputs(m: Matrix) -> Case:
    i, j, k = m.row(), m.column(), m.column(2)
    top = expr.reduce("max", (k,), (element(0, m.at(i, k)),))
    stores = (Store(1, m.at(i, j), element(0, m.at(i, j)) - top), Store(2, m.at(i, j), element(0, m.at(i, j)).eq(top)))
    arrays = [m.data(), m.data(), np.zeros((ROWS, m.columns), bool)]
    return Kernel((reads(), writes(), writes(BOOL)), (i, j), stores, 2), arrays


@case
def running_sum(m: Matrix) -> Case:
    i, step = m.row(), m.column()
    after = expr.carry(0, FLOAT32) + element(0, m.at(i, step))
    carries = (Carry(FLOAT32, expr.const(0.0, FLOAT32), after),)
    return Kernel((reads(), writes()), (i,), (Store(1, m.at(i, step), after),), 2, step, carries), [m.data(), m.data()]


@case
def running_sum_of_columns(m: Matrix) -> Case:
    j, step = m.column(0), m.row(1)
    after = expr.carry(0, FLOAT32) + element(0, m.at(step, j))
    carries = (Carry(FLOAT32, element(1, j), after), Carry(INT64, expr.index(0), expr.carry(1, INT64) + 2))
    stores = (Store(2, m.at(step, j), after), Store(3, m.at(step, j), expr.carry(1, INT64)))
    arrays = [m.data(), m.data()[0], m.data(), np.zeros((ROWS, m.columns), np.int64)]
    return Kernel((reads(), reads(), writes(), writes(INT64)), (j,), stores, 2, step, carries), arrays


@case
def followed(m: Matrix) -> Case:
    """A fold along links: it ends when all lanes have come to the end of theirs."""
    links, j, at = np.arange(m.columns, dtype=np.int32) // 3, m.column(0), expr.carry(0, INT32)
    start = Carry(INT32, expr.cast(j, INT32), element(0, expr.index(at), INT32))
    parts = (reads(INT32), writes(INT32)), (j,), (Store(1, j, at),)
    return Kernel(*parts, 2, expr.raw_axis(1, expr.index(1 << 40)), (start,), until=at.eq(0)), [links, links + 1]


@case
def packed_where_positive(m: Matrix) -> Case:
    """Positions of positive elements in order, as NonZero has them: a sequential axis and nothing parallel."""
    total = m.height * m.width
    step = expr.raw_axis(0, total)
    found = element(0, step) > 0.0
    count = expr.carry(0, INT64)
    carries = (Carry(INT64, expr.index(0), count + expr.cast(found, INT64)),)
    store = Store(1, count, step, found)
    arrays = [m.data(), np.zeros(m.data().size, np.int64)]
    return Kernel((reads(), writes(INT64)), (), (store,), 2, step, carries), arrays


@case
def halves(m: Matrix) -> Case:
    i, j = m.row(), m.column()
    x = element(0, m.at(i, j), FLOAT16)
    return mapped(m, x * x + expr.alu("floor", x), [m.data(FLOAT16)], [reads(FLOAT16)])


@case
def bytes_quantised(m: Matrix) -> Case:
    i, j = m.row(), m.column()
    value = expr.cast(expr.alu("rint", element(0, m.at(i, j)) / 0.25) + 128.0, UINT8)
    return mapped(m, value, [m.data() * 8])


def tolerance(a: np.ndarray) -> dict[str, float]:
    return {"rtol": 1e-5, "atol": 1e-5} if a.dtype.kind == "f" else {"rtol": 0, "atol": 0}


def check(made: Case, sizes: Sequence[int], parts: int, target: Target | None = None) -> None:
    kernel, arrays = made
    got = launch(kernel, arrays, sizes, parts, target)
    for param, mine, wanted in zip(kernel.params, got, reference(kernel, arrays, sizes), strict=True):
        if param.written:
            np.testing.assert_allclose(mine, wanted, **tolerance(wanted), equal_nan=True)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("columns", [1, 8, 65])
def test_with_size_arguments(name: str, columns: int) -> None:
    m = Matrix(columns, symbolic=True)
    if name == "joined" and columns < 3:
        columns = 3
        m = Matrix(columns, symbolic=True)
    check(CASES[name](m), m.sizes, parts=3)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("columns", [7, 63])
def test_with_constant_extents(name: str, columns: int) -> None:
    m = Matrix(columns, symbolic=False)
    check(CASES[name](m), m.sizes, parts=2)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("target", [NARROW, WIDE], ids=["narrow", "wide"])
def test_with_other_widths(name: str, target: Target) -> None:
    m = Matrix(37, symbolic=True)
    check(CASES[name](m), m.sizes, 2, target)


# Axes that are split, joined and taken in squares ---------------------------------------------------------------------


def rearranged(
    shape: Sequence[int], source: Callable[..., Sequence[Expr]], of: Sequence[int], dtype: DType = FLOAT32
) -> Case:
    """A kernel over ``shape`` that copies the element at ``source(*axes)`` of an array of shape ``of``."""
    axes = tuple(expr.raw_axis(k, expr.index(e)) for k, e in enumerate(shape))
    offset = poly.linear(axes, tuple(map(expr.index, shape)))
    place = poly.linear(tuple(source(*axes)), tuple(map(expr.index, of)))
    kernel = Kernel((reads(dtype), writes(dtype)), axes, (Store(1, offset, element(0, place, dtype)),))
    values = RNG.integers(0, 2 if dtype is BOOL else 100, of)
    return kernel, [values.astype(dtype.numpy), np.zeros(shape, dtype.numpy)]


@pytest.mark.parametrize("dtype", [FLOAT32, FLOAT64, UINT8, BOOL], ids=str)
@pytest.mark.parametrize("shape", [(24, 16), (8, 19), (16, 3), (3, 40)], ids=str)
def test_transposes(shape: tuple[int, int], dtype: DType) -> None:
    check(rearranged(shape, lambda i, j: (j, i), shape[::-1], dtype), (), parts=2)


def test_heads_out_of_columns() -> None:
    """Rows of 3 heads of 8, flat, from heads of rows: the columns' quotient and remainder by 8 are axes in memory."""
    check(rearranged((2, 5, 24), lambda b, s, c: (b, c // 8, s, c % 8), (2, 3, 5, 8)), (), parts=2)


def test_flat_from_blocked() -> None:
    check(rearranged((2, 32, 7, 3), lambda n, c, h, w: (n, c // 16, h, w, c % 16), (2, 2, 7, 3, 16)), (), parts=2)


def test_quotient_that_does_not_divide() -> None:
    check(rearranged((4, 10), lambda i, j: (i, j // 4, j % 4), (4, 3, 4)), (), parts=2)


def test_constants_keep_their_bits() -> None:
    i = expr.raw_axis(0, expr.index(11))
    values = [-0.0, float("nan"), float("-inf"), 1e-45, 1e39]
    stores = tuple(Store(k, i, expr.const(v, FLOAT32)) for k, v in enumerate(values))
    got = launch(Kernel((writes(),) * len(values), (i,), stores), [np.ones(11, np.float32) for _ in values])
    wanted = [-0.0, np.nan, -np.inf, 1e-45, np.inf]
    for array, value in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(array, np.full(11, value, np.float32))
        assert (np.signbit(array) == np.signbit(value)).all()
