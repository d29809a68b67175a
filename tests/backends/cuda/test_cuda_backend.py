"""Which CUDA devices are listed, and what is said of those that are not."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from omniop.backends.cuda import BACKEND, backend, cupy_driver, emulator
from omniop.backends.cuda.backend import CudaBackend
from omniop.backends.cuda.emulator import EmuDriver
from omniop.dispatcher.registry import GROUP, Registry
from omniop.opset.errors import DeviceError

needs_emulator = pytest.mark.skipif(emulator.why_unavailable() is not None, reason=str(emulator.why_unavailable()))


class StandIn(EmuDriver):
    """A GPU, as far as listing goes; the second one fails."""

    def __init__(self, index: int) -> None:
        if index == 1:
            raise DeviceError("cuda:1 fell off the bus")
        super().__init__()
        self.name = f"cuda:{index}"


@pytest.fixture
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy_driver, "why_unavailable", lambda: None)
    monkeypatch.setattr(cupy_driver, "device_count", lambda: 3)
    monkeypatch.setattr(backend, "CupyDriver", StandIn)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cupy_driver, "why_unavailable", lambda: "there is no GPU")


@needs_emulator
def test_the_emulator_comes_last(three_gpus: None) -> None:
    found = CudaBackend()
    devices = found.devices()
    assert [device.name for device in devices] == ["cuda:0", "cuda:2", "cuda:emu"]
    assert [device.fingerprint.vendor for device in devices] == ["NVIDIA", "NVIDIA", "omniop"]
    assert found.problems == ["cuda:1 fell off the bus"]
    assert all(again is device for again, device in zip(found.devices(), devices, strict=True))


@needs_emulator
def test_without_a_gpu(no_gpu: None) -> None:
    found = CudaBackend()
    assert [device.name for device in found.devices()] == ["cuda:emu"]
    assert found.problems == ["there is no GPU"]


def test_with_nothing_at_all(no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(DeviceError, match=r"there is no GPU; .*install g\+\+"):
        CudaBackend().devices()


@needs_emulator
def test_the_registry_finds_it() -> None:
    """By its entry point, and after a trial."""
    registry = Registry([EntryPoint("cuda", "omniop.backends.cuda", GROUP)])
    assert registry.device("cuda:emu") is BACKEND.devices()[-1]
    if reason := cupy_driver.why_unavailable():
        assert [problem.reason for problem in registry.problems()] == [reason]
        with pytest.raises(DeviceError, match=r"'cuda' is not available.*available: cuda:emu"):
            registry.device("cuda")
    else:
        assert registry.device("cuda") is BACKEND.devices()[0]
