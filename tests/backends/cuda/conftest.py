"""The drivers and devices that the CUDA tests run on: the emulator in several ways, and a GPU where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cuda_runner import Runner

from omniop.backends.base import KernelTable
from omniop.backends.cuda import cupy_driver, emulator
from omniop.backends.cuda.device import CudaDevice
from omniop.backends.cuda.driver import Driver
from omniop.backends.cuda.launch import EMULATOR, GPU


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMNIOP_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


def _driver(which: str) -> Driver:
    if which == "gpu":
        if reason := cupy_driver.why_unavailable():
            pytest.skip(reason)
        return cupy_driver.CupyDriver()
    if reason := emulator.why_unavailable():
        pytest.skip(reason)
    order: Any = which
    return emulator.EmuDriver(order, seed=7)


@pytest.fixture(params=["forward", "reverse", "shuffled", "gpu"])
def runner(request: pytest.FixtureRequest) -> Runner:
    """Every driver there is."""
    return Runner(_driver(request.param))


@pytest.fixture(params=["forward", "reverse", "shuffled"])
def emulated(request: pytest.FixtureRequest) -> Runner:
    """The emulator, in each order."""
    return Runner(_driver(request.param))


@pytest.fixture
def emulator_runner() -> Runner:
    """The emulator, in its default order."""
    return Runner(_driver("forward"))


@pytest.fixture(scope="session", params=["emulator", "as-gpu", "gpu"])
def device(request: pytest.FixtureRequest) -> CudaDevice:
    """The emulator as it is offered, the emulator with a GPU's kernels and threads that take turns, and a GPU."""
    ways = {"emulator": ("reverse", EMULATOR), "as-gpu": ("shuffled", GPU), "gpu": ("gpu", GPU)}
    order, profile = ways[request.param]
    return CudaDevice(_driver(order), profile, KernelTable())


@pytest.fixture(scope="session")
def one_device() -> CudaDevice:
    """The emulator, for what does not depend on the way."""
    return CudaDevice(_driver("forward"), EMULATOR, KernelTable())
