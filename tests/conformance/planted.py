"""Backends with one bug each, planted in the reference backend, to see whether the suite finds it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from omniop.backends.base import Backend, Buffer, Device, Runnable
from omniop.backends.reference import ReferenceDevice
from omniop.backends.reference.numpy_ops import NUMPY
from omniop.conformance.engines import omniop_engine
from omniop.conformance.oracles import Engine, Feeds, Outputs, Prepared
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
        written = [(b, p) for b, p in zip(buffers, kernel.params, strict=True) if p.written]
        before = [b[-p.dtype.itemsize :].copy() for b, p in written]
        run(buffers, sizes)
        for (buffer, param), old in zip(written, before, strict=True):
            if len(buffer) // param.dtype.itemsize % 8:
                buffer[-param.dtype.itemsize :] = old

    return cut


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
}
