"""The arithmetic of LLVM kernels: every operation and cast at every dtype's edges, elementary functions in ULP."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import scipy.special
from llvm_runner import element, launch, reads, writes

from omniop.backends.codegen.llvm_ir import Target
from omniop.backends.reference import numpy_ops
from omniop.opset import dtype as dtypes
from omniop.opset import expr
from omniop.opset.alu import ALU
from omniop.opset.dtype import BOOL, FLOAT16, FLOAT32, FLOAT64, DType
from omniop.opset.kernel import Kernel, Store

RNG = np.random.default_rng(0)
NUMBERS = [BOOL, *(d for d in dtypes.ALL if d.is_int and d.bits >= 8), FLOAT16, FLOAT32, FLOAT64]

FUNCTIONS = {
    "exp": (np.exp, 3),
    "log": (np.log, 3),
    "sin": (np.sin, 4),
    "cos": (np.cos, 4),
    "tan": (np.tan, 5),
    "asin": (np.arcsin, 4),
    "acos": (np.arccos, 4),
    "atan": (np.arctan, 5),
    "sinh": (np.sinh, 4),
    "cosh": (np.cosh, 4),
    "tanh": (np.tanh, 5),
    "asinh": (np.arcsinh, 4),
    "acosh": (np.arccosh, 4),
    "atanh": (np.arctanh, 5),
    "erf": (scipy.special.erf, 16),
    "pow": (np.power, 16),
    "atan2": (np.arctan2, 6),
}
"""Each function, and OpenCL's limit for it in ULP of float32 (full profile)."""
TRANSCENDENTAL = {name: function for name, (function, _) in FUNCTIONS.items()}
LIMITS = {name: limit for name, (_, limit) in FUNCTIONS.items()}


def edges(dtype: DType) -> np.ndarray:
    """Numbers at which operations turn."""
    if dtype is BOOL:
        return np.array([False, True])
    if dtype.is_int:
        info = np.iinfo(dtype.numpy)
        small = [0, 1, 2, 3, 5, 7, 8, 31, 32, 33, 63, 64, info.max, info.max - 1, info.min, info.min + 1]
        return np.array([n for n in [*small, -1, -2, -3, -7] if info.min <= n <= info.max], dtype.numpy)
    info = np.finfo(dtype.numpy)
    finite = [0, 0.5, 1, 1.5, 2, 2.5, 3, 7, 100, 127.5, 255.9, 1e4, info.max, info.tiny, info.smallest_subnormal]
    return np.array([*finite, *(-x for x in finite), np.inf, -np.inf, np.nan], dtype.numpy)


