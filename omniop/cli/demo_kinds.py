"""The three demos as the command sees them: what each runs on, what its devices must agree on, and how it is shown."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from omniop.demo import models, pictures, sounds, speech, trial
from omniop.demo.ocr import Line, Reader
from omniop.demo.pitch import RATE, Note, Transcriber

R = TypeVar("R")


class Kind(Protocol[R]):
    """A demo. Making one opens its file and finds its networks, so that what is wrong there is told at once."""

    name: str
    title: str

    def load(self, device: str) -> trial.Runner[R]: ...

    def essence(self, result: R) -> Sequence[object]:
        """What has to be the same on all devices."""
        ...

    def shown(self, result: R, width: int) -> RenderableType: ...

    def json(self, result: R) -> dict[str, Any]: ...

    def count(self, result: R) -> str: ...

    def finish(self, outcomes: Sequence[trial.Outcome]) -> Path | None:
        """Write what the demo writes, and say where."""
        ...


AnyKind = Kind[Any]


def counted(n: int, one: str) -> str:
    return f"{n or 'no'} {one}{'s' * (n != 1)}"


class Ocr:
    """A picture's text."""

    name = "ocr"

    def __init__(self, file: Path | None, drawing: Path) -> None:
        for model in (models.DETECTION, models.ORIENTATION, models.RECOGNITION):
            model.path()
        pictures.check_output(drawing)
        self.drawing = drawing
        self.picture = pictures.open_picture(file or pictures.SHIPPED)
        size = f"{self.picture.width} x {self.picture.height}"
        self.title = f"Reading {file or 'a picture that comes with omniop'} ({size}) with PP-OCR"

    def load(self, device: str) -> Reader:
        return Reader(self.picture, device)

    def essence(self, result: list[Line]) -> list[str]:
        return [line.text for line in result]

    def shown(self, result: list[Line], width: int) -> RenderableType:
        if not result:
            return Text("  no text found")
        table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
        before = None
        for line in result:
            if before is not None and line.block != before:
                table.add_row()
            before = line.block
            table.add_row(escape(line.text), f"[dim]{line.confidence:.3f}[/]", "[cyan]upside down[/]" * line.turned)
        return Padding(table, (0, 0, 0, 2))

    def json(self, result: list[Line]) -> dict[str, Any]:
        lines = [
            {
                "text": line.text,
                "confidence": round(line.confidence, 4),
                "quad": line.quad.round(1).tolist(),
                "turned": line.turned,
                "block": line.block,
            }
            for line in result
        ]
        return {"lines": lines}

    def count(self, result: list[Line]) -> str:
        return counted(len(result), "line")

    def finish(self, outcomes: Sequence[trial.Outcome]) -> Path | None:
        first = next((outcome for outcome in outcomes if isinstance(outcome, trial.Trial)), None)
        if first is None:
            return None
        pictures.write(pictures.drawn(self.picture, first.result), self.drawing)
        return self.drawing


class _Sounding:
    """What the demos of sounds have in common."""

    def finish(self, outcomes: Sequence[trial.Outcome]) -> Path | None:
        return None


class Speech(_Sounding):
    """The parts of a sound that are speech."""

    name = "speech"

    def __init__(self, file: Path | None) -> None:
        models.SPEECH.path()
        self.sound = sounds.talk()[0] if file is None else sounds.open_wav(file, speech.RATE)
        self.title = f"Finding the speech in {file or 'a made-up sound: a voice, a bell, a hiss'} with Silero VAD"

    def load(self, device: str) -> speech.Listener:
        return speech.Listener(self.sound, device)

    def essence(self, result: speech.Heard) -> list[tuple[float, float]]:
        return result.spoken

    def shown(self, result: speech.Heard, width: int) -> RenderableType:
        seconds = len(self.sound) / speech.RATE
        columns = width - 12
        loud = np.array([np.abs(part).max() for part in np.array_split(self.sound, columns)])
        at = (np.arange(columns) + 0.5) * seconds / columns
        talk = [any(start <= t < end for start, end in result.spoken) for t in at]
        sure = np.interp(
            at, (np.arange(len(result.probabilities)) + 0.5) * speech.FRAME / speech.RATE, result.probabilities
        )
        spans = ", ".join(f"{start:.2f} to {end:.2f} s" for start, end in result.spoken)
        return Group(
            _row("loudness", _blocks(loud / max(float(loud.max()), 1e-9)), talk),
            _row("speech?", _blocks(sure), talk),
            _row("", axis(seconds, columns), None),
            Text(f"  speech: {spans or 'none'}"),
        )

    def json(self, result: speech.Heard) -> dict[str, Any]:
        return {
            "seconds": round(len(self.sound) / speech.RATE, 3),
            "spoken": [[round(start, 3), round(end, 3)] for start, end in result.spoken],
            "frame_seconds": speech.FRAME / speech.RATE,
            "probabilities": [round(float(p), 4) for p in result.probabilities],
        }

    def count(self, result: speech.Heard) -> str:
        return counted(len(result.spoken), "part")


