"""Progress of slow work, told to whoever watches: the command line shows it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Watcher = Callable[[str, int, int], None]
"""``watcher(step, done, total)``; a total of 0 means that it is not known."""

_watcher: ContextVar[Watcher | None] = ContextVar("watcher", default=None)


@contextmanager
def watched_by(watcher: Watcher) -> Iterator[None]:
    """Have ``watcher`` told what this thread does inside."""
    token = _watcher.set(watcher)
    try:
        yield
    finally:
        _watcher.reset(token)


def tell(step: str, done: int = 0, total: int = 0) -> None:
    watcher = _watcher.get()
    if watcher is not None:
        watcher(step, done, total)
