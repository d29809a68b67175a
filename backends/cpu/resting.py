"""The compiler at rest: memory that nobody but it needs goes back to the system.

LLVM's library is larger than many a model, and what was read of it while kernels were linked would be in memory until
the process ends. Its code and tables are pages of a file, which come back when they are touched again.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from llvmlite.binding import ffi

_LOAD, _WRITABLE = 1, 2


class _Segment(ctypes.Structure):
    """ELF's program header, of 64 bits."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("offset", ctypes.c_uint64),
        ("address", ctypes.c_uint64),
        ("physical", ctypes.c_uint64),
        ("in_file", ctypes.c_uint64),
        ("in_memory", ctypes.c_uint64),
        ("alignment", ctypes.c_uint64),
    )


class _Library(ctypes.Structure):
    """What ``dl_iterate_phdr`` tells of each; more follows."""

    _fields_ = (
        ("address", ctypes.c_uint64),
        ("name", ctypes.c_char_p),
        ("segments", ctypes.POINTER(_Segment)),
        ("count", ctypes.c_uint16),
    )


class Pages(NamedTuple):
    """A range of addresses, of whole pages."""

    begin: int
    end: int


def rest() -> None:
    """Let go of what the compiler has read, and of what it has freed. Where the system cannot, nothing happens."""
    give_back = _system()
    if give_back is not None:
        give_back()


@cache
def _system() -> Callable[[], None] | None:
    process = ctypes.CDLL(None)
    if ctypes.sizeof(ctypes.c_void_p) != 8 or not all(hasattr(process, f) for f in ("dl_iterate_phdr", "malloc_trim")):
        return None
    ranges = [(begin, end - begin) for begin, end in read_only(os.fsencode(ffi.lib._name))]
    advise, trim = process.madvise, process.malloc_trim
    advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

    def give_back() -> None:
        for begin, nbytes in ranges:
            advise(begin, nbytes, mmap.MADV_DONTNEED)
        trim(0)

    return give_back


def read_only(library: bytes) -> list[Pages]:
    """Pages that this process has mapped from the file and never writes: not those that the loader relocates."""
    found: list[Pages] = []

    def look(info: ctypes._Pointer[_Library], nbytes: int, _: int | None) -> int:
        loaded = info.contents
        if loaded.name == library:
            for segment in loaded.segments[: loaded.count]:
                if segment.type == _LOAD and not segment.flags & _WRITABLE:
                    first = loaded.address + segment.address
                    begin = -(-first // mmap.PAGESIZE) * mmap.PAGESIZE
                    end = (first + segment.in_file) // mmap.PAGESIZE * mmap.PAGESIZE
                    found.append(Pages(begin, end))
        return 0

    called = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Library), ctypes.c_size_t, ctypes.c_void_p)
    ctypes.CDLL(None).dl_iterate_phdr(called(look), None)
    return found
