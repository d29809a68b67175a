"""Prims that a device takes whole, on views of every kind, with and without what comes after them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from omniop.conformance.prim.bench import Bench
from omniop.conformance.prim.table import Check, checks
from omniop.conformance.tolerance import EXACT, Ulps
from omniop.opset import dtype as dtypes
from omniop.opset import expr
from omniop.opset.dtype import FLOAT16, FLOAT32, FLOAT64, INT32, INT64, DType
from omniop.opset.kernel import Call, Param, View
from omniop.opset.prims import identity

_SIZES = ((1, 1, 1), (1, 65, 33), (3, 7, 5), (17, 33, 129), (64, 64, 64), (5, 1025, 2), (130, 3, 1))
"""M, K, N."""

_PRODUCTS = Ulps(2, 16)


@checks
def contracts() -> Iterator[Check]:
    for dtype in (FLOAT32, FLOAT64, FLOAT16, dtypes.BFLOAT16, INT32):
        for order in ("straight", "transposed", "batched", "broadcast", "offset"):
            name = f"prim_contract_{order}_{dtype}"
            yield Check(name, "contract", (dtype.name,), partial(_contract, order, dtype, False))
        if dtype is FLOAT32:
            yield Check(
                "prim_contract_then_float32", "contract", ("float32",), partial(_contract, "straight", dtype, True)
            )


def _contract(order: str, dtype: DType, then: bool, bench: Bench) -> None:
    """``then``: the product plus a row, through a maximum with 0."""
    for m, k, n in _SIZES:
        batch = 3 if order in ("batched", "broadcast") else 1
        random = np.random.default_rng([m, k, n])
        a = random.integers(-3, 4, (batch, m, k)).astype(dtype.numpy)
        b = random.integers(-3, 4, (1 if order == "broadcast" else batch, k, n)).astype(dtype.numpy)
        row = random.integers(-9, 9, n).astype(dtype.numpy)
        wide = np.matmul(a.astype(np.float64), b.astype(np.float64))
        if then:
            wide = np.maximum(wide + row, 0)
        stored = [x.swapaxes(1, 2) if order == "transposed" else x for x in (a, b)]
        call = _product_call(dtype, a.shape, b.shape, order, then)
        pad = np.zeros(_OFFSET if order == "offset" else 0, dtype.numpy)
        arrays = [np.concatenate([pad, np.ascontiguousarray(x).reshape(-1)]) for x in stored]
        out = np.zeros(wide.shape, dtype.numpy)
        (found,) = bench.call(call, [*arrays, *([row] if then else []), out])
        tolerance = EXACT if dtype.is_int else _PRODUCTS
        bench.expect(found, wide.astype(dtype.numpy), tolerance, f"{m}x{k}x{n}")


_OFFSET = 3


def _product_call(dtype: DType, a: Sequence[int], b: Sequence[int], order: str, then: bool) -> Call:
    (batch, m, k), n = a, b[2]
    start = _OFFSET if order == "offset" else 0
    flip = order == "transposed"
    left = _view(0, dtype, (batch, m, k), (m * k, 1, m) if flip else (m * k, k, 1), start)
    step = 0 if b[0] == 1 else k * n
    right = _view(1, dtype, (batch, k, n), (step, 1, k) if flip else (step, n, 1), start)
    last = 3 if then else 2
    result = _view(last, dtype, (batch, m, n), (m * n, n, 1))
    params = (Param(dtype), Param(dtype), *([Param(dtype)] if then else []), Param(dtype, True))
    epilogue = None
    if then:
        column = expr.axis(2, n)
        epilogue = expr.maximum(expr.hole(dtype) + expr.load(2, (column,), dtype), 0.0)
    wide = FLOAT32 if dtype.is_float and dtype.bits < 32 else dtype
    return Call("contract", params, (left, right), (result,), (("accumulate", wide),), epilogue=epilogue)


def _view(buffer: int, dtype: DType, shape: Sequence[int], strides: Sequence[int], start: int = 0) -> View:
    shape_, strides_ = (tuple(expr.index(d) for d in numbers) for numbers in (shape, strides))
    return View(buffer, dtype, shape_, strides_, expr.index(start))


# -- along an axis -----------------------------------------------------------------------------------------------------

_ROWS = ((1, 1), (3, 2), (4, 33), (2, 65), (3, 1025))


@checks
def along_an_axis() -> Iterator[Check]:
    for dtype in (FLOAT32, FLOAT64, FLOAT16, INT32, INT64):
        for descending in (False, True):
            name = f"prim_sort_{'descending' if descending else 'ascending'}_{dtype}"
            yield Check(name, "sort", (dtype.name,), partial(_sort, dtype, descending))
        for monoid in _RUNNING:
            for order in ("forwards", "exclusive", "reverse"):
                name = f"prim_prefix_{monoid}_{order}_{dtype}"
                yield Check(name, "prefix", (dtype.name,), partial(_prefix, monoid, order, dtype))


def _sort(dtype: DType, descending: bool, bench: Bench) -> None:
    """Stable; NaN is greater than all; the zeros are equal."""
    for rows, n in _ROWS:
        x = np.random.default_rng([rows, n]).integers(-5, 6, (rows, n)).astype(dtype.numpy)
        if dtype.is_float:
            x[:, n // 2] = np.nan
            x[:, n // 3] = -0.0
        shape, strides = (rows, n), (n, 1)
        views = _view(1, dtype, shape, strides), _view(2, INT64, shape, strides)
        params = (Param(dtype), Param(dtype, True), Param(INT64, True))
        attributes = (("descending", descending),)
        call = Call("sort", params, (_view(0, dtype, shape, strides),), views, attributes)
        values, indices = bench.call(call, [x, np.zeros_like(x), np.zeros(shape, np.int64)])
        order = np.array([_order(row, descending) for row in x])
        bench.expect(indices, order, what=f"indices, n = {n}")
        bench.expect(values, np.take_along_axis(x, order, 1), what=f"values, n = {n}")


def _order(row: np.ndarray, descending: bool) -> list[int]:
    """By Python's stable sort."""
    keys = [(bool(np.isnan(value)), 0.0 if np.isnan(value) else float(value)) for value in row]
    if descending:
        return sorted(range(len(row)), key=lambda k: (not keys[k][0], -keys[k][1]))
    return sorted(range(len(row)), key=keys.__getitem__)


