"""The driver for GPUs: its logic over a stand-in for CuPy that keeps device memory in host memory, and over a real GPU.

The stand-in has the functions of CuPy that the driver calls, with their signatures; nothing of it is CUDA.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from cuda_sources import REVERSE, SAXPY

from omniop.backends.cuda import cupy_driver, nvrtc
from omniop.backends.cuda.cupy_driver import CupyDriver
from omniop.backends.cuda.driver import DeviceBuffer, Gemm
from omniop.opset.errors import DeviceError

_TYPES = {2: np.float16, 14: ml_dtypes.bfloat16, 0: np.float32, 1: np.float64}  # cudaDataType_t


class _RuntimeError(RuntimeError):
    pass


class _OutOfMemory(MemoryError):
    pass


class _Context:
    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


class _Stream(_Context):
    def __init__(self, non_blocking: bool) -> None:
        assert non_blocking
        self.ptr = 77

    def synchronize(self) -> None: ...


class _Memory:
    def __init__(self, nbytes: int) -> None:
        if nbytes > 1 << 40:
            raise _OutOfMemory("out of memory")
        self.array = np.empty(nbytes, np.uint8)
        self.ptr = self.array.ctypes.data


class _Function:
    def __init__(self, name: str, launches: list[Any]) -> None:
        self.name, self.ptr, self.launches = name, 1000, launches

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: Any, shared_mem: int, stream: _Stream
    ) -> None:
        self.launches.append((self.name, grid, block, args, shared_mem, stream.ptr))


class _Module:
    launches: list[Any]

    def load(self, image: bytes) -> None:
        assert image == b"image"

    def get_function(self, name: str) -> _Function:
        return _Function(name, self.launches)


class _Event:
    def record(self, stream: _Stream) -> None:
        assert stream.ptr == 77

    def synchronize(self) -> None: ...


def _copy(target: int, source: int, nbytes: int, kind: int, stream: int) -> None:
    assert stream == 77
    assert kind in (1, 2, 3)
    ctypes.memmove(target, source, nbytes)


def _matrix(address: int, kind: int, order: str, rows: int, columns: int, ld: int) -> np.ndarray:
    """The column-major matrix at ``address``, transposed where ``order`` is T."""
    dtype = np.dtype(_TYPES[kind])
    shape, strides = ((rows, columns), (1, ld)) if order == "N" else ((rows, columns), (ld, 1))
    count = 1 + (shape[0] - 1) * strides[0] + (shape[1] - 1) * strides[1]
    flat = np.frombuffer((ctypes.c_char * (count * dtype.itemsize)).from_address(address), dtype)
    return np.lib.stride_tricks.as_strided(flat, shape, tuple(s * dtype.itemsize for s in strides))


def _gemm(
    handle: int, transa: str, transb: str, m: int, n: int, k: int, alpha: int,
    a: int, a_type: int, lda: int, stride_a: int, b: int, b_type: int, ldb: int, stride_b: int, beta: int,
    c: int, c_type: int, ldc: int, stride_c: int, batch: int, compute: str, algorithm: int,
) -> None:  # fmt: skip
    """cublasGemmStridedBatchedEx as its documentation has it."""
    assert (handle, algorithm, compute) == (5, -1, "64F" if a_type == 1 else "32F")
    scalar = ctypes.c_double if compute == "64F" else ctypes.c_float
    size = np.dtype(_TYPES[a_type]).itemsize
    for i in range(batch):
        left = _matrix(a + i * stride_a * size, a_type, transa, m, k, lda).astype(np.float64)
        right = _matrix(b + i * stride_b * size, b_type, transb, k, n, ldb).astype(np.float64)
        out = _matrix(c + i * stride_c * size, c_type, "N", m, n, ldc)
        factors = scalar.from_address(alpha).value, scalar.from_address(beta).value
        out[...] = (factors[0] * left @ right + factors[1] * out.astype(np.float64)).astype(out.dtype)


class FakeCupy:
    """What a test sees of the stand-in: the launches made, and the attributes set."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.launches: list[Any] = []
        self.announced: list[int] = []
        self.gpus = 2
        module = type("Module", (_Module,), {"launches": self.launches})
        runtime = SimpleNamespace(
            CUDARuntimeError=_RuntimeError, getDeviceCount=lambda: self.gpus, driverGetVersion=lambda: 13010,
            memcpyAsync=_copy, memcpyHostToDevice=1, memcpyDeviceToHost=2, memcpyDeviceToDevice=3,
            memsetAsync=lambda address, value, nbytes, stream: ctypes.memset(address, value, nbytes),
            CUDA_R_16F=2, CUDA_R_16BF=14, CUDA_R_32F=0, CUDA_R_64F=1,
            getDeviceProperties=lambda index: {
                "name": b"Fake", "major": 9, "minor": 0, "multiProcessorCount": 132, "totalGlobalMem": 1 << 36,
                "sharedMemPerBlockOptin": 232448,
            },
        )  # fmt: skip
        driver = SimpleNamespace(
            CUDADriverError=_RuntimeError, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES=8,
            funcGetAttribute=lambda attribute, function: max(self.announced, default=48 * 1024),
            funcSetAttribute=lambda function, attribute, value: self.announced.append(value),
        )  # fmt: skip
        cuda = SimpleNamespace(
            runtime=runtime, driver=driver, memory=SimpleNamespace(OutOfMemoryError=_OutOfMemory), alloc=_Memory,
            Device=lambda index: _Context(), Stream=_Stream, Event=_Event, function=SimpleNamespace(Module=module),
            get_elapsed_time=lambda start, end: 2.5,
        )  # fmt: skip
        self.cublas = SimpleNamespace(
            create=lambda: 5, setStream=lambda handle, stream: None, setMathMode=lambda handle, mode: None,
            CUBLAS_OP_N="N", CUBLAS_OP_T="T", CUBLAS_COMPUTE_32F="32F", CUBLAS_COMPUTE_64F="64F",
            CUBLAS_GEMM_DEFAULT=-1, gemmStridedBatchedEx=_gemm,
        )  # fmt: skip
        cupy = ModuleType("cupy")
        cupy.cuda = cuda  # type: ignore[attr-defined]
        libraries = ModuleType("cupy_backends.cuda.libs")
        libraries.cublas = self.cublas  # type: ignore[attr-defined]
        patch.setitem(sys.modules, "cupy", cupy)
        patch.setitem(sys.modules, "cupy_backends.cuda.libs", libraries)
        patch.setattr(nvrtc, "why_unavailable", lambda: None)
        patch.setattr(nvrtc, "arch_for", lambda capability: f"sm_{capability[0]}{capability[1]}a")
        patch.setattr(nvrtc, "compile", lambda source, arch: nvrtc.Compiled(arch, b"image", "", ""))


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCupy]:
    cupy_driver._cupy.cache_clear()
    yield FakeCupy(monkeypatch)
    cupy_driver._cupy.cache_clear()


