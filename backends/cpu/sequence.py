"""Launches in a row: the compiled ones are run by compiled code, without coming back to Python in between."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import groupby

from omniop.backends.base import Buffer, Launched, LaunchError, Sequenced
from omniop.backends.cpu import blas
from omniop.backends.cpu.memory import HostBuffer
from omniop.backends.cpu.numpy_calls import NumpyCall
from omniop.backends.cpu.program import Program, Recorded, RecordedWork
from omniop.backends.cpu.recording import Recording
from omniop.backends.cpu.team.cpus import default_threads


def sequence(launches: Sequence[Launched], threads: int | None = None) -> Sequenced:
    """The launches as one function, on at most ``threads`` threads."""
    count = threads or default_threads()
    parts: list[Callable[[Sequence[HostBuffer]], None]] = []
    position = 0
    for compiled, group in groupby(((x, _recording(x)) for x in launches), lambda found: found[1] is not None):
        found = list(group)
        if compiled:
            parts.append(Program([Recorded(x.buffers, r) for x, r in found if r is not None], count, position))
        else:
            parts.append(_Called([x for x, _ in found], count, position))
        position += len(found)
    if len(parts) == 1:
        return parts[0]

    def run(table: Sequence[Buffer]) -> None:
        for part in parts:
            part(table)

    return run


def _recording(launched: Launched) -> Recording | None:
    return launched.run.recording(launched.sizes) if isinstance(launched.run, RecordedWork) else None


def _may_share(launched: Launched) -> bool:
    """Whether BLAS may share it among threads."""
    called = launched.run
    run = called.otherwise() if isinstance(called, RecordedWork) else called  # there is no recording of it
    return not isinstance(run, NumpyCall) or run.uses_threads(launched.sizes)


class _Called:
    """Launches through Python."""

    def __init__(self, launches: Sequence[Launched], threads: int, first: int) -> None:
        self._launches = launches
        self._first = first
        held = any(map(_may_share, launches))
        self._limited: Callable[[], AbstractContextManager[None]] = (
            partial(blas.limited, threads) if held else nullcontext
        )

    def __call__(self, table: Sequence[HostBuffer]) -> None:
        with self._limited():
            for position, (run, buffers, sizes) in enumerate(self._launches, self._first):
                try:
                    run([table[k] for k in buffers], sizes)
                except MemoryError as error:
                    raise LaunchError(position, error) from error
