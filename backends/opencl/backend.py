"""Lists the OpenCL devices that work."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from omniop.backends.base import Backend, Device, KernelTable
from omniop.backends.opencl.device import OpenCLDevice
from omniop.backends.opencl.driver import opencl
from omniop.backends.opencl.programs import Text
from omniop.opset.errors import DeviceError

_TRIAL = Text(
    "trial",
    "the trial kernel",
    "kernel void trial(global int *p) { size_t i = get_global_id(0); p[i] = p[i] * 3 + 1; }",
)
_TRIAL_ITEMS = 64


class OpenCLBackend(Backend):
    """``problems``: why a platform or a device that was found is not among `devices`; one sentence each."""

    name = "opencl"

    def __init__(self) -> None:
        self.kernels = KernelTable()
        self.problems: list[str] = []
        self._devices: list[Device] | None = None
        self._lock = threading.Lock()

    def devices(self) -> list[Device]:
        """``opencl:0``, ``opencl:1``, ... over all platforms in the loader's order; the same objects on every call.

        Raises DeviceError when there is no pyopencl, no platform or no device that works.
        """
        with self._lock:
            if self._devices is None:
                self._devices = self._find()
            return list(self._devices)

    def _find(self) -> list[Device]:
        self.problems.clear()
        found: list[Device] = []
        for handle in self._handles():
            try:
                device = OpenCLDevice(f"{self.name}:{len(found)}", handle, self.kernels)
                _try(device)
            except (DeviceError, opencl().Error) as error:
                self.problems.append(f"{handle.name.strip()} of {handle.platform.name.strip()} is left out: {error}")
            else:
                found.append(device)
        if not found:
            raise DeviceError("; ".join(self.problems) or "no OpenCL platform has a device")
        return found

    def _handles(self) -> list[Any]:
        cl = opencl()
        try:
            platforms = cl.get_platforms()
        except cl.Error as error:
            raise DeviceError(
                f"no OpenCL driver is installed ({error}); omniop[opencl-cpu] brings one for the CPU"
            ) from None
        handles: list[Any] = []
        for platform in platforms:
            try:
                handles += platform.get_devices()
            except cl.Error as error:
                self.problems.append(f"platform {platform.name.strip()} lists no devices: {error}")
        return handles


def _try(device: OpenCLDevice) -> None:
    """Build and run a small kernel: some drivers list devices that they cannot compile for. Raises DeviceError."""
    numbers = np.arange(_TRIAL_ITEMS, dtype=np.int32)
    result = np.empty_like(numbers)
    buffer = device.alloc(numbers.nbytes)
    device.h2d(buffer, numbers)
    device.run_text(_TRIAL, [buffer], _TRIAL_ITEMS)
    device.d2h(result, buffer)
    if not np.array_equal(result, numbers * 3 + 1):
        raise DeviceError("the trial kernel ran and gave wrong numbers")
