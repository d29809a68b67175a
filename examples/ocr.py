"""Read lines of text with a trained network on every device of this machine.

    python examples/ocr.py                          # some lines, on all devices
    python examples/ocr.py "Any text" --device cpu  # your own, on one

Each line is drawn as a picture, PP-OCR's recogniser reads it back, and the two are compared.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from ocr_text import LINES, characters, decode, model_path, preprocess, render_line
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import omniop

_REPEATS = 5


@dataclass(frozen=True)
class Reading:
    """What came of one line on one device; the first run compiles what the later ones use."""

    text: str
    confidence: float
    first_seconds: float
    seconds: float


def read_line(session: omniop.Session, text: str, alphabet: list[str]) -> Reading:
    """Draw ``text`` and read it with ``session``, once and then a few times more for the time."""
    feeds = {"x": preprocess(render_line(text))}
    start = time.perf_counter()
    outputs = session.run(feeds)
    first = time.perf_counter() - start
    times = []
    while len(times) < _REPEATS and sum(times) < 1:
        start = time.perf_counter()
        session.run(feeds)
        times.append(time.perf_counter() - start)
    (probabilities,) = outputs.values()
    return Reading(*decode(probabilities[0], alphabet), first, min(times))


def main(
    texts: Annotated[list[str] | None, typer.Argument(help="What to write and read; some lines by default.")] = None,
    device: Annotated[list[str] | None, typer.Option(help="Where: a device's name, repeatable, or all.")] = None,
) -> None:
    """Write lines of text as pictures, read them back on each device, and say how fast that was."""
    console = Console()
    try:
        path = model_path()
    except FileNotFoundError as error:
        raise SystemExit(str(error)) from None
    alphabet = characters(path)
    names = [name for name in device or ["all"] if name != "all"] or [found.name for found in omniop.devices()]
    wrong = sum(_read_on(name, path, texts or list(LINES), alphabet, console) for name in names)
    raise typer.Exit(min(wrong, 1))


def _read_on(device: str, path: Path, texts: list[str], alphabet: list[str], console: Console) -> int:
    """Print a table for one device and return how many lines were misread."""
    table = Table("read", "", "confidence", "first run", "then", title=f"{path.stem} on {device}", title_justify="left")
    wrong = 0
    try:
        with console.status(f"{device}: loading"):
            start = time.perf_counter()
            session = omniop.load(path, device=device)
            loaded = time.perf_counter() - start
        for text in texts:
            with console.status(f"{device}: reading {escape(repr(text))}"):
                reading = read_line(session, text, alphabet)
            match = reading.text == text
            wrong += not match
            table.add_row(
                escape(reading.text),
                "[green]exactly[/]" if match else f"[red]wrote {escape(repr(text))}[/]",
                f"{reading.confidence:.3f}",
                f"{reading.first_seconds:.2f} s",
                f"{reading.seconds * 1e3:.1f} ms",
            )
    except omniop.OmniopError as error:
        console.print(f"[red]{escape(f'{device}: {error}')}[/]")
        return 1
    table.caption = f"loaded in {loaded:.2f} s; {len(texts) - wrong} of {len(texts)} lines read exactly"
    table.caption_justify = "left"
    console.print(table)
    return wrong


if __name__ == "__main__":
    typer.run(main)
