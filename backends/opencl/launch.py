"""Launching: what is known before the buffers are, and the few calls that are left for each launch."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from omniop.backends.opencl.driver import opencl
from omniop.backends.plans_by_sizes import PlansBySizes
from omniop.opset.errors import DeviceError

_long = struct.Struct("<q").pack


class BoundKernel:
    """A compiled kernel and the queue it is launched on.

    A cl_kernel holds its arguments, so setting them and launching is one step under a lock.
    """

    def __init__(self, kernel: Any, queue: Any, label: str) -> None:
        self.label = label
        self._kernel = kernel
        self._queue = queue
        self._lock = threading.Lock()
        self._set_buffers = kernel._set_arg_multi
        self._set_numbers = kernel._set_arg_buf_multi
        self._enqueue = opencl()._cl.enqueue_nd_range_kernel

    def launch(self, buffers: Sequence[Any], step: Launch) -> None:
        """Raises DeviceError when the driver refuses."""
        arguments: list[Any] = []
        for place, buffer in enumerate(buffers):
            arguments += (place, buffer)
        try:
            with self._lock:
                self._set_buffers(tuple(arguments))
                if step.numbers:
                    self._set_numbers(step.numbers)
                self._enqueue(self._queue, self._kernel, step.global_size, step.local_size, step.offset)
        except opencl().Error as error:
            raise DeviceError(f"{self.label} could not be launched: {error}") from None


@dataclass(frozen=True)
class Launch:
    """One launch but for its buffers.

    ``numbers``: place and bytes of every other argument, flat. Sizes of the index space run from the fastest axis.
    ``scratch``: bytes of the device's scratch memory that it takes as its last buffer; 0 for none.
    """

    kernel: BoundKernel
    numbers: tuple[Any, ...]
    global_size: tuple[int, ...]
    local_size: tuple[int, ...] | None = None
    offset: tuple[int, ...] | None = None
    scratch: int = 0


def numbers_from(place: int, values: Sequence[int | bytes]) -> tuple[Any, ...]:
    """Arguments from ``place`` on: int64 numbers and structs."""
    flat: list[Any] = []
    for value in values:
        flat += (place, value if isinstance(value, bytes) else _long(value))
        place += 1
    return tuple(flat)


Plan = Callable[[tuple[int, ...], Sequence[Any]], tuple[Launch, ...]]
"""From sizes, and the first buffers that come with them, to launches."""


class Scratch:
    """Memory that the launches of one piece of work use until they end.

    The queue is in order, so one buffer serves all; ``lock`` keeps the launches of one piece together.
    """

    def __init__(self, alloc: Callable[[int], Any]) -> None:
        self.lock = threading.Lock()
        self._alloc = alloc
        self._nbytes = 0
        self._buffer: Any = None

    def take(self, nbytes: int) -> Any:
        """At least so many bytes; called under the lock."""
        if nbytes > self._nbytes:
            self._nbytes, self._buffer = 0, None
            self._buffer = self._alloc(nbytes)
            self._nbytes = nbytes
        return self._buffer


class PlannedWork:
    """A Runnable that plans its launches once per set of sizes. ``places``: the buffers that its kernels take, in their
    order; None for all."""

    def __init__(self, plan: Plan, scratch: Scratch, places: tuple[int, ...] | None = None) -> None:
        self._plans = PlansBySizes(plan)
        self._scratch = scratch
        self._places = places

    def __call__(self, buffers: Sequence[Any], sizes: Sequence[int]) -> None:
        steps = self._plans.steps(sizes, buffers)
        if self._places is not None:
            buffers = [buffers[place] for place in self._places]
        if not steps[0].scratch:
            for step in steps:
                step.kernel.launch(buffers, step)
            return
        with self._scratch.lock:
            taken = (*buffers, self._scratch.take(max(step.scratch for step in steps)))
            for step in steps:
                step.kernel.launch(taken, step)
