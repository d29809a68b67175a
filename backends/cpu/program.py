"""Launches that compiled code runs in a row, each on one thread or on several."""

from __future__ import annotations

import ctypes
import struct
from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from typing import Any, NamedTuple

from omniop.backends.base import LaunchError, Runnable
from omniop.backends.cpu.kept import Keepable, Later
from omniop.backends.cpu.memory import HostBuffer, Scratch
from omniop.backends.cpu.recording import Recording, tasks_of
from omniop.backends.cpu.team.code import functions
from omniop.backends.cpu.team.words import MAX_BUFFERS, CallWord
from omniop.backends.cpu.team.workers import team

_SCRATCH = Scratch()
"""Of threads that run programs."""


_KEPT = 256
"""Sets of sizes that built work remembers."""
_UNKNOWN = Recording(())


class RecordedWork(Keepable, ABC):
    """Built work that compiled code runs. Called alone, it is a program of one launch on the calling thread."""

    def __init__(self) -> None:
        self._recordings: dict[tuple[int, ...], Recording | None] = {}
        self._programs: dict[tuple[int, ...], Program] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_programs": {}}

    def on_disk(self) -> Keepable:
        bare = copy(self)
        bare._recordings = {}
        return _Remembered(self._recordings, Later.of(bare), Later.of(self.otherwise()))

    def recording(self, sizes: tuple[int, ...]) -> Recording | None:
        """The launch for these sizes; None when it has to be called."""
        found = self._recordings.get(sizes, _UNKNOWN)
        if found is _UNKNOWN:
            if len(self._recordings) >= _KEPT:
                self._recordings.clear()
                self._programs.clear()
            found = self._recordings[sizes] = self.record(sizes)
        return found

    @abstractmethod
    def record(self, sizes: tuple[int, ...]) -> Recording | None:
        """What `recording` keeps."""

    def __call__(self, buffers: Sequence[HostBuffer], sizes: Sequence[int]) -> None:
        key = tuple(sizes)
        program = self._programs.get(key)
        if program is None:
            recording = self.recording(key)
            if recording is None:
                other = self.otherwise()
                assert other is not None
                other(buffers, sizes)
                return
            program = self._programs[key] = Program([Recorded(tuple(range(len(buffers))), recording)], 1)
        program(buffers)

    def otherwise(self) -> Runnable | None:
        """What runs sizes that have no recording."""
        return None


class _Remembered(RecordedWork):
    """Work from the disk: its recordings alone. What makes them is read when other sizes are met."""

    def __init__(
        self,
        recordings: dict[tuple[int, ...], Recording | None],
        work: Later[RecordedWork],
        otherwise: Later[Runnable | None],
    ) -> None:
        super().__init__()
        self._recordings = recordings
        self._work = work
        self._otherwise = otherwise

    def on_disk(self) -> Keepable:
        return self

    def record(self, sizes: tuple[int, ...]) -> Recording | None:
        return self._work().recording(sizes)

    def otherwise(self) -> Runnable | None:
        return self._otherwise()


class Recorded(NamedTuple):
    """A launch on buffers of a run's table."""

    buffers: tuple[int, ...]
    recording: Recording


class Program:
    """``launches`` on at most ``threads`` threads. ``first``: the first one's place among those of a sequence.

    A call takes a table of buffers. It raises LaunchError when there is no memory for scratch.
    """

    def __init__(self, launches: Sequence[Recorded], threads: int, first: int = 0) -> None:
        entries = list(dict.fromkeys(k for x in launches for k in x.buffers))
        place = {entry: k for k, entry in enumerate(entries)}
        numbers: list[int] = []
        places: list[int] = []
        several = False
        for buffers, recording in launches:
            own = [place[k] for k in buffers]
            if recording.workspace:
                own.append(len(entries))
            assert len(own) <= MAX_BUFFERS
            for record in recording.records:
                chunk, tasks = tasks_of(record, threads)
                several |= tasks > 1
                code, context = record.code.address, record.context.address
                numbers += (code, context, record.points, len(own), chunk, tasks, record.scratch)
                places += own
        count = sum(len(x.recording.records) for x in launches)
        wanted = [max((r.scratch for r in x.recording.records), default=0) for x in launches]
        shared = [x.recording.workspace for x in launches]
        self._scratch, self._workspace = max(wanted, default=0), max(shared, default=0)
        self._neediest = first + wanted.index(self._scratch), first + shared.index(self._workspace)
        self._threads = threads if several else 1
        self._keeps = [x.recording for x in launches]
        self._records = (ctypes.c_int64 * max(1, len(numbers)))(*numbers)
        self._places = (ctypes.c_int64 * max(1, len(places)))(*places)
        self.entries = entries
        self.head = (ctypes.addressof(self._records), count, ctypes.addressof(self._places))
        self._call = struct.Struct(f"={CallWord.C_ADDRESSES + len(entries) + (self._workspace > 0)}q").pack
        self._run = functions()["program"].function

    def __call__(self, table: Sequence[HostBuffer]) -> None:
        addresses = [table[k].address for k in self.entries]
        self._run(self._call(*self.head, *self.memory(), *addresses, *self.workspace()))

    @property
    def self_contained(self) -> bool:
        """Whether `memory` and `workspace` are the same for all calls."""
        return not self._scratch and not self._workspace and self._threads == 1

    def memory(self) -> tuple[int, ...]:
        """The words of a call from `CallWord.C_OWN` on: what this thread and the workers work in."""
        own = self._hold("scratch", self._scratch, self._neediest[0]) if self._scratch else 0
        if self._threads == 1:
            return own, 0, 1, 0, 0
        helpers = team()
        threads = helpers.gather(self._threads)
        try:
            memory = helpers.memory(self._scratch)
        except MemoryError as error:
            raise LaunchError(self._neediest[0], error) from error
        return own, helpers.control, threads, memory.address, memory.stride

    def workspace(self) -> tuple[int, ...]:
        """The addresses of a call that are behind those of the table's entries."""
        return (self._hold("workspace", self._workspace, self._neediest[1]),) if self._workspace else ()

    @staticmethod
    def _hold(name: str, nbytes: int, position: int) -> int:
        """The address of memory of this thread's."""
        try:
            return _SCRATCH.buffer(name, nbytes).address
        except MemoryError as error:
            raise LaunchError(position, error) from error
