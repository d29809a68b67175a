"""The driver for NVIDIA GPUs: memory, streams, launches and cuBLAS through CuPy.

Kernels are compiled by our own NVRTC module, not by CuPy, so that a GPU runs exactly the code that is checked without
one. CuPy is imported on first use: with no CuPy, no driver or no GPU this module still imports, and says why it has no
devices.
"""

from __future__ import annotations

import functools
import importlib
import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from omniop.backends.cuda import nvrtc
from omniop.backends.cuda.driver import (
    Argument,
    DeviceBuffer,
    DeviceProperties,
    Event,
    Gemm,
    Grid,
    LoadedKernel,
    check_contiguous,
    check_copy,
    check_launch,
    missing_kernels,
    pack_arguments,
)
from omniop.opset.errors import DeviceError

_LOG = logging.getLogger(__name__)

# A launch that asks for more dynamic shared memory than this has to announce it first.
_UNANNOUNCED_SHARED_BYTES = 48 * 1024


def why_unavailable() -> str | None:
    """Why no GPU can be used here, or None when there is one."""
    try:
        count = device_count()
    except DeviceError as error:
        return str(error)
    return None if count else "the CUDA driver lists no GPU"


def device_count() -> int:
    """The number of GPUs. Raises DeviceError when CuPy, NVRTC or the driver is missing."""
    cupy = _cupy()
    if reason := nvrtc.why_unavailable():
        raise DeviceError(reason)
    try:
        return int(cupy.cuda.runtime.getDeviceCount())
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise DeviceError(f"the CUDA driver does not answer ({error})") from error


@dataclass(frozen=True)
class _Kernel:
    """A kernel in a loaded module; ``function`` is CuPy's, and keeps the module loaded."""

    name: str
    function: Any


@dataclass(frozen=True)
class _GemmType:
    """How cuBLAS names a product: its matrices' type, its sums' type, and the host type of alpha and beta."""

    data: str
    compute: str
    scalar: type[np.floating[Any]]


_GEMM_TYPES = {
    "float16": _GemmType("CUDA_R_16F", "CUBLAS_COMPUTE_32F", np.float32),
    "bfloat16": _GemmType("CUDA_R_16BF", "CUBLAS_COMPUTE_32F", np.float32),
    "float32": _GemmType("CUDA_R_32F", "CUBLAS_COMPUTE_32F", np.float32),
    "float64": _GemmType("CUDA_R_64F", "CUBLAS_COMPUTE_64F", np.float64),
}
_GEMM_ITEMSIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
# cublasMath_t CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION: partial sums of a split product stay in f32.
_FULL_PRECISION_REDUCTION = 16


