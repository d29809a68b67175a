"""The first OpenCL device, and the same device taken for one whose lanes run together (its kernels run on both)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from omniop.backends.opencl import BACKEND
from omniop.backends.opencl.device import OpenCLDevice
from omniop.opset.errors import DeviceError


@pytest.fixture(scope="session")
def device() -> OpenCLDevice:
    try:
        devices = BACKEND.devices()
    except DeviceError as error:
        pytest.skip(f"no OpenCL device: {error}")
    device = devices[0]
    assert isinstance(device, OpenCLDevice)
    return device


@pytest.fixture(scope="session")
def lanes_device(device: OpenCLDevice) -> OpenCLDevice:
    other = OpenCLDevice(device.name, device.handle, device.kernels)
    other.profile = replace(other.profile, cpu=False, lanes=64)
    return other


@pytest.fixture(params=["device", "lanes_device"])
def either(request: pytest.FixtureRequest) -> OpenCLDevice:
    """Tuned for one kind of device, then for the other."""
    device = request.getfixturevalue(request.param)
    assert isinstance(device, OpenCLDevice)
    return device
