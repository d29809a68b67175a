"""The report of a run as JSON, which is the truth: every other form of it is drawn from this one."""

from __future__ import annotations

import json
import os
import platform
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from omniop.conformance.verdict import WRONG, Result

FORMAT = 2
_PACKAGES = ("omniop", "onnx", "numpy", "ml-dtypes", "llvmlite", "pyopencl", "cupy-cuda13x", "onnxruntime")


@dataclass(frozen=True)
class Report:
    """One run: on what, how, and every result in the order in which cases are listed.

    ``device``: name, vendor, arch, driver; empty for an oracle. ``settings``: the options that chose and judged the
    cases. ``stale``: expectations that name no case. ``seconds``: wall time. ``kernels``: the tuned kernels in the
    device's table, which level L2 has to reach.
    """

    target: str
    results: tuple[Result, ...]
    device: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    stale: tuple[str, ...] = ()
    seconds: float = 0.0
    when: str = ""
    kernels: tuple[str, ...] = ()

    @property
    def counts(self) -> Counter[str]:
        return Counter(result.verdict.status for result in self.results)

    @property
    def is_whole(self) -> bool:
        """Whether it has all cases of the kinds that were asked for, but for the sample of our own."""
        chosen = self.settings.get
        part = chosen("filter") or chosen("sample") or chosen("shard", "1/1") != "1/1"
        return not part and chosen("extent") != "quick"

    @property
    def wrong(self) -> list[Result]:
        """The results that nobody expected."""
        return [result for result in self.results if result.verdict.status in WRONG]

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "target": self.target,
            "device": dict(self.device),
            "versions": dict(self.versions),
            "settings": dict(self.settings),
            "when": self.when,
            "seconds": self.seconds,
            "counts": dict(self.counts),
            "stale": list(self.stale),
            "kernels": list(self.kernels),
            "cases": [result.to_json() for result in self.results],
        }

    def write(self, path: Path) -> None:
        """Write the report: a line a case, so that two reports can be read side by side."""
        record = self.to_json()
        cases = ",\n".join(json.dumps(case) for case in record.pop("cases"))
        path.write_text(f'{json.dumps(record, indent=1)[:-2]},\n "cases": [\n{cases}\n]}}\n')

    @classmethod
    def read(cls, path: Path) -> Report:
        """What `write` wrote. ValueError names a file that is something else."""
        try:
            record = json.loads(path.read_text())
            if record["format"] != FORMAT:
                raise ValueError(f"its format is {record['format']}, this suite reads {FORMAT}")
            results = tuple(Result.from_json(case) for case in record["cases"])
            rest = {name: record[name] for name in ("target", "device", "settings", "versions", "seconds", "when")}
            kernels = tuple(record.get("kernels", ()))
            return cls(results=results, stale=tuple(record["stale"]), kernels=kernels, **rest)
        except OSError as error:
            raise ValueError(f"{path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError(f"{path} is not a report of this suite: it is no text") from None
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is not a report of this suite: {error}") from None


def installed_versions() -> dict[str, str]:
    """What a verdict may depend on: packages, Python, the machine."""
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def now() -> str:
    """The time in UTC, or that of SOURCE_DATE_EPOCH, for reports that are to be the same each time."""
    seconds = float(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def lost_passes(results: Sequence[Result], baseline: Report) -> list[Result]:
    """The results that passed in ``baseline`` and do not now."""
    before = {(result.kind, result.name) for result in baseline.results if result.verdict.status == "pass"}
    return [r for r in results if (r.kind, r.name) in before and r.verdict.status != "pass"]
