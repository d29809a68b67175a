"""Programs on numpy's arrays: their addresses are read, and what they are is checked, by compiled code.

To ask an array for its address takes Python longer than many a model runs.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from math import prod

import numpy as np

from omniop.backends.base import Direct, HostArray
from omniop.backends.cpu.memory import POOLED, HostBuffer
from omniop.backends.cpu.program import Program
from omniop.backends.cpu.team.code import functions
from omniop.backends.cpu.team.words import WANTED_FLAGS, CallWord, DirectWord, NumpyByte


def direct(
    program: Program, table: Sequence[HostBuffer | None], feeds: Sequence[HostArray], outputs: Sequence[HostArray]
) -> Direct | None:
    """See `Device.direct`. None where numpy's arrays are not what they are expected to be."""
    return _Direct(program, table, feeds, outputs) if readable() else None


class _Direct:
    def __init__(
        self,
        program: Program,
        table: Sequence[HostBuffer | None],
        feeds: Sequence[HostArray],
        outputs: Sequence[HostArray],
    ) -> None:
        self._program = program
        buffers = [table[k] for k in program.entries]
        workspace = program.workspace()
        words = [*program.head, *program.memory(), *(0 if b is None else b.address for b in buffers), *workspace]
        self._call = (ctypes.c_int64 * (len(words) + 1))(*words)
        self._workspace = (CallWord.C_ADDRESSES + len(buffers)) * 8
        self._dtypes = [a.dtype for a in feeds]
        self._shapes = [(ctypes.c_int64 * max(1, len(a.shape)))(*a.shape) for a in feeds]
        place = {entry: k for k, entry in enumerate(program.entries)}
        nowhere = len(words)
        numbers: list[int] = []
        for k, array in enumerate((*feeds, *outputs)):
            at = nowhere if array.entry not in place else CallWord.C_ADDRESSES + place[array.entry]
            fed = k < len(feeds)
            check = (id(array.dtype), len(array.shape), ctypes.addressof(self._shapes[k])) if fed else (0, 0, 0)
            numbers += (ctypes.addressof(self._call) + 8 * at, *check)
        self._arrays = (ctypes.c_int64 * max(1, len(numbers)))(*numbers)
        count = len(feeds) + len(outputs)
        block = (ctypes.addressof(self._call), count, id(np.ndarray), ctypes.addressof(self._arrays))
        self._block = (ctypes.c_int64 * (len(block) + count))(*block)
        self._address = ctypes.addressof(self._block)
        self._put = partial(struct.Struct(f"={count}q").pack_into, self._block, 8 * DirectWord.D_OBJECTS)
        self._make = [_maker(a) for a in outputs]
        self._own = None if program.self_contained else struct.Struct("=5q").pack_into
        self._run = functions()["direct"].function

    def __call__(self, arrays: Sequence[object]) -> list[np.ndarray] | None:
        made = [make() for make in self._make]
        self._put(*map(id, arrays), *map(id, made))
        if self._own is not None:
            self._own(self._call, 8 * CallWord.C_OWN, *self._program.memory())
            for address in self._program.workspace():
                struct.pack_into("=q", self._call, self._workspace, address)
        return None if self._run(self._address) else made


def _maker(array: HostArray) -> Callable[[], np.ndarray]:
    """Of memory for an output. Raises MemoryError."""
    nbytes = prod(array.shape) * array.dtype.itemsize
    if nbytes < POOLED:
        return partial(np.empty, array.shape, array.dtype)

    def pooled() -> np.ndarray:
        return HostBuffer(nbytes).bytes.view(array.dtype).reshape(array.shape)

    return pooled


@cache
def readable() -> bool:
    """Whether arrays are in memory what `NumpyByte` says: tried once, on some of them."""
    if sys.implementation.name != "cpython" or object.__basicsize__ != 2 * ctypes.sizeof(ctypes.c_void_p) != 16:
        return False
    if ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    samples: list[np.ndarray] = [
        np.zeros((3, 5, 7), np.float32),
        np.zeros((4, 6), np.int64)[:, ::2],
        np.ones(9, np.uint8)[1:],
        np.array(1.0),
    ]
    return all(map(_is_as_expected, samples))


def _is_as_expected(array: np.ndarray) -> bool:
    def read(byte: NumpyByte) -> int:
        return ctypes.c_int64.from_address(id(array) + byte).value

    def number(byte: NumpyByte) -> int:
        return ctypes.c_int32.from_address(id(array) + byte).value

    known = read(NumpyByte.N_TYPE) == id(type(array)) and read(NumpyByte.N_DTYPE) == id(array.dtype)
    if not known or read(NumpyByte.N_DATA) != array.ctypes.data or number(NumpyByte.N_RANK) != array.ndim:
        return False
    shape = (ctypes.c_int64 * array.ndim).from_address(read(NumpyByte.N_SHAPE)) if array.ndim else ()
    flags = number(NumpyByte.N_FLAGS) & WANTED_FLAGS == WANTED_FLAGS
    return tuple(shape) == array.shape and flags == (array.flags.c_contiguous and array.flags.aligned)
