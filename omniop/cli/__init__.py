"""The command line: ``omniop demo | devices | run | explain | conformance``.

Importing this package imports nothing else; `main` loads what it needs.
"""

from __future__ import annotations


def main() -> None:
    """The installed command ``omniop``.

    Exit status: 0 done, 1 an error told in one line, 2 a wrong option, 130 interrupted.
    """
    import io
    import sys

    try:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # it may be closed
                stream.reconfigure(errors="replace")
        from omniop.cli.app import app

        app(prog_name="omniop")
    except KeyboardInterrupt:  # while modules are imported; from then on the commands tell it
        print("\ninterrupted", file=sys.stderr)
        sys.exit(130)
