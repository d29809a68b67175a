"""Machine code that runs wherever it lies, as bytes, and in this process's memory."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from omniop.opset.errors import DeviceError

_ADDRESS_BYTES = 8
_LIBRARIES = (None, "libm.so.6")
"""Where imports are looked up: in what the process has loaded, then by name."""


@dataclass(frozen=True)
class Image:
    """Functions of object files, linked (`elf.link`). Places are offsets from its first byte.

    ``functions``: places of those that may be called, by symbol. ``inner``: places that hold an address inside the
    image, with the place that it is of. ``imports``: places that hold the address of a function of the C library, by
    its name.
    """

    code: bytes
    functions: Mapping[str, int]
    inner: Sequence[tuple[int, int]]
    imports: Mapping[str, int]


class Mapped:
    """An image in memory, by symbol; addresses are valid as long as this object lives. Its pages are written first and
    made executable then, never both.

    Raises DeviceError where the system does not allow that, or lacks an import.
    """

    def __init__(self, image: Image) -> None:
        size = len(image.code)
        self._memory = mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, mmap.PROT_READ | mmap.PROT_WRITE)
        self._first = ctypes.c_char.from_buffer(self._memory)
        self._base = ctypes.addressof(self._first)
        self._functions = image.functions
        self._memory[:] = image.code
        for place, target in image.inner:
            self._write(place, self._base + target)
        for name, place in image.imports.items():
            self._write(place, _imported(name))
        if _mprotect()(self._base, size, mmap.PROT_READ | mmap.PROT_EXEC):
            raise DeviceError(f"cpu: memory cannot be made executable here (mprotect: errno {ctypes.get_errno()})")

    def _write(self, place: int, address: int) -> None:
        self._memory[place : place + _ADDRESS_BYTES] = address.to_bytes(_ADDRESS_BYTES, "little")

    def __getitem__(self, symbol: str) -> int:
        return self._base + self._functions[symbol]


def _imported(name: str) -> int:
    for library in _LIBRARIES:
        try:
            function = ctypes.CDLL(library)[name]
        except (OSError, AttributeError):
            continue
        return ctypes.cast(function, ctypes.c_void_p).value or 0
    raise DeviceError(f"cpu: the C library has no {name}, which compiled code calls")


@cache
def _mprotect() -> ctypes._NamedFuncPointer:
    function = ctypes.CDLL(None, use_errno=True).mprotect
    function.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return function
