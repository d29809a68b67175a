"""A device twice: as it is, telling what it builds; and with its tuned kernels switched off.

What is tuned of a device is in its contract: the kernels of its table, and the prims that it takes whole.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from omniop.backends.base import Answer, Backend, Device, KernelTable, No, OpContext, Runnable
from omniop.dispatcher.precision import Precision
from omniop.dispatcher.registry import Registry
from omniop.dispatcher.session import Session
from omniop.opset.kernel import Call, Work


def tuned_kernels(device: Device) -> list[str]:
    """The names of the kernels in a device's table, as `Recording` tells them."""
    return sorted({f"kernel {spec.name}" for spec in device.kernels})


def recording(device: Device) -> tuple[Device, dict[str, None]]:
    """The device's twin, and the names of the tuned kernels that it has built so far: ``kernel NAME`` of its table, or
    a prim taken whole, with what runs it, and with an epilogue or without."""
    twin, found = copy.copy(device), dict[str, None]()

    def build(works: Sequence[Work]) -> list[Runnable]:
        runnables = device.build(works)
        for work, runnable in zip(works, runnables, strict=True):
            if isinstance(work, Call):
                found[_name(work, runnable)] = None
        return runnables

    twin.build = build  # type: ignore[method-assign]
    return twin, found


def plain(device: Device) -> Device:
    """The device's twin that runs everything by loops, which any device can: a product is a map that holds a sum."""
    twin = copy.copy(device)
    twin.caps = replace(device.caps, loops=True)
    twin.kernels = KernelTable()
    twin.accepts = _declines  # type: ignore[method-assign]
    twin.accepts_epilogue = lambda prim: False  # type: ignore[method-assign]
    return twin


def run(device: Device, model: Any, feeds: Mapping[str, Any], precision: Precision | None = None) -> dict[str, Any]:
    """The model on this device alone, which no registry has to know. Raises what `omniop.load` and a run raise."""
    found = Registry(())
    found.register(_OfOne(device), trusted=True)
    return Session(model, device.name, fallback="error", precision=precision, devices=found).run(feeds)


class _OfOne(Backend):
    """What registers one device."""

    def __init__(self, device: Device) -> None:
        self.name = device.name.split(":")[0]
        self._device = device

    def devices(self) -> list[Device]:
        return [self._device]


def _declines(op: OpContext) -> Answer:
    return No("plain", "tuned kernels are switched off")


def _name(call: Call, runnable: Runnable) -> str:
    if call.tuned is not None:
        return f"kernel {call.tuned}"
    kind = type(runnable)
    maker = getattr(runnable, "__qualname__", kind.__qualname__).split(".")[0].lstrip("_")
    module = getattr(runnable, "__module__", kind.__module__).rpartition(".")[2]
    return f"{call.prim} by {module}.{maker}{' with an epilogue' if call.epilogue is not None else ''}"
