"""``omniop demo``: trained networks at work on every device of this machine."""

from __future__ import annotations

import importlib.util
import json as json_
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from omniop.terminal import UsageError, console, device_names, told

if TYPE_CHECKING:
    from rich.console import Console

    from omniop.cli.demo_kinds import AnyKind
    from omniop.demo.trial import Progress

_NEEDED = {"PIL": "Pillow", "scipy": "SciPy"}
_SLOW = ("reference", "cuda:emu")
"""Used only when they are asked for."""
_DRAWING = Path("ocr.png")


def demo(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", show_default=False, help="A picture; with --speech or --pitch, a WAV file."),
    ] = None,
    speech: Annotated[bool, typer.Option("--speech", help="Find the parts of a sound that are speech.")] = False,
    pitch: Annotated[bool, typer.Option("--pitch", help="Find the notes of a sound.")] = False,
    device: Annotated[
        list[str] | None,
        typer.Option(
            *("--device", "-d"),
            metavar="NAME",
            help="Where to run; repeatable. By default all devices but reference and cuda:emu.",
            autocompletion=device_names,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help=f"Where to draw what was read; {_DRAWING} by default."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Read the text of a picture on every device of this machine.

    Three trained networks (PP-OCR) find its lines, turn those upside down, and read.
    With no FILE, that is done to a picture that comes with omniop.
    The first run on a device plans and compiles; the second does not.

    \b
    Examples:
      omniop demo
      omniop demo photo.jpg --device opencl --output read.png
      omniop demo --speech            # which parts of a sound are speech
      omniop demo --pitch tune.wav    # which notes it has
    """
    with told(debug):
        if speech and pitch:
            raise UsageError("--speech and --pitch are two demos: give one")
        if output is not None and (speech or pitch):
            raise UsageError("--output is where a picture's text is drawn: it does not go with --speech or --pitch")
        missing = [name for module, name in _NEEDED.items() if importlib.util.find_spec(module) is None]
        if missing:
            raise UsageError(f"the demo needs {' and '.join(missing)}: pip install 'omniop[demo]'")
        from omniop.cli import demo_kinds

        if speech or pitch:
            _run((demo_kinds.Speech if speech else demo_kinds.Pitch)(file), device, json)
        else:
            _run(demo_kinds.Ocr(file, output or _DRAWING), device, json)


def _run(kind: AnyKind, named: list[str] | None, json: bool) -> None:
    """Try the devices one after the other, telling each result when it is there. Exit status 1 where one failed."""
    import omniop
    from omniop.cli import bar, demo_show
    from omniop.demo.trial import Failure, Outcome, try_on
    from omniop.dispatcher.registry import registry

    out, err = console(), console(stderr=True)
    with bar.busy("looking for devices", err):
        asked = [registry().device(name).name for name in named or ()]  # an unknown one is told before the rest runs
        described = {d.name: d.description for d in omniop.devices()}
    outcomes: list[Outcome] = []
    if not json:
        demo_show.print_title(kind, out)
    for name in dict.fromkeys(asked) or [name for name in described if name not in _SLOW]:
        try:
            with _bar(name, err) as progress:
                outcomes.append(try_on(name, partial(kind.load, name), progress))
        except omniop.OmniopError as error:
            outcomes.append(Failure(name, " ".join(str(error).split())))
        if not json:
            demo_show.print_outcome(kind, outcomes, described.get(name, ""), out)
    drawing = kind.finish(outcomes)
    if json:
        print(json_.dumps(demo_show.as_json(kind, outcomes, described, drawing), indent=2))
    else:
        demo_show.print_comparison(kind, outcomes, out)
        if drawing is not None:
            out.print(f"\ndrawn: {drawing}", markup=False)
    raise typer.Exit(any(isinstance(outcome, Failure) for outcome in outcomes))


@contextmanager
def _bar(what: str, out: Console) -> Iterator[Progress]:
    """A bar that is as far as the demo says, and names what the dispatcher does in the meantime."""
    from omniop.cli.bar import bar
    from omniop.dispatcher.watch import watched_by

    behind = 0.0

    def progress(step: str, done: float) -> None:
        nonlocal behind
        behind = done
        update(step, done)

    with bar(what, out) as update, watched_by(lambda step, done, total: update(step, behind)):
        yield progress
