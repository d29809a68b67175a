"""Loop programs: views, guards, reduces, sequential axes and folds, stores that combine, at sizes that end oddly.

Sizes are arguments of a launch, so one kernel runs at all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np

from omniop.conformance.prim.bench import Bench
from omniop.conformance.prim.table import Check, checks
from omniop.conformance.tolerance import EXACT, Ulps
from omniop.opset import dtype as dtypes
from omniop.opset import expr
from omniop.opset.dtype import BOOL, FLOAT16, FLOAT32, FLOAT64, INT32, INT64, UINT8, DType
from omniop.opset.expr import Expr
from omniop.opset.kernel import Carry, Kernel, Param, Store

SIZES = (1, 2, 3, 7, 15, 17, 33, 64, 65, 129, 1023, 1025)
"""Just beside what vectors, groups and unrolled loops like."""

_SUMS = Ulps(1, 4)


def _random(*about: object) -> np.random.Generator:
    return np.random.default_rng([ord(letter) for letter in repr(about)])


def _numbers(dtype: DType, size: int) -> np.ndarray:
    """Small numbers, of which sums are exact in every dtype that has them."""
    if dtype is BOOL:
        return _random(dtype, size).random(size) < 0.7
    return _random(dtype, size).integers(0, 4, size).astype(dtype.numpy)


# -- views -------------------------------------------------------------------------------------------------------------

_VIEWS: Mapping[str, tuple[Callable[[Expr, Expr, Expr], Expr], Callable[[np.ndarray], np.ndarray]]] = {
    "straight": (lambda i, j, n: i * n + j, lambda x: x),
    "transposed": (lambda i, j, n: j * 5 + i, lambda x: x.reshape(-1, 5).T),
    "reversed": (lambda i, j, n: (n * 5 - 1) - (i * n + j), lambda x: x.reshape(-1)[::-1].reshape(x.shape)),
    "backwards": (lambda i, j, n: i * n + (n - 1 - j), lambda x: x[:, ::-1]),
    "row_broadcast": (lambda i, j, n: j, lambda x: np.broadcast_to(x[:1], x.shape)),
    "column_broadcast": (lambda i, j, n: i * n, lambda x: np.broadcast_to(x[:, :1], x.shape)),
    "one_element": (lambda i, j, n: n * 5 - 1, lambda x: np.full_like(x, x.reshape(-1)[-1])),
}
"""Places in a [5, n] array as seen from (i, j), and the same in numpy: strides of every sign, and none."""


@checks
def views() -> Iterator[Check]:
    for view in _VIEWS:
        for dtype in (FLOAT32, FLOAT64, FLOAT16, UINT8, INT64, BOOL, dtypes.BFLOAT16, dtypes.INT4):
            yield Check(f"prim_map_{view}_{dtype}", "map", (dtype.name,), partial(_view, view, dtype))


def _view(view: str, dtype: DType, bench: Bench) -> None:
    place, meant = _VIEWS[view]
    n = expr.size("s0")
    i, j = expr.axis(0, 5), expr.raw_axis(1, n)
    store = Store(1, i * n + j, expr.load(0, (place(i, j, n),), dtype))
    kernel = Kernel((Param(dtype), Param(dtype, True)), (i, j), (store,), 1)
    for size in SIZES:
        x = _numbers(dtype, 5 * size).reshape(5, size)
        (found,) = bench.run(kernel, [x, np.zeros_like(x)], [size])
        bench.expect(found, np.ascontiguousarray(meant(x)), what=f"n = {size}")


@checks
def guards() -> Iterator[Check]:
    for dtype in (FLOAT32, INT32, UINT8):
        yield Check(f"prim_map_guarded_{dtype}", "map", (dtype.name,), partial(_guarded, dtype))
        yield Check(f"prim_map_gathered_{dtype}", "map", (dtype.name,), partial(_gathered, dtype))
        yield Check(f"prim_map_stores_some_{dtype}", "map", (dtype.name,), partial(_some, dtype))


def _guarded(dtype: DType, bench: Bench) -> None:
    """A window that looks past both ends: what is outside is another value, and no memory."""
    n = expr.size("s0")
    i = expr.raw_axis(0, n)
    place = i - 3
    guard = expr.alu("and", place >= 0, place < n - 5)
    store = Store(1, i, expr.load(0, (place,), dtype, guard, 2))
    kernel = Kernel((Param(dtype), Param(dtype, True)), (i,), (store,), 1)
    for size in SIZES:
        x = _numbers(dtype, size)
        (found,) = bench.run(kernel, [x, np.zeros_like(x)], [size])
        wanted = np.array([x[k - 3] if 0 <= k - 3 < size - 5 else 2 for k in range(size)], dtype.numpy)
        bench.expect(found, wanted, what=f"n = {size}")


def _gathered(dtype: DType, bench: Bench) -> None:
    """Computed indices, some of them far outside: those are not read, and the last of them is told."""
    n = expr.size("s0")
    i = expr.raw_axis(0, n)
    place = expr.load(1, (i,), INT64)
    guard = expr.alu("and", place >= 0, place < n)
    store = Store(2, i, expr.load(0, (place,), dtype, guard, 0, 7))
    params = (Param(dtype), Param(INT64), Param(dtype, True), Param(INT32, True))
    kernel = Kernel(params, (i,), (store,), 1, error=3)
    for size in SIZES:
        x, where = _numbers(dtype, size), _random("gather", size).integers(0, size, size)
        for strange in (None, -1, size, 1 << 40, -(1 << 40)):
            if strange is not None:
                where[size // 2] = strange
            found, word = bench.run(kernel, [x, where, np.zeros_like(x), np.zeros(1, np.int32)], [size])
            inside = (where >= 0) & (where < size)
            wanted = np.where(inside, x[np.where(inside, where, 0)], 0).astype(dtype.numpy)
            bench.expect(found, wanted, what=f"n = {size}, an index of {strange}")
            bench.expect(word, np.array([0 if strange is None else 7], np.int32), what="the error word")


def _some(dtype: DType, bench: Bench) -> None:
    """Stores whose guard fails leave what is there."""
    n = expr.size("s0")
    i = expr.raw_axis(0, n)
    store = Store(1, i, expr.load(0, (i,), dtype), (i % 3).eq(1))
    kernel = Kernel((Param(dtype), Param(dtype, True)), (i,), (store,), 1)
    for size in SIZES:
        x, before = _numbers(dtype, size), np.full(size, 9, dtype.numpy)
        (found,) = bench.run(kernel, [x, before], [size])
        bench.expect(found, np.where(np.arange(size) % 3 == 1, x, before), what=f"n = {size}")


# -- reduces -----------------------------------------------------------------------------------------------------------

_MONOIDS: Mapping[str, Callable[..., Any]] = {
    **{"add": np.sum, "mul": np.prod, "min": np.min, "max": np.max},
    **{"argmin": np.argmin, "argmax": np.argmax},
}
_LOGICAL: Mapping[str, Callable[..., Any]] = {"and": np.all, "or": np.any}
_BITWISE: Mapping[str, Callable[..., Any]] = {"and": np.bitwise_and.reduce, "or": np.bitwise_or.reduce}


@checks
def reduces() -> Iterator[Check]:
    for dtype in (FLOAT32, FLOAT64, FLOAT16, dtypes.BFLOAT16, INT32, INT64, dtypes.INT8, UINT8):
        for monoid in (*_MONOIDS, *(_BITWISE if dtype.is_int else ())):
            yield Check(f"prim_reduce_{monoid}_{dtype}", "reduce", (dtype.name,), partial(_reduce, monoid, dtype))
    for monoid in _LOGICAL:
        yield Check(f"prim_reduce_{monoid}_bool", "reduce", ("bool",), partial(_reduce, monoid, BOOL))
    for monoid in ("min", "max", "argmin", "argmax", "add"):
        for dtype in (FLOAT32, FLOAT16, FLOAT64):
            name = f"prim_reduce_{monoid}_nan_{dtype}"
            yield Check(name, "reduce", (dtype.name,), partial(_reduce_nan, monoid, dtype))


def reduce_kernel(monoid: str, dtype: DType) -> Kernel:
    """Rows of [s0, s1] combined; sums and products of narrow floats are kept in float32."""
    rows, n = expr.size("s0"), expr.size("s1")
    r, k = expr.raw_axis(0, rows), expr.raw_axis(1, n)
    wide = FLOAT32 if dtype.is_float and dtype.bits < 32 and monoid in ("add", "mul") else dtype
    element = expr.cast(expr.load(0, (r * n + k,), dtype), wide)
    value = expr.reduce(monoid, (k,), (element, k) if monoid.startswith("arg") else (element,))
    value = value if monoid.startswith("arg") else expr.cast(value, dtype)
    return Kernel((Param(dtype), Param(value.dtype, True)), (r,), (Store(1, r, value),), 2)


def _reduce(monoid: str, dtype: DType, bench: Bench) -> None:
    kernel = reduce_kernel(monoid, dtype)
    for size in SIZES:
        x = _numbers(dtype, 3 * size).reshape(3, size)
        if monoid == "mul":
            x = np.where(np.arange(size) % 16 == 3, 2, 1).astype(dtype.numpy) * np.ones((3, 1), dtype.numpy)
        bench.expect(*_reduced(bench, kernel, monoid, x), tolerance=_SUMS, what=f"n = {size}")


def _reduce_nan(monoid: str, dtype: DType, bench: Bench) -> None:
    """A NaN first, in the middle, last, and nowhere."""
    kernel = reduce_kernel(monoid, dtype)
    for size in SIZES:
        x = (np.arange(4 * size).reshape(4, size) % 31).astype(dtype.numpy)
        for row, place in enumerate((0, size // 2, size - 1)):
            x[row, place] = np.nan
        bench.expect(*_reduced(bench, kernel, monoid, x), tolerance=_SUMS, what=f"n = {size}")


def _reduced(bench: Bench, kernel: Kernel, monoid: str, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the device gives, and what it has to."""
    result = kernel.params[1].dtype
    (found,) = bench.run(kernel, [x, np.zeros(len(x), result.numpy)], x.shape)
    function = _MONOIDS.get(monoid) or (_LOGICAL if x.dtype == bool else _BITWISE)[monoid]
    wide = x.astype(np.float64) if result.is_float else x
    with np.errstate(all="ignore"):
        return found, np.asarray(function(wide, axis=1)).astype(result.numpy)


