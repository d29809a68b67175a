"""The driver that runs CUDA C on the CPU, one block after another, each launch to its end.

It is stricter than a GPU: shared memory and fresh allocations hold NaNs, a buffer ends at a page that faults, threads
and blocks run in the order asked for, and an illegal access, a division by zero or a divergent barrier is a DeviceError
that names kernel, block and thread. What it does not show: races that need threads to interleave between barriers
otherwise than one after another, and a weaker memory model. A C cast of a float out of an integer's range gives what
the CPU gives; the ``__float2int_*`` functions saturate as on the device.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import numpy as np

from omniop.backends.cuda.driver import (
    Argument,
    DeviceBuffer,
    DeviceProperties,
    Grid,
    LoadedKernel,
    check_contiguous,
    check_copy,
    check_launch,
    missing_kernels,
    pack_arguments,
)
from omniop.backends.cuda.emulator import toolchain
from omniop.backends.cuda.emulator.toolchain import why_unavailable
from omniop.backends.cuda.emulator.translate import Translation
from omniop.backends.cuda.prelude import complete
from omniop.opset.errors import DeviceError

Order = Literal["forward", "reverse", "shuffled"]
_ORDERS: tuple[Order, ...] = ("forward", "reverse", "shuffled")

_NAME = "cuda:emu"
# Enough for the widest vector load. A buffer's end lies at most this far from the page that faults.
_ALIGNMENT = 16
# Bytes before a buffer and after it that are checked, after a launch, for being as they were poisoned.
_WATCHED_BYTES = 64
_POISON = b"\xff"
_STATIC_SHARED_BYTES = 48 * 1024
_ERROR_BYTES = 512
# Below this, parsing the source once more costs what a second compiler gains.
_KERNELS_WORTH_A_COMPILER = 32

# Batches hold their built-in variables in static memory, and the runtime its threads: one launch at a time.
_launching = threading.Lock()


@dataclass(frozen=True)
class _Kernel:
    """A compiled kernel: its name and the address of its ``emu_kernel``, in a library that is never unloaded."""

    name: str
    address: int


class _Memory:
    """A mapping of the runtime's, unmapped when this goes."""

    def __init__(self, runtime: ctypes.CDLL, mapping: int, nbytes: int) -> None:
        weakref.finalize(self, runtime.emu_free, mapping, nbytes).atexit = False


class EmuDriver:
    """The emulated device. ``order`` is that of blocks, and of threads between barriers; ``seed`` shuffles.

    Raises DeviceError when it cannot run here: `why_unavailable`.
    """

    name = _NAME
    gemm = None

    def __init__(self, order: Order = "forward", seed: int = 0) -> None:
        if reason := why_unavailable():
            raise DeviceError(f"{_NAME} is not available: {reason}")
        if order not in _ORDERS:
            raise DeviceError(f"{_NAME} has no order {order!r}; it has {', '.join(_ORDERS)}")
        self.properties = _properties()
        self._order = _ORDERS.index(order)
        self._seed = seed
        self._runtime = _runtime()

    def alloc(self, nbytes: int) -> DeviceBuffer:
        mapping, mapped = ctypes.c_void_p(), ctypes.c_size_t()
        fits = nbytes <= self.properties.memory_bytes
        address = fits and self._runtime.emu_alloc(nbytes, _ALIGNMENT, ctypes.byref(mapping), ctypes.byref(mapped))
        if not address or mapping.value is None:
            raise DeviceError(f"{_NAME} has no memory for {nbytes} bytes")
        return DeviceBuffer(address, nbytes, _Memory(self._runtime, mapping.value, mapped.value))

    def free(self, buffer: DeviceBuffer) -> None:
        buffer.owner = None

    def h2d(self, buffer: DeviceBuffer, array: np.ndarray) -> None:
        check_contiguous(_NAME, array)
        check_copy(_NAME, "write", array.nbytes, buffer)
        ctypes.memmove(buffer.address, array.ctypes.data, array.nbytes)

    def d2h(self, array: np.ndarray, buffer: DeviceBuffer) -> None:
        check_contiguous(_NAME, array)
        check_copy(_NAME, "read", array.nbytes, buffer)
        ctypes.memmove(array.ctypes.data, buffer.address, array.nbytes)

    def d2d(self, target: DeviceBuffer, source: DeviceBuffer, nbytes: int) -> None:
        check_copy(_NAME, "copy", nbytes, target, source)
        ctypes.memmove(target.address, source.address, nbytes)

    def memset(self, buffer: DeviceBuffer, value: int) -> None:
        check_copy(_NAME, "set", buffer.nbytes, buffer)
        ctypes.memset(buffer.address, value, buffer.nbytes)

    def load(self, source: str, names: Sequence[str]) -> Mapping[str, LoadedKernel]:
        if absent := missing_kernels(_NAME, source, names):
            raise absent
        libraries = {name: library for library, part in _libraries(source, names) for name in part}
        return {name: _Kernel(name, _address(libraries[name], f"emu_kernel_{name}")) for name in names}

    def launch(
        self, kernel: LoadedKernel, grid: Grid, block: Grid, args: Sequence[Argument], shared_bytes: int = 0
    ) -> None:
        assert isinstance(kernel, _Kernel)
        whole_grid, whole_block = check_launch(kernel.name, _NAME, self.properties, grid, block, shared_bytes)
        slots, sizes = pack_arguments(kernel.name, _NAME, args)
        extents = ctypes.c_uint * 3
        error, fault = ctypes.create_string_buffer(_ERROR_BYTES), ctypes.c_size_t()
        with _launching:
            failed = self._runtime.emu_launch(
                kernel.address, extents(*whole_grid), extents(*whole_block), shared_bytes, _STATIC_SHARED_BYTES,
                slots, sizes, len(args), self._order, self._seed, error, _ERROR_BYTES, ctypes.byref(fault),
            )  # fmt: skip
        if failed:
            message = error.value.decode(errors="replace")
            raise DeviceError(f"{_NAME}: kernel {kernel.name!r}: {message}{_locate(fault.value, args)}")
        for position, argument in enumerate(args):
            if isinstance(argument, DeviceBuffer) and _written_around(argument):
                where = f"argument {position}, {argument!r}"
                raise DeviceError(f"{_NAME}: kernel {kernel.name!r}: a write outside of {where}")

    def synchronize(self) -> None:
        """Nothing is ever pending."""

    def record(self) -> float:
        return time.perf_counter()

    def elapsed(self, start: float, end: float) -> float:
        return end - start


