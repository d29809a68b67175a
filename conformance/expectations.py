"""What is expected of a case on a device beyond a pass; `expectations.toml` is the list, and says what it means."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from omniop.conformance.verdict import Result

_OWN = Path(__file__).with_name("expectations.toml")
_FIELDS = {"xfail": {"cases", "devices", "reason"}, "draw": {"cases", "chance", "reason"}}


@dataclass(frozen=True)
class Xfail:
    """One case that fails on the devices whose names match one of the patterns."""

    case: str
    devices: tuple[str, ...]
    reason: str
    source: str

    def concerns(self, name: str, device: str) -> bool:
        return name == self.case and any(fnmatchcase(device, pattern) for pattern in self.devices)


@dataclass(frozen=True)
class Expectations:
    """The entries of one or more files."""

    xfails: tuple[Xfail, ...]

    @classmethod
    def load(cls, extra: Sequence[Path] = ()) -> Expectations:
        """The suite's own list and those of ``extra``. ValueError names a file that cannot be read, and why."""
        return cls(tuple(xfail for file in (_OWN, *extra) for xfail in _xfails(file)))

    def apply(self, result: Result, device: str) -> Result:
        """A failure that was expected becomes ``xfail``, a pass that was not ``xpass``; both say what was expected."""
        found = next((x for x in self.xfails if x.concerns(result.name, device)), None)
        verdict = result.verdict
        if found is None or verdict.status not in ("pass", "fail", "crash", "timeout"):
            return result
        if verdict.status == "pass":
            told = replace(verdict, status="xpass", reason=f"passed, though {found.source} says: {found.reason}")
        else:
            told = replace(verdict, status="xfail", reason=f"{found.reason} ({verdict.status}: {verdict.reason})")
        return replace(result, verdict=told)

    def stale(self, names: Collection[str]) -> list[str]:
        """A line for each entry that names none of the suite's cases, ``names``."""
        return [f"{x.source}: there is no case {x.case!r}" for x in self.xfails if x.case not in names]


def _xfails(file: Path) -> list[Xfail]:
    return [
        Xfail(case, tuple(entry["devices"]), entry["reason"], file.name)
        for entry in _read(file).get("xfail", ())
        for case in entry["cases"]
    ]


def _read(file: Path) -> Mapping[str, Any]:
    try:
        tables = tomllib.loads(file.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{file} is no list of expectations: {error}") from None
    for table, entries in tables.items():
        fields = _FIELDS.get(table)
        if fields is None or not isinstance(entries, list):
            raise ValueError(f"{file}: [[{table}]] is none of [[xfail]], [[draw]]")
        for entry in entries:
            if set(entry) != fields:
                raise ValueError(f"{file}: [[{table}]] has {', '.join(entry)}; it needs {', '.join(sorted(fields))}")
    return tables


_CHANCES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {"p": lambda p: p, "1 - p": lambda p: 1 - p}

DRAWS: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    case: _CHANCES[entry["chance"]] for entry in _read(_OWN).get("draw", ()) for case in entry["cases"]
}
"""The cases judged by the distribution of what they draw; the chance of a one as a function of the feed."""
