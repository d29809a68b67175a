"""Constants on devices: uploaded once, and whatever was computed from constants alone, computed once.

Shared by all templates of a session. A derived constant is keyed by the work that made it and the keys of its inputs,
so two templates that fold or pack the same weights hold one copy.
"""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from omniop.backends.base import Buffer, Device
from omniop.dispatcher.build import Built
from omniop.opset.dtype import UINT8, DType


@dataclass(eq=False, repr=False)
class Constant:
    """A constant on a device. ``array``: the elements that were uploaded; None when they were computed there.

    ``recipe``: how it is computed, where that takes no longer than reading it. On the disk there is then the recipe
    alone, and `compute` has to follow."""

    device: Device
    buffer: Buffer
    nbytes: int
    dtype: DType
    array: np.ndarray | None = None
    recipe: Recipe | None = None

    def __getstate__(self) -> tuple[object, ...]:
        content = self.array
        if content is None and self.recipe is None:
            content = self.device.lend(self.buffer, (self.nbytes,), UINT8)
            if content is None:
                content = np.empty(self.nbytes, np.uint8)
                self.device.d2h(content, self.buffer)
        return self.device, self.nbytes, self.dtype, self.recipe, content, self.array is not None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.device, self.nbytes, self.dtype, self.recipe, content, given = state
        self.array = content if given else None
        self.buffer = None if self.recipe is not None else _buffer_of(self.device, content)

    def compute(self) -> None:
        """What is missing of one that came from the disk as its recipe."""
        if self.recipe is not None and self.buffer is None:
            self.buffer = self.device.alloc(self.nbytes)
            self.recipe.launch([self.buffer])


class Recipe(NamedTuple):
    """``built``: the work. ``written``: which of its params are; ``sources``: the others, in their order."""

    built: Built
    written: tuple[bool, ...]
    sources: tuple[Constant, ...]

    def launch(self, outputs: Sequence[Buffer]) -> None:
        made, read = iter(outputs), iter(self.sources)
        self.built.run([next(made) if written else next(read).buffer for written in self.written], ())
        for source in self.sources:
            if source.array is not None:
                _let_go(source.array)


class Weights:
    """See the module."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._arrays: dict[int, np.ndarray] = {}
        self._uploaded: dict[tuple[Device, object], Constant] = {}
        self._derived: dict[tuple[Device, object], list[Constant]] = {}
        self._adopted: list[Constant] = []
        """Derived ones from the disk, whose keys nobody has asked for."""

    def key(self, array: np.ndarray) -> object:
        """Content for small arrays, identity for large ones (which are then kept alive)."""
        if array.nbytes <= 4096:
            return (array.dtype.str, array.shape, array.tobytes())
        self._arrays[id(array)] = array
        return id(array)

    def constant(self, device: Device, array: np.ndarray, dtype: DType) -> Constant:
        """The array on ``device``."""
        with self._lock:
            key = (device, (self.key(array), dtype))
            if key not in self._uploaded:
                buffer = _buffer_of(device, array)
                self._uploaded[key] = Constant(device, buffer, array.nbytes, dtype, array)
            return self._uploaded[key]

    def adopt(self, constant: Constant) -> None:
        """Share a constant that came from the disk."""
        with self._lock:
            if constant.array is not None:
                key = (constant.device, (self.key(constant.array), constant.dtype))
                self._uploaded.setdefault(key, constant)
            elif constant.recipe is not None:
                self._adopted.append(constant)

    def _take_in(self) -> None:
        for constant in self._adopted:
            assert constant.recipe is not None
            sources = [self.key(s.array) for s in constant.recipe.sources if s.array is not None]
            self._derived.setdefault((constant.device, (constant.recipe.built.work, *sources)), [constant])
        self._adopted.clear()

    def holds(self, device: Device, key: object) -> bool:
        """Whether `derived` has nothing left to compute."""
        with self._lock:
            self._take_in()
            return (device, key) in self._derived

    def derived(
        self,
        device: Device,
        key: object,
        outputs: Sequence[tuple[int, DType]],
        recipe: Callable[[], Recipe],
        quick: bool,
    ) -> list[Constant]:
        """Constants of ``outputs`` (elements, dtype), computed the first time. ``quick``: it takes no longer than
        reading them would, and they are made of arrays."""
        with self._lock:
            self._take_in()
            if (device, key) not in self._derived:
                buffers = [device.alloc(elements * dtype.itemsize) for elements, dtype in outputs]
                how = recipe()
                how.launch(buffers)
                kept = how if quick and all(s.array is not None for s in how.sources) else None
                self._derived[device, key] = [
                    Constant(device, buffer, elements * dtype.itemsize, dtype, recipe=kept)
                    for buffer, (elements, dtype) in zip(buffers, outputs, strict=True)
                ]
            return self._derived[device, key]


def _let_go(array: np.ndarray) -> None:
    """The pages of an array that is mapped from a file, most of which are read this once. Who reads them again finds
    them where the system keeps files."""
    root: Any = array
    while root is not None and not isinstance(root, np.memmap):
        root = getattr(root, "base", None)
    if root is None or root.mode != "r" or not hasattr(mmap, "MADV_DONTNEED") or not array.flags.c_contiguous:
        return
    while isinstance(root.base, np.memmap):
        root = root.base
    begin = array.ctypes.data - root.ctypes.data + root.offset % mmap.ALLOCATIONGRANULARITY
    first = -(-begin // mmap.PAGESIZE) * mmap.PAGESIZE
    end = (begin + array.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if end > first:
        root.base.madvise(mmap.MADV_DONTNEED, first, end - first)


def _buffer_of(device: Device, array: np.ndarray) -> Buffer:
    """The array's own memory where the device can use it: weights that are mapped from a file are then held once."""
    if array.nbytes and array.flags.c_contiguous:
        borrowed = device.borrow(array)
        if borrowed is not None:
            return borrowed
    buffer = device.alloc(max(array.nbytes, 1))
    device.h2d(buffer, np.ascontiguousarray(array))
    return buffer
