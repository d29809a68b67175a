"""What changed between two reports."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from omniop.conformance.record import Report
from omniop.conformance.verdict import Result

_GOOD = ("pass", "xfail")


def diff(before: Report, after: Report) -> Mapping[str, list[tuple[str, Result]]]:
    """The cases with another status, by what happened: each with its old status ("" for a new case) and new result.

    ``lost`` and ``gained`` are about passing; ``changed`` has the other changes of status, ``new`` and ``gone`` the
    cases that only one report has.
    """
    old = {(result.kind, result.name): result for result in before.results}
    new = {(result.kind, result.name): result for result in after.results}
    found: dict[str, list[tuple[str, Result]]] = defaultdict(list)
    for key, result in new.items():
        if key not in old:
            found["new"].append(("", result))
            continue
        was, now = old[key].verdict.status, result.verdict.status
        if was != now:
            lost, gained = was in _GOOD and now not in _GOOD, was not in _GOOD and now in _GOOD
            found["lost" if lost else "gained" if gained else "changed"].append((was, result))
    found["gone"] = [(result.verdict.status, result) for key, result in old.items() if key not in new]
    return {kind: found[kind] for kind in ("lost", "changed", "gained", "new", "gone") if found[kind]}
