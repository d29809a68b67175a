"""The command line: ``omniop demo | devices | run | explain | conformance``.

Importing this package imports nothing else; `main` loads what it needs.
"""

from __future__ import annotations


def main() -> None:
    """The installed command ``omniop``.

    Exit status: 0 done, 1 an error told in one line, 2 a wrong option, 130 interrupted.
    """
    from omniop.cli.app import app

    app(prog_name="omniop")
