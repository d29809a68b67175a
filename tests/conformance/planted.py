"""Backends with one bug each, planted in the reference backend, to see whether the suite finds it."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np

from omniop.backends.array_eval import size_names
from omniop.backends.base import Backend, Buffer, Device, Runnable
from omniop.backends.reference import ReferenceDevice
from omniop.backends.reference.numpy_ops import NUMPY
from omniop.conformance.engines import omniop_engine
from omniop.conformance.oracles import Engine, Feeds, Outputs, Prepared
from omniop.opset import expr
from omniop.opset.kernel import Kernel, Work


class Planted(Backend):
    """The reference backend under another name, with a device that ``spoil`` has changed."""

    def __init__(self, name: str, spoil: Callable[[ReferenceDevice], None] = lambda device: None) -> None:
        self.name = name
        self._spoil = spoil

    def devices(self) -> list[Device]:
        device = ReferenceDevice()
        device.name = self.name
        self._spoil(device)
        return [device]


def ignores_nan(device: ReferenceDevice) -> None:
    """C's fmax and fmin: of a number and a NaN they give the number."""
    alu = {**NUMPY.alu, "max": np.fmax, "min": np.fmin}
    device.ops = dataclasses.replace(NUMPY, alu=alu)


def reduces_past_nan(device: ReferenceDevice) -> None:
    """A maximum that starts at the first element and keeps what is not less: a later NaN is lost."""

    def reduce(monoid: str, x: Any, dims: tuple[int, ...]) -> Any:
        known = np.nan_to_num(x, nan=-np.inf, posinf=np.inf, neginf=-np.inf) if x.dtype.kind == "f" else x
        return NUMPY.reduce(monoid, known if monoid == "max" else x, dims)

    device.ops = dataclasses.replace(NUMPY, reduce=reduce)


def forgets_the_last(device: ReferenceDevice) -> None:
    """A loop that ends one element early where there is no whole vector of eight: that byte keeps what it held."""
    build = device.build

    def broken(works: Sequence[Work]) -> list[Runnable]:
        return [
            _cut_short(w, run) if isinstance(w, Kernel) else run for w, run in zip(works, build(works), strict=True)
        ]

    device.build = broken  # type: ignore[method-assign]


def _cut_short(kernel: Kernel, run: Runnable) -> Runnable:
    def cut(buffers: Sequence[Buffer], sizes: Sequence[int]) -> None:
        extents = [expr.evaluate(axis.args[0], size_names(sizes)) for axis in kernel.axes]
        written = [(b, p.dtype.itemsize) for b, p in zip(buffers, kernel.params, strict=True) if p.written]
        last = [buffer[(math.prod(extents) - 1) * size :][:size] for buffer, size in written]
        before = [element.copy() for element in last]
        run(buffers, sizes)
        for element, old in zip(last, before, strict=True):
            if math.prod(extents) % 8:
                element[:] = old

    return cut


def loses_updates(device: ReferenceDevice) -> None:
    """A race in a kernel: two threads add to the same places, neither waiting for what the other has read."""

    def combine(name: str, flat: Any, offsets: Any, values: Any) -> None:
        offsets, values = (x.reshape(-1) for x in np.broadcast_arrays(offsets, values))
        both_have_read = Barrier(2)

        def half(part: int) -> None:
            mine = flat.copy()
            NUMPY.combine(name, mine, offsets[part::2], values[part::2])
            both_have_read.wait()
            flat[offsets[part::2]] = mine[offsets[part::2]]

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(half, range(2)))

    device.ops = dataclasses.replace(NUMPY, combine=combine)


def shares_scratch(device: ReferenceDevice) -> None:
    """A race between runs: every kernel's result goes by way of one scratch buffer that all threads share."""
    build = device.build
    scratch = np.empty(1 << 20, np.uint8)

    def broken(works: Sequence[Work]) -> list[Runnable]:
        return [_by_way_of(scratch, run) for run in build(works)]

    device.build = broken  # type: ignore[method-assign]


def _by_way_of(scratch: np.ndarray, run: Runnable) -> Runnable:
    def slow(buffers: Sequence[Buffer], sizes: Sequence[int]) -> None:
        run(buffers, sizes)
        result = buffers[-1]
        scratch[: len(result)] = result
        time.sleep(0.02)
        result[:] = scratch[: len(result)]

    return slow


def sloppy_exp(device: ReferenceDevice) -> None:
    """An exponential with the digits of a float16, which no tolerance for networks would notice."""
    exp = NUMPY.alu["exp"]
    device.ops = dataclasses.replace(NUMPY, alu={**NUMPY.alu, "exp": lambda x: exp(x) * x.dtype.type(1 + 2**-12)})


def squeezes_empty(device: str) -> Engine:
    """An engine that forgets the shape of an output without elements."""
    engine = omniop_engine(device)

    def prepare(model: Any) -> Prepared:
        prepared = engine(model)

        def run(feeds: Feeds) -> Outputs:
            return {name: _squeezed(value) for name, value in prepared(feeds).items()}

        return run

    return prepare


def _squeezed(value: Any) -> Any:
    return value.reshape(0) if isinstance(value, np.ndarray) and value.size == 0 else value


BUGS: Mapping[str, Callable[[ReferenceDevice], None]] = {
    "ignores_nan": ignores_nan,
    "reduces_past_nan": reduces_past_nan,
    "forgets_the_last": forgets_the_last,
    "loses_updates": loses_updates,
    "sloppy_exp": sloppy_exp,
}
"""Bugs that an ordinary run finds; `shares_scratch` takes a strict one."""
