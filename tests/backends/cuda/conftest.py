"""The drivers that the CUDA tests run on: the emulator in each of its orders, and a GPU where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cuda_runner import Runner

from omniop.backends.cuda import cupy_driver, emulator
from omniop.backends.cuda.driver import Driver


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
