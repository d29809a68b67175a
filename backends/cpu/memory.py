"""Host memory as a device's: aligned allocations that are used again, and scratch that a thread keeps between launches.

Fresh memory costs a page fault every 4 KiB, which for large results is more than computing them.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from omniop.opset.dtype import DType

ALIGNMENT = 64
"""Bytes of a cache line, and of the widest vector."""


POOLED = 1 << 16
"""Blocks from this size on are kept when they are free ..."""
MAX_FREE = 1 << 28
"""... up to so many bytes in all."""


class Pool:
    """Blocks of memory by size, for those who come next. Sizes are rounded up by at most an eighth."""

    def __init__(self, limit: int = MAX_FREE) -> None:
        self._limit = limit
        self._free: dict[int, list[np.ndarray]] = {}
        self._lock = threading.RLock()  # a block may be collected, and put back, while another is being taken
        self.free_bytes = 0

    def take(self, nbytes: int) -> np.ndarray:
        """An array of at least ``nbytes`` bytes. Raises MemoryError."""
        step = 1 << max(0, nbytes.bit_length() - 4)
        size = -(-nbytes // step) * step
        with self._lock:
            if blocks := self._free.get(size):
                self.free_bytes -= size
                return np.asarray(_Block(self, blocks.pop()))
        try:
            memory = np.empty(size, np.uint8)
        except MemoryError:
            self.clear()
            memory = np.empty(size, np.uint8)
        return np.asarray(_Block(self, memory))

    def put(self, memory: np.ndarray) -> None:
        with self._lock:
            if self.free_bytes + memory.nbytes <= self._limit:
                self._free.setdefault(memory.nbytes, []).append(memory)
                self.free_bytes += memory.nbytes

    def clear(self) -> None:
        """Give all free blocks back to the system."""
        with self._lock:
            self._free.clear()
            self.free_bytes = 0


class _Block:
    """What every array over a block holds on to: when the last one is gone, the block is free."""

    def __init__(self, pool: Pool, memory: np.ndarray) -> None:
        self._pool = pool
        self._memory = memory
        self.__array_interface__ = memory.__array_interface__

    def __del__(self) -> None:
        self._pool.put(self._memory)


POOL = Pool()


class HostBuffer:
    """``nbytes`` of memory. ``address`` is where it begins, ``bytes`` the same memory as an array of uint8."""

    __slots__ = ("_bytes", "_memory", "_typed", "address")

    def __init__(self, nbytes: int) -> None:
        """Raises MemoryError."""
        wanted = nbytes + ALIGNMENT
        memory = POOL.take(wanted) if wanted >= POOLED else np.empty(wanted, np.uint8)
        first = -memory.ctypes.data % ALIGNMENT
        self._hold(memory[first : first + nbytes])

    @classmethod
    def over(cls, array: np.ndarray) -> HostBuffer:
        """The memory of a C-contiguous array, aligned to its elements and no further."""
        buffer = cls.__new__(cls)
        buffer._hold(array)
        return buffer

    def _hold(self, memory: np.ndarray) -> None:
        self._memory = memory
        self._bytes: np.ndarray | None = None
        self._typed: dict[DType, np.ndarray] = {}
        self.address: int = memory.__array_interface__["data"][0]  # `ctypes.data` takes twice as long

    @property
    def bytes(self) -> np.ndarray:
        if self._bytes is None:
            self._bytes = self._memory.reshape(-1).view(np.uint8)
        return self._bytes

    def __len__(self) -> int:
        return self._memory.nbytes

    def typed(self, dtype: DType) -> np.ndarray:
        """As many whole elements of ``dtype`` as fit, as a flat array."""
        found = self._typed.get(dtype)
        if found is None:
            width = dtype.itemsize
            found = self._typed[dtype] = self.bytes[: len(self.bytes) // width * width].view(dtype.numpy)
        return found


class Scratch(threading.local):
    """Buffers by name, one set a thread, grown when needed. What a name holds is undefined at the start of each use."""

    def __init__(self) -> None:
        self._held: dict[str, HostBuffer] = {}

    def buffer(self, name: str, nbytes: int) -> HostBuffer:
        held = self._held.get(name)
        if held is None or len(held) < nbytes:
            self._held.pop(name, None)
            held = self._held[name] = HostBuffer(nbytes)
        return held

    def array(self, name: str, shape: Sequence[int], dtype: np.dtype) -> np.ndarray:
        """A C-contiguous array."""
        count = int(np.prod(shape, dtype=np.int64))
        held = self.buffer(name, max(1, count * dtype.itemsize))
        return held.bytes[: count * dtype.itemsize].view(dtype).reshape(shape)
