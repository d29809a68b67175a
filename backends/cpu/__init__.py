"""The CPU of this machine."""

from __future__ import annotations

from omniop.backends.base import Backend, Device, KernelSpec, KernelTable
from omniop.backends.cpu import jit
from omniop.backends.cpu.device import CpuDevice


class CpuBackend(Backend):
    """One device, "cpu"."""

    name = "cpu"

    def __init__(self) -> None:
        self.kernels = KernelTable(_specs)
        self._devices: list[Device] = []

    def devices(self) -> list[Device]:
        if not self._devices:
            self._devices.append(CpuDevice(self.kernels))
        return list(self._devices)


def _specs() -> list[KernelSpec]:
    from omniop.backends.cpu import narrow_packed, packed  # a plan from the disk needs no kernel's declaration
    from omniop.backends.cpu.blocked.specs import specs

    target = jit.host_target()
    return [*specs(target), packed.spec(target), *narrow_packed.specs(target)]


BACKEND = CpuBackend()
