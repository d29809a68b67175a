"""Loop kernels and memory of a CUDA device, against numpy."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from cuda_work import launch, legal, linear_map, run, upload

from omniop.backends.base import KernelTable, No, OpContext
from omniop.backends.cuda.compiler import Compiler, Text
from omniop.backends.cuda.device import CudaDevice
from omniop.backends.cuda.driver import LoadedKernel
from omniop.backends.cuda.emulator import EmuDriver, toolchain
from omniop.backends.cuda.launch import EMULATOR
from omniop.opset import dtype as dtypes
from omniop.opset import expr
from omniop.opset.errors import DeviceError
from omniop.opset.kernel import Call, Kernel

RNG = np.random.default_rng(0)


def floats(*shape: int) -> np.ndarray:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("n", [1, 255, 256, 1000])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "int32", "uint8"])
def test_map(device: CudaDevice, dtype: str, n: int) -> None:
    """Narrow floats round after each operation."""
    x = (floats(n) * 40).astype(dtypes.of_name(dtype).numpy) if dtype != "uint8" else np.arange(n).astype(np.uint8)
    _, y = run(device, f"map {dtype}", x, np.zeros_like(x), sizes=(n,))
    np.testing.assert_array_equal(y, x * np.asarray(2, x.dtype) + np.asarray(1, x.dtype))


@pytest.mark.parametrize("columns", [1, 17, 63, 300, 1000])
def test_softmax(device: CudaDevice, columns: int) -> None:
    x = floats(7, columns)
    exact = np.exp(x.astype(np.float64) - x.max(1, keepdims=True))
    for name in ("softmax", "softmax of 300") if columns == 300 else ("softmax",):
        _, y = run(device, name, x, np.zeros_like(x), sizes=(7, columns))
        np.testing.assert_allclose(y, exact / exact.sum(1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("columns", [1, 70, 500])
def test_argmax_takes_the_first_nan(device: CudaDevice, columns: int) -> None:
    x = RNG.integers(-3, 4, (9, columns)).astype(np.float32)
    x[1, columns // 2], x[2, 0], x[3, -1], x[4] = np.nan, np.nan, np.nan, -np.inf
    x[5, columns // 3 :] = np.nan
    _, y = run(device, "argmax", x, np.full(9, -1), sizes=x.shape)
    np.testing.assert_array_equal(y, np.argmax(x, axis=1))


def test_running_sums(device: CudaDevice) -> None:
    x = floats(5, 33)
    _, y = run(device, "running sums", x, np.zeros_like(x), sizes=x.shape)
    np.testing.assert_array_equal(y, np.cumsum(x, axis=1, dtype=np.float32))


def test_fold(device: CudaDevice) -> None:
    x = np.arange(70) ** 3
    _, y = run(device, "halvings", x, np.zeros_like(x), sizes=x.shape)
    np.testing.assert_array_equal(y, [int(v).bit_length() for v in x])


def test_convolution(device: CudaDevice) -> None:
    x, w = floats(20, 9, 9), floats(6, 20, 3, 3)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, ((0, 0), (1, 1), (1, 1))), (3, 3), (1, 2))
    *_, y = run(device, "convolution", x, w, np.zeros((6, 9, 9), np.float32))
    np.testing.assert_allclose(y, np.einsum("cyxvu,ocvu->oyx", windows, w), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8", "bfloat16"])
def test_scatter_adds_every_duplicate(device: CudaDevice, dtype: str) -> None:
    """Also in widths that no atomic has."""
    kind = dtypes.of_name(dtype).numpy
    n = 60 if dtype == "bfloat16" else 700  # so few that every sum is exact
    x, index = np.ones(n, kind), RNG.integers(0, 5, n)
    y = np.arange(5).astype(kind)
    *_, result = run(device, f"scatter add {dtype}", x, index, y, sizes=(n,))
    wanted = np.arange(5) + np.bincount(index, minlength=5)
    np.testing.assert_array_equal(result.astype(np.float64), wanted.astype(kind).astype(np.float64))


@pytest.mark.parametrize("dtype", ["float32", "int64"])
def test_scatter_keeps_the_largest(device: CudaDevice, dtype: str) -> None:
    x, index = RNG.integers(-99, 99, 400).astype(dtype), RNG.integers(0, 5, 400)
    y = np.full(5, -1000, dtype)
    *_, result = run(device, f"scatter max {dtype}", x, index, y, sizes=(400,))
    np.testing.assert_array_equal(result, [x[index == k].max() for k in range(5)])


def test_scatter_multiplies(device: CudaDevice) -> None:
    index = RNG.integers(0, 5, 40)
    *_, result = run(
        device, "scatter mul float32", np.full(40, 2, np.float32), index, np.ones(5, np.float32), sizes=(40,)
    )
    np.testing.assert_array_equal(result, 2.0 ** np.bincount(index, minlength=5))


@pytest.mark.parametrize(("bad", "code"), [(None, 0), (5, 7), (-1, 7), (2**40, 7)])
def test_a_load_outside_faults(device: CudaDevice, bad: int | None, code: int) -> None:
    x, index = floats(5), np.array([4, 0, 3, 1] * 100)
    if bad is not None:
        index[137] = bad
    *_, y, error = run(device, "gather", x, index, np.zeros(400, np.float32), np.zeros(1, np.int32), sizes=(400, 5))
    assert error.tolist() == [code]
    wanted = np.where((index >= 0) & (index < 5), x[np.clip(index, 0, 4)], -1)
    np.testing.assert_array_equal(y, wanted)


@pytest.mark.parametrize(("bad", "code"), [(None, 0), (6, 9), (-(2**40), 9)])
def test_a_store_outside_faults(device: CudaDevice, bad: int | None, code: int) -> None:
    index = np.array([4, 0, 3, 5])
    if bad is not None:
        index[1] = bad
    x, y = floats(4), np.zeros(6, np.float32)
    *_, result, error = run(device, "guarded store", x, index, y, np.zeros(1, np.int32), sizes=(4, 6))
    assert error.tolist() == [code]
    y[index[index != (bad or 99)]] = x[index != (bad or 99)]
    np.testing.assert_array_equal(result, y)


@pytest.mark.parametrize("stride", [3, 2**33 + 5])
def test_offsets_beyond_32_bits(device: CudaDevice, stride: int) -> None:
    x = floats(101)
    _, y = run(device, "strided", x, np.zeros_like(x), sizes=(101, stride))
    np.testing.assert_array_equal(y, x[np.arange(101) * stride % 101])


def test_no_points_no_launch(device: CudaDevice) -> None:
    _, y = run(device, "map float32", floats(3), np.full(3, 5, np.float32), sizes=(0,))
    assert y.tolist() == [5, 5, 5]
    _, y = run(device, "softmax", floats(3), np.full(3, 5, np.float32), sizes=(0, 3))
    assert y.tolist() == [5, 5, 5]


def test_threads_share_a_device(one_device: CudaDevice) -> None:
    failures: list[Any] = []

    def work(seed: int) -> None:
        for n in range(1, 20):
            x = np.full((n, 50), seed, np.float32)
            _, y = run(one_device, "softmax", x, np.zeros_like(x), sizes=x.shape)
            _, z = run(one_device, "map float32", x, np.zeros_like(x), sizes=(x.size,))
            if not (np.allclose(y, 1 / 50) and (z == 2 * seed + 1).all()):
                failures.append((seed, n))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


# Memory ---------------------------------------------------------------------------------------------------------------


def test_memory(device: CudaDevice) -> None:
    x = np.arange(10, dtype=np.int32)
    source, target = upload(device, x), upload(device, np.zeros_like(x))
    device.copy(target, source, 20)
    device.sync()
    result = np.empty_like(x)
    device.d2h(result, target)
    assert result.tolist() == [0, 1, 2, 3, 4, 0, 0, 0, 0, 0]
    with pytest.raises(DeviceError, match=device.name):
        device.alloc(1 << 50)


def test_what_a_device_says_of_itself(one_device: CudaDevice) -> None:
    assert one_device.name == "cuda:emu"
    assert (one_device.fingerprint.arch, one_device.fingerprint.driver) == ("sm_80", "emulator")
    assert {dtypes.FLOAT16, dtypes.FLOAT64, dtypes.BOOL, dtypes.INT64} <= one_device.caps.storage
    assert dtypes.FLOAT16 not in one_device.caps.compute
    assert one_device.caps.loops
    assert one_device.caps.fp64


# Building -------------------------------------------------------------------------------------------------------------


class CountingDriver(EmuDriver):
    """Keeps what it was asked to compile."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[Sequence[str]] = []

    def load(self, source: str, names: Sequence[str]) -> Mapping[str, LoadedKernel]:
        self.loads.append(list(names))
        return super().load(source, names)


