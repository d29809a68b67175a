"""How many threads numpy's BLAS uses, which is one number for the whole process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """BLAS held to ``threads`` threads. Of several at once the first says how many."""
    _limit.enter(threads)
    try:
        yield
    finally:
        _limit.leave()


class _Limit:
    """What BLAS had comes back when the last one leaves."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before: list[tuple[Any, int]] = []

    def enter(self, threads: int) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                self._before = [(x, x.num_threads) for x in _libraries() if x.num_threads != threads]
                for library, _ in self._before:
                    library.set_num_threads(threads)

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                for library, count in self._before:
                    library.set_num_threads(count)


_limit = _Limit()


@cache
def _libraries() -> list[Any]:
    """Looking for what is loaded takes longer than a small model."""
    from threadpoolctl import ThreadpoolController  # few models need it

    return [x for x in ThreadpoolController().lib_controllers if x.user_api == "blas"]
