"""What a conformance run says on a terminal: progress while it goes, and tables at its end."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from omniop.conformance.diff import diff
from omniop.conformance.record import Report
from omniop.conformance.table import ONNXS_OWN, Reached, by_kind, tuned_kernels, worst_ulps
from omniop.conformance.verdict import STATUSES, Result
from omniop.terminal import console

_STYLES = {
    **{
        "pass": "green",
        "fail": "red",
        "crash": "bold red",
        "timeout": "magenta",
        "unsupported": "yellow",
        "unjudged": "dim",
    },
    **{"xfail": "cyan", "xpass": "bold magenta", "unavailable": "dim"},
}
_ALWAYS = ("pass", "fail", "unsupported")


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
    with Progress(*columns, console=console(stderr=True)) as progress:
        task = progress.add_task(title, total=total, counts="")
        for result in results:
            collected.append(result)
            counts[result.verdict.status] += 1
            progress.update(task, advance=1, counts=_counts(counts))
            if verbose and result.verdict.status != "pass":
                progress.console.print(_line(result), soft_wrap=True)
                if verbose > 1:
                    progress.console.print(escape(result.verdict.trace), soft_wrap=True)
    return collected


def summarise(report: Report, reasons: int = 20) -> None:
    """Print the counts by kind, what ran on the host, and the commonest reasons of what did not pass."""
    out = console()
    results = report.results
    if results and report.counts["unavailable"] == len(results):
        out.print(
            f"[red]{escape(report.target)} is unavailable:[/] {escape(results[0].verdict.reason)}", soft_wrap=True
        )
        return
    out.print(_kinds_table(report))
    host = Counter(op for result in results for op in result.verdict.facts.host)
    if host:
        out.print(f"on the host by nature: {', '.join(f'{op} ({n})' for op, n in host.most_common())}", style="dim")
    left = Counter(why for result in results for why in result.verdict.facts.fallbacks)
    if left:
        out.print(f"[red]left the device:[/] {escape('; '.join(f'{why} ({n})' for why, n in left.most_common()))}")
    ulps = {f"{f} {d}": pair for f, row in worst_ulps(results).items() for d, pair in row.items()}
    if ulps:
        name, (ulp, limit) = max(ulps.items(), key=lambda item: item[1][0] / item[1][1])
        out.print(f"functions: the nearest to its limit is {name}, {ulp:.2f} of {limit:g} ulp", style="dim")
    if kernels := tuned_kernels(report):
        out.print(_kernels_table(kernels))
    for name in (name for name, reached in kernels.items() if not reached.cases):
        out.print(f"[yellow]reached by no case:[/] {escape(name)}")
    for line in report.stale:
        out.print(f"[red]stale:[/] {escape(line)}")
    groups: dict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        if result.verdict.status != "pass":
            groups[result.verdict.status, _shape_of(result.verdict.reason)].append(result)
    if not groups or not reasons:
        return
    title = "why not" if len(groups) <= reasons else f"why not: {reasons} of {len(groups)} reasons"
    table = Table(title=title, title_justify="left")
    table.add_column("cases", justify="right")
    table.add_column("status")
    table.add_column("reason", overflow="fold")
    table.add_column("for example", overflow="fold")
    for (status, shape), alike in sorted(groups.items(), key=lambda item: -len(item[1]))[:reasons]:
        said = {_short(result.verdict.reason) for result in alike}
        reason = said.pop() if len(said) == 1 else shape
        table.add_row(str(len(alike)), _styled(status), escape(reason), escape(alike[0].name))
    out.print(table)


def print_results(results: Sequence[Result], title: str) -> None:
    """Print ``results`` one a line under ``title``."""
    out = console()
    out.print(f"[bold]{escape(title)}")
    for result in results:
        out.print(_line(result), soft_wrap=True)


def print_diff(before: Report, after: Report) -> None:
    """Print what changed from one report to another, the losses first."""
    out = console()
    found = diff(before, after)
    for kind, cases in found.items():
        out.print(f"[bold]{kind}: {len(cases)}")
        for was, result in cases:
            arrow = f"{_styled(was)} -> " if was and kind != "gone" else ""
            out.print(f"  {arrow}{_line(result)}", soft_wrap=True)
    if not found:
        out.print("no case changed its status")


def _kinds_table(report: Report) -> Table:
    results = report.results
    seen = report.counts
    statuses = [status for status in STATUSES if status in _ALWAYS or seen[status]]
    table = Table(
        title=f"{report.target}, {report.seconds:.0f} s, onnx {report.versions['onnx']}", title_justify="left"
    )
    table.add_column("kind")
    for status in statuses:
        table.add_column(status, justify="right", style=_STYLES[status])
    table.add_column("all", justify="right")
    table.add_column("cpu s", justify="right")
    rows = by_kind(results)
    for kind, found in rows:
        counts = Counter(result.verdict.status for result in found)
        seconds = sum(result.verdict.cpu_seconds for result in found)
        cells = [str(counts[status]) for status in statuses]
        table.add_row(kind, *cells, str(len(found)), f"{seconds:.1f}", end_section=kind == ONNXS_OWN)
    return table


def _kernels_table(kernels: Mapping[str, Reached]) -> Table:
    table = Table(title="tuned kernels beside their lowerings", title_justify="left")
    for title in ("kernel", "cases", "wrong", "worst ulp of the largest"):
        table.add_column(title, justify="left" if title == "kernel" else "right", overflow="fold")
    for name, reached in kernels.items():
        wrong = f"[red]{reached.wrong}[/]" if reached.wrong else "0"
        table.add_row(escape(name), str(reached.cases), wrong, f"{reached.ulp:g}")
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
    return re.sub(r"-?\b\d[\d.e+-]*\b", "#", text)