def _address(library: ctypes.CDLL, symbol: str) -> int:
    return ctypes.addressof(ctypes.c_char.in_dll(library, symbol))


def _written_around(buffer: DeviceBuffer) -> bool:
    """Whether a kernel wrote to the slack between a buffer and the pages that fault, where it could go unnoticed."""
    before = min(_WATCHED_BYTES, buffer.address % os.sysconf("SC_PAGESIZE"))
    after = -buffer.nbytes % _ALIGNMENT
    around = ctypes.string_at(buffer.address - before, before)
    around += ctypes.string_at(buffer.address + buffer.nbytes, after)
    return around != _POISON * len(around)


def _locate(fault: int, args: Sequence[Argument]) -> str:
    """Where an illegal address lies, told by the nearest buffer argument."""
    if not fault:
        return ""
    buffers = [(position, a) for position, a in enumerate(args) if isinstance(a, DeviceBuffer)]
    if not buffers:
        return f", at {fault:#x}"
    position, nearest = min(buffers, key=lambda entry: abs(fault - entry[1].address))
    offset = fault - nearest.address
    return f", {offset} bytes from the start of argument {position}, which has {nearest.nbytes}"


@functools.cache
def _properties() -> DeviceProperties:
    """An sm_80 of a few multiprocessors, the same on every machine but for memory, so that plans are the same too."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGESIZE")
    return DeviceProperties(
        name="CUDA C on the CPU",
        compute_capability=(8, 0),
        multiprocessors=8,
        memory_bytes=memory,
        shared_bytes_per_block=163 * 1024,
        driver_version="emulator",
    )


def _libraries(source: str, names: Sequence[str]) -> list[tuple[ctypes.CDLL, Sequence[str]]]:
    """The compiled ``source``, in as many parts as compilers are worth starting; each has its share of ``names``."""
    text = complete(source)
    count = max(1, min(len(os.sched_getaffinity(0)), len(names) // _KERNELS_WORTH_A_COMPILER))
    parts = {toolchain.library_key("kernels", text, *part): part for part in (names[i::count] for i in range(count))}
    found = {key: library for key in parts if (library := toolchain.find(key))}
    missing = [key for key in parts if key not in found]
    if missing:
        translation = Translation(text)
        sources = [translation.with_entries(parts[key]) for key in missing]
        flags, libraries = toolchain.KERNEL_FLAGS, toolchain.KERNEL_LIBRARIES
        with ThreadPoolExecutor(len(missing)) as pool:
            made = pool.map(lambda key, source: toolchain.compile(key, source, flags, libraries), missing, sources)
            found.update(zip(missing, made, strict=True))
    return [(found[key], part) for key, part in parts.items()]


@functools.cache
def _runtime() -> ctypes.CDLL:
    key = toolchain.library_key("runtime")
    library = toolchain.find(key)
    if library is None:
        library = toolchain.compile(key, toolchain.RUNTIME_SOURCE.read_text(), toolchain.RUNTIME_FLAGS)
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    library.emu_launch.argtypes = (
        pointer, pointer, pointer, size, size, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint,
        ctypes.c_uint64, pointer, size, pointer,
    )  # fmt: skip
    library.emu_alloc.argtypes = (size, size, pointer, pointer)
    library.emu_alloc.restype = pointer
    library.emu_free.argtypes = (pointer, size)
    return library
