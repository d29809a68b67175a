"""Lists the CUDA devices: the GPUs there are, then the emulator."""

from __future__ import annotations

import threading

from omniop.backends.base import Backend, Device, KernelTable
from omniop.backends.cuda import cupy_driver
from omniop.backends.cuda.cupy_driver import CupyDriver
from omniop.backends.cuda.device import CudaDevice
from omniop.backends.cuda.emulator import EmuDriver
from omniop.backends.cuda.launch import EMULATOR, GPU
from omniop.opset.errors import DeviceError


class CudaBackend(Backend):
    """``problems``: why a GPU, or the emulator, is not among `devices`; one sentence each."""

    name = "cuda"

    def __init__(self) -> None:
        self.kernels = KernelTable()
        self.problems: list[str] = []
        self._devices: list[Device] | None = None
        self._lock = threading.Lock()

    def devices(self) -> list[Device]:
        """``cuda:0``, ``cuda:1``, ... and ``cuda:emu`` last; the same objects on every call.

        Raises DeviceError, with the reasons, when there is neither a GPU nor a compiler to emulate one.
        """
        with self._lock:
            if self._devices is None:
                self._devices = self._find()
            return list(self._devices)

    def _find(self) -> list[Device]:
        self.problems.clear()
        found: list[Device] = []
        for index in range(self._gpus()):
            try:
                found.append(CudaDevice(CupyDriver(index), GPU, self.kernels))
            except DeviceError as error:
                self.problems.append(str(error))
        try:
            emulated = CudaDevice(EmuDriver(), EMULATOR, self.kernels, vendor="omniop")
            emulated.emulated = True
            found.append(emulated)
        except DeviceError as error:
            self.problems.append(str(error))
        if not found:
            raise DeviceError("; ".join(self.problems))
        return found

    def _gpus(self) -> int:
        if reason := cupy_driver.why_unavailable():
            self.problems.append(reason)
            return 0
        return cupy_driver.device_count()