# -- in order ----------------------------------------------------------------------------------------------------------


@checks
def sequences() -> Iterator[Check]:
    for dtype in (FLOAT32, INT32, INT64):
        yield Check(f"prim_scatter_running_sum_{dtype}", "scatter", (dtype.name,), partial(_running_sum, dtype))
    yield Check("prim_scatter_fold_until", "scatter", ("int64",), _fold)


def _running_sum(dtype: DType, bench: Bench) -> None:
    """A sequential axis: each step stores the sum so far, and carries it on."""
    rows, n = expr.size("s0"), expr.size("s1")
    r, step = expr.raw_axis(0, rows), expr.raw_axis(1, n)
    place = r * n + step
    total = expr.carry(0, dtype) + expr.load(0, (place,), dtype)
    carries = (Carry(dtype, expr.const(0, dtype), total),)
    params = (Param(dtype), Param(dtype, True))
    kernel = Kernel(params, (r,), (Store(1, place, total),), 2, seq=step, carries=carries)
    for size in SIZES:
        x = _numbers(dtype, 3 * size).reshape(3, size)
        (found,) = bench.run(kernel, [x, np.zeros_like(x)], x.shape)
        bench.expect(found, np.cumsum(x, 1, dtype=dtype.numpy), what=f"n = {size}")


