"""What a user sees of a failure: one line, and the traceback only when asked for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it: 128 and the signal's number."""


class UsageError(Exception):
    """Options that are well formed and do not fit: each other, the model, or the files that they name."""


@contextmanager
def told(debug: bool) -> Iterator[None]:
    """Turn a failure inside into ``error: ...`` on stderr and exit status 1; with ``debug`` let it through.

    That what was printed cannot be written is a failure, too. Ctrl-C is one line and exit status `INTERRUPTED`.
    """
    try:
        yield
        sys.stdout.flush()
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        # typer.Exit and its like are how a command ends, not how it fails.
        if debug or isinstance(error, (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError)):
            raise
        print(f"error: {_line(error)}", file=sys.stderr)
        raise typer.Exit(1) from None


def _line(error: Exception) -> str:
    from omniop.opset.errors import OmniopError

    text = " ".join(str(error).split())
    if isinstance(error, (OmniopError, UsageError)):
        return text
    if isinstance(error, OSError) and error.strerror is not None:
        return f"{error.filename or 'standard output'}: {error.strerror}"
    return f"{type(error).__name__}: {text} (this should not have happened: --debug shows where it did)"
