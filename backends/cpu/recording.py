"""What compiled code that runs launches knows of one: work in pieces for any thread, and the memory that they want."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from math import ceil
from typing import Any, NamedTuple

import numpy as np

from omniop.backends.cpu.jit import MachineCode
from omniop.backends.cpu.team.cpus import default_threads

TASK = 8_000.0
"""Nanoseconds of work that are worth another thread's help ..."""
TASKS_PER_THREAD = 4
"""... and tasks for each thread, where there is more work: one that falls behind leaves the rest to the others."""


_LEAST_ADDRESS = 1 << 32
"""A number of a context from here on may be an address."""


class Context:
    """A table of int64 numbers and addresses that compiled code reads, and what has to live as long: ``targets`` are
    what the addresses point to, tables with addresses of their own among them.

    It may be pickled, and has new addresses afterwards.
    """

    def __init__(self, table: np.ndarray, targets: Sequence[np.ndarray | MachineCode] = ()) -> None:
        self.table = table
        self.targets = targets
        self.address: int = table.ctypes.data

    def __reduce__(self) -> tuple[Any, ...]:
        members = [self.table, *self.targets]
        known = {_address(target): k for k, target in enumerate(self.targets, 1)}
        if any(
            address < _LEAST_ADDRESS for address in known
        ):  # where a process has its heap low, an address may look like a number
            raise pickle.PicklingError("addresses cannot be told from numbers here")
        links: list[tuple[int, int, int]] = []
        for k, member in enumerate(members):
            if isinstance(member, MachineCode) or member.dtype != np.int64:
                continue
            words = member.reshape(-1)
            for place in np.flatnonzero(words >= _LEAST_ADDRESS).tolist():
                if words.item(place) not in known:
                    raise pickle.PicklingError("a context holds an address of something that it does not name")
                links.append((k, place, known[words.item(place)]))
        return _linked, (members, links)


def _address(target: np.ndarray | MachineCode) -> int:
    return target.address if isinstance(target, MachineCode) else target.ctypes.data


def _linked(members: Sequence[Any], links: Sequence[tuple[int, int, int]]) -> Context:
    """``links``: (table, place, the member that is there) by number."""
    for table, place, target in links:
        members[table].reshape(-1)[place] = _address(members[target])
    return Context(members[0], members[1:])


class Record(NamedTuple):
    """Compiled work in ``points`` pieces that do not depend on each other: any thread may run any range of them.

    ``code``: ``int64_t function(void **buffers, int64_t *context, int64_t begin, int64_t end)``.
    ``context``: what it wants to know besides: a kernel its sizes, others what they like.
    ``grain``: ranges begin at a multiple of it, and end at one or with the last point.
    ``weight``: nanoseconds that a point takes on one core, roughly.
    ``scratch``: bytes of memory, aligned to cache lines, that each thread has to itself, and whose address is then the
    function's fifth argument. What they hold is undefined at the start of each range.

    What a point gives must not depend on the range that it is in, so that results do not depend on the threads.
    """

    code: MachineCode
    context: Context
    points: int
    grain: int = 1
    weight: float = 0.0
    scratch: int = 0


class Recording(NamedTuple):
    """A launch as records, each of which sees what those before it wrote.

    ``workspace``: bytes of memory, undefined at first, that the records share: one more buffer behind the launch's.
    """

    records: tuple[Record, ...]
    workspace: int = 0


def tasks_of(record: Record, threads: int) -> tuple[int, int]:
    """(points of a task, number of tasks) for so many threads."""
    grains = -(-record.points // record.grain)
    least = max(1, ceil(TASK / (record.weight * record.grain))) if record.weight > 0 else 1 if TASK == 0 else grains
    if threads == 1 or grains <= least:
        return record.points, 1
    most = max(least, grains // (threads * TASKS_PER_THREAD))
    sizes = range(most, max(least, most // 2) - 1, -max(1, most // 32))
    chunk = min(sizes, key=lambda size: _longest(grains, size, threads)) * record.grain
    return chunk, -(-record.points // chunk)


def _longest(units: int, size: int, threads: int) -> int:
    """The most units that a thread has, of pieces of this size, the last one of what is left over."""
    pieces = -(-units // size)
    most = -(-pieces // threads) * size
    # one piece more than the others' has the last thread, with what is left over
    return max(most - size, most - (pieces * size - units)) if pieces % threads == 1 else most


def shares(units: int, most: int, times: int = 1) -> int:
    """In how many pieces to cut ``units`` that are all alike, each of at most ``most``, so that threads have equal
    shares: what is few pieces for a thread (`default_threads`) is cut further. ``times``: how often all this is there.
    """
    threads, fewest = default_threads(), -(-units // most)
    if threads == 1 or fewest * times > 2 * threads * TASKS_PER_THREAD:
        return fewest
    choices = range(fewest, min(units, max(2 * fewest, -(-threads // times))) + 1)
    return min(choices, key=lambda n: _longest(units * times, -(-units // n), threads))