@pytest.fixture(params=["stand-in", "gpu"])
def any_driver(request: pytest.FixtureRequest) -> CupyDriver:
    if request.param == "stand-in":
        request.getfixturevalue("fake")
    elif reason := cupy_driver.why_unavailable():
        pytest.skip(reason)
    return CupyDriver()


def upload(driver: CupyDriver, array: np.ndarray) -> DeviceBuffer:
    buffer = driver.alloc(array.nbytes)
    driver.h2d(buffer, array)
    return buffer


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_gemm_is_row_major(any_driver: CupyDriver, dtype: str) -> None:
    rng = np.random.default_rng(0)
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    a, b, c = (rng.standard_normal(shape).astype(kind) for shape in ((3, 5, 7), (3, 7, 4), (3, 5, 4)))
    exact = 0.5 * (a.astype(np.float64) @ b.astype(np.float64)) + 2 * c.astype(np.float64)
    tolerance = 4 * float(ml_dtypes.finfo(kind).eps)
    for transpose_a in (False, True):
        for transpose_b in (False, True):
            stored_a = np.ascontiguousarray(a.swapaxes(1, 2)) if transpose_a else a
            stored_b = np.ascontiguousarray(b.swapaxes(1, 2)) if transpose_b else b
            padded = np.concatenate([np.zeros(6, kind), stored_b.ravel()])
            problem = Gemm(
                dtype, 5, 4, 7, lda=stored_a.shape[2], ldb=stored_b.shape[2], ldc=4, batch=3, stride_a=35, stride_b=28,
                stride_c=20, offset_b=6, transpose_a=transpose_a, transpose_b=transpose_b, alpha=0.5, beta=2.0,
            )  # fmt: skip
            buffers = [upload(any_driver, array) for array in (stored_a, padded, c)]
            any_driver.gemm(problem, *buffers)
            result = np.empty_like(c)
            any_driver.d2h(result, buffers[2])
            np.testing.assert_allclose(result.astype(np.float64), exact, rtol=tolerance, atol=4 * tolerance)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_gemm_leaves_sums_wide(any_driver: CupyDriver, dtype: str) -> None:
    kind = np.dtype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    a, b = (np.random.default_rng(0).standard_normal(shape).astype(kind) for shape in ((5, 7), (7, 4)))
    padded = np.full(3 + 20, 9, np.float32)
    buffers = [upload(any_driver, array) for array in (a, b, padded)]
    any_driver.gemm(Gemm(dtype, 5, 4, 7, lda=7, ldb=4, ldc=4, offset_c=3, result="float32"), *buffers)
    any_driver.d2h(padded, buffers[2])
    assert padded[:3].tolist() == [9, 9, 9]
    exact = a.astype(np.float64) @ b.astype(np.float64)
    np.testing.assert_allclose(padded[3:].reshape(5, 4), exact, rtol=1e-6, atol=1e-6)