def _fold(bench: Bench) -> None:
    """A fold stores once, what it carries when its condition first holds: here the place of the first one in a row."""
    rows, n = expr.size("s0"), expr.size("s1")
    r, step = expr.raw_axis(0, rows), expr.raw_axis(1, n)
    at, seen = expr.carry(0, INT64), expr.carry(1, INT64)
    hit = expr.alu("and", seen.eq(0), expr.load(0, (r * n + step,), INT64).eq(1))
    carries = (
        Carry(INT64, expr.const(-1, INT64), expr.select(hit, step, at)),
        Carry(INT64, expr.const(0, INT64), expr.select(hit, expr.const(1, INT64), seen)),
    )
    params = (Param(INT64), Param(INT64, True))
    kernel = Kernel(params, (r,), (Store(1, r, at),), 2, seq=step, carries=carries, until=seen.eq(1))
    for size in SIZES:
        x = np.zeros((4, size), np.int64)
        x[1, 0] = x[2, size - 1] = x[3, size // 2] = x[3, size - 1] = 1
        (found,) = bench.run(kernel, [x, np.zeros(4, np.int64)], x.shape)
        bench.expect(found, np.array([-1, 0, size - 1, size // 2]), what=f"n = {size}")


# -- stores that meet --------------------------------------------------------------------------------------------------

_COMBINE: Mapping[str, Any] = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}


@checks
def scatters() -> Iterator[Check]:
    for combine in _COMBINE:
        for dtype in (FLOAT32, FLOAT64, FLOAT16, INT32, INT64, UINT8):
            name = f"prim_scatter_{combine}_{dtype}"
            yield Check(name, "scatter", (dtype.name,), partial(_scatter, combine, dtype))


def _scatter(combine: str, dtype: DType, bench: Bench) -> None:
    """Many points hit few places: an update that is lost is seen."""
    n = expr.size("s0")
    i = expr.raw_axis(0, n)
    store = Store(2, expr.load(1, (i,), INT64), expr.load(0, (i,), dtype), combine=combine)
    kernel = Kernel((Param(dtype), Param(INT64), Param(dtype, True)), (i,), (store,), 1)
    for size in (*SIZES, 1500):
        where = _random("scatter", size).integers(0, 7, size)
        x = _numbers(dtype, size) if combine != "mul" else (1 + (np.arange(size) % 97 == 3)).astype(dtype.numpy)
        wanted = np.ones(7, dtype.numpy)
        _COMBINE[combine].at(wanted, where, x)
        (found,) = bench.run(kernel, [x, where, np.ones(7, dtype.numpy)], [size])
        bench.expect(found, wanted, EXACT, f"n = {size}")
