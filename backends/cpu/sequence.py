"""Launches in a row: the short compiled ones are run by compiled code, without coming back to Python in between."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from itertools import groupby

from omniop.backends.base import Buffer, Launched, LaunchError, Sequenced
from omniop.backends.codegen.llvm_ir import Module
from omniop.backends.cpu import jit
from omniop.backends.cpu.launch import CompiledLaunch, Record
from omniop.backends.cpu.memory import HostBuffer
from omniop.backends.cpu.panels import PanelCall

Recorded = tuple[Launched, Record | None]


def sequence(launches: Sequence[Launched]) -> Sequenced:
    """The launches as one function."""
    recorded = [(x, x.run.record(x.sizes) if isinstance(x.run, CompiledLaunch | PanelCall) else None) for x in launches]
    parts: list[Callable[[Sequence[HostBuffer]], None]] = []
    position = 0
    for short, group in groupby(recorded, lambda r: r[1] is not None):
        found = list(group)
        parts.append(_Recorded(found) if short else _Called([x for x, _ in found], position))
        position += len(found)
    if len(parts) == 1:
        return parts[0]

    def run(table: Sequence[Buffer]) -> None:
        for part in parts:
            part(table)

    return run


class _Called:
    """Launches through Python."""

    def __init__(self, launches: Sequence[Launched], position: int) -> None:
        self._launches = launches
        self._position = position

    def __call__(self, table: Sequence[HostBuffer]) -> None:
        for position, (run, buffers, sizes) in enumerate(self._launches, self._position):
            try:
                run([table[k] for k in buffers], sizes)
            except MemoryError as error:
                raise LaunchError(position, error) from error


class _Recorded:
    """Launches that `_PROGRAM` runs: for each four numbers (function, sizes, points, buffers), and in one array for all
    where in ``addresses`` their buffers are."""

    def __init__(self, recorded: Sequence[Recorded]) -> None:
        entries = list(dict.fromkeys(k for x, _ in recorded for k in x.buffers))
        place = {entry: k for k, entry in enumerate(entries)}
        numbers: list[int] = []
        places: list[int] = []
        for launched, record in recorded:
            assert record is not None
            numbers += (record.function, record.sizes, record.points, len(launched.buffers))
            places += (place[k] for k in launched.buffers)
        self._keeps = [r.keeps for _, r in recorded if r is not None]
        self._records = (ctypes.c_int64 * len(numbers))(*numbers)
        self._places = (ctypes.c_int64 * max(1, len(places)))(*places)
        self._entries = entries
        self._addresses = ctypes.c_int64 * max(1, len(entries))
        self._run = _program()
        self._arguments = (ctypes.addressof(self._records), len(recorded), ctypes.addressof(self._places))

    def __call__(self, table: Sequence[HostBuffer]) -> None:
        self._run(*self._arguments, self._addresses(*[table[k].address for k in self._entries]))


@cache
def _program() -> Callable[..., None]:
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    return jit.build_printed("program", _print_program, [pointer, number, pointer, pointer])


def _print_program(module: Module) -> None:
    module.functions["program"] = _PROGRAM


_PROGRAM = """
define void @program(ptr %records, i64 %count, ptr %places, ptr %addresses) {
entry:
  %buffers = alloca [64 x ptr], align 64
  br label %launch

launch:
  %k = phi i64 [ 0, %entry ], [ %next, %run ]
  %at = phi ptr [ %places, %entry ], [ %rest, %run ]
  %more = icmp slt i64 %k, %count
  br i1 %more, label %read, label %end

read:
  %record = getelementptr [4 x i64], ptr %records, i64 %k
  %function = load ptr, ptr %record
  %sizes.at = getelementptr i64, ptr %record, i64 1
  %sizes = load ptr, ptr %sizes.at
  %points.at = getelementptr i64, ptr %record, i64 2
  %points = load i64, ptr %points.at
  %used.at = getelementptr i64, ptr %record, i64 3
  %used = load i64, ptr %used.at
  br label %gather

gather:
  %b = phi i64 [ 0, %read ], [ %b.next, %one ]
  %left = icmp slt i64 %b, %used
  br i1 %left, label %one, label %run

one:
  %place.at = getelementptr i64, ptr %at, i64 %b
  %place = load i64, ptr %place.at
  %address.at = getelementptr ptr, ptr %addresses, i64 %place
  %address = load ptr, ptr %address.at
  %slot = getelementptr ptr, ptr %buffers, i64 %b
  store ptr %address, ptr %slot
  %b.next = add i64 %b, 1
  br label %gather

run:
  %ran = call i64 %function(ptr %buffers, ptr %sizes, i64 0, i64 %points)
  %next = add i64 %k, 1
  %rest = getelementptr i64, ptr %at, i64 %used
  br label %launch

end:
  ret void
}
"""
