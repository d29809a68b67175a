"""Built work, kept per device: a kernel that any model or template built is built once in a process."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from weakref import WeakKeyDictionary

from omniop.backends.base import Buffer, Device, Runnable
from omniop.dispatcher.watch import tell
from omniop.opset.errors import DeviceError, PlacementError
from omniop.opset.expr import Expr
from omniop.opset.kernel import Call, Kernel, Work
from omniop.opset.legalise import Refusal, legalise, legalise_expr

_ADDRESSABLE = 1 << 46
"""Bytes, above which no device is asked at all."""


class Built:
    """Work of a device and what runs it. From the disk comes a pickled work, which is read when somebody asks for it,
    and maybe no runnable: then it is built when it is needed."""

    def __init__(self, device: Device, work: Work | bytes, run: Runnable | None) -> None:
        self.device = device
        self._work = work
        self._run = run

    @property
    def ready(self) -> bool:
        return self._run is not None

    @property
    def run(self) -> Runnable:
        if self._run is None:
            self._run = builds_of(self.device).get([self.work])[0].run
        return self._run

    @property
    def work(self) -> Work:
        if isinstance(self._work, bytes):
            work: Work = pickle.loads(self._work)
            self._work = work
        return self._work

    def pickled_work(self) -> bytes:
        return self._work if isinstance(self._work, bytes) else pickle.dumps(self._work, 5)


class Builds:
    """Runnables of one device by work. ``count`` is how many works it ever had to build."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.count = 0
        self._made: dict[Work, Built] = {}
        self._lock = threading.Lock()

    def get(self, works: Sequence[Work]) -> list[Built]:
        """``works`` made ready, those that are new in one batch."""
        with self._lock:
            new = [w for w in dict.fromkeys(works) if w not in self._made]
            if new:
                tell(f"compiling {len(new)} kernel{'s' * (len(new) > 1)}")
                runs = self.device.build([self._legal(w) for w in new])
                self._made.update((w, Built(self.device, w, run)) for w, run in zip(new, runs, strict=True))
                self.count += len(new)
            return [self._made[w] for w in works]

    def _legal(self, work: Work) -> Work:
        caps = self.device.caps
        if isinstance(work, Kernel):
            result = legalise(work, caps)
            if isinstance(result, Refusal):
                raise PlacementError(f"{self.device.name} cannot run a planned kernel: {result.code}: {result.detail}")
            return result
        if isinstance(work, Call):
            return replace(work, epilogue=self._legal_tail(work.epilogue), scores=self._legal_tail(work.scores))
        return work

    def _legal_tail(self, tail: Expr | None) -> Expr | None:
        """Of an expression with a hole."""
        legal = None if tail is None else legalise_expr(tail, self.device.caps)
        if isinstance(legal, Refusal):
            raise PlacementError(f"{self.device.name} cannot run an epilogue: {legal.code}: {legal.detail}")
        return legal


_builds: WeakKeyDictionary[Device, Builds] = WeakKeyDictionary()
_lock = threading.Lock()


def builds_of(device: Device) -> Builds:
    """The device's builds in this process."""
    with _lock:
        if device not in _builds:
            _builds[device] = Builds(device)
        return _builds[device]


def make_ready(built: Sequence[Built]) -> None:
    """Build what came from the disk without a runnable, one batch for each device."""
    missing: dict[Device, list[Work]] = {}
    for b in built:
        if not b.ready:
            missing.setdefault(b.device, []).append(b.work)
    for device, works in missing.items():
        builds_of(device).get(works)


def allocate(device: Device, nbytes: int, whose: Callable[[], str]) -> Buffer:
    """Memory of a device. Raises DeviceError naming it, the bytes, and ``whose`` they were to be."""
    try:
        if not 0 <= nbytes <= _ADDRESSABLE:
            raise DeviceError(f"{device.name} cannot allocate {nbytes} bytes")
        return device.alloc(nbytes)
    except DeviceError as error:
        raise DeviceError(f"{whose()}: {error}") from error
