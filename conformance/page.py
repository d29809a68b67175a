"""A report as one self-contained HTML page: operators by dtype, and for each cell its cases.

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
from omniop.conformance.table import columns, operator_cells
from omniop.conformance.verdict import STATUSES, WRONG, Result

_TEMPLATE = Path(__file__).with_name("page.html")
_PLACE = "{{report}}"


def html_page(report: Report) -> str:
    """The page with the report in it."""
    data = {
        "title": f"ONNX {report.versions.get('onnx', '')} on {report.device.get('name', report.target)}",
        "device": {key: value for key, value in report.device.items() if value},
        "versions": dict(report.versions),
        "settings": {key: value for key, value in report.settings.items() if value not in ("", 0, "1/1", False, {})},
        "when": report.when,
        "seconds": report.seconds,
        "statuses": [status for status in STATUSES if report.counts[status]],
        "wrong": sorted(WRONG | {"unavailable"}),
        "stale": list(report.stale),
        "dtypes": columns(operator_cells(report.results)),
        "command": _command(report),
        "cases": [_case(result) for result in report.results],
    }
    # Twenty thousand cases are 5 MB of JSON, and a tenth of that so; no letter of base64 can end the script element.
    text = base64.b64encode(gzip.compress(json.dumps(data, separators=(",", ":")).encode(), mtime=0)).decode()
    return _TEMPLATE.read_text().replace(_PLACE, text)


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


def _case(result: Result) -> Mapping[str, Any]:
    verdict = result.verdict
    routes = [f"{node.op} on {node.device}: {node.route}" for node in verdict.facts.nodes]
    found = {
        "name": result.name,
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