class Pitch(_Sounding):
    """A sound's notes."""

    name = "pitch"

    def __init__(self, file: Path | None) -> None:
        models.PITCH.path()
        self.sound = sounds.melody(RATE)[0] if file is None else sounds.open_wav(file, RATE)
        self.title = f"Finding the notes of {file or 'a made-up tune on plucked strings'} with basic-pitch"

    def load(self, device: str) -> Transcriber:
        return Transcriber(self.sound, device)

    def essence(self, result: list[Note]) -> list[tuple[int, float]]:
        return [(note.pitch, note.start) for note in result]

    def shown(self, result: list[Note], width: int) -> RenderableType:
        seconds = len(self.sound) / RATE
        columns = width - 12
        rows = []
        for pitch in sorted({note.pitch for note in result}, reverse=True):
            cells = [" "] * columns
            own = [note for note in result if note.pitch == pitch]
            for note in own:
                first, last = (min(columns - 1, int(t * columns / seconds)) for t in (note.start, note.end))
                cells[first : last + 1] = "▐" + "█" * (last - first)
            rows.append(_row(own[0].name, "".join(cells), [True] * columns))
        names = Text("  " + (" ".join(note.name for note in result) or "no notes"))
        return Group(*rows, _row("", axis(seconds, columns), None), names)

    def json(self, result: list[Note]) -> dict[str, Any]:
        notes = [
            {
                "name": note.name,
                "pitch": note.pitch,
                "start": round(note.start, 3),
                "end": round(note.end, 3),
                "confidence": round(note.confidence, 4),
            }
            for note in result
        ]
        return {"seconds": round(len(self.sound) / RATE, 3), "notes": notes}

    def count(self, result: list[Note]) -> str:
        return counted(len(result), "note")


# Drawn with letters -------------------------------------------------------------------------------

_LEVELS = " ▁▂▃▄▅▆▇█"
_STEPS = (0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
_TICK = 10
"""The fewest columns from one time on the axis to the next."""


def _row(name: str, cells: str, lit: Sequence[bool] | None) -> Text:
    row = Text(f"  {name:<9}")
    styled = zip(cells, ["dim"] * len(cells) if lit is None else ["green" if on else "dim" for on in lit], strict=True)
    for style, run in groupby(styled, key=itemgetter(1)):
        row.append("".join(cell for cell, _ in run), style)
    return row


def _blocks(values: np.ndarray[Any, Any]) -> str:
    return "".join(_LEVELS[round(float(np.clip(v, 0, 1)) * (len(_LEVELS) - 1))] for v in values)


def axis(seconds: float, columns: int) -> str:
    """``0 s       1 s ...`` over ``columns`` columns, at round times that leave room for each."""
    step = next((s for s in _STEPS if s * columns / seconds >= _TICK), seconds)
    places = [int(k * step * columns / seconds) for k in range(int(seconds / step) + 1)]
    ticks = [f"{k * step:g} s" for k in range(len(places))]
    kept = [(place, tick) for place, tick in zip(places, ticks, strict=True) if place + len(tick) <= columns]
    ends = [*(place for place, _ in kept[1:]), columns]
    return "".join(tick.ljust(end - place) for (place, tick), end in zip(kept, ends, strict=True))
