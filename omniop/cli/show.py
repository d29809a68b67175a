"""Tables for people: devices, outputs, explanations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from omniop.dispatcher.feeds import dims_text

if TYPE_CHECKING:
    from pathlib import Path

    from omniop.cli.outputs import Summary
    from omniop.dispatcher.report import Explanation, NodeReport, StepReport
    from omniop.dispatcher.session import Session
    from omniop.face import DeviceInfo

_LONGEST = 72
"""Characters of a kernel's text that are shown; ``--json`` has all of it."""
_NAMED = 3
"""Nodes of a kernel that are shown."""


def _table(title: str, *columns: str) -> Table:
    table = Table(title=escape(title), title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        numbers = column in _NUMBERS
        words = numbers or column in _WORDS
        table.add_column(column, overflow="fold", justify="right" if numbers else "left", no_wrap=words)
    return table


_NUMBERS = ("min", "mean", "max", "#")
_WORDS = ("device", "dtype", "kind")
"""Columns that a narrow terminal does not break."""


def print_devices(devices: Sequence[DeviceInfo], out: Console) -> None:
    """A row for each that can be used, and why the others cannot."""
    table = _table("", "device", "what it is", "driver", "computes in")
    for d in devices:
        if d.problem is None:
            what = d.description + (f", {_count(d.threads, 'thread')}" if d.threads else "")
            table.add_row(f"[green]{escape(d.name)}[/]", escape(what), escape(d.driver), _computes(d.dtypes))
    out.print(table)
    for d in devices:
        if d.problem is not None:
            out.print(f"{escape(d.name)}  [yellow]not available:[/] {escape(d.problem)}")


def _computes(dtypes: Sequence[str]) -> str:
    """Floats by name, from 16 bits on; the others are counted."""
    floats = [name for name in dtypes if "float" in name]
    named = [name for name in floats if name.lstrip("b").removeprefix("float") in ("16", "32", "64")]
    narrow = [_count(len(floats) - len(named), "narrower float")] if len(floats) > len(named) else []
    return f"{', '.join([*named, *narrow])}; {len(dtypes) - len(floats)} integer and bool"


def outputs_table(summaries: Sequence[Summary], paths: dict[str, Path]) -> Table:
    """A row an output; with ``paths``, where each was written."""
    table = _table("", "output", "dtype", "shape", "min", "mean", "max", *(["not finite"] * any(_lost(summaries))))
    if paths:
        table.add_column("file", overflow="fold")
    for s in summaries:
        cells = [s.name, s.dtype, dims_text(s.shape), *map(_number, (s.min, s.mean, s.max))]
        cells += [str(s.not_finite)] * any(_lost(summaries))
        cells += [str(paths[s.name])] if paths else []
        table.add_row(*map(escape, cells))
    return table


def _lost(summaries: Sequence[Summary]) -> list[int]:
    return [s.not_finite for s in summaries]


def _number(value: float | None) -> str:
    return "-" if value is None else str(value) if isinstance(value, int) else f"{value:.6g}"


# What a session did -------------------------------------------------------------------------------


def placement_line(explanation: Explanation) -> str:
    """Where the nodes ran, in one line."""
    nodes = Counter(node.device for node in explanation.nodes)
    kernels = Counter(step.device for step in explanation.kernels())
    free, host = nodes.pop("-", 0), nodes.pop("host", 0)
    threads = {name: f" on {_count(n, 'thread')}" for name, n in explanation.threads.items()}
    parts = [
        f"{name}: {_count(n, 'node')} in {_count(kernels[name], 'kernel')}{threads.get(name, '')}"
        for name, n in nodes.items()
    ]
    parts += [f"host: {_count(host, 'node')}"] * (host > 0)
    parts += [f"{_count(free, 'node')} without work"] * (free > 0)
    work = ", ".join(f"{name} {explanation.share(name):.1%}" for name in explanation.tensor_work)
    parts.append(f"tensor work: {work or 'none'}")
    return f"{'; '.join(parts) or 'no nodes'}; {explanation.copied_bytes} bytes copied between devices"


def print_explanation(session: Session, out: Console) -> None:
    """What was rewritten, where each node ran and why, the kernels and copies of each template; and all in a line."""
    explanation = session.explain()
    rules = Counter(session.model.rewrites)
    if rules:
        out.print(escape("rewritten: " + ", ".join(f"{rule} ({n})" for rule, n in rules.items())))
    out.print(_nodes_table(explanation.nodes))
    for k, template in enumerate(explanation.templates):
        facts = f"{template.constant_steps} steps computed at load, {template.slots} buffers, ends with {template.ends}"
        launched = [step for step in template.steps if step.kind != "copy"]
        copies = [step for step in template.steps if step.kind == "copy"]
        out.print()
        out.print(_steps_table(f"template {k}: {_count(len(launched), 'kernel')} ({facts})", launched))
        if copies:
            out.print()
            out.print(_steps_table(f"template {k}: {_count(len(copies), 'copy', 'copies')} between devices", copies))
        if template.guards:
            out.print(
                f"reused while {_count(len(template.guards), 'guard')} on the sizes hold: see --json", style="dim"
            )
    out.print()
    out.print(escape(placement_line(explanation)))


def _nodes_table(nodes: Sequence[NodeReport]) -> Table:
    table = _table(f"{_count(len(nodes), 'node')}", "node", "device", "route")
    for node in nodes:
        refused = [f"\n[dim]not {escape(r['candidate'])}: {escape(r['reason'])}[/]" for r in node.rejected]
        table.add_row(escape(node.node), escape(node.device), escape(node.route) + "".join(refused))
    return table


def _steps_table(title: str, steps: Sequence[StepReport]) -> Table:
    table = _table(title, "#", "kind", "device", "what", "for")
    for k, step in enumerate(steps):
        what = step.what if len(step.what) <= _LONGEST else step.what[: _LONGEST - 3] + "..."
        more = [f"{len(step.nodes) - _NAMED} more"] if len(step.nodes) > _NAMED else []
        nodes = ", ".join([*step.nodes[:_NAMED], *more])
        table.add_row(str(k), step.kind, escape(step.device), escape(what), escape(nodes))
    return table


def seconds_text(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 0.1 else f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.0f} s"


def _count(n: int, one: str, many: str | None = None) -> str:
    return f"{n} {one if n == 1 else many or one + 's'}"
