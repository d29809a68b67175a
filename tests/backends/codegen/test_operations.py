"""Every operation in every dtype at the edges, against Python's exact integers and numpy's floats."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from omniop.conformance.oracles.arithmetic import cast, edges, expected, operations, pairs
from omniop.opset import dtype as dtypes
from omniop.opset import expr
from omniop.opset.alu import ALU
from omniop.opset.dtype import BOOL, FLOAT32, FLOAT64, DType
from omniop.opset.kernel import Kernel, Param, Store

INTEGERS = [d for d in dtypes.ALL if d.is_int and d.bits >= 8]
FLOATS = [FLOAT32, FLOAT64]
DTYPES = [BOOL, *INTEGERS, *FLOATS]


def table_kernel(dtype: DType) -> Kernel:
    """All operations of a dtype: one store each, over all pairs of edges."""
    count = len(edges(dtype))
    i = expr.axis(0, count * count)
    x, y = expr.load(0, (i // count,), dtype), expr.load(0, (i % count,), dtype)
    values = [expr.alu(name, *(x, y)[: ALU[name].arity]) for name in operations(dtype)]
    stores = tuple(Store(k + 1, i, value) for k, value in enumerate(values))
    return Kernel((Param(dtype), *(Param(v.dtype, True) for v in values)), (i,), stores)


def cast_kernel(source: DType) -> Kernel:
    i = expr.axis(0, len(edges(source)))
    stores = tuple(Store(k + 1, i, expr.cast(expr.load(0, (i,), source), d)) for k, d in enumerate(DTYPES))
    return Kernel((Param(source), *(Param(d, True) for d in DTYPES)), (i,), stores)


@pytest.fixture(scope="module")
def results(runner) -> Callable[[str, DType], dict[str, np.ndarray]]:
    """Results of the kernels above; all are built as one unit."""
    makers = {"table": table_kernel, "cast": cast_kernel}
    kernels = {f"{kind}_{d}": make(d) for kind, make in makers.items() for d in DTYPES}
    sources = [
        runner.dialect.print_kernel(kernel, name, index_bits=runner.index_bits) for name, kernel in kernels.items()
    ]
    launch = runner.build(sources)

    @cache
    def get(kind: str, dtype: DType) -> dict[str, np.ndarray]:
        kernel = kernels[f"{kind}_{dtype}"]
        count = kernel.axes[0].args[0].attr
        outputs = [np.zeros(count, p.dtype.numpy) for p in kernel.params[1:]]
        launch(f"{kind}_{dtype}", [edges(dtype), *outputs], ())
        names = operations(dtype) if kind == "table" else [d.name for d in DTYPES]
        return dict(zip(names, outputs, strict=True))

    return get


def assert_close(actual: np.ndarray, wanted: np.ndarray, ulps: int) -> None:
    with np.errstate(all="ignore"):
        rounded = wanted.astype(actual.dtype)
    same = (actual == rounded) | (np.isnan(actual) & np.isnan(rounded))
    both = np.isfinite(actual) & np.isfinite(rounded)
    with np.errstate(all="ignore"):
        near = both & (
            np.abs(actual - rounded) <= ulps * np.spacing(np.maximum(np.abs(rounded), np.finfo(actual.dtype).tiny))
        )
    wrong = ~(same | near)
    assert not wrong.any(), f"{actual[wrong][:5]} for {rounded[wrong][:5]} at {np.flatnonzero(wrong)[:5]}"


@pytest.mark.parametrize(("dtype", "name"), [(d, n) for d in DTYPES for n in operations(d)], ids=str)
def test_operation(results, dtype: DType, name: str) -> None:
    actual = results("table", dtype)[name]
    wanted = expected(name, dtype, pairs(dtype)[: ALU[name].arity])
    if dtype.is_float and actual.dtype != bool:
        assert_close(actual, wanted, ulps=16 if ALU[name].cost >= 16 else 0)
    else:
        np.testing.assert_array_equal(actual, wanted)


@pytest.mark.parametrize("target", DTYPES, ids=str)
@pytest.mark.parametrize("source", DTYPES, ids=str)
def test_cast(results, source: DType, target: DType) -> None:
    actual = results("cast", source)[target.name]
    np.testing.assert_array_equal(actual, cast(edges(source), source, target))


def test_negative_zero_is_kept(results) -> None:
    x = pairs(FLOAT32)[0]
    wanted = np.signbit(x)[~np.isnan(x)]
    for name in ("floor", "ceil", "rint", "trunc", "sqrt"):
        zeros = (x == 0)[~np.isnan(x)]
        assert (np.signbit(results("table", FLOAT32)[name][~np.isnan(x)][zeros]) == wanted[zeros]).all(), name
    assert (np.signbit(results("table", FLOAT32)["neg"][~np.isnan(x)]) == ~wanted).all()
