"""A linker: object files of x86-64, as LLVM makes them of kernels, to one image.

LLVM has one of its own, and other machines and formats get that. To load it takes longer than this takes for a model,
and 40 MB of memory; so a process that finds all its kernels on the disk does without LLVM.

What an object file is: System V ABI, Chapters 4 and 5 (ELF-64); what its relocations ask for: the supplement for AMD64,
4.4. Kernels need four kinds of them.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import starmap
from typing import NamedTuple

from omniop.backends.cpu.image import Image

_HEADER = struct.Struct("<4sBBB9xHHI3QI6H")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_RELOCATION = struct.Struct("<QQq")
_MAGIC, _64_BITS, _LITTLE_ENDIAN, _RELOCATABLE, _X86_64 = b"\x7fELF", 2, 1, 1, 62
_PROGRAM, _SYMBOLS, _RELOCATIONS, _NO_BITS, _PLAIN_RELOCATIONS = 1, 2, 4, 8, 9
_UNWINDING = 0x70000001
_WRITABLE, _ALLOCATED, _THREAD_LOCAL = 0x1, 0x2, 0x400
_READ_ONLY_ONCE_RELOCATED = ".data.rel.ro"
_UNDEFINED, _RESERVED = 0, 0xFF00
_GLOBAL = 1
_ADDRESS, _RELATIVE, _RELATIVE_CALL = 1, 2, 4  # R_X86_64_64, _PC32 and _PLT32
_JUMP_THROUGH = b"\xff\x25"
"""``jmp *offset(%rip)``"""
_STUB_BYTES, _SLOT_BYTES = 8, 8


class Unlinkable(Exception):
    """What an object file holds that this linker does not know."""


class _Section(NamedTuple):
    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    entry_size: int


class _Symbol(NamedTuple):
    name: int
    info: int
    other: int
    section: int
    value: int
    size: int


@dataclass
class _Linked:
    """An image as it grows."""

    code: bytearray = field(default_factory=bytearray)
    functions: dict[str, int] = field(default_factory=dict)
    inner: list[tuple[int, int]] = field(default_factory=list)
    calls: list[tuple[int, int, str]] = field(default_factory=list)
    """Of functions from outside: (place, addend, name)."""

    def align(self, alignment: int) -> int:
        self.code += bytes(-len(self.code) % max(alignment, 1))
        return len(self.code)

    def relative(self, place: int, target: int) -> None:
        """Writes how far ``target`` is from ``place``."""
        struct.pack_into("<i", self.code, place, target - place)


def link(objects: Sequence[bytes]) -> Image:
    """One image of all; raises Unlinkable. Symbols of one object file are not seen by the others."""
    linked = _Linked()
    for data in objects:
        try:
            _add(linked, data)
        except (struct.error, IndexError, ValueError) as error:
            raise Unlinkable(f"an object file that makes no sense: {error}") from error
    imports = _with_stubs(linked)
    return Image(bytes(linked.code), linked.functions, tuple(linked.inner), imports)


def _add(linked: _Linked, data: bytes) -> None:
    sections, names = _sections(data)
    placed = {k: _place(linked, data, s) for k, s in enumerate(sections) if _is_placed(s, _text(names, s.name))}
    symbols: list[_Symbol] = []
    texts = b""
    for section in sections:
        if section.kind == _SYMBOLS:
            symbols = list(starmap(_Symbol, _SYMBOL.iter_unpack(_bytes(data, section))))
            texts = _bytes(data, sections[section.link])
    for symbol in symbols:
        if symbol.section in placed and symbol.info >> 4 == _GLOBAL:
            linked.functions[_text(texts, symbol.name)] = placed[symbol.section] + symbol.value
    for section in sections:
        if section.kind == _PLAIN_RELOCATIONS:
            raise Unlinkable("relocations without addends")
        if section.kind == _RELOCATIONS and section.info in placed:
            for offset, info, addend in _RELOCATION.iter_unpack(_bytes(data, section)):
                symbol = symbols[info >> 32]
                place, kind = placed[section.info] + offset, info & 0xFFFFFFFF
                if symbol.section == _UNDEFINED:
                    _call_outside(linked, kind, place, addend, _text(texts, symbol.name))
                else:
                    _refer(linked, kind, place, _target(placed, symbol) + addend)


def _sections(data: bytes) -> tuple[list[_Section], bytes]:
    """All of them, and their names."""
    header = _HEADER.unpack_from(data)
    if (*header[:3], *header[4:6]) != (_MAGIC, _64_BITS, _LITTLE_ENDIAN, _RELOCATABLE, _X86_64):
        raise Unlinkable("no object file of x86-64")
    start, size, count, names = header[9], *header[14:17]
    sections = list(starmap(_Section, _SECTION.iter_unpack(data[start : start + size * count])))
    return sections, _bytes(data, sections[names])


def _is_placed(section: _Section, name: str) -> bool:
    """Whether the image needs it: nothing is unwound through kernels."""
    if not section.flags & _ALLOCATED or not section.size or section.kind == _UNWINDING:
        return False
    if section.kind != _PROGRAM or section.flags & _THREAD_LOCAL:
        raise Unlinkable(f"section {name} of kind {section.kind}")
    if section.flags & _WRITABLE and not name.startswith(_READ_ONLY_ONCE_RELOCATED):
        raise Unlinkable(f"section {name}, which is written to")
    return True


def _place(linked: _Linked, data: bytes, section: _Section) -> int:
    if section.alignment > mmap.PAGESIZE:
        raise Unlinkable(f"a section aligned to {section.alignment} bytes")
    place = linked.align(section.alignment)
    linked.code += _bytes(data, section)
    return place


def _target(placed: dict[int, int], symbol: _Symbol) -> int:
    if symbol.section not in placed:
        where = "no section" if symbol.section >= _RESERVED else f"section {symbol.section}"
        raise Unlinkable(f"a reference to what is in {where}")
    return placed[symbol.section] + symbol.value


def _refer(linked: _Linked, kind: int, place: int, target: int) -> None:
    if kind in (_RELATIVE, _RELATIVE_CALL):
        linked.relative(place, target)
    elif kind == _ADDRESS and 0 <= place <= len(linked.code) - _SLOT_BYTES:
        linked.inner.append((place, target))
    else:
        raise Unlinkable(f"a relocation of kind {kind}")


def _call_outside(linked: _Linked, kind: int, place: int, addend: int, name: str) -> None:
    if kind != _RELATIVE_CALL:
        raise Unlinkable(f"a relocation of kind {kind} for {name}")
    linked.calls.append((place, addend, name))


def _with_stubs(linked: _Linked) -> dict[str, int]:
    """Places for the addresses of functions from outside, behind jumps that calls reach: those are short."""
    names = sorted({name for _, _, name in linked.calls})
    stubs = {name: linked.align(_STUB_BYTES) + _STUB_BYTES * k for k, name in enumerate(names)}
    slots = {name: stub + _STUB_BYTES * len(names) for name, stub in stubs.items()}
    for name, stub in stubs.items():
        linked.code += _JUMP_THROUGH + struct.pack("<i", slots[name] - stub - 6) + bytes(2)
    linked.code += bytes(_SLOT_BYTES * len(names))
    for place, addend, name in linked.calls:
        linked.relative(place, stubs[name] + addend)
    return slots


def _bytes(data: bytes, section: _Section) -> bytes:
    if section.offset + section.size > len(data):
        raise Unlinkable("an object file that is cut short")
    return data[section.offset : section.offset + section.size]


def _text(table: bytes, start: int) -> str:
    return table[start : table.index(b"\0", start)].decode()
