"""The docs' table of operators: ``docs/ops.json`` holds counts taken from reports, ``docs/ops.md`` is drawn from it.

``python -m omniop.conformance.ops_table cpu.json opencl.json`` takes over what these say of their devices, and draws
the page again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from omniop.conformance.choices import LEVELS, OWN
from omniop.conformance.record import Report
from omniop.conformance.table import DTYPES

Record = dict[str, Any]
"""``onnx``: the version. ``devices``: by name, what it is and how much was run. ``ops``: operator -> dtype -> device ->
[passed, run]; a case counts in each of its dtypes. ``all``: operator -> device -> [passed, run], each case once."""

_HEAD = """\
# Operators

Which of the cases for each operator of ONNX {onnx} pass on which device, our own included: "all 12", or how
many of how many. The dtypes are those that the cases have. This page is drawn from reports of `omniop conformance` by
`python -m omniop.conformance.ops_table REPORT.json ...`; edit nothing here.

{devices}
"""


def take(record: Record, report: Report) -> Record:
    """``record`` with what ``report`` says of operators on its device in place of what it held. ValueError for another
    onnx, and for a report that is about no operator."""
    report = replace(report, results=tuple(r for r in report.results if r.kind in LEVELS["L1"]))
    if not report.results:
        raise ValueError("the report has no case of an operator")
    version, name = report.versions["onnx"], report.device.get("name", report.target)
    if record and record["onnx"] != version:
        raise ValueError(f"the report is of onnx {version}, the table of {record['onnx']}; start a new table")
    old = record or {"onnx": version, "devices": {}, "ops": {}, "all": {}}
    about = ", ".join(value for key, value in report.device.items() if key in ("hardware", "arch", "driver") and value)
    devices = {**old["devices"], name: {"about": about, **_totals(report)}}
    cells: dict[str, dict[str, dict[str, list[int]]]] = _without(old["ops"], name)
    whole = {op: {d: n for d, n in row.items() if d != name} for op, row in old["all"].items()}
    passed = Counter[tuple[str, ...]]()
    run = Counter[tuple[str, ...]]()
    for result in report.results:
        for key in ((result.op,), *((result.op, dtype) for dtype in result.dtypes)):
            run[key] += 1
            passed[key] += result.verdict.status == "pass"
    for key, count in run.items():
        if not key[0]:
            continue
        row = whole.setdefault(key[0], {}) if len(key) == 1 else cells.setdefault(key[0], {}).setdefault(key[1], {})
        row[name] = [passed[key], count]
    order = {op: whole[op] for op in sorted(whole, key=_place) if whole[op]}
    return {"onnx": version, "devices": devices, "all": order, "ops": {op: cells.get(op, {}) for op in order}}


def _totals(report: Report) -> dict[str, Any]:
    kinds = Counter(result.kind for result in report.results)
    return {
        "passed": report.counts["pass"],
        "run": len(report.results),
        **{kind: kinds[kind] for kind in OWN if kind in LEVELS["L1"]},
        "sample": int(report.settings.get("sample", 0)),
    }


def _without(cells: Mapping[str, Any], device: str) -> dict[str, Any]:
    kept = {
        op: {dtype: {d: n for d, n in row.items() if d != device} for dtype, row in rows.items()}
        for op, rows in cells.items()
    }
    return {op: {dtype: row for dtype, row in rows.items() if row} for op, rows in kept.items()}


def _place(op: str) -> tuple[bool, str]:
    return "::" in op, op.lower()


def page(record: Record) -> str:
    """The page that the record makes."""
    names = list(record["devices"])
    lines = [_HEAD.format(onnx=record["onnx"], devices="\n".join(_device(n, d) for n, d in record["devices"].items()))]
    domains: dict[str, list[str]] = {}
    for op in record["all"]:
        domains.setdefault(op.rpartition("::")[0] or "ai.onnx", []).append(op)
    for domain, ops in domains.items():
        lines += [f"## {domain}\n", _row(["operator", *names, "dtypes"]), _row(["---"] * (len(names) + 2))]
        lines += [_operator(op, record, names) for op in ops]
        lines.append("")
    return "\n".join(lines)


def _device(name: str, about: Mapping[str, Any]) -> str:
    what = "a sample of " if about["sample"] else ""
    ours = sum(about.get(kind, 0) for kind in OWN)
    parts = f"{about['run'] - ours} of ONNX's, {ours} of ours"
    return f"- `{name}` ({about['about']}): {about['passed']} of {what}{about['run']} cases pass ({parts})"


def _operator(op: str, record: Record, names: Sequence[str]) -> str:
    cells = [_score(record["all"][op].get(name)) for name in names]
    rows = record["ops"][op]
    known = sorted(rows, key=lambda dtype: (DTYPES.index(dtype) if dtype in DTYPES else len(DTYPES), dtype))
    return _row([op.rpartition("::")[2], *cells, ", ".join(known)])


def _score(found: Sequence[int] | None) -> str:
    if found is None:
        return ""
    passed, run = found
    return f"all {run}" if passed == run else f"**{passed} of {run}**"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def dump(record: Record) -> str:
    """The record as JSON, a line an operator."""
    head = {key: record[key] for key in ("onnx", "devices")}
    lines = [json.dumps(head, indent=1)[:-2]]
    for table in ("all", "ops"):
        rows = ",\n".join(f"  {json.dumps(op)}: {json.dumps(row)}" for op, row in record[table].items())
        lines.append(f',\n "{table}": {{\n{rows}\n }}')
    return "".join(lines) + "\n}\n"


def main(
    reports: Annotated[list[Path] | None, typer.Argument(help="Reports to take over, as --json writes them.")] = None,
    docs: Annotated[Path, typer.Option(help="The folder of ops.json and ops.md.")] = Path("docs"),
) -> None:
    """Take over reports and draw the table of operators."""
    file = docs / "ops.json"
    record: Record = json.loads(file.read_text()) if file.exists() else {}
    try:
        for report in reports or ():
            record = take(record, Report.read(report))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if not record:
        raise typer.BadParameter(f"there is no {file}: give a report")
    file.write_text(dump(record))
    (docs / "ops.md").write_text(page(record))


if __name__ == "__main__":
    typer.run(main)
