"""The seam between the CUDA backend and what runs CUDA C: a GPU through CuPy, or the emulator on the CPU.

Kernels are CUDA C text. Above the seam nothing knows which of the two is below.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from omniop.opset.errors import DeviceError

Event = Any
"""A point in a driver's order of work; see `Driver.record`."""

Grid = Sequence[int]
"""One to three extents, x first; those left out are 1."""


@dataclass(frozen=True)
class DeviceProperties:
    """What scheduling and reports need to know of a device."""

    name: str
    compute_capability: tuple[int, int]
    multiprocessors: int
    memory_bytes: int
    shared_bytes_per_block: int
    driver_version: str
    max_threads_per_block: int = 1024


class DeviceBuffer:
    """Device memory of ``nbytes`` at ``address``, released by `Driver.free` or when the last reference goes.

    ``owner`` is what keeps the memory allocated.
    """

    __slots__ = ("address", "nbytes", "owner")

    def __init__(self, address: int, nbytes: int, owner: object) -> None:
        self.address = address
        self.nbytes = nbytes
        self.owner: object | None = owner

    def __repr__(self) -> str:
        return f"DeviceBuffer({self.address:#x}, {self.nbytes} bytes{', freed' if self.owner is None else ''})"


Argument = DeviceBuffer | np.generic
"""A kernel's argument: a buffer for a pointer, a NumPy scalar of the parameter's own size for anything else."""


@dataclass(frozen=True)
class Gemm:
    """``C[i] = alpha * op(A[i]) @ op(B[i]) + beta * C[i]`` for each i of a batch, all matrices row-major.

    A is m x k, B is k x n and C is m x n after ``op``, which transposes where ``transpose_*`` is set. In elements,
    ``ld*`` is the distance of rows, ``stride_*`` that of the batch's matrices, ``offset_*`` where the first one begins.
    dtypes: float32, float64, and float16 and bfloat16, which accumulate in float32. ``result`` is C's dtype where it is
    another one: float32 for the narrow ones.
    """

    dtype: str
    m: int
    n: int
    k: int
    lda: int
    ldb: int
    ldc: int
    batch: int = 1
    stride_a: int = 0
    stride_b: int = 0
    stride_c: int = 0
    offset_a: int = 0
    offset_b: int = 0
    offset_c: int = 0
    transpose_a: bool = False
    transpose_b: bool = False
    alpha: float = 1.0
    beta: float = 0.0
    result: str = ""


class LoadedKernel(Protocol):
    """A kernel that its driver can launch."""

    @property
    def name(self) -> str: ...


class Driver(Protocol):
    """One CUDA device. Work is ordered as it was asked for; every method may be called from several threads.

    All methods raise DeviceError, naming the device, for what the device refuses.
    """

    @property
    def name(self) -> str:
        """The device's name, as ``cuda:0`` or ``cuda:emu``."""
        ...

    @property
    def properties(self) -> DeviceProperties: ...

    @property
    def gemm(self) -> Callable[[Gemm, DeviceBuffer, DeviceBuffer, DeviceBuffer], None] | None:
        """Runs a vendor library's matrix product on the buffers of A, B and C; None where there is no library."""
        ...

    def alloc(self, nbytes: int) -> DeviceBuffer:
        """Memory aligned for every vector type, its content undefined. ``nbytes`` may be 0."""
        ...

    def free(self, buffer: DeviceBuffer) -> None:
        """Releases the memory now; work already asked for may still use it."""
        ...

    def h2d(self, buffer: DeviceBuffer, array: np.ndarray) -> None:
        """Copies a C-contiguous array to the start of ``buffer``. The array may be changed once this returns."""
        ...

    def d2h(self, array: np.ndarray, buffer: DeviceBuffer) -> None:
        """Waits for the work asked for so far, then fills a C-contiguous array from the start of ``buffer``."""
        ...

    def d2d(self, target: DeviceBuffer, source: DeviceBuffer, nbytes: int) -> None:
        """Copies the first ``nbytes`` of ``source`` to ``target``."""
        ...

    def memset(self, buffer: DeviceBuffer, value: int) -> None:
        """Sets every byte of ``buffer`` to ``value``."""
        ...

    def load(self, source: str, names: Sequence[str]) -> Mapping[str, LoadedKernel]:
        """Compiles CUDA C (or finds it compiled in the cache) and gives its kernels of these names.

        One source may hold some 200 kernels, each ``extern "C" __global__ void name(...)``: compiling them together
        costs far less than one by one. They must not share variables, as they may end up in several modules.
        `omniop.backends.cuda.prelude` says what a source finds declared.
        """
        ...

    def launch(
        self, kernel: LoadedKernel, grid: Grid, block: Grid, args: Sequence[Argument], shared_bytes: int = 0
    ) -> None:
        """Runs ``kernel`` over ``grid`` blocks of ``block`` threads with ``shared_bytes`` of dynamic shared memory."""
        ...

    def synchronize(self) -> None:
        """Waits for the work asked for so far, and raises what went wrong in it."""
        ...

    def record(self) -> Event:
        """Marks this point in the order of work."""
        ...

    def elapsed(self, start: Event, end: Event) -> float:
        """Seconds that the device spent between two recorded events; waits for ``end``."""
        ...