class CupyDriver:
    """GPU ``index``. Its work goes to a stream of its own, in order. Raises DeviceError when there is no such GPU."""

    def __init__(self, index: int = 0) -> None:
        if not 0 <= index < (count := device_count()):
            raise DeviceError(f"there is no GPU cuda:{index}: the driver lists {count}")
        self.name = f"cuda:{index}"
        self._cupy = _cupy()
        self._device = self._cupy.cuda.Device(index)
        self._lock = threading.Lock()  # the cuBLAS handle and functions' attributes are shared state
        with self._active():
            self._stream = self._cupy.cuda.Stream(non_blocking=True)
            self.properties = _properties(self._cupy, index)
            self._arch = nvrtc.arch_for(self.properties.compute_capability)

    @contextmanager
    def _active(self) -> Iterator[None]:
        """This device is the thread's current one, and what CUDA raises becomes a DeviceError."""
        cuda = self._cupy.cuda
        try:
            with self._device:
                yield
        except (cuda.runtime.CUDARuntimeError, cuda.driver.CUDADriverError, cuda.memory.OutOfMemoryError) as error:
            raise DeviceError(f"{self.name}: {error}") from error

    def alloc(self, nbytes: int) -> DeviceBuffer:
        with self._active(), self._stream:  # the pool reuses memory in the order of the current stream
            memory = self._cupy.cuda.alloc(max(nbytes, 1))
        return DeviceBuffer(memory.ptr, nbytes, memory)

    def free(self, buffer: DeviceBuffer) -> None:
        buffer.owner = None

    def h2d(self, buffer: DeviceBuffer, array: np.ndarray) -> None:
        check_contiguous(self.name, array)
        check_copy(self.name, "write", array.nbytes, buffer)
        # From pageable memory this returns when the array has been read, though perhaps not yet written.
        self._copy(buffer.address, array.ctypes.data, array.nbytes, "memcpyHostToDevice")

    def d2h(self, array: np.ndarray, buffer: DeviceBuffer) -> None:
        check_contiguous(self.name, array)
        check_copy(self.name, "read", array.nbytes, buffer)
        self._copy(array.ctypes.data, buffer.address, array.nbytes, "memcpyDeviceToHost")
        self.synchronize()

    def d2d(self, target: DeviceBuffer, source: DeviceBuffer, nbytes: int) -> None:
        check_copy(self.name, "copy", nbytes, target, source)
        self._copy(target.address, source.address, nbytes, "memcpyDeviceToDevice")

    def _copy(self, target: int, source: int, nbytes: int, kind: str) -> None:
        runtime = self._cupy.cuda.runtime
        with self._active():
            runtime.memcpyAsync(target, source, nbytes, getattr(runtime, kind), self._stream.ptr)

    def memset(self, buffer: DeviceBuffer, value: int) -> None:
        check_copy(self.name, "set", buffer.nbytes, buffer)
        with self._active():
            self._cupy.cuda.runtime.memsetAsync(buffer.address, value, buffer.nbytes, self._stream.ptr)

    def load(self, source: str, names: Sequence[str]) -> Mapping[str, LoadedKernel]:
        if absent := missing_kernels(self.name, source, names):
            raise absent
        image = nvrtc.compile(source, self._arch).image
        with self._active():
            module = self._cupy.cuda.function.Module()
            module.load(image)
            return {name: _Kernel(name, module.get_function(name)) for name in names}

    def launch(
        self, kernel: LoadedKernel, grid: Grid, block: Grid, args: Sequence[Argument], shared_bytes: int = 0
    ) -> None:
        assert isinstance(kernel, _Kernel)
        whole_grid, whole_block = check_launch(kernel.name, self.name, self.properties, grid, block, shared_bytes)
        slots, _ = pack_arguments(kernel.name, self.name, args)
        with self._active():
            if shared_bytes > _UNANNOUNCED_SHARED_BYTES:
                self._announce_shared(kernel, shared_bytes)
            # A parameter narrower than its slot is read from the slot's first bytes.
            values = tuple(np.frombuffer(slots, np.uint64))
            kernel.function(whole_grid, whole_block, values, shared_mem=shared_bytes, stream=self._stream)

    def _announce_shared(self, kernel: _Kernel, shared_bytes: int) -> None:
        driver, function = self._cupy.cuda.driver, kernel.function.ptr
        attribute = driver.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
        with self._lock:
            if driver.funcGetAttribute(attribute, function) < shared_bytes:
                driver.funcSetAttribute(function, attribute, shared_bytes)

    def synchronize(self) -> None:
        with self._active():
            self._stream.synchronize()

    def record(self) -> Event:
        with self._active():
            event = self._cupy.cuda.Event()
            event.record(self._stream)
        return event

    def elapsed(self, start: Event, end: Event) -> float:
        with self._active():
            end.synchronize()
            return float(self._cupy.cuda.get_elapsed_time(start, end)) / 1e3

    @functools.cached_property
    def gemm(self) -> Callable[[Gemm, DeviceBuffer, DeviceBuffer, DeviceBuffer], None] | None:
        if self._cublas is None:
            return None
        return functools.partial(self._gemm, *self._cublas)

    @functools.cached_property
    def _cublas(self) -> tuple[Any, int] | None:
        """The cuBLAS bindings and our handle, which lives as long as the process; None, with a warning, without it."""
        try:
            with self._device, self._lock:
                cublas = importlib.import_module("cupy_backends.cuda.libs").cublas
                handle = cublas.create()
                cublas.setStream(handle, self._stream.ptr)
                cublas.setMathMode(handle, _FULL_PRECISION_REDUCTION)
        except (ImportError, OSError, RuntimeError) as error:  # CuPy's own errors are RuntimeErrors
            _LOG.warning("%s multiplies without cuBLAS (%s): pip install nvidia-cublas", self.name, error)
            return None
        return cublas, handle

    def _gemm(self, cublas: Any, handle: int, problem: Gemm, a: DeviceBuffer, b: DeviceBuffer, c: DeviceBuffer) -> None:
        result = problem.result or problem.dtype
        kind, itemsize = _GEMM_TYPES[problem.dtype], _GEMM_ITEMSIZE[problem.dtype]
        for buffer in (a, b, c):
            check_copy(self.name, "multiply", 0, buffer)
        scalars = np.array([problem.alpha, problem.beta], kind.scalar)
        with self._active(), self._lock:
            data, result_data = (getattr(self._cupy.cuda.runtime, _GEMM_TYPES[x].data) for x in (problem.dtype, result))
            operations = (cublas.CUBLAS_OP_N, cublas.CUBLAS_OP_T)
            # cuBLAS is column-major: what it sees in row-major memory is the transpose, and C' = B' A'.
            cublas.gemmStridedBatchedEx(
                handle, operations[problem.transpose_b], operations[problem.transpose_a],
                problem.n, problem.m, problem.k, scalars.ctypes.data,
                b.address + problem.offset_b * itemsize, data, problem.ldb, problem.stride_b,
                a.address + problem.offset_a * itemsize, data, problem.lda, problem.stride_a,
                scalars.ctypes.data + scalars.itemsize,
                c.address + problem.offset_c * _GEMM_ITEMSIZE[result], result_data, problem.ldc, problem.stride_c,
                problem.batch, getattr(cublas, kind.compute), cublas.CUBLAS_GEMM_DEFAULT,
            )  # fmt: skip


@functools.cache
def _cupy() -> ModuleType:
    try:
        import cupy
    except ImportError as error:
        raise DeviceError(f"NVIDIA GPUs need CuPy ({error}): pip install 'omniop[cuda]'") from error
    return cupy


def _properties(cupy: ModuleType, index: int) -> DeviceProperties:
    found = cupy.cuda.runtime.getDeviceProperties(index)
    version = cupy.cuda.runtime.driverGetVersion()
    return DeviceProperties(
        name=found["name"].decode(),
        compute_capability=(found["major"], found["minor"]),
        multiprocessors=found["multiProcessorCount"],
        memory_bytes=found["totalGlobalMem"],
        shared_bytes_per_block=found["sharedMemPerBlockOptin"],
        driver_version=f"{version // 1000}.{version % 1000 // 10}",
    )
