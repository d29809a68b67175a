"""What a conformance run says: progress while it goes, tables at its end, and JSON, which is the truth."""

from __future__ import annotations

import json
import platform
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from omniop.conformance.cases import KINDS
from omniop.conformance.runner import STATUSES, Result

_STYLES = {"pass": "green", "fail": "red", "unsupported": "yellow", "crash": "bold red", "timeout": "magenta"}
_REASON_WIDTH = 90


def track(results: Iterable[Result], total: int, title: str, *, verbose: int = 0) -> list[Result]:
    """Collect ``results`` under a progress bar with counts and the time left.

    ``verbose`` 1 prints each case that does not pass as it comes, 2 its traceback too.
    """
    counts: Counter[str] = Counter()
    collected: list[Result] = []
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[counts]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=total, counts="")
        for result in results:
            collected.append(result)
            counts[result.verdict.status] += 1
            progress.update(task, advance=1, counts=_counts(counts))
            if verbose and result.verdict.status != "pass":
                progress.console.print(_line(result), highlight=False)
                if verbose > 1:
                    progress.console.print(escape(result.verdict.trace), highlight=False)
    return collected


def summarise(results: Sequence[Result], title: str, reasons: int = 20) -> None:
    """Print the counts by kind, and the commonest reasons of what did not pass, each with one example."""
    console = Console()
    console.print(_kinds_table(results, title))
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for result in results:
        if result.verdict.status != "pass":
            groups[result.verdict.status, _shape_of(result.verdict.reason)].append(result.name)
    if not groups or not reasons:
        return
    table = Table(title="why not" if len(groups) <= reasons else f"why not: {reasons} of {len(groups)} reasons")
    table.add_column("cases", justify="right")
    table.add_column("status")
    table.add_column("reason", overflow="fold")
    table.add_column("for example", overflow="fold")
    for (status, reason), names in sorted(groups.items(), key=lambda item: -len(item[1]))[:reasons]:
        table.add_row(str(len(names)), _styled(status), escape(reason), escape(names[0]))
    console.print(table)


def write_json(path: Path, results: Sequence[Result], target: str) -> None:
    """Write versions, the machine, the counts and every verdict."""
    record = {
        "target": target,
        "onnx": onnx.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "counts": dict(Counter(result.verdict.status for result in results)),
        "cases": [result.to_json() for result in results],
    }
    path.write_text(json.dumps(record, indent=1) + "\n")


def lost_passes(results: Sequence[Result], baseline: Path) -> list[Result]:
    """The results that passed in the JSON file ``baseline`` and do not now. ValueError where it is no such file."""
    try:
        before = {(case["kind"], case["name"]): case["status"] for case in json.loads(baseline.read_text())["cases"]}
    except (OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{baseline} is not a report of this runner: {error!r}") from None
    return [
        result
        for result in results
        if before.get((result.kind, result.name)) == "pass" and result.verdict.status != "pass"
    ]


def print_results(results: Sequence[Result], title: str) -> None:
    """Print ``results`` one a line under ``title``."""
    console = Console()
    console.print(f"[bold]{escape(title)}")
    for result in results:
        console.print(_line(result), highlight=False)


def _kinds_table(results: Sequence[Result], title: str) -> Table:
    table = Table(title=f"ONNX {onnx.__version__} cases on {title}")
    table.add_column("kind")
    for status in STATUSES:
        table.add_column(status, justify="right", style=_STYLES[status])
    table.add_column("all", justify="right")
    table.add_column("seconds", justify="right")
    by_kind = {kind: [result for result in results if result.kind == kind] for kind in KINDS}
    rows = [(kind, found) for kind, found in by_kind.items() if found]
    for kind, found in rows if len(rows) == 1 else [*rows, ("all", results)]:
        counts = Counter(result.verdict.status for result in found)
        seconds = sum(result.verdict.seconds for result in found)
        cells = [str(counts[status]) for status in STATUSES]
        table.add_row(kind, *cells, str(len(found)), f"{seconds:.1f}", end_section=found is rows[-1][1])
    return table


def _line(result: Result) -> str:
    verdict = result.verdict
    return (
        f"{_styled(verdict.status)} {escape(result.name)} ({verdict.seconds:.1f} s): {escape(_short(verdict.reason))}"
    )


def _counts(counts: Counter[str]) -> str:
    return ", ".join(f"[{_STYLES[status]}]{counts[status]} {status}[/]" for status in STATUSES if counts[status])


def _styled(status: str) -> str:
    return f"[{_STYLES[status]}]{status}[/]"


def _short(reason: str) -> str:
    first: Any = reason.strip().splitlines()[0] if reason.strip() else ""
    return str(first)


def _shape_of(reason: str) -> str:
    """A reason without its names and numbers, so that the same cause in many cases counts as one."""
    text = re.sub(r"'[^']*'|\"[^\"]*\"", "'..'", _short(reason))
    text = re.sub(r"\[[^\]]*\]", "[..]", text)
    return re.sub(r"-?\b\d[\d.e+-]*\b", "#", text)[:_REASON_WIDTH]