def test_without_cublas(fake: FakeCupy, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """There is no vendor library then, which is said once."""
    monkeypatch.setitem(sys.modules, "cupy_backends.cuda.libs", None)
    driver = CupyDriver()
    assert driver.gemm is None
    assert driver.gemm is None
    assert [record.message.count("nvidia-cublas") for record in caplog.records] == [1]


def test_memory_and_copies(any_driver: CupyDriver) -> None:
    a = np.arange(10, dtype=np.int32)
    source, target = upload(any_driver, a), any_driver.alloc(40)
    any_driver.memset(target, 255)
    any_driver.d2d(target, source, 20)
    result = np.zeros(10, np.int32)
    any_driver.d2h(result, target)
    assert result.tolist() == [0, 1, 2, 3, 4, -1, -1, -1, -1, -1]
    any_driver.free(target)
    with pytest.raises(DeviceError, match="freed"):
        any_driver.d2h(result, target)
    with pytest.raises(DeviceError, match=r"cuda:0: .*out of memory|cuda:0: .*Out of memory"):
        any_driver.alloc(1 << 50)


def test_events(any_driver: CupyDriver) -> None:
    start = any_driver.record()
    assert any_driver.elapsed(start, any_driver.record()) >= 0


def test_a_launch_passes_slots(fake: FakeCupy) -> None:
    driver = CupyDriver(1)
    assert driver.name == "cuda:1"
    kernel = driver.load(SAXPY, ["saxpy"])["saxpy"]
    x = driver.alloc(32)
    driver.launch(kernel, (2, 3), (64,), [x, x, np.float32(1.5), np.int64(-1)])
    ((name, grid, block, args, shared, stream),) = fake.launches
    assert (name, grid, block, shared, stream) == ("saxpy", (2, 3, 1), (64, 1, 1), 0, 77)
    assert [type(value) for value in args] == [np.uint64] * 4
    assert [int(value) for value in args] == [x.address, x.address, 0x3FC00000, 2**64 - 1]


def test_much_shared_memory_is_announced_once(fake: FakeCupy) -> None:
    driver = CupyDriver()
    kernel = driver.load(REVERSE, ["reverse"])["reverse"]
    x = driver.alloc(32)
    for nbytes in (1000, 100_000, 90_000, 200_000):
        driver.launch(kernel, (1,), (8,), [x, x], nbytes)
    assert fake.announced == [100_000, 200_000]
    assert [launch[4] for launch in fake.launches] == [1000, 100_000, 90_000, 200_000]


def test_properties(fake: FakeCupy) -> None:
    properties = CupyDriver().properties
    assert properties.name == "Fake"
    assert properties.compute_capability == (9, 0)
    assert properties.driver_version == "13.1"


def test_a_gpu_that_is_not_there(fake: FakeCupy) -> None:
    with pytest.raises(DeviceError, match="no GPU cuda:2: the driver lists 2"):
        CupyDriver(2)
    fake.gpus = 0
    assert cupy_driver.why_unavailable() == "the CUDA driver lists no GPU"


def test_a_driver_that_does_not_answer(fake: FakeCupy, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise _RuntimeError("cudaErrorInsufficientDriver")

    monkeypatch.setattr(sys.modules["cupy"].cuda.runtime, "getDeviceCount", fail)
    assert cupy_driver.why_unavailable() == "the CUDA driver does not answer (cudaErrorInsufficientDriver)"


def test_without_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    cupy_driver._cupy.cache_clear()
    assert "pip install 'omniop[cuda]'" in str(cupy_driver.why_unavailable())
    with pytest.raises(DeviceError, match="need CuPy"):
        CupyDriver()
    cupy_driver._cupy.cache_clear()
