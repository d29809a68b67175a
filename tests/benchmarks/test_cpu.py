"""The benchmark of the CPU: what it measures, what it says when an engine fails, and what it writes."""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.process
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from benchmarks import cpu
from benchmarks.engine_process import OMNIOP, ONNXRUNTIME, OPENVINO_F32, EngineProcess
from benchmarks.measure import Effort, Figures, Task, difference, measure
from benchmarks.tables import Results, chart, markdown
from benchmarks.tiny import chain

SHORT = Effort(loads=1, rounds=2, seconds=0.01)
MACHINE = {"processor": "P", "cpus": 2, "system": "S", "versions": {"omniop": "1"}}


def test_measures_every_engine_in_turn(tmp_path: Path) -> None:
    steps: list[int] = []
    task, cache = chain(3, tmp_path), tmp_path / "cache"
    cache.mkdir()
    engines = (ONNXRUNTIME, OMNIOP)
    found = measure(task, engines, 1, SHORT, cache=cache, advance=lambda: steps.append(1))
    assert len(steps) == SHORT.steps(2)
    assert any(cache.iterdir()), "the first load was not a cold one"
    for engine, figures in zip(engines, found, strict=True):
        assert (figures.engine, figures.problem, figures.close) == (engine, None, True)
        assert 0 < figures.created < figures.first
        assert min(figures.cold, figures.run, figures.cpu, figures.ready) > 0
        assert figures.runs >= SHORT.rounds
        assert 10e6 < figures.peak < 4e9


def test_an_engine_stands_still_between_its_turns(tmp_path: Path) -> None:
    task = chain(1, tmp_path)
    with EngineProcess(ONNXRUNTIME, task.path, task.feeds, 1) as process:
        process.loaded()
        (child,) = multiprocessing.active_children()
        assert _state(child) == "T"
        assert process.run(0.0)
        assert _state(child) == "T"
    assert not child.is_alive()


def _state(process: multiprocessing.process.BaseProcess) -> str:
    """The letter that Linux gives it: T for stopped."""
    return Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_an_engine_that_fails_is_told_and_left_out(tmp_path: Path) -> None:
    first, broken = measure(chain(1, tmp_path), (ONNXRUNTIME, "no-such-device"), 1, SHORT)
    assert first.problem is None
    assert broken.problem is not None
    assert "no-such-device" in broken.problem
    assert broken.runs == 0


def test_all_engines_fail_on_a_file_that_is_not_there(tmp_path: Path) -> None:
    task = Task("none", tmp_path / "none.onnx", {})
    assert all(f.problem is not None for f in measure(task, (ONNXRUNTIME, OMNIOP), 1, SHORT))


@pytest.mark.parametrize(
    ("output", "apart"),
    [([1.0, -4.0], 0.0), ([1.0, -3.0], 0.25), ([1.0, np.nan], np.inf), ([1.0], np.inf)],
)
def test_difference_is_a_part_of_the_largest_value(output: list[float], apart: float) -> None:
    assert difference({"y": np.array(output)}, {"y": np.array([1.0, -4.0])}) == apart


def _figures(model: str, engine: str, milliseconds: float, threads: int = 1) -> Figures:
    return Figures(model, engine, threads, cpu=milliseconds / 1e3, run=2 * milliseconds / 1e3, cold=9.0, peak=10**8)


@pytest.fixture
def results() -> Results:
    """omniop is twice as fast as ONNX Runtime on one model, and half as fast on the other."""
    figures = [
        *(_figures("a", ONNXRUNTIME, 10), _figures("a", OMNIOP, 5)),
        *(_figures("b", ONNXRUNTIME, 10), _figures("b", OMNIOP, 20)),
        *(_figures("b", ONNXRUNTIME, 10, 2), _figures("b", OMNIOP, 20, 2)),
    ]
    return Results(MACHINE, {"a": "architectures", "b": "architectures"}, figures)


def test_markdown_gives_ratios_and_their_mean(results: Results) -> None:
    text = markdown(results)
    assert "| a | 10 | 5 | 2.00 x | 0e+00 |" in text
    assert "| b | 10 | 20 | 0.50 x | 0e+00 |" in text
    assert "| **geometric mean** |  |  | 1.00 x |  |" in text
    assert "| b | 20 | 40 | 0.50 x | 0e+00 |" in text, "two threads are judged by the wall's clock"
    assert "| a | 9,000 | 9,000 | 0 | 0 | 100 | 100 |" in text


def test_markdown_says_what_failed(results: Results) -> None:
    failed = replace(_figures("a", OPENVINO_F32, 1), problem="it does not know this operator")
    wrong = replace(_figures("a", OPENVINO_F32, 1), difference=0.5, close=False)
    passed = _figures("b", OPENVINO_F32, 10)
    for bad in (failed, wrong):
        text = markdown(Results(MACHINE, results.groups, [*results.figures, bad, passed]))
        assert "| a | 10 | failed | 5 | 2.00 x |  | 0e+00 |" in text
        assert "| b | 10 | 10 | 20 | 0.50 x | 0.50 x | 0e+00 |" in text


def test_chart_has_bars_as_long_as_the_speeds(results: Results) -> None:
    root = ElementTree.fromstring(chart(results))
    omniop = [
        float(element.attrib["width"])
        for element in root.iter("{http://www.w3.org/2000/svg}rect")
        if element.attrib.get("fill") == "#e4572e" and element.attrib["height"] == "9"
    ]
    assert len(omniop) == 3
    assert omniop[0] == pytest.approx(4 * omniop[1], rel=0.01)
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "Architectures, 2 threads" in texts
    assert "2.00" in texts


def test_command_writes_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "installed", lambda: [ONNXRUNTIME, OMNIOP])
    app = typer.Typer()
    app.command()(cpu.main)
    result = CliRunner().invoke(app, ["-m", "call_1_node", "-n", "1", "--quick", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    written = json.loads((tmp_path / "cpu.json").read_text())
    assert [f["engine"] for f in written["figures"]] == [ONNXRUNTIME, OMNIOP, "omniop.ort"]
    assert "## A call, 1 thread" in (tmp_path / "cpu.md").read_text()
    assert (tmp_path / "cpu.svg").exists()


def test_command_names_the_models_there_are() -> None:
    app = typer.Typer()
    app.command()(cpu.main)
    result = CliRunner().invoke(app, ["-m", "resnet51"])
    assert result.exit_code == 1
    assert "resnet50" in str(result.exception) + result.output
