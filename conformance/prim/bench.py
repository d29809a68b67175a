"""A device on the bench: works are built, run and looked at one by one, on buffers with sentinels behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from omniop.backends.base import Buffer, Device, No, OpContext, Runnable, TensorType
from omniop.conformance.compare import compare, error_of
from omniop.conformance.strict import Guard, UnsoundError
from omniop.conformance.tolerance import EXACT, Tolerance
from omniop.conformance.verdict import Error
from omniop.dispatcher.build import builds_of
from omniop.opset.errors import UnsupportedError
from omniop.opset.kernel import Call, Work


class Bench:
    """Collects what a check finds: ``reason``, the first thing that is wrong, and ``error``, the worst so far."""

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self.reason = ""
        self.error: Error | None = None

    @property
    def device(self) -> Device:
        """The device under test; what it allocates is guarded."""
        return self._guard.device

    @property
    def unguarded(self) -> Device:
        """The device itself, for memory that is shared with the host, behind which nothing can be put."""
        return self._guard.inner

    def settle(self) -> None:
        """Look at the sentinels. UnsoundError where one was overwritten."""
        self._guard.check()

    def upload(self, array: np.ndarray) -> Buffer:
        """A buffer of its own with the array in it."""
        buffer = self.device.alloc(max(1, array.nbytes))
        if array.nbytes:
            self.device.h2d(buffer, np.ascontiguousarray(array))
        return buffer

    def download(self, buffer: Buffer, like: np.ndarray) -> np.ndarray:
        """The start of a buffer as an array of the dtype and shape of ``like``."""
        found = np.empty(like.shape, like.dtype)
        if found.nbytes:
            self.device.d2h(found, buffer)
        return found

    def run(self, work: Work, arrays: Sequence[np.ndarray], sizes: Sequence[int] = ()) -> list[np.ndarray]:
        """Build and run ``work`` on copies of ``arrays``, one for each of its params; gives those that it writes.

        It runs twice, and has to give the same bits. PlacementError where the device cannot run it.
        """
        (built,) = builds_of(self.device).get([work])
        first, again = (self._once(built.run, work, arrays, sizes) for _ in range(2))
        for one, other in zip(first, again, strict=True):
            if one.tobytes() != other.tobytes():
                raise UnsoundError("a second run gives other bits")
        return first

    def _once(self, run: Runnable, work: Work, arrays: Sequence[np.ndarray], sizes: Sequence[int]) -> list[np.ndarray]:
        buffers = [self.upload(array) for array in arrays]
        run(buffers, tuple(sizes))
        self.device.sync()
        found = [self.download(buffer, array) for buffer, array in zip(buffers, arrays, strict=True)]
        for k, (param, array) in enumerate(zip(work.params, arrays, strict=True)):
            if not param.written and found[k].tobytes() != array.tobytes():
                raise UnsoundError(f"buffer {k} is only read, and was written")
        self.settle()
        return [array for array, param in zip(found, work.params, strict=True) if param.written]

    def call(self, call: Call, arrays: Sequence[np.ndarray], sizes: Sequence[int] = ()) -> list[np.ndarray]:
        """The same for a prim that the device may take whole; UnsupportedError, with its reason, where it does not."""
        if isinstance(answer := self.device.accepts(self._context(call)), No):
            raise UnsupportedError(str(answer))
        if call.epilogue is not None and not self.device.accepts_epilogue(call.prim):
            raise UnsupportedError(f"{self.device.name} takes {call.prim} without what comes after it")
        return self.run(call, arrays, sizes)

    def _context(self, call: Call) -> OpContext:
        operands, results = (
            tuple(TensorType(v.dtype, shape := tuple(d.attr for d in v.shape), shape) for v in views)
            for views in (call.operands, call.results)
        )
        return OpContext(call.prim, operands, results, dict(call.attrs), self.device.caps)

    def expect(self, actual: Any, expected: Any, tolerance: Tolerance = EXACT, what: str = "") -> None:
        """Note what is wrong with ``actual``, and how far off it is."""
        error = error_of({"": actual}, {"": expected})
        if error is not None:
            self.note(error)
        if not self.reason and (found := compare(actual, expected, tolerance)):
            self.reason = f"{what}: {found}" if what else found

    def note(self, error: Error) -> None:
        """Keep the worst error of all."""
        worst = self.error or error
        self.error = Error(
            max(error.absolute, worst.absolute), max(error.relative, worst.relative), max(error.ulp, worst.ulp)
        )