_RUNNING: Mapping[str, Callable[..., np.ndarray]] = {
    **{"add": np.add.accumulate, "mul": np.multiply.accumulate},
    **{"min": np.minimum.accumulate, "max": np.maximum.accumulate},
}


def _prefix(monoid: str, order: str, dtype: DType, bench: Bench) -> None:
    for rows, n in _ROWS:
        x = np.random.default_rng([rows, n]).integers(0, 3, (rows, n)).astype(dtype.numpy)
        if monoid == "mul":
            x = (1 + (np.arange(rows * n).reshape(rows, n) % 299 == 5)).astype(dtype.numpy)
        turned = x[:, ::-1] if order == "reverse" else x
        wanted = _RUNNING[monoid](turned.astype(np.float64) if dtype.is_float else turned, axis=1)
        if order == "exclusive":
            first = np.full((rows, 1), identity(monoid, dtype), wanted.dtype)
            wanted = np.concatenate([first, wanted[:, :-1]], 1)
        wanted = wanted[:, ::-1] if order == "reverse" else wanted
        view, result = (_view(k, dtype, (rows, n), (n, 1)) for k in (0, 1))
        attributes = (("exclusive", order == "exclusive"), ("monoid", monoid), ("reverse", order == "reverse"))
        call = Call("prefix", (Param(dtype), Param(dtype, True)), (view,), (result,), attributes)
        (found,) = bench.call(call, [x, np.zeros_like(x)])
        bench.expect(found, wanted.astype(dtype.numpy), Ulps(1), f"n = {n}")
