"""A device that plans and never runs: for looking at plans without hardware, and for tests of planning.

It stands for whatever device has the `Caps` it is given. Work that it is asked to build is recorded in ``works``;
running it does nothing, and every buffer reads as zeros. It is in no entry point, and would fail a registry's trial:
hand a `NullDevice` to whatever takes a `Device`.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from omniop.backends.base import (
    YES,
    Answer,
    Backend,
    Caps,
    Device,
    Fingerprint,
    KernelTable,
    No,
    OpContext,
    Runnable,
)
from omniop.opset.errors import DeviceError
from omniop.opset.kernel import Work


@dataclass(frozen=True, eq=False)
class NullBuffer:
    """An allocation that holds nothing."""

    nbytes: int


class NullDevice(Device):
    """See the module.

    ``takes``: prims that it takes whole ("contract" and structured ones); the others are expanded for ``caps``.
    ``epilogues``: those of them that take an epilogue. ``kernels``: tuned ones to be planned with.
    ``works``: what it was asked to build, in order; ``batches``: the same as it came, a list a call.
    """

    def __init__(
        self,
        caps: Caps,
        name: str = "null",
        takes: Collection[str] = ("contract",),
        epilogues: Collection[str] = ("contract",),
        kernels: KernelTable | None = None,
    ) -> None:
        self.name = name
        self.caps = caps
        self.fingerprint = Fingerprint("omniop", "null", "any", "none")
        self.kernels = kernels or KernelTable()
        self.batches: list[list[Work]] = []
        self._takes = frozenset(takes)
        self._epilogues = frozenset(epilogues)
        self._lock = threading.Lock()

    @property
    def works(self) -> list[Work]:
        return [work for batch in self.batches for work in batch]

    def alloc(self, nbytes: int) -> NullBuffer:
        return NullBuffer(nbytes)

    def h2d(self, buffer: NullBuffer, array: np.ndarray) -> None:
        self._check(buffer, array.nbytes)

    def d2h(self, array: np.ndarray, buffer: NullBuffer) -> None:
        self._check(buffer, array.nbytes)
        array.reshape(-1).view(np.uint8)[...] = 0

    def copy(self, target: NullBuffer, source: NullBuffer, nbytes: int) -> None:
        self._check(target, nbytes)
        self._check(source, nbytes)

    def _check(self, buffer: NullBuffer, nbytes: int) -> None:
        """A planner's mistake that memory would hide."""
        if nbytes > buffer.nbytes:
            raise DeviceError(f"{self.name}: {nbytes} bytes do not fit a buffer of {buffer.nbytes}")

    def accepts(self, op: OpContext) -> Answer:
        return YES if op.op in self._takes else No("expands", f"{self.name} does not take {op.op} whole")

    def accepts_epilogue(self, prim: str) -> bool:
        return prim in self._epilogues

    def build(self, works: Sequence[Work]) -> list[Runnable]:
        with self._lock:
            self.batches.append(list(works))
        return [_nothing] * len(works)


def _nothing(buffers: Sequence[NullBuffer], sizes: Sequence[int]) -> None:
    """A launch."""


class NullBackend(Backend):
    """Lists the devices that it was given."""

    name = "null"

    def __init__(self, *devices: NullDevice) -> None:
        self._devices = devices

    def devices(self) -> list[Device]:
        return list(self._devices)
