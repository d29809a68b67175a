"""The process's worker team, as Python has it: its threads, and their scratch memory."""

from __future__ import annotations

import atexit
import os
import threading
import time
from typing import NamedTuple

import numpy as np

from omniop.backends.cpu.memory import HostBuffer
from omniop.backends.cpu.team.code import available, functions
from omniop.backends.cpu.team.words import MAX_THREADS, WORDS, Word

_PAGE = 4096
"""Workers' scratch memory begins at one: no two write to one line, and each is where its worker is."""
_GOODBYE = 5.0
"""Seconds that the process's end waits for workers ..."""
_FORK = 0.05
"""... and that a fork waits."""


class WorkerMemory(NamedTuple):
    """Scratch memory: where the first worker's begins, and bytes from one worker's to the next one's."""

    address: int
    stride: int
    keeps: HostBuffer | None = None


class Team:
    """The workers, started when they are first wanted."""

    def __init__(self) -> None:
        self._control = HostBuffer(8 * WORDS)
        self._control.bytes[:] = 0
        self.control = self._control.address
        """Address of the block of memory that the threads meet in."""
        self._lock = threading.Lock()
        self._workers: list[threading.Thread] = []
        self._most = MAX_THREADS if available() else 1
        self._memory = WorkerMemory(0, 0)

    @property
    def at_work(self) -> bool:
        """Whether there are workers."""
        return bool(self._workers)

    @property
    def calm(self) -> bool:
        """Whether workers sleep as soon as there is nothing to do, and do not watch for work."""
        return bool(self._control.bytes.view(np.int64)[Word.CALM])

    @calm.setter
    def calm(self, calm: bool) -> None:
        self._control.bytes.view(np.int64)[Word.CALM] = calm

    def gather(self, threads: int) -> int:
        """How many threads, at most ``threads``, can run a program: the caller and that many workers less one."""
        if threads <= len(self._workers) + 1:
            return threads
        with self._lock:
            while len(self._workers) + 1 < min(threads, self._most):
                number = len(self._workers) + 1
                worker = threading.Thread(target=self._work, args=(number,), name=f"omniop-{number}", daemon=True)
                try:
                    worker.start()
                except RuntimeError:  # the system has no more threads, or the process is ending
                    self._most = len(self._workers) + 1
                    break
                self._workers.append(worker)
            return min(threads, len(self._workers) + 1)

    def _work(self, number: int) -> None:
        functions()["worker"](self.control, number)

    def memory(self, nbytes: int) -> WorkerMemory:
        """Scratch memory for every worker, of at least ``nbytes`` each. Raises MemoryError."""
        held = self._memory
        if nbytes <= held.stride and held.keeps is not None and len(held.keeps) >= len(self._workers) * held.stride:
            return held
        with self._lock:
            stride = -(-max(nbytes, held.stride) // _PAGE) * _PAGE
            buffer = HostBuffer(len(self._workers) * stride + _PAGE)
            self._memory = WorkerMemory(-(-buffer.address // _PAGE) * _PAGE, stride, buffer)
            return self._memory

    def dismiss(self, seconds: float) -> None:
        """End the workers, and wait so long for them. Programs run on their own threads from here on."""
        until = time.monotonic() + seconds
        with self._lock:
            self._most = 1
            if self._workers:
                functions()["stop"](self.control)
            for worker in self._workers:
                worker.join(max(0.0, until - time.monotonic()))


_team = Team()


def team() -> Team:
    """This process's."""
    return _team


def _renew() -> Team:
    """Another team for those who come; gives the one that was there."""
    global _team
    before, _team = _team, Team()
    _team.calm = before.calm
    return before


@atexit.register
def _end() -> None:
    """No code may be freed under a worker."""
    _team.dismiss(_GOODBYE)


def _before_fork() -> None:
    """A process should have one thread when it forks; there will be workers again when they are wanted."""
    if _team.at_work:
        _renew().dismiss(_FORK)


if hasattr(os, "register_at_fork"):
    # a child has the memory of a team whose threads it does not have
    os.register_at_fork(before=_before_fork, after_in_child=_renew)
