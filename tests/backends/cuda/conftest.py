"""The drivers that the CUDA tests run on: the emulator in each of its orders, and a GPU where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from omniop.backends.cuda import cupy_driver, emulator
from omniop.backends.cuda.driver import Argument, DeviceBuffer, Driver, Grid


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMNIOP_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


class Runner:
    """A driver, and kernels of one source run on arrays: those passed as outputs are read back."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver

    def upload(self, array: np.ndarray) -> DeviceBuffer:
        buffer = self.driver.alloc(array.nbytes)
        self.driver.h2d(buffer, array)
        return buffer

    def run(
        self,
        source: str,
        name: str,
        grid: Grid,
        block: Grid,
        args: list[Any],
        shared_bytes: int = 0,
    ) -> list[np.ndarray]:
        """Launches kernel ``name`` and gives every array of ``args`` as it is afterwards."""
        kernel = self.driver.load(source, [name])[name]
        buffers = {position: self.upload(a) for position, a in enumerate(args) if isinstance(a, np.ndarray)}
        passed: list[Argument] = [buffers.get(position, a) for position, a in enumerate(args)]
        self.driver.launch(kernel, grid, block, passed, shared_bytes)
        results = []
        for position, buffer in buffers.items():
            result = np.empty_like(args[position])
            self.driver.d2h(result, buffer)
            results.append(result)
        return results


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
