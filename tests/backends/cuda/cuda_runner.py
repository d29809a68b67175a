"""Runs single kernels on arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from omniop.backends.cuda.driver import Argument, DeviceBuffer, Driver, Grid


class Runner:
    """A driver, and what a test does with it."""

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
