"""The CPU of this machine."""

from __future__ import annotations

from omniop.backends.base import Backend, Device, KernelTable
from omniop.backends.cpu import jit, packed
from omniop.backends.cpu.blocked.specs import specs
from omniop.backends.cpu.device import CpuDevice


class CpuBackend(Backend):
    """One device, "cpu"."""

    name = "cpu"

    def __init__(self) -> None:
        self.kernels = KernelTable()
        self._devices: list[Device] = []

    def devices(self) -> list[Device]:
        if not self._devices:
            for spec in (*specs(jit.host_target()), packed.spec(jit.host_target())):
                self.kernels.add(spec)
            self._devices.append(CpuDevice(self.kernels))
        return list(self._devices)


BACKEND = CpuBackend()
