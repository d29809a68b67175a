"""The CPU of this machine."""

from __future__ import annotations

from omniop.backends.base import Backend, Device, KernelTable
from omniop.backends.cpu.device import CpuDevice


class CpuBackend(Backend):
    """One device, "cpu"."""

    name = "cpu"

    def __init__(self) -> None:
        self.kernels = KernelTable()
        self._devices: list[Device] = []

    def devices(self) -> list[Device]:
        if not self._devices:
            self._devices.append(CpuDevice(self.kernels))
        return list(self._devices)


BACKEND = CpuBackend()
