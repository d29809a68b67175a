"""Views of a call with their numbers filled in."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import numpy as np
from numpy.lib.stride_tricks import as_strided

from omniop.backends.cpu.memory import HostBuffer
from omniop.opset import expr
from omniop.opset.kernel import View


class Window:
    """A view for one set of sizes; ``shape``, ``strides`` and ``offset`` count elements."""

    def __init__(self, view: View, sizes: dict[str, int]) -> None:
        rank = len(view.shape)
        offset, *rest = (expr.evaluate(n, sizes) for n in (view.offset, *view.shape, *view.strides))
        self.buffer = view.buffer
        self.offset = offset
        self.shape = tuple(rest[:rank])
        self.strides = tuple(rest[rank:])
        self.start = offset * view.dtype.itemsize
        """Of the first element, in bytes."""
        self._dtype = view.dtype.numpy
        self._steps = tuple(s * self._dtype.itemsize for s in self.strides)

    def without_last(self) -> Window:
        """The view without its last axis, which has one element."""
        result = copy(self)
        result.shape, result.strides, result._steps = self.shape[:-1], self.strides[:-1], self._steps[:-1]
        return result

    def contiguous(self, buffer: int, row: int | None = None) -> Window:
        """A row-major copy of the view that lies at the start of a buffer, its rows ``row`` elements apart."""
        result = copy(self)
        result.buffer, result.offset, result.start = buffer, 0, 0
        shape = (*self.shape[:-1], self.shape[-1] if row is None else row)
        result.strides = tuple(int(np.prod(shape[k + 1 :])) for k in range(len(shape)))
        result._steps = tuple(s * self._dtype.itemsize for s in result.strides)
        return result

    def outline(self) -> np.ndarray:
        """An array with its dtype, shape and strides, whose elements are not to be touched."""
        return as_strided(np.empty(1, self._dtype), self.shape, self._steps)

    def array(self, buffers: Sequence[HostBuffer]) -> np.ndarray:
        return np.ndarray(self.shape, self._dtype, buffers[self.buffer].bytes, self.start, self._steps)
