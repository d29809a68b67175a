"""What compiled code that runs launches knows of one: work in pieces for any thread, and the memory that they want."""

from __future__ import annotations

from typing import NamedTuple

TASK = 15_000.0
"""Nanoseconds of work that are worth another thread's help ..."""
TASKS_PER_THREAD = 4
"""... and tasks for each thread, where there is more work: one that falls behind leaves the rest to the others."""


class Record(NamedTuple):
    """Compiled work in ``points`` pieces that do not depend on each other: any thread may run any range of them.

    ``function``: address of ``int64_t function(void **buffers, int64_t *context, int64_t begin, int64_t end)``.
    ``context``: address of what it wants to know besides: a kernel its sizes, others what they like.
    ``keeps``: holds what the addresses point to.
    ``grain``: ranges begin at a multiple of it, and end at one or with the last point.
    ``weight``: nanoseconds that a point takes on one core, roughly.
    ``scratch``: bytes of memory, aligned to cache lines, that each thread has to itself, and whose address is then the
    function's fifth argument. What they hold is undefined at the start of each range.

    What a point gives must not depend on the range that it is in, so that results do not depend on the threads.
    """

    function: int
    context: int
    points: int
    keeps: object
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
    most = min(-(-record.points // record.grain), threads * TASKS_PER_THREAD)
    if TASK > 0:
        most = min(most, int(record.points * record.weight / TASK))
    if threads == 1 or most < 2:
        return record.points, 1
    chunk = max(1, record.points // most // record.grain) * record.grain
    return chunk, -(-record.points // chunk)