def pairs(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = np.meshgrid(values, values)
    return a.ravel().copy(), b.ravel().copy()


def apply(name: str, inputs: Sequence[np.ndarray], target: Target | None = None) -> np.ndarray:
    """An operation of `ALU` on flat arrays."""
    i = expr.raw_axis(0, expr.index(inputs[0].size))
    params = [dtypes.of_numpy(x.dtype) for x in inputs]
    value = expr.alu(name, *(element(k, i, d) for k, d in enumerate(params)))
    kernel = Kernel((*map(reads, params), writes(value.dtype)), (i,), (Store(len(inputs), i, value),))
    return launch(kernel, [*inputs, np.zeros(inputs[0].size, value.dtype.numpy)], target=target)[-1]


EXACT = [(name, d) for name, op in ALU.items() if name not in TRANSCENDENTAL for d in NUMBERS if d.kind in op.kinds]


@pytest.mark.parametrize(("name", "dtype"), EXACT, ids=lambda x: str(x))
def test_operation(name: str, dtype: DType) -> None:
    values = edges(dtype)
    inputs = [values] if ALU[name].arity == 1 else list(pairs(values))
    if name in ("floordiv", "floormod"):
        above = inputs[1] > 0
        inputs = [x[above] for x in inputs]
    got, wanted = apply(name, inputs), numpy_ops.ALU[name](*inputs)
    assert got.dtype == wanted.dtype
    np.testing.assert_array_equal(got, wanted)
    if dtype.is_float and got.dtype != bool and name not in ("min", "max"):  # which zero they give is open
        number = ~np.isnan(wanted)
        np.testing.assert_array_equal(np.signbit(got[number]), np.signbit(wanted[number]))


@pytest.mark.parametrize("dtype", [d for d in NUMBERS if d.is_int], ids=str)
def test_integer_power(dtype: DType) -> None:
    a, b = pairs(edges(dtype))
    np.testing.assert_array_equal(apply("pow", [a, b]), numpy_ops.ALU["pow"](a, b))


@pytest.mark.parametrize("source", NUMBERS, ids=str)
def test_casts(source: DType) -> None:
    """To every dtype, by one kernel of many stores."""
    values = edges(source)
    if source.is_float:
        bounds = [2.0**k for k in (7, 8, 15, 16, 24, 31, 32, 53, 63, 64)]
        bounds = [*bounds, *(-b for b in bounds), *(b - 1 for b in bounds), 65519, 65520]
        with np.errstate(over="ignore"):
            around = np.array(bounds).astype(values.dtype)
            values = np.concatenate([values, around, np.nextafter(around, -np.inf), np.nextafter(around, np.inf)])
    i = expr.raw_axis(0, expr.index(values.size))
    stores = tuple(Store(k + 1, i, expr.cast(element(0, i, source), d)) for k, d in enumerate(NUMBERS))
    kernel = Kernel((reads(source), *map(writes, NUMBERS)), (i,), stores)
    got = launch(kernel, [values, *(np.zeros(values.size, d.numpy) for d in NUMBERS)])[1:]
    for array, target in zip(got, NUMBERS, strict=True):
        wanted = values if target is source else numpy_ops.cast(values, target)
        np.testing.assert_array_equal(array, wanted, err_msg=f"{source} to {target}")


def test_bitcasts() -> None:
    for source, dtype in ((FLOAT32, dtypes.UINT32), (dtypes.INT64, FLOAT64), (FLOAT16, dtypes.INT16)):
        values = RNG.integers(0, 256, 40 * source.itemsize).astype(np.uint8).view(source.numpy)
        i = expr.raw_axis(0, expr.index(40))
        kernel = Kernel(
            (reads(source), writes(dtype)), (i,), (Store(1, i, expr.bitcast(element(0, i, source), dtype)),)
        )
        got = launch(kernel, [values, np.zeros(40, dtype.numpy)])[1]
        np.testing.assert_array_equal(got.view(np.uint8), values.view(np.uint8))


def test_products_are_rounded_before_they_are_added() -> None:
    """No contraction to a fused multiply-add."""
    a, b, c = (RNG.standard_normal(1000).astype(np.float32) for _ in range(3))
    i = expr.raw_axis(0, expr.index(1000))
    value = element(0, i) * element(1, i) + element(2, i)
    kernel = Kernel((reads(), reads(), reads(), writes()), (i,), (Store(3, i, value),))
    np.testing.assert_array_equal(launch(kernel, [a, b, c, np.zeros_like(a)])[3], a * b + c)


def ulp(got: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Distance in units of the last place of ``exact`` rounded to float32; infinite where one is special and not the
    other."""
    with np.errstate(all="ignore"):
        rounded = exact.astype(np.float32)
        same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
        unit = np.spacing(np.abs(np.where(np.isfinite(rounded), rounded, 1))).astype(np.float64)
        distance = np.abs(got.astype(np.float64) - exact) / unit
    return np.where(same, 0, np.where(np.isnan(distance), np.inf, distance))


def samples() -> np.ndarray:
    """Any bits, ordinary numbers, quarter turns, and the edges."""
    bits = RNG.integers(0, 1 << 32, 20_000).astype(np.uint32).view(np.float32)
    parts = [
        bits,
        RNG.uniform(-20, 20, 20_000),
        RNG.uniform(-110, 95, 10_000),
        RNG.uniform(-1, 1, 10_000),
        RNG.normal(1, 0.1, 10_000),
        RNG.uniform(-65536, 65536, 10_000),
        np.arange(10_000) * (np.pi / 2),
        edges(FLOAT32),
    ]
    with np.errstate(invalid="ignore"):
        return np.concatenate([p.astype(np.float32) for p in parts])


@pytest.mark.parametrize("name", [name for name in TRANSCENDENTAL if ALU[name].arity == 1])
def test_function_of_float32(name: str) -> None:
    x = samples()
    with np.errstate(all="ignore"):
        exact = TRANSCENDENTAL[name](x.astype(np.float64))
    got = apply(name, [x])
    error = ulp(got, exact)
    assert error.max() <= LIMITS[name], (
        f"{name}({x[error.argmax()]!r}) = {got[error.argmax()]!r}: {error.max():.1f} ULP"
    )
    zero = (exact == 0) & (got == 0)
    np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(exact[zero]))


@pytest.mark.parametrize("name", ["pow", "atan2"])
def test_function_of_two_float32(name: str) -> None:
    x, y = pairs(edges(FLOAT32))
    some = [RNG.permutation(samples()) for _ in range(2)]
    positive = [RNG.uniform(0, 10, 20_000).astype(np.float32), RNG.uniform(-40, 40, 20_000).astype(np.float32)]
    whole = [RNG.uniform(-5, 5, 20_000).astype(np.float32), RNG.integers(-20, 20, 20_000).astype(np.float32)]
    inputs = [np.concatenate([a, *rest]) for a, *rest in zip((x, y), some, positive, whole, strict=True)]
    with np.errstate(all="ignore"):
        exact = TRANSCENDENTAL[name](*(a.astype(np.float64) for a in inputs))
    got = apply(name, inputs)
    error = ulp(got, exact)
    worst = error.argmax()
    assert error.max() <= LIMITS[name], (
        f"{name}{tuple(a[worst] for a in inputs)} = {got[worst]!r}: {error.max():.1f} ULP"
    )


@pytest.mark.parametrize("name", TRANSCENDENTAL)
@pytest.mark.parametrize("dtype", [FLOAT64, FLOAT16], ids=str)
def test_function_of_other_floats(name: str, dtype: DType) -> None:
    inputs = [edges(dtype)] if ALU[name].arity == 1 else list(pairs(edges(dtype)))
    with np.errstate(all="ignore"):
        wide = [a.astype(np.float64) for a in inputs]
        wanted = TRANSCENDENTAL[name](*wide).astype(dtype.numpy)
    rtol = 1e-14 if dtype is FLOAT64 else 1e-3
    np.testing.assert_allclose(apply(name, inputs), wanted, rtol=rtol, atol=float(np.finfo(dtype.numpy).tiny))


@pytest.mark.parametrize("exponent", [-1.0, 0.0, 0.5, 1.0, 2.0, 3.0])
def test_constant_exponents(exponent: float) -> None:
    x = samples()
    i = expr.raw_axis(0, expr.index(x.size))
    value = expr.alu("pow", element(0, i), expr.const(exponent, FLOAT32))
    got = launch(Kernel((reads(), writes()), (i,), (Store(1, i, value),)), [x, np.zeros_like(x)])[1]
    with np.errstate(all="ignore"):
        exact = np.power(x.astype(np.float64), np.full(x.size, exponent))  # for a scalar numpy takes sqrt
    assert ulp(got, exact).max() <= 2
    zero = exact == 0
    np.testing.assert_array_equal(np.signbit(got[zero]), np.signbit(exact[zero]))


@pytest.mark.parametrize("name", ["exp", "log", "tanh", "erf", "sin", "tan", "pow"])
def test_without_fused_multiply_add(name: str) -> None:
    """The C library's functions take over, to the same limits."""
    inputs = [RNG.uniform(0.1, 20, 100).astype(np.float32) for _ in range(ALU[name].arity)]
    exact = TRANSCENDENTAL[name](*(a.astype(np.float64) for a in inputs))
    assert ulp(apply(name, inputs, Target(128, fma=False)), exact).max() <= 1