def works(device: CudaDevice, *extents: int) -> list[Kernel]:
    return [legal(linear_map(dtypes.FLOAT32, expr.index(extent)), device) for extent in extents]


def test_a_batch_is_one_source(one_device: CudaDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal works are one kernel; a kernel that is loaded is not compiled again, a batch in any order found on disk."""
    driver = CountingDriver()
    device = CudaDevice(driver, EMULATOR, KernelTable())
    runs = device.build(works(device, 3, 4, 3, 5))
    assert [len(names) for names in driver.loads] == [3]
    assert runs[0] is runs[2]
    again = device.build(works(device, 5, 6))
    assert [len(names) for names in driver.loads] == [3, 1]
    x = floats(6)
    for run_it, n in zip([*runs, *again], (3, 4, 3, 5, 5, 6), strict=True):
        _, y = launch(device, run_it, [x, np.zeros_like(x)], (0,))
        np.testing.assert_array_equal(y, np.where(np.arange(6) < n, x * 2 + 1, 0))
    monkeypatch.setattr(toolchain, "compile", lambda *_: pytest.fail("compiled again"))
    monkeypatch.setattr(toolchain, "_loaded", {})
    fresh = CudaDevice(CountingDriver(), EMULATOR, KernelTable())
    fresh.build(works(fresh, 5, 4, 3))


def test_large_batches_are_split() -> None:
    driver = CountingDriver()
    texts = [Text(f"work {k}", f"k{k}", f'extern "C" __global__ void k{k}(i32* p) {{ p[0] = {k}; }}') for k in range(5)]
    kernels = Compiler(driver, batch=2).build(texts)
    assert sorted(kernels) == ["k0", "k1", "k2", "k3", "k4"]
    assert sorted(map(len, driver.loads)) == [1, 2, 2]


def test_an_error_names_the_work() -> None:
    good, bad = (
        Text(f"the {name} work", name, f'extern "C" __global__ void {name}(i32* p) {{ p[0] = {value}; }}')
        for name, value in (("good", "1"), ("bad", "nonsense"))
    )
    with pytest.raises(DeviceError, match=r"the bad work does not compile(.|\n)*nonsense(.|\n)*void bad"):
        Compiler(EmuDriver(), batch=8).build([good, bad])


def test_what_was_not_accepted(one_device: CudaDevice) -> None:
    answer = one_device.accepts(OpContext("conv", (), (), {}, one_device.caps))
    assert isinstance(answer, No)
    assert answer.code == "expands"
    with pytest.raises(DeviceError, match="conv"):
        one_device.build([Call("conv", (), (), ())])


def test_a_tuned_kernel_comes_ready(one_device: CudaDevice) -> None:
    calls: list[Any] = []

    def make(device: CudaDevice, work: Call) -> Any:
        return lambda buffers, sizes: calls.append((device, work.prim, buffers, sizes))

    one_device.kernels.kernel("Relu", name="fast")(make)
    try:
        (run_it,) = one_device.build([Call("kernel:fast", (), (), ())])
    finally:
        one_device.kernels.remove("Relu", "fast")
    run_it([], (3,))
    assert calls == [(one_device, "kernel:fast", [], (3,))]
