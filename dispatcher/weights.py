"""Constants on devices: uploaded once, and whatever was computed from constants alone, computed once.

Shared by all templates of a session. A derived constant is keyed by the work that made it and the keys of its inputs,
so two templates that fold or pack the same weights hold one copy.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np

from omniop.backends.base import Buffer, Device
from omniop.opset.dtype import DType


class Weights:
    """See the module."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._arrays: dict[int, np.ndarray] = {}
        self._uploaded: dict[tuple[Device, object], Buffer] = {}
        self._derived: dict[tuple[Device, object], list[Buffer]] = {}

    def key(self, array: np.ndarray) -> object:
        """Content for small arrays, identity for large ones (which are then kept alive)."""
        if array.nbytes <= 4096:
            return (array.dtype.str, array.shape, array.tobytes())
        self._arrays[id(array)] = array
        return id(array)

    def constant(self, device: Device, array: np.ndarray, dtype: DType) -> Buffer:
        """A buffer of ``device`` holding the array."""
        with self._lock:
            key = (device, (self.key(array), dtype))
            if key not in self._uploaded:
                buffer = device.alloc(max(array.nbytes, 1))
                device.h2d(buffer, np.ascontiguousarray(array))
                self._uploaded[key] = buffer
            return self._uploaded[key]

    def derived(
        self,
        device: Device,
        key: object,
        outputs: Sequence[tuple[int, DType]],
        compute: Callable[[Sequence[Buffer]], None],
    ) -> list[Buffer]:
        """Buffers of ``outputs`` (elements, dtype), filled by ``compute`` the first time."""
        with self._lock:
            if (device, key) not in self._derived:
                buffers = [device.alloc(elements * dtype.itemsize) for elements, dtype in outputs]
                compute(buffers)
                self._derived[device, key] = buffers
            return self._derived[device, key]
