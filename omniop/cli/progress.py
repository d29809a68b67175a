"""A spinner for work that takes longer than a user waits in silence."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape

PATIENCE = 2.0
"""Seconds before the spinner shows."""


@contextmanager
def spinner(what: str, console: Console) -> Iterator[None]:
    """Show ``what`` on a terminal while the block runs, from `PATIENCE` seconds on."""
    if not console.is_terminal:
        yield
        return
    status = console.status(escape(what))
    timer = threading.Timer(PATIENCE, status.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # it may be starting the spinner this very moment
        status.stop()
