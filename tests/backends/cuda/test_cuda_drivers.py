"""Every driver gives the same answers: the emulator in each of its orders, and a GPU where there is one."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
import scipy.special as special
from cuda_runner import Runner
from cuda_sources import (
    ATOMICS,
    BFLOAT16,
    BINARY,
    HALF,
    HALF_PAIRS,
    INTEGER,
    INTEGERS,
    MATH,
    MATH_ROWS,
    REVERSE,
    SAXPY,
    SOFTMAX,
    SUM,
    TENSOR_CORE,
    UNARY,
    WARP,
)

from omniop.opset.errors import DeviceError

RNG = np.random.default_rng(0)


def test_saxpy_with_a_ragged_last_block(runner: Runner) -> None:
    x, y = RNG.standard_normal((2, 1000), dtype=np.float32)
    _, result = runner.run(SAXPY, "saxpy", (4,), (256,), [x, y, np.float32(2.5), np.int64(1000)])
    np.testing.assert_array_equal(result, np.float32(2.5) * x + y)


def test_softmax_of_rows(runner: Runner) -> None:
    x = RNG.standard_normal((9, 300), dtype=np.float32)
    _, result = runner.run(SOFTMAX, "softmax", (9,), (128,), [x, np.empty_like(x), np.int32(300)])
    np.testing.assert_allclose(result, special.softmax(x.astype(np.float64), axis=1), rtol=1e-5)


def test_sum_with_shuffles_and_an_atomic(runner: Runner) -> None:
    x = RNG.standard_normal(5000)
    _, total = runner.run(SUM, "sum", (5,), (96,), [x, np.zeros(1), np.int32(x.size)])
    np.testing.assert_allclose(total, x.sum(), rtol=1e-12)


def test_dynamic_shared_memory(runner: Runner) -> None:
    x = np.arange(192, dtype=np.int32)
    _, result = runner.run(REVERSE, "reverse", (3,), (64,), [x, np.zeros_like(x)], shared_bytes=64 * 4)
    np.testing.assert_array_equal(result, x.reshape(3, 64)[:, ::-1].ravel())


@pytest.mark.parametrize(
    ("source", "name", "dtype"), [(HALF, "half", np.float16), (BFLOAT16, "bfloat16", ml_dtypes.bfloat16)]
)
def test_narrow_floats(runner: Runner, source: str, name: str, dtype: type) -> None:
    # Every bit pattern but NaNs, whose payload is nobody's promise.
    a = np.arange(65536, dtype=np.uint16).view(dtype)
    a = a[~np.isnan(a.astype(np.float32))]
    n, b = len(a), RNG.permutation(a)
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    (_, _, y) = runner.run(
        source, f"arithmetic_{name}", (-(-n // 256),), (256,), [a, b, np.zeros(7 * n, dtype), np.int32(n)]
    )
    with np.errstate(all="ignore"):
        larger = np.where(a < b, np.sqrt(abs(wide_a)), np.fmax(wide_a, wide_b))
        expected = [
            wide_a + wide_b,
            wide_a - wide_b,
            wide_a * wide_b,
            wide_a / wide_b,
            wide_a * wide_b + wide_a,
            -wide_a,
            larger,
        ]
        expected = np.array([round_once(row, dtype) for row in expected], dtype)
    same = (y == expected.ravel()) | (np.isnan(y.astype(np.float32)) & np.isnan(expected.astype(np.float32).ravel()))
    assert same.all(), (np.flatnonzero(~same)[:5], y[~same][:5], expected.ravel()[~same][:5])


@pytest.mark.parametrize(
    ("source", "name", "dtype"), [(HALF, "half", np.float16), (BFLOAT16, "bfloat16", ml_dtypes.bfloat16)]
)
def test_narrow_conversions(runner: Runner, source: str, name: str, dtype: type) -> None:
    a = np.arange(65536, dtype=np.uint16).view(dtype)
    a = a[~np.isnan(a.astype(np.float32))]
    n = len(a)
    z = RNG.standard_normal(n) * 10.0 ** RNG.integers(-9, 9, n)
    # Ties, and numbers that a rounding to f32 would turn into ties.
    z[: n // 4] = (a[: n // 4].astype(np.float64) + a[1 : n // 4 + 1].astype(np.float64)) / 2
    z[: n // 8] *= 1 + RNG.choice([-1, 0, 1], n // 8) * 2.0**-40
    x = z.astype(np.float32)
    *_, wide, narrow = runner.run(
        source, f"convert_{name}", (-(-n // 256),), (256,),
        [a, x, z, np.zeros(n, np.float32), np.zeros(5 * n, dtype), np.int32(n)],
    )  # fmt: skip
    np.testing.assert_array_equal(wide, a.astype(np.float32))
    count = np.arange(n) * 33 - 100
    with np.errstate(all="ignore"):
        whole = np.clip(np.rint(a.astype(np.float64)), -(2**31), 2**31 - 1).astype(np.float32) + np.float32(0)  # no -0
        rows = [x.astype(np.float64), z, count.astype(np.float64), a.astype(np.float64), whole.astype(np.float64)]
        expected = np.array([round_once(row, dtype) for row in rows], dtype)
    np.testing.assert_array_equal(narrow.reshape(5, n).view(np.uint16), expected.view(np.uint16))


def round_once(exact: np.ndarray, dtype: type) -> np.ndarray:
    """float64 to ``dtype`` with one rounding; ml_dtypes goes through float32, so that comes first, to odd."""
    if dtype is np.float16:
        return exact.astype(dtype)
    near = exact.astype(np.float32)
    bits = near.view(np.uint32)
    inexact = np.isfinite(near) & (near != exact)
    truncated = np.where(abs(near.astype(np.float64)) > abs(exact), bits - 1, bits)
    return np.where(inexact, truncated | 1, bits).astype(np.uint32).view(np.float32).astype(dtype)


def test_pairs_of_halves(runner: Runner) -> None:
    a = RNG.standard_normal((64, 2)).astype(np.float16)
    _, result = runner.run(HALF_PAIRS, "pairs", (1,), (64,), [a, np.zeros_like(a)])
    wide = a.astype(np.float64)
    np.testing.assert_array_equal(result, (wide * wide[:, ::-1] + wide[:, :1]).astype(np.float16))


def test_matrix_instructions(runner: Runner) -> None:
    a, b = RNG.standard_normal((32, 48)).astype(np.float16), RNG.standard_normal((48, 16)).astype(np.float16)
    args = [a, np.asfortranarray(b).T.copy(), np.zeros((32, 16), np.float32), np.int32(16), np.int32(48)]
    *_, c = runner.run(TENSOR_CORE, "product", (1, 2), (32,), args)
    np.testing.assert_allclose(c, 2 * (a.astype(np.float64) @ b.astype(np.float64)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_math(runner: Runner, dtype: type) -> None:
    kind = {np.float32: "float", np.float64: "double"}[dtype]
    x, y = RNG.uniform(0.05, 0.95, (2, 500)).astype(dtype)
    *_, result = runner.run(
        MATH, f"math_{kind}", (4,), (128,), [x, y, np.zeros((MATH_ROWS, 500), dtype), np.int32(500)]
    )
    wide_x, wide_y = x.astype(np.float64), y.astype(np.float64)
    other = {
        "acosh": lambda x: np.arccosh(1 + x), "cospi": lambda x: np.cos(np.pi * x), "exp10": lambda x: 10.0**x,
        "sinpi": lambda x: np.sin(np.pi * x), "lgamma": special.gammaln, "logb": lambda x: np.floor(np.log2(x)),
        "nearbyint": np.rint, "normcdf": special.ndtr, "rcbrt": lambda x: 1 / np.cbrt(x),
        "round": lambda x: np.floor(x + 0.5), "rsqrt": lambda x: 1 / np.sqrt(x), "tgamma": special.gamma,
        "fdim": lambda x, y: np.maximum(x - y, 0), "max": np.fmax, "min": np.fmin, "acos": np.arccos,
        "asin": np.arcsin, "asinh": np.arcsinh, "atan": np.arctan, "atanh": np.arctanh, "atan2": np.arctan2,
        "pow": np.power, "remainder": lambda x, y: x - y * np.rint(x / y),
        "nextafter": lambda x, y: np.nextafter(x.astype(dtype), y.astype(dtype)),
    }  # fmt: skip
    functions = {name: other.get(name) or getattr(np, name, None) or getattr(special, name) for name in UNARY + BINARY}
    rows = [functions[name](wide_x) for name in UNARY] + [functions[name](wide_x, wide_y) for name in BINARY]
    rows += [functions[name](wide_x) for name in ("exp", "rsqrt", "tanh")] + [wide_x * wide_y + wide_x] * 2
    tolerance = 64 * float(np.finfo(dtype).eps)
    for name, got, expected in zip((*UNARY, *BINARY, "exp", "rsqrt", "tanh", "fma", "fma"), result, rows, strict=True):
        np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance, err_msg=name)


def test_integers_and_bits(runner: Runner) -> None:
    x = np.array([0, 1, -1, 77, 2**30 + 5, -(2**31), 2**31 - 1, -123456789], np.int32)
    w = np.array([0, 1, -1, 77, 2**62 + 5, -(2**63) + 1, 2**63 - 1, -(10**17)], np.int64)
    f = np.array([0, 0.5, -1.5, 2.5, 3e9, -3e9, 1e20, -7.9], np.float32)
    n = len(x)
    *_, result = runner.run(
        INTEGERS, "integers", (1,), (32,), [x, w, f, np.zeros((len(INTEGER), n), np.int64), np.int32(n)]
    )
    for (expression, function), row in zip(INTEGER.items(), result, strict=True):
        values = zip(x.tolist(), x.view(np.uint32).tolist(), w.tolist(), f.tolist(), strict=True)
        assert row.tolist() == [function(*value) for value in values], expression


def test_warp_and_block_operations(runner: Runner) -> None:
    x = RNG.permutation(96).astype(np.int32)
    _, out = runner.run(WARP, "warp", (1,), (96,), [x, np.zeros((12, 96), np.int64)])
    warps, lane = x.reshape(3, 32), np.arange(32)
    down = np.where(lane % 8 + 4 < 8, lane + 4, lane)
    ballot = ((warps > 50) << lane).sum(1, keepdims=True)
    match = ((warps[:, :, None] % 4 == warps[:, None, :] % 4) << lane).sum(2)
    expected = [
        warps[:, [5]], warps[:, np.where(lane >= 3, lane - 3, lane)], warps[:, down].astype(np.int64) << 33,
        warps[:, lane ^ 1], ballot, (warps == 3).any(1, keepdims=True) + 2, warps.sum(1, keepdims=True),
        warps.max(1, keepdims=True), match, warps[:, np.where(lane < 8, 1, 9)], (x > 50).sum(), 3,
    ]  # fmt: skip
    for row, value in enumerate(expected):
        np.testing.assert_array_equal(out[row].reshape(3, 32), np.broadcast_to(value, (3, 32)), err_msg=f"row {row}")


def test_atomics(runner: Runner) -> None:
    start = np.zeros(11, np.int32)
    start[[2, 5]] = 100, 255
    out, wide, real = runner.run(
        ATOMICS, "atomics", (5,), (20,), [start, np.zeros(1, np.uint64), np.zeros(1, np.float32)]
    )
    assert out.tolist() == [4950, -200, -5, 99, 255, 0, np.bitwise_xor.reduce(np.arange(100)), 300, 1, 1, 0]
    assert wide[0] == 100 << 40
    assert real[0] == 50


def test_memory(runner: Runner) -> None:
    driver = runner.driver
    a = RNG.integers(0, 255, 1000, np.uint8)
    source, target = runner.upload(a), driver.alloc(1000)
    driver.memset(target, 7)
    driver.d2d(target, source, 600)
    result = np.zeros(1000, np.uint8)
    driver.d2h(result, target)
    np.testing.assert_array_equal(result, np.where(np.arange(1000) < 600, a, 7))
    driver.d2h(result[:10], target)  # a shorter array gets the start
    driver.h2d(driver.alloc(0), np.zeros(0))
    with pytest.raises(DeviceError, match="write 1008 bytes"):
        driver.h2d(target, np.zeros(126))
    with pytest.raises(DeviceError, match="C-contiguous"):
        driver.h2d(target, np.zeros((4, 4))[:, ::2])
    driver.free(target)
    with pytest.raises(DeviceError, match="freed"):
        driver.d2h(result, target)


def test_more_memory_than_there_is(runner: Runner) -> None:
    with pytest.raises(DeviceError, match=runner.driver.name):
        runner.driver.alloc(1 << 50)


def test_one_source_holds_many_kernels(runner: Runner) -> None:
    source = "".join(SAXPY.replace("saxpy", f"axpy{i}").replace("a *", f"a * {i}.f *") for i in range(70))
    kernels = runner.driver.load(source, [f"axpy{i}" for i in range(70)])
    x = runner.upload(np.ones(8, np.float32))
    for i, kernel in enumerate(kernels.values()):
        assert kernel.name == f"axpy{i}"
        y, result = runner.upload(np.zeros(8, np.float32)), np.zeros(8, np.float32)
        runner.driver.launch(kernel, (1,), (8,), [x, y, np.float32(1), np.int64(8)])
        runner.driver.d2h(result, y)
        assert result.tolist() == [i] * 8


def test_a_source_that_does_not_compile_says_where(runner: Runner) -> None:
    with pytest.raises(DeviceError, match=r"kernel\.cu[(:]3(.|\n)*\bw\b"):
        runner.driver.load(SAXPY.replace("blockDim.x", "blockDim.w", 1), ["saxpy"])


def test_a_kernel_that_is_not_there(runner: Runner) -> None:
    with pytest.raises(DeviceError, match="no kernel saxpi in a source that has saxpy"):
        runner.driver.load(SAXPY, ["saxpi"])


@pytest.mark.parametrize(
    ("grid", "block", "shared_bytes", "message"),
    [
        ((0,), (32,), 0, r"grid\.x must be in 1\.\.2147483647"),
        ((1, 70000), (32,), 0, r"grid\.y"),
        ((1,), (1, 1, 65), 0, r"block\.z must be in 1\.\.64"),
        ((1,), (64, 32), 0, "1024 threads, not 2048"),
        ((1,), (32,), 1 << 20, "bytes of shared memory"),
    ],
)
def test_launches_that_no_device_takes(
    runner: Runner, grid: tuple[int, ...], block: tuple[int, ...], shared_bytes: int, message: str
) -> None:
    with pytest.raises(DeviceError, match=message):
        runner.run(SAXPY, "saxpy", grid, block, [np.float32(0)] * 4, shared_bytes)


@pytest.mark.parametrize("argument", [1, 2.0, None, np.complex128(1), "x"])
def test_arguments_that_cannot_be_passed(runner: Runner, argument: object) -> None:
    with pytest.raises(DeviceError, match="argument 2 of kernel 'saxpy'"):
        runner.run(
            SAXPY, "saxpy", (1,), (8,), [np.zeros(8, np.float32), np.zeros(8, np.float32), argument, np.int64(8)]
        )


def test_a_freed_buffer_cannot_be_passed(runner: Runner) -> None:
    kernel = runner.driver.load(SAXPY, ["saxpy"])["saxpy"]
    x = runner.driver.alloc(32)
    runner.driver.free(x)
    with pytest.raises(DeviceError, match="freed"):
        runner.driver.launch(kernel, (1,), (8,), [x, x, np.float32(1), np.int64(8)])


def test_events_time_the_work_between_them(runner: Runner) -> None:
    driver = runner.driver
    kernel = driver.load(SAXPY, ["saxpy"])["saxpy"]
    x = runner.upload(np.zeros(100_000, np.float32))
    start = driver.record()
    driver.launch(kernel, (391,), (256,), [x, x, np.float32(1), np.int64(100_000)])
    end = driver.record()
    driver.synchronize()
    assert 0 < driver.elapsed(start, end) < 10


def test_properties(runner: Runner) -> None:
    properties = runner.driver.properties
    assert properties.compute_capability >= (7, 0)
    assert properties.multiprocessors > 0
    assert properties.memory_bytes > 1 << 28
    assert properties.shared_bytes_per_block >= 48 * 1024