# Checks that both drivers make ----------------------------------------------------------------------------------------

_SLOT_BYTES = 8
_MAX_GRID = (2**31 - 1, 65535, 65535)
_MAX_BLOCK = (1024, 1024, 64)


def three(extents: Grid) -> tuple[int, int, int]:
    """``extents`` with ones for those left out."""
    x, y, z = (*extents, 1, 1)[:3]
    return int(x), int(y), int(z)


def check_launch(
    kernel: str, device: str, properties: DeviceProperties, grid: Grid, block: Grid, shared_bytes: int
) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Grid and block in three dimensions. Raises DeviceError for what no CUDA device would launch."""

    def refuse(why: str) -> DeviceError:
        asked = f"grid {tuple(grid)}, block {tuple(block)}"
        return DeviceError(f"{device} cannot launch kernel {kernel!r} with {asked}: {why}")

    whole_grid, whole_block = three(grid), three(block)
    for what, extents, limits in (("grid", whole_grid, _MAX_GRID), ("block", whole_block, _MAX_BLOCK)):
        for axis, extent, limit in zip("xyz", extents, limits, strict=True):
            if not 1 <= extent <= limit:
                raise refuse(f"{what}.{axis} must be in 1..{limit}")
    if (threads := whole_block[0] * whole_block[1] * whole_block[2]) > (limit := properties.max_threads_per_block):
        raise refuse(f"a block has at most {limit} threads, not {threads}")
    if not 0 <= shared_bytes <= (limit := properties.shared_bytes_per_block):
        raise refuse(f"a block has at most {limit} bytes of shared memory, not {shared_bytes}")
    return whole_grid, whole_block


def pack_arguments(kernel: str, device: str, args: Sequence[Argument]) -> tuple[bytes, bytes]:
    """The arguments' bytes, 8 for each, and the number of bytes used of each.

    Raises DeviceError for a freed buffer and for anything that is neither a buffer nor a NumPy scalar.
    """
    slots: list[bytes] = []
    sizes: list[int] = []
    for position, argument in enumerate(args):
        if isinstance(argument, DeviceBuffer) and argument.owner is not None:
            data = argument.address.to_bytes(_SLOT_BYTES, "little")
        elif isinstance(argument, np.generic) and argument.nbytes <= _SLOT_BYTES:
            data = argument.tobytes()
        else:
            raise DeviceError(
                f"{device} cannot pass {argument!r} as argument {position} of kernel {kernel!r}: "
                "an argument is a live buffer or a NumPy scalar of up to 8 bytes"
            )
        slots.append(data.ljust(_SLOT_BYTES, b"\0"))
        sizes.append(len(data))
    return b"".join(slots), bytes(sizes)


def check_copy(device: str, what: str, nbytes: int, *buffers: DeviceBuffer) -> None:
    """Raises DeviceError when a buffer was freed or is shorter than ``nbytes``."""
    for buffer in buffers:
        if buffer.owner is None or nbytes > buffer.nbytes:
            raise DeviceError(f"{device} cannot {what} {nbytes} bytes: {buffer!r}")


def check_contiguous(device: str, array: np.ndarray) -> None:
    """Raises DeviceError unless ``array`` is C-contiguous, the only arrays that are copied without staging."""
    if not array.flags.c_contiguous:
        raise DeviceError(f"{device} copies C-contiguous arrays only: shape {array.shape}, strides {array.strides}")


_KERNEL = re.compile(r"__global__\s+(?:void\s+)?(?:__launch_bounds__\s*\([^)]*\)\s*)?(?:void\s+)?(\w+)\s*\(")


def missing_kernels(device: str, source: str, names: Sequence[str]) -> DeviceError | None:
    """The error for names that ``source`` does not define as kernels, or None when all are there."""
    there = _KERNEL.findall(source)
    absent = sorted(set(names) - set(there))
    if not absent:
        return None
    return DeviceError(f"{device}: no kernel {', '.join(absent)} in a source that has {', '.join(there) or 'none'}")
