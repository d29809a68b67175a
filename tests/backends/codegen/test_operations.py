"""Every operation in every dtype at the edges, against Python's exact integers and numpy's floats."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from omniop.opset import dtype as dtypes
from omniop.opset import expr
from omniop.opset.alu import ALU
from omniop.opset.dtype import BOOL, FLOAT32, FLOAT64, DType
from omniop.opset.kernel import Kernel, Param, Store

INTEGERS = [d for d in dtypes.ALL if d.is_int and d.bits >= 8]
FLOATS = [FLOAT32, FLOAT64]
DTYPES = [BOOL, *INTEGERS, *FLOATS]


def edges(dtype: DType) -> np.ndarray:
    if dtype is BOOL:
        return np.array([False, True])
    if dtype.is_int:
        info = np.iinfo(dtype.numpy)
        values = {
            info.min,
            info.min + 1,
            info.max,
            info.max - 1,
            info.max // 2,
            *range(10),
            dtype.bits,
            dtype.bits - 1,
            37,
        }
        values |= {-v for v in (1, 2, 3, 7, dtype.bits)} if info.min else set()
        return np.array(sorted(values), dtype.numpy)
    info = np.finfo(dtype.numpy)
    positive = [
        0.0,
        info.smallest_subnormal,
        info.tiny,
        0.1,
        0.5,
        1.0,
        1.5,
        2.0,
        2.5,
        3.0,
        1e6,
        2.0**31,
        2.0**63,
        info.max,
    ]
    return np.array([math.nan, *(s * v for v in (*positive, math.inf) for s in (1, -1))], dtype.numpy)


def pairs(dtype: DType) -> tuple[np.ndarray, np.ndarray]:
    values = edges(dtype)
    return np.repeat(values, len(values)), np.tile(values, len(values))


def operations(dtype: DType) -> list[str]:
    return [name for name, op in ALU.items() if dtype.kind in op.kinds]


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


# What the words of `alu` say, in Python and numpy ---------------------------------------------------------------------


def truncated(a: int, b: int) -> int:
    return 0 if b == 0 else int(math.copysign(1, a) * math.copysign(1, b)) * (abs(a) // abs(b))


def shifted_right(a: int, b: int, bits: int) -> int:
    return a >> b if 0 <= b < bits else -1 if a < 0 else 0


def power(a: int, b: int) -> int:
    if b >= 0:
        return pow(a, b, 1 << 64)
    return {1: 1, -1: -1 if b % 2 else 1}.get(a, 0)


def exact_integer(name: str, a: int, b: int, bits: int) -> int | bool:
    table: dict[str, Callable[[], int | bool]] = {
        "neg": lambda: -a,
        "abs": lambda: abs(a),
        "not": lambda: ~a,
        "add": lambda: a + b,
        "sub": lambda: a - b,
        "mul": lambda: a * b,
        "min": lambda: min(a, b),
        "max": lambda: max(a, b),
        "div": lambda: truncated(a, b),
        "rem": lambda: 0 if b == 0 else a - b * truncated(a, b),
        "floordiv": lambda: 0 if b == 0 else a // b,
        "floormod": lambda: 0 if b == 0 else a % b,
        "pow": lambda: power(a, b),
        "and": lambda: a & b,
        "or": lambda: a | b,
        "xor": lambda: a ^ b,
        "shl": lambda: a << b if 0 <= b < bits else 0,
        "shr": lambda: shifted_right(a, b, bits),
        "eq": lambda: a == b,
        "ne": lambda: a != b,
        "lt": lambda: a < b,
        "le": lambda: a <= b,
    }
    return table[name]()


def expected_integer(name: str, dtype: DType) -> np.ndarray:
    values = [exact_integer(name, int(a), int(b), dtype.bits) for a, b in zip(*pairs(dtype), strict=True)]
    if ALU[name].result == "bool":
        return np.array(values)
    return np.array([expr.wrap(int(v), dtype) for v in values], dtype.numpy)


LOGICAL = {"and": "logical_and", "or": "logical_or", "xor": "logical_xor", "not": "logical_not"}
LOGICAL |= {"min": "logical_and", "max": "logical_or"}
NUMPY = {"abs": "abs", "neg": "negative", "sub": "subtract", "mul": "multiply", "div": "divide", "rem": "fmod"}
NUMPY |= {"min": "minimum", "max": "maximum", "eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal"}
NUMPY |= {"atan2": "arctan2"} | {name: f"arc{name[1:]}" for name in ("asin", "acos", "atan", "asinh", "acosh", "atanh")}


def expected_float(name: str, dtype: DType) -> np.ndarray:
    """In the dtype where IEEE 754 rounds exactly, otherwise in a wider one."""
    x, y = pairs(dtype)
    with np.errstate(all="ignore"):
        if name == "erf":
            return np.vectorize(math.erf)(x.astype(np.float64))
        if name == "pow":  # powl errs at (-inf) ** -(2 ** 63)
            return np.power(x.astype(np.float64), y.astype(np.float64))
        wide = ALU[name].cost >= 16
        operands = (v.astype(np.longdouble if wide else dtype.numpy) for v in (x, y)[: ALU[name].arity])
        return getattr(np, NUMPY.get(name, name))(*operands)


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
    if dtype is BOOL:
        ufunc = getattr(np, LOGICAL.get(name) or NUMPY[name])
        wanted = ufunc(*pairs(dtype)[: ALU[name].arity])
    elif dtype.is_int:
        wanted = expected_integer(name, dtype)
    else:
        wanted = expected_float(name, dtype)
    if dtype.is_float and actual.dtype != bool:
        assert_close(actual, wanted, ulps=16 if ALU[name].cost >= 16 else 0)
    else:
        np.testing.assert_array_equal(actual, wanted)


def expected_cast(values: np.ndarray, source: DType, target: DType) -> np.ndarray:
    if target is BOOL:
        return values != 0
    if not (source.is_float and target.is_int):
        with np.errstate(over="ignore"):
            return values.astype(target.numpy)
    info = np.iinfo(target.numpy)

    def convert(value: float) -> int:
        if math.isnan(value):
            return 0
        return (
            max(info.min, min(info.max, math.trunc(value)))
            if math.isfinite(value)
            else info.min
            if value < 0
            else info.max
        )

    return np.array([convert(float(v)) for v in values], target.numpy)


@pytest.mark.parametrize("target", DTYPES, ids=str)
@pytest.mark.parametrize("source", DTYPES, ids=str)
def test_cast(results, source: DType, target: DType) -> None:
    actual = results("cast", source)[target.name]
    np.testing.assert_array_equal(actual, expected_cast(edges(source), source, target))


def test_negative_zero_is_kept(results) -> None:
    x = pairs(FLOAT32)[0]
    wanted = np.signbit(x)[~np.isnan(x)]
    for name in ("floor", "ceil", "rint", "trunc", "sqrt"):
        zeros = (x == 0)[~np.isnan(x)]
        assert (np.signbit(results("table", FLOAT32)[name][~np.isnan(x)][zeros]) == wanted[zeros]).all(), name
    assert (np.signbit(results("table", FLOAT32)["neg"][~np.isnan(x)]) == ~wanted).all()
