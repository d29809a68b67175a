"""What ``omniop demo`` prints: a passage for each device when it is done, and a table of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from omniop.cli.demo_kinds import AnyKind, counted
from omniop.cli.show import seconds_text
from omniop.demo.trial import Failure, Outcome, Placement, Trial

_WIDEST = 120
"""Columns of what is drawn with letters."""


def print_title(kind: AnyKind, out: Console) -> None:
    out.print(f"[bold]{escape(kind.title)}[/]")


def print_outcome(kind: AnyKind, outcomes: Sequence[Outcome], description: str, out: Console) -> None:
    """The last of ``outcomes``: in full for the first device, and then what is different."""
    *before, last = outcomes
    out.print(f"\n[bold green]{escape(last.device)}[/]  [dim]{escape(description)}[/]")
    if isinstance(last, Failure):
        _print(f"[red]failed:[/] {escape(last.reason)}", out)
        return
    first = _first(before)
    if first is not None and _same(kind, first, last):
        _print(f"[green]the same {escape(kind.count(last.result))}[/] as on {escape(first.device)}", out)
    else:
        out.print(kind.shown(last.result, min(out.width, _WIDEST)))
    times = map(seconds_text, (last.load_seconds, last.first_seconds, last.second_seconds))
    _print("[dim]loaded in {}, first run {}, second run {}[/]".format(*times), out)
    _print(f"[dim]{escape(placement_line(last.placement))}[/]", out)
    for told in last.placement.fallbacks:
        _print(f"[yellow]note:[/] {escape(told)}", out)


def _print(markup: str, out: Console) -> None:
    """Indented, also where it is wrapped."""
    out.print(Padding(Text.from_markup(markup), (0, 0, 0, 2)))


def print_comparison(kind: AnyKind, outcomes: Sequence[Outcome], out: Console) -> None:
    """A row for each device; nothing where there is one device only. A narrow terminal gets fewer columns."""
    if len(outcomes) < 2:
        return
    rows = _compared(kind, outcomes)
    names = ["device", "load", "first run", "second run", "kernels", "copied", "fallbacks", "result"]
    widest = out.options.update(max_width=_WIDEST)
    for left_out in (None, "copied", "fallbacks", "kernels"):
        names = [name for name in names if name != left_out]
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in names:
            table.add_column(name, justify="left" if name in ("device", "result") else "right", no_wrap=True)
        for row in rows:
            table.add_row(*(row.get(name, "-") for name in names))
        if out.measure(table, options=widest).maximum <= out.width:
            break
    out.print()
    out.print(table)


def _compared(kind: AnyKind, outcomes: Sequence[Outcome]) -> list[dict[str, str]]:
    """The rows by the names of their columns, in rich's markup."""
    first = _first(outcomes)
    rows = []
    for outcome in outcomes:
        if isinstance(outcome, Failure) or first is None:
            rows.append({"device": escape(outcome.device), "result": "[red]failed[/]"})
            continue
        same = "[green]identical[/]" if _same(kind, first, outcome) else "[red]different[/]"
        placed = outcome.placement
        rows.append(
            {
                "device": escape(outcome.device),
                "load": seconds_text(outcome.load_seconds),
                "first run": seconds_text(outcome.first_seconds),
                "second run": seconds_text(outcome.second_seconds),
                "kernels": str(placed.kernels),
                "copied": _bytes(placed.copied_bytes),
                "fallbacks": str(len(placed.fallbacks)),
                "result": escape(kind.count(outcome.result)) if outcome is first else same,
            }
        )
    return rows


def as_json(
    kind: AnyKind, outcomes: Sequence[Outcome], described: Mapping[str, str], drawing: Path | None
) -> dict[str, Any]:
    first = _first(outcomes)
    devices = []
    for outcome in outcomes:
        told: dict[str, Any] = {"device": outcome.device, "description": described.get(outcome.device)}
        if isinstance(outcome, Failure):
            told["error"] = outcome.reason
        else:
            times = ("load_seconds", "first_seconds", "second_seconds")
            told |= {name: round(getattr(outcome, name), 4) for name in times}
            told["placement"] = asdict(outcome.placement)
            told |= kind.json(outcome.result)
        devices.append(told)
    trials = [outcome for outcome in outcomes if isinstance(outcome, Trial)]
    identical = all(_same(kind, first, trial) for trial in trials) if first is not None else None
    drawn = None if drawing is None else str(drawing)
    return {"demo": kind.name, "identical": identical, "output": drawn, "devices": devices}


def placement_line(placement: Placement) -> str:
    nodes = " and ".join(f"{counted(n, 'node')} on {device}" for device, n in placement.nodes.items())
    copied = f"{_bytes(placement.copied_bytes)} copied between devices"
    fallbacks = counted(len(placement.fallbacks), "fallback")
    return f"{nodes or 'no nodes'}, {counted(placement.kernels, 'kernel')}, {copied}, {fallbacks}"


def _first(outcomes: Sequence[Outcome]) -> Trial[Any] | None:
    return next((outcome for outcome in outcomes if isinstance(outcome, Trial)), None)


def _same(kind: AnyKind, a: Trial[Any], b: Trial[Any]) -> bool:
    return kind.essence(a.result) == kind.essence(b.result)


def _bytes(count: int) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000  # type: ignore[assignment]
    return f"{count:.3g} GB"
