"""Which devices there are: backends discovered by entry point, imported on first use, trusted after a trial.

Third parties register under the entry-point group ``omniop.backends``: the name is the backend's, the value a module
(or ``module:object``) that holds a `Backend` as ``BACKEND``. Discovery reads metadata only. A backend that cannot be
imported or has no hardware is reported with its reason and is never fatal to the others.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING

import numpy as np

from omniop.backends.base import API_VERSION, Backend, Device
from omniop.dispatcher.build import builds_of
from omniop.opset import expr
from omniop.opset.dtype import FLOAT32
from omniop.opset.errors import DeviceError, meant
from omniop.opset.kernel import Kernel, Param, Store

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "omniop.backends"
DEFAULT_ORDER = ("cpu", "opencl", "cuda", "reference")
"""How backends are listed; others follow by name."""
OWN = {name: f"omniop.backends.{name}" for name in DEFAULT_ORDER}
"""Backends of omniop's own, by module: to find one among all that is installed takes longer than to import it."""


@dataclass
class Unavailable:
    """A backend or device that cannot be used here, and why."""

    name: str
    reason: str


@dataclass
class _Loaded:
    devices: list[Device] = field(default_factory=list)
    problems: list[Unavailable] = field(default_factory=list)


class Registry:
    """Backends by name. `registry()` gives the process's one; tests make their own."""

    def __init__(self, points: Sequence[EntryPoint] | None = None) -> None:
        self._points = points
        self._loaded: dict[str, _Loaded] = {}
        self._given: dict[str, Backend] = {}
        self._lock = threading.RLock()

    def names(self) -> list[str]:
        """Backends that are registered, whether they work or not."""
        found = {p.name for p in self._entry_points()} | set(self._given)
        return sorted(found, key=lambda n: (DEFAULT_ORDER.index(n) if n in DEFAULT_ORDER else len(DEFAULT_ORDER), n))

    def knows(self, name: str) -> bool:
        """Whether there is a backend of this name."""
        return (self._points is None and name in OWN) or name in self.names()

    def _entry_points(self) -> Sequence[EntryPoint]:
        if self._points is None:
            from importlib.metadata import entry_points

            self._points = tuple(entry_points(group=GROUP))
        return self._points

    def register(self, backend: Backend, *, trusted: bool = False) -> None:
        """Add a backend by hand; a ``trusted`` one is not put to the trial (a device that plans and never runs).

        Raises ValueError when its name is taken, naming both.
        """
        with self._lock:
            if backend.name in self.names():
                raise ValueError(
                    f"a backend called {backend.name!r} is registered already: {self._source(backend.name)}; "
                    f"the new one is {type(backend).__module__}.{type(backend).__qualname__}"
                )
            self._given[backend.name] = backend
            if trusted:
                self._loaded[backend.name] = _Loaded(list(backend.devices()))

    def unregister(self, name: str) -> None:
        """Take a backend that was added by hand out again."""
        with self._lock:
            self._given.pop(name, None)
            self._loaded.pop(name, None)

    def _source(self, name: str) -> str:
        if name in self._given:
            kind = type(self._given[name])
            return f"{kind.__module__}.{kind.__qualname__}"
        return ", ".join(p.value for p in self._entry_points() if p.name == name)

    def devices(self, backend: str | None = None) -> list[Device]:
        """Devices that passed their trial: of one backend, or of all."""
        names = self.names() if backend is None else [backend]
        return [d for n in names for d in self._load(n).devices]

    def problems(self) -> list[Unavailable]:
        """Whatever is registered and cannot be used, with reasons."""
        return [p for n in self.names() for p in self._load(n).problems]

    def device(self, name: str) -> Device:
        """A device by name: "opencl:1", or "opencl" for the backend's first one.

        Raises DeviceError naming the devices there are and one of a close name, and the reason when the backend is
        registered but unusable.
        """
        backend = name.split(":")[0]
        if self.knows(backend):
            loaded = self._load(backend)
            for d in loaded.devices:
                if name == d.name or (name == backend and not d.emulated):
                    return d
            reasons = "; ".join(p.reason for p in loaded.problems)
            if reasons and (name == backend or not loaded.devices):
                raise DeviceError(f"device {name!r} is not available: {reasons}; available: {self._known()}")
        known = [d.name for d in self.devices()]
        raise DeviceError(
            f"there is no device {name!r}; available: {self._known()}{meant(name, [*known, *self.names()])}"
        )

    def _known(self) -> str:
        return ", ".join(d.name for d in self.devices()) or "none"

    def _load(self, name: str) -> _Loaded:
        with self._lock:
            if name not in self._loaded:
                self._loaded[name] = self._open(name)
            return self._loaded[name]

    def _open(self, name: str) -> _Loaded:
        loaded = _Loaded()
        try:
            backend = self._given.get(name) or self._import(name)
            if backend.api_version != API_VERSION:
                reason = (
                    f"it was written for version {backend.api_version} of the backend contract, this is {API_VERSION}"
                )
                loaded.problems.append(Unavailable(name, reason))
                return loaded
            found = backend.devices()
            loaded.problems += [Unavailable(name, text) for text in getattr(backend, "problems", ())]
        except Exception as error:  # a broken plug-in must not break the others
            loaded.problems.append(Unavailable(name, str(error) or type(error).__name__))
            return loaded
        for d in found:
            wrong = trial(d)
            if wrong is None:
                loaded.devices.append(d)
            else:
                loaded.problems.append(Unavailable(d.name, wrong))
        return loaded

    def _import(self, name: str) -> Backend:
        if self._points is None and name in OWN:
            where, loaded = OWN[name], import_module(OWN[name])
        else:
            points = [p for p in self._entry_points() if p.name == name]
            if len({p.value for p in points}) > 1:
                raise DeviceError(f"two packages register a backend {name!r}: {', '.join(p.value for p in points)}")
            where, loaded = points[0].value, points[0].load()
        backend = getattr(loaded, "BACKEND", loaded)
        if not isinstance(backend, Backend):
            raise DeviceError(f"{where} has no BACKEND that is a Backend")
        return backend


def trial(device: Device) -> str | None:
    """Build and run a small kernel; None when the answer is right, else what went wrong."""
    n = 37
    axis = expr.axis(0, n)
    value = expr.load(0, (axis,), FLOAT32) * 2.0 + 1.0
    kernel = Kernel((Param(FLOAT32), Param(FLOAT32, True)), (axis,), (Store(1, axis, value),))
    try:
        (built,) = builds_of(device).get([kernel])
        data = np.arange(n, dtype=np.float32)
        source, target = device.alloc(data.nbytes), device.alloc(data.nbytes)
        device.h2d(source, data)
        built.run([source, target], ())
        result = np.empty_like(data)
        device.d2h(result, target)
    except Exception as error:  # whatever a driver throws means the device is unusable
        return f"its trial kernel failed: {error}"
    return None if np.array_equal(result, data * 2 + 1) else "its trial kernel gave a wrong answer"


_registry: Registry | None = None
_registry_lock = threading.Lock()


def registry() -> Registry:
    """The process's registry."""
    global _registry
    with _registry_lock:
        if _registry is None:
            _registry = Registry()
        return _registry
