"""What all commands do with a terminal: the console that they print to, the devices that a shell completes, and what
they say of a failure: one line, and the traceback only when it is asked for."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

import typer

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it: 128 and the signal's number."""

_WIDE = 180
"""Columns where the output is no terminal: files and pipes need no wrapping."""


class UsageError(Exception):
    """Options that are well formed and do not fit: each other, the model, or the files that they name."""


def console(*, stderr: bool = False) -> Console:
    """Of standard output, or of standard error. In a file or a pipe lines are long, and no blanks fill them up."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False)
    if made.is_terminal:
        return made
    return Console(file=_Trimmed(made.file), highlight=False, width=_WIDE)  # type: ignore[arg-type]


class _Trimmed:
    """A text stream that leaves out blanks before the end of a line: tables fill their cells with them."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.encoding = getattr(stream, "encoding", "utf-8")  # a closed one has none

    def write(self, text: str) -> int:
        return self._stream.write(re.sub(r" +(?=\n)", "", text))

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return False


GROUP = "omniop.backends"
"""`omniop.dispatcher.registry.GROUP`, which takes too long to import while somebody types."""


def device_names(incomplete: str) -> list[str]:
    """Registered backends by name, whether they work or not: to try them would take seconds."""
    from importlib.metadata import entry_points

    return sorted(name for name in entry_points(group=GROUP).names if name.startswith(incomplete))


def check_file(path: Path) -> None:
    """Say before a long run what would fail after it. Raises UsageError."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder, not a file")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise UsageError(f"{path}: {path.parent} is not a folder that can be written to")


@contextmanager
def told(debug: bool) -> Iterator[None]:
    """Turn a failure inside into ``error: ...`` on stderr and exit status 1; with ``debug`` let it through.

    That what was printed cannot be written is a failure, too. Ctrl-C is one line and exit status `INTERRUPTED`.
    """
    try:
        yield
        if sys.stdout is not None:  # it may be closed
            sys.stdout.flush()
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        # typer.Exit and its like are how a command ends, not how it fails.
        if debug or isinstance(error, (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError)):
            raise
        print(f"error: {_line(error)}", file=sys.stderr)
        if isinstance(error, OSError) and error.filename is None:
            _write_no_more()
        raise typer.Exit(1) from None


def _line(error: Exception) -> str:
    from omniop.opset.errors import OmniopError

    text = " ".join(str(error).split())
    if isinstance(error, (OmniopError, UsageError)):
        return text
    if isinstance(error, OSError) and error.strerror is not None:
        return f"{error.filename or 'standard output'}: {error.strerror}"
    return f"{type(error).__name__}: {text} (this should not have happened: --debug shows where it did)"


def _write_no_more() -> None:
    """What could not be written would be tried again when Python ends, and told a second time."""
    with suppress(OSError, ValueError), open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
