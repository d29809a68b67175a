"""omniop beside ONNX Runtime on trained models: from loading to the first result, and each run after it.

    python -m benchmarks.models                                    # all models on cpu and opencl, 1 and 2 threads
    python -m benchmarks.models -m minilm-int8 -m ocr-rec -t 1 --json
    python -m benchmarks.models --decoder smollm2.onnx             # written by examples/smollm2/to_onnx.py

Every engine loads a model in processes of its own, some times over, after one that fills the caches on disk; then all
of them run it in turns. The figures are medians. Outputs are compared with ONNX Runtime's.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.engine_process import ONNXRUNTIME, EngineFailed, EngineProcess, Loaded
from benchmarks.model_cases import CASES, Case, Feeds, decoder


@dataclass
class Figures:
    """One engine on one model with so many threads; times in seconds."""

    model: str
    engine: str
    threads: int
    ready: float = 0.0
    created: float = 0.0
    first: float = 0.0
    run: float = 0.0
    runs: int = 0
    difference: float = 0.0
    """The largest from ONNX Runtime's outputs, as a part of each output's largest value."""
    close: bool = True
    problem: str | None = None


@dataclass
class _Turns:
    """What was measured of one engine so far."""

    figures: Figures
    loads: list[Loaded] = field(default_factory=list)
    times: list[float] = field(default_factory=list)


def measure(
    case: Case, path: Path, feeds: Feeds, engines: Sequence[str], threads: int, loads: int, rounds: int, seconds: float
) -> list[Figures]:
    """Figures of every engine, ONNX Runtime's first. Loads and runs are interleaved, so that a slow moment of the
    machine meets all of them."""
    turns = {engine: _Turns(Figures(case.name, engine, threads)) for engine in engines}
    for k in range(loads):
        for engine, turn in _going(turns):
            with _watched(turn), EngineProcess(engine, path, feeds, threads) as process:
                loaded = process.loaded()
                turn.loads += [loaded] * (k > 0)  # the first one fills the caches
    with ExitStack() as stack:
        processes = {}
        for engine, turn in _going(turns):
            processes[engine] = stack.enter_context(EngineProcess(engine, path, feeds, threads))
            with _watched(turn):
                turn.loads.append(processes[engine].loaded())
        for _ in range(rounds):
            for engine, turn in _going(turns):
                with _watched(turn):
                    turn.times += processes[engine].run(seconds)
    return _summarise(case, list(turns.values()))


def _going(turns: dict[str, _Turns]) -> Iterator[tuple[str, _Turns]]:
    yield from ((engine, turn) for engine, turn in turns.items() if turn.figures.problem is None)


@contextmanager
def _watched(turn: _Turns) -> Iterator[None]:
    """An engine that fails is told in the table, and left out from there on."""
    try:
        yield
    except EngineFailed as error:
        turn.figures.problem = str(error)


def _summarise(case: Case, turns: Sequence[_Turns]) -> list[Figures]:
    expected = turns[0].loads[-1].outputs if turns[0].figures.problem is None else {}
    for turn in turns:
        figures = turn.figures
        if figures.problem is not None:
            continue
        figures.ready = statistics.median(loaded.ready for loaded in turn.loads)
        figures.created = statistics.median(loaded.created for loaded in turn.loads)
        figures.first = statistics.median(loaded.first for loaded in turn.loads)
        figures.run, figures.runs = statistics.median(turn.times), len(turn.times)
        figures.difference = difference(turn.loads[-1].outputs, expected)
        figures.close = figures.difference <= case.close
    return [turn.figures for turn in turns]


def difference(outputs: Feeds, expected: Feeds) -> float:
    """The largest difference of any output, as a part of its largest value; infinite where a shape or NaN differs."""
    worst = 0.0
    for name, value in expected.items():
        if outputs[name].shape != value.shape or (np.isnan(outputs[name]) != np.isnan(value)).any():
            return float("inf")
        largest = np.nanmax(np.abs(value), initial=0.0)
        apart = np.nanmax(np.abs(outputs[name].astype(np.float64) - value), initial=0.0)
        worst = max(worst, float(apart / max(largest, np.finfo(np.float32).tiny)))
    return worst


# Told ---------------------------------------------------------------------------------------------


def table(title: str, cases: Sequence[Case], figures: Sequence[Figures]) -> Table:
    """The figures of one number of threads, an engine a row."""
    made = Table(title=title, title_justify="left", title_style="bold", header_style="dim", box=None, pad_edge=False)
    made.padding = (0, 1, 0, 0)
    made.add_column("model", no_wrap=True)
    made.add_column("engine", no_wrap=True)
    for column in ("session\nms", "first\nresult ms", "\nof ORT's", "a run\nms", "\nof ORT's", "\napart"):
        made.add_column(column, justify="right", no_wrap=True)
    for case in cases:
        rows = [f for f in figures if f.model == case.name]
        for k, f in enumerate(rows):
            label = f"[bold]{case.name}[/]" if k == 0 else ""
            made.add_row(label, escape(f.engine), *_cells(f, rows[0]), end_section=k == len(rows) - 1)
    return made


def _cells(f: Figures, base: Figures) -> list[str]:
    if f.problem is not None:
        return ["[red]failed[/]"]
    apart = f"{f.difference:.0e}" if f.close else f"[red]{f.difference:.0e}[/]"
    both = f is not base and base.problem is None
    ratios = [_times(f.first / base.first), _times(f.run / base.run)] if both else ["", ""]
    first, run = (f"{value * 1e3:.1f}" if value < 0.1 else f"{value * 1e3:,.0f}" for value in (f.first, f.run))
    run = f"{f.run * 1e3:.3f}" if f.run < 1e-2 else run
    return [f"{f.created * 1e3:,.0f}", first, ratios[0], run, ratios[1], apart if both else ""]


def _times(ratio: float) -> str:
    text = f"{ratio:.2f} x" if ratio < 10 else f"{ratio:.0f} x"
    return f"[green]{text}[/]" if ratio <= 1 else text


def _count(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"


def main(
    model: Annotated[list[str] | None, typer.Option("--model", "-m", help="One by its name; all by default.")] = None,
    device: Annotated[list[str] | None, typer.Option("--device", "-d", help="omniop's; cpu and opencl.")] = None,
    threads: Annotated[list[int] | None, typer.Option("--threads", "-t", help="CPUs; 1 and 2 by default.")] = None,
    decoder_file: Annotated[Path | None, typer.Option("--decoder", help="An ONNX language model with a cache.")] = None,
    loads: Annotated[int, typer.Option(min=1, help="Fresh sessions of each engine, after a first one.")] = 3,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each engine.")] = 5,
    seconds: Annotated[float, typer.Option(help="Of runs in a turn.")] = 0.3,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Compare omniop with ONNX Runtime on trained models."""
    cases = [*CASES, *([decoder(decoder_file)] if decoder_file is not None else [])]
    if unknown := set(model or ()) - {case.name for case in cases}:
        raise SystemExit(f"no model {', '.join(sorted(unknown))}; there are: {', '.join(case.name for case in cases)}")
    cases = [case for case in cases if not model or case.name in model]
    engines = [ONNXRUNTIME, *(device or ["cpu", "opencl"])]
    out, told = Console(highlight=False), Console(stderr=True, highlight=False)
    if not out.is_terminal:
        out.width = 100
    found: list[Figures] = []
    with tempfile.TemporaryDirectory() as folder:
        prepared = []
        for case in cases:
            place = Path(folder) / case.name
            place.mkdir()
            try:
                prepared.append((case, *case.prepare(place)))
            except FileNotFoundError as missing:
                told.print(f"[yellow]{case.name} is left out:[/] {escape(str(missing))}")
        for count in threads or [1, 2]:
            with told.status("") as status:
                for case, path, feeds in prepared:
                    status.update(f"{case.name}, {_count(count)}")
                    found += measure(case, path, feeds, engines, count, loads, rounds, seconds)
            if not as_json:
                out.print(table(_count(count), cases, [f for f in found if f.threads == count]), "")
    for f in found:
        if f.problem is not None:
            told.print(f"[red]{f.model} on {f.engine}:[/] {escape(f.problem)}")
    if as_json:
        print(json.dumps([asdict(f) for f in found], indent=2))
    else:
        out.print(*(f"[dim]{case.name}: {escape(case.what)}[/]" for case in cases), sep="\n")
    raise typer.Exit(int(any(f.problem is not None or not f.close for f in found)))


if __name__ == "__main__":
    typer.run(main)
