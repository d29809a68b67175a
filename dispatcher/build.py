"""Built work, kept per device: a kernel that any model or template built is built once in a process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

from omniop.backends.base import Buffer, Device, Runnable
from omniop.dispatcher.watch import tell
from omniop.opset.errors import DeviceError, PlacementError
from omniop.opset.kernel import Call, Kernel, Work
from omniop.opset.legalise import Refusal, legalise, legalise_expr

_ADDRESSABLE = 1 << 46
"""Bytes, above which no device is asked at all."""


class Builds:
    """Runnables of one device by work. ``count`` is how many works it ever had to build."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.count = 0
        self._made: dict[Work, Runnable] = {}
        self._lock = threading.Lock()

    def get(self, works: Sequence[Work]) -> list[Runnable]:
        """Runnables of ``works``, those that are new built in one batch."""
        with self._lock:
            new = [w for w in dict.fromkeys(works) if w not in self._made]
            if new:
                tell(f"compiling {len(new)} kernel{'s' * (len(new) > 1)}")
                legal = [self._legal(w) for w in new]
                self._made.update(zip(new, self.device.build(legal), strict=True))
                self.count += len(new)
            return [self._made[w] for w in works]

    def _legal(self, work: Work) -> Work:
        caps = self.device.caps
        if isinstance(work, Kernel):
            result = legalise(work, caps)
            if isinstance(result, Refusal):
                raise PlacementError(f"{self.device.name} cannot run a planned kernel: {result.code}: {result.detail}")
            return result
        if isinstance(work, Call) and work.epilogue is not None:
            tail = legalise_expr(work.epilogue, caps)
            if isinstance(tail, Refusal):
                raise PlacementError(f"{self.device.name} cannot run an epilogue: {tail.code}: {tail.detail}")
            return replace(work, epilogue=tail)
        return work


_builds: WeakKeyDictionary[Device, Builds] = WeakKeyDictionary()
_lock = threading.Lock()


def builds_of(device: Device) -> Builds:
    """The device's builds in this process."""
    with _lock:
        if device not in _builds:
            _builds[device] = Builds(device)
        return _builds[device]


def allocate(device: Device, nbytes: int, whose: Callable[[], str]) -> Buffer:
    """Memory of a device. Raises DeviceError naming it, the bytes, and ``whose`` they were to be."""
    try:
        if not 0 <= nbytes <= _ADDRESSABLE:
            raise DeviceError(f"{device.name} cannot allocate {nbytes} bytes")
        return device.alloc(nbytes)
    except DeviceError as error:
        raise DeviceError(f"{whose()}: {error}") from error
