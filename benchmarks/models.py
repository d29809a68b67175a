"""omniop beside ONNX Runtime on trained models: from loading to the first result, and each run after it.

    python -m benchmarks.models                                    # all models on cpu and opencl, 1 and 2 threads
    python -m benchmarks.models -m minilm-int8 -m ocr-rec -t 1 --json
    python -m benchmarks.models --decoder smollm2.onnx             # written by examples/smollm2/to_onnx.py

Outputs are compared with ONNX Runtime's; `benchmarks/measure.py` says how times are taken.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from benchmarks.engine_process import ONNXRUNTIME
from benchmarks.measure import Effort, Figures, Task, measure
from benchmarks.model_cases import CASES, Case, decoder

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
                    task = Task(case.name, path, feeds, case.close)
                    found += measure(task, engines, count, Effort(loads, rounds, seconds))
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
