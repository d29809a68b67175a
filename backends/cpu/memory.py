"""Host memory as a device's: aligned allocations, and scratch that a thread keeps between launches."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np

from omniop.opset.dtype import DType

ALIGNMENT = 64
"""Bytes of a cache line, and of the widest vector."""


class HostBuffer:
    """``nbytes`` of memory. ``address`` is where it begins, ``bytes`` the same memory as an array of uint8."""

    __slots__ = ("_typed", "address", "bytes")

    def __init__(self, nbytes: int) -> None:
        """Raises MemoryError."""
        memory = np.empty(nbytes + ALIGNMENT, np.uint8)
        first = -memory.ctypes.data % ALIGNMENT
        self.bytes = memory[first : first + nbytes]
        self.address: int = self.bytes.ctypes.data
        self._typed: dict[DType, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.bytes)

    def typed(self, dtype: DType) -> np.ndarray:
        """As many whole elements of ``dtype`` as fit, as a flat array."""
        found = self._typed.get(dtype)
        if found is None:
            width = dtype.itemsize
            found = self._typed[dtype] = self.bytes[: len(self.bytes) // width * width].view(dtype.numpy)
        return found


class Scratch(threading.local):
    """Buffers by name, one set a thread, grown when needed: a large new one costs a page fault every 4 KiB.

    What a name holds is undefined at the start of each use.
    """

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
