"""A report as a page of Markdown: counts, what went wrong, what is unsupported, what ran on the host."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from omniop.conformance.record import Report
from omniop.conformance.table import DTYPES, by_kind, tuned_kernels, worst_ulps
from omniop.conformance.verdict import STATUSES, Result


def markdown_text(report: Report) -> str:
    """The page; it holds no time and no duration, so that two equal runs give equal pages."""
    device = ", ".join(value for key, value in report.device.items() if key != "name" and value)
    parts = [
        f"# Conformance of {report.device.get('name', report.target)}",
        ", ".join(filter(None, (device, *(f"{name} {value}" for name, value in report.versions.items())))) + ".",
        _counts(report),
        _section("Wrong", report.wrong),
        _section("Expected to fail", [r for r in report.results if r.verdict.status == "xfail"]),
        _reasons("Unsupported", [r for r in report.results if r.verdict.status in ("unsupported", "unavailable")]),
        _reasons("Unjudged", [r for r in report.results if r.verdict.status == "unjudged"]),
        _kernels(report),
        _accuracy(report),
        _host(report),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def _counts(report: Report) -> str:
    statuses = [status for status in STATUSES if report.counts[status]]
    rows = [["kind", *statuses, "all"], ["---", *["---:"] * (len(statuses) + 1)]]
    for kind, results in by_kind(report.results):
        found = Counter(result.verdict.status for result in results)
        rows.append([kind, *(str(found[status]) for status in statuses), str(found.total())])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _section(title: str, results: Iterable[Result]) -> str:
    lines = [f"- `{r.name}` ({r.verdict.status}): {_line(r.verdict.reason)}" for r in results]
    return "\n".join([f"## {title}\n", *lines]) if lines else ""


def _reasons(title: str, results: Iterable[Result]) -> str:
    groups: dict[str, list[str]] = defaultdict(list)
    for result in results:
        groups[_line(result.verdict.reason)].append(f"`{result.name}`")
    lines = [f"- {reason}: {', '.join(names)}" for reason, names in sorted(groups.items())]
    return "\n".join([f"## {title}\n", *lines]) if lines else ""


def _kernels(report: Report) -> str:
    found = tuned_kernels(report)
    head = ("kernel", "cases", "wrong", "worst error, units in the last place of the largest")
    lines = [f"| {' | '.join(head)} |", "| --- | ---: | ---: | ---: |"]
    lines += [f"| {name} | {r.cases or '**none**'} | {r.wrong} | {r.ulp:g} |" for name, r in found.items()]
    return "\n".join(["## Tuned kernels beside their lowerings\n", *lines]) if found else ""


def _accuracy(report: Report) -> str:
    found = worst_ulps(report.results)
    if not found:
        return ""
    known = sorted({dtype for row in found.values() for dtype in row}, key=DTYPES.index)
    rows = [["function", *known], ["---", *["---:"] * len(known)]]
    for function, row in found.items():
        rows.append([function, *(f"{row[d][0]:.2f} of {row[d][1]:g}" if d in row else "" for d in known)])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"## Worst error of functions, in units in the last place\n\n{table}"


def _host(report: Report) -> str:
    nature = Counter(op for r in report.results for op in r.verdict.facts.host)
    left = Counter(why for r in report.results for why in r.verdict.facts.fallbacks)
    lines = [f"- by nature, with the cases that have it: {', '.join(f'{op} {n}' for op, n in sorted(nature.items()))}"]
    lines += [f"- fallback: {why} ({n})" for why, n in sorted(left.items())]
    return "\n".join(["## On the host\n", *lines]) if nature or left else ""


def _line(text: str) -> str:
    """One line, with nothing that Markdown would take for markup."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
