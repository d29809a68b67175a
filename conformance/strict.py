"""Strict runs (level L0): memory, strides and threads are put to the test by every case.

Behind each buffer of the device lie sentinels, whose bytes are looked at after the run; new buffers hold garbage, so
that an element that nobody wrote is seen. Each case runs again on views that are not contiguous, and in a thread beside
another that feeds other numbers; every run of the session on the same feeds has to give the same bits.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from omniop.backends.base import Backend, Buffer, Device
from omniop.conformance.oracles import Feeds, Outputs, Prepared
from omniop.conformance.verdict import Facts, Telling
from omniop.opset.dtype import DType
from omniop.opset.errors import OmniopError

PAD = 256
"""Bytes of sentinels behind a buffer: more than a vector or a cache line overruns it by."""

_GRAIN = 64
_MARK, _GARBAGE = 0xA5, 0x7F


class UnsoundError(Exception):
    """A run wrote where it must not, or did not give what the one before it gave."""


class Guard:
    """A device of its own that allocates with sentinels, on the hardware and with the code of another, ``inner``."""

    def __init__(self, inner: Device, name: str = "") -> None:
        self.inner = inner
        self._buffers: list[tuple[Buffer, int]] = []
        self.device = copy.copy(inner)
        self.device.name = name or inner.name
        self.device.alloc = self._alloc  # type: ignore[method-assign]
        self.device.borrow = _not_borrowed  # type: ignore[method-assign]
        self.device.lend = _not_lent  # type: ignore[method-assign]

    def check(self) -> None:
        """Raise UnsoundError where a sentinel was overwritten; buffers that were looked at are forgotten."""
        self.inner.sync()
        for buffer, size in self._buffers:
            found = np.empty(size + PAD, np.uint8)
            self.inner.d2h(found, buffer)
            spoiled = np.flatnonzero(found[size:] != _MARK)
            if spoiled.size:
                raise UnsoundError(f"byte {spoiled[0]} behind a buffer of {size} bytes was overwritten")
        self.forget()

    def forget(self) -> None:
        """Let go of the buffers that nobody has looked at."""
        self._buffers.clear()

    def _alloc(self, nbytes: int) -> Buffer:
        size = -(-nbytes // _GRAIN) * _GRAIN
        filled = np.full(size + PAD, _GARBAGE, np.uint8)
        filled[nbytes:] = _MARK
        buffer = self.inner.alloc(size + PAD)
        self.inner.h2d(buffer, filled)
        self._buffers.append((buffer, nbytes))
        return buffer


@functools.cache
def guard_of(device: Device) -> Guard:
    """The guarded twin of a device, kept: what was built for it is built once."""
    return Guard(device)


class GuardBackend(Backend):
    """What registers a guarded device by name."""

    def __init__(self, guard: Guard) -> None:
        self.name = guard.device.name
        self._guard = guard

    def devices(self) -> list[Device]:
        return [self._guard.device]


def _not_borrowed(array: np.ndarray) -> Buffer | None:
    return None


def _not_lent(buffer: Buffer, shape: tuple[int, ...], dtype: DType) -> np.ndarray | None:
    return None


class StrictRun:
    """A prepared model that runs in every way; ``drawn``: its outputs are random, and nobody expects them twice."""

    def __init__(self, prepared: Prepared, guard: Guard, *, drawn: bool) -> None:
        self._prepared, self._guard, self._drawn = prepared, guard, drawn

    def __call__(self, feeds: Feeds) -> Outputs:
        found = self._prepared(feeds)
        self._guard.check()
        if not self._drawn:
            _same(self._prepared({name: strided(value) for name, value in feeds.items()}), found, "on strided views")
            with ThreadPoolExecutor(2) as pool:
                runs = [(pool.submit(self._prepared, dict(feeds)), pool.submit(self._beside, feeds)) for _ in range(2)]
                for again, beside in runs:
                    _same(again.result(), found, "in two threads at once")
                    beside.result()
            self._guard.check()
        return found

    def _beside(self, feeds: Feeds) -> None:
        """A run on other numbers, so that memory that runs share shows; what it gives, or refuses, is its own."""
        with contextlib.suppress(OmniopError):
            self._prepared({name: turned(value) for name, value in feeds.items()})

    def facts(self) -> Facts:
        return self._prepared.facts() if isinstance(self._prepared, Telling) else Facts()


def strided(value: Any) -> Any:
    """The same elements in a view that is not contiguous: backwards, every other one, behind an offset."""
    if not isinstance(value, np.ndarray) or value.ndim == 0 or value.dtype == object:
        return value
    store = np.zeros([2 * n + 3 for n in value.shape], value.dtype)
    view = store[tuple(slice(2 * n + 1, 1, -2) if n else slice(0, 0) for n in value.shape)]
    view[...] = value
    return view


def turned(value: Any) -> Any:
    """Floats from the last to the first. Other values may be axes, places and lengths, and stay as they are."""
    if not isinstance(value, np.ndarray) or not value.dtype.name.startswith(("float", "bfloat")):
        return value
    return np.ascontiguousarray(value.reshape(-1)[::-1]).reshape(value.shape)


def _same(actual: Outputs, expected: Mapping[str, Any], how: str) -> None:
    for name, value in expected.items():
        if not _equal(actual[name], value):
            raise UnsoundError(f"output {name!r} is another {how}")


def _equal(one: Any, other: Any) -> bool:
    if isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(other, Mapping) or other is None:
        return bool(one == other)
    one, other = np.asarray(one), np.asarray(other)
    if one.dtype == object:
        return bool(one.shape == other.shape and (one == other).all())
    return bool(one.dtype == other.dtype and one.shape == other.shape and one.tobytes() == other.tobytes())
