"""Progress bars: what is being done, how far it is, and how long it will take yet where that is known."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from omniop.dispatcher.watch import watched_by

PATIENCE = 2.0
"""Seconds before a bar shows."""
_WIDTH = 34
"""Columns of the step's name, so that the bar stays where it is."""
_LATE = 2.0
"""Seconds past the estimate after which it is not told any more."""


@contextmanager
def bar(what: str, console: Console) -> Iterator[Callable[[str, float | None], None]]:
    """Gives a function of (step, fraction done, or None where it is not known).

    The bar shows on a terminal, from `PATIENCE` seconds on, and leaves nothing behind.
    """
    if not console.is_terminal:
        yield lambda step, done: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), _Left())
    shown = Progress(*columns, console=console, transient=True)
    task = shown.add_task(escape(what), total=None, seconds=None)

    def update(step: str, done: float | None) -> None:
        before = shown.tasks[0]
        if done != before.completed:  # a step that gets nothing done tells nothing of the time
            seconds = (before.elapsed or 0.0) / done if done else None
            shown.update(task, completed=done or 0.0, seconds=seconds)
        shown.update(task, description=escape(f"{what}: {step}".ljust(_WIDTH)))
        shown.tasks[0].total = None if done is None else 1.0  # update() cannot make it unknown again

    timer = threading.Timer(PATIENCE, shown.start)
    timer.daemon = True
    timer.start()
    try:
        yield update
    finally:
        timer.cancel()
        timer.join()  # it may be starting the bar this very moment
        shown.stop()


@contextmanager
def busy(what: str, console: Console) -> Iterator[None]:
    """A bar that follows what the dispatcher tells of its work."""

    def follow(step: str, done: int, total: int) -> None:
        update(step, done / total if total else None)

    with bar(what, console) as update, watched_by(follow):
        yield


class _Left(ProgressColumn):
    """The time that is left if all goes on as it went up to the last step; where that is not known, the time so far."""

    def render(self, task: Task) -> Text:
        seconds: float | None = task.fields["seconds"]
        if seconds is None or task.elapsed is None:
            return Text(f"{task.elapsed or 0:.0f} s", style="dim")
        left = seconds - task.elapsed
        late = "nearly done" if left > -_LATE else f"{task.elapsed:.0f} s"
        return Text(f"about {left:.0f} s left" if left >= 1 else late, style="dim")
