"""Reports as one self-contained HTML page: operators by dtype and backend, and for each cell its cases.

`page.html` is the page; it holds no data, and loads nothing.
"""

from __future__ import annotations

import base64
import gzip
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omniop.conformance.record import Report
from omniop.conformance.table import columns, operator_cells, tuned_kernels, worst_ulps
from omniop.conformance.verdict import STATUSES, WRONG, Result

_TEMPLATE = Path(__file__).with_name("page.html")
_PLACE = "{{report}}"


def html_page(*reports: Report) -> str:
    """The page with one report in it, or several, of which each is a backend."""
    results = [result for report in reports for result in report.results]
    statuses = {result.verdict.status for result in results}
    names = [report.device.get("name", report.target) for report in reports]
    data = {
        "title": f"ONNX {reports[0].versions.get('onnx', '')} on {', '.join(names)}",
        "backends": [_backend(report) for report in reports],
        "statuses": [status for status in STATUSES if status in statuses],
        "wrong": sorted(WRONG | {"unavailable"}),
        "dtypes": columns(operator_cells(results)),
        "cases": [_case(result, number) for number, report in enumerate(reports) for result in report.results],
    }
    # Twenty thousand cases are 5 MB of JSON, and a tenth of that so; no letter of base64 can end the script element.
    text = base64.b64encode(gzip.compress(json.dumps(data, separators=(",", ":")).encode(), mtime=0)).decode()
    return _TEMPLATE.read_text().replace(_PLACE, text)


def _backend(report: Report) -> Mapping[str, Any]:
    """What is told of one report beside its cases."""
    left_out: tuple[object, ...] = ("", 0, "1/1", False, {})
    return {
        "name": report.device.get("name", report.target),
        "device": {key: value for key, value in report.device.items() if value},
        "versions": dict(report.versions),
        "settings": {key: value for key, value in report.settings.items() if value not in left_out},
        "when": report.when,
        "seconds": report.seconds,
        "stale": list(report.stale),
        "command": _command(report),
        "kernels": tuned_kernels(report),
        "ulps": worst_ulps(report.results),
    }


def _command(report: Report) -> str:
    """What repeats one case, up to its name."""
    target = ["--oracle", report.target] if report.settings.get("oracle") else ["--device", report.target]
    options = [f"--{name}" for name in ("fold", "strict") if report.settings.get(name)]
    if report.settings.get("model"):
        options += ["--from-model", report.settings["model"]]
        for option, given in (("--dim", "dims"), ("--input", "inputs")):
            options += [word for name, value in report.settings[given].items() for word in (option, f"{name}={value}")]
    if report.settings.get("fallback", "error") != "error":
        options += ["--fallback", report.settings["fallback"]]
    return shlex.join(["omniop", "conformance", *target, *options, "-vv", "--filter"])


def _case(result: Result, backend: int) -> Mapping[str, Any]:
    verdict = result.verdict
    routes = [f"{node.op} on {node.device}: {node.route}" for node in verdict.facts.nodes]
    found = {
        "name": result.name,
        "backend": backend,
        "kind": result.kind,
        "op": result.op,
        "dtypes": result.dtypes,
        "status": verdict.status,
        "reason": verdict.reason,
        "seconds": round(verdict.seconds, 3),
        "error": [verdict.error.absolute, verdict.error.relative, verdict.error.ulp] if verdict.error else None,
        "routes": routes if len(routes) <= 8 else [*routes[:7], f"and {len(routes) - 7} more"],
        "trace": verdict.trace if verdict.status in WRONG else "",
    }
    return {key: value for key, value in found.items() if value not in ("", None, [], ())}
