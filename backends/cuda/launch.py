"""Launching: what is known before the buffers are, and the few calls that are left for each launch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from omniop.backends.base import Caps, Runnable
from omniop.backends.cuda.compiler import Compiler, Text
from omniop.backends.cuda.driver import DeviceBuffer, Driver, LoadedKernel
from omniop.backends.plans_by_sizes import PlansBySizes


@dataclass(frozen=True)
class Profile:
    """How a device's kernels are written and launched.

    ``block``: threads of a block that need nothing of each other. ``lanes``: of the largest block that may share a row,
    a power of two. ``shared``: threads of a block multiply matrices together, through shared memory. ``batch``: kernels
    that are compiled as one source.
    """

    block: int
    lanes: int
    shared: bool
    batch: int


GPU = Profile(block=256, lanes=256, shared=True, batch=12)
"""NVRTC takes 0.1 s a kernel, one after another, and threads run it side by side."""

EMULATOR = Profile(block=256, lanes=32, shared=False, batch=4096)
"""Switching between the threads of a block costs more than memory does, and the emulator splits a source by itself."""


@dataclass(frozen=True)
class Toolkit:
    """What it takes to make work runnable on a device."""

    driver: Driver
    compiler: Compiler
    caps: Caps
    profile: Profile


class Step:
    """One launch of a kernel over ``blocks`` blocks, but for its buffers."""

    def __init__(self, driver: Driver, kernel: LoadedKernel, blocks: int, threads: int, sizes: Sequence[int]) -> None:
        self._driver = driver
        self._kernel = kernel
        self._grid, self._block = (blocks,), (threads,)
        self._numbers = tuple(map(np.int64, sizes))

    def __call__(self, buffers: Sequence[DeviceBuffer]) -> None:
        self._driver.launch(self._kernel, self._grid, self._block, (*buffers, *self._numbers))


Do = Callable[[Sequence[DeviceBuffer]], None]
"""One step of a piece of work, on its buffers."""

Plan = Callable[[tuple[int, ...], Sequence[DeviceBuffer]], Sequence[Do]]
"""From sizes, and the first buffers that come with them, to steps."""


class PlannedWork:
    """A Runnable that plans its launches once per set of sizes."""

    def __init__(self, plan: Plan) -> None:
        self._plans = PlansBySizes(plan)

    def __call__(self, buffers: Sequence[DeviceBuffer], sizes: Sequence[int]) -> None:
        for step in self._plans.steps(sizes, buffers):
            step(buffers)


@dataclass(frozen=True)
class Printed:
    """A piece of work on its way to the compiler; ``bind`` gets its kernels by name and gives what runs the work."""

    texts: tuple[Text, ...]
    bind: Callable[[Mapping[str, LoadedKernel]], Runnable]
