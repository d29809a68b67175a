"""How many threads a run may use that does not say so itself."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cache
from math import ceil
from pathlib import Path

from omniop.opset.errors import DeviceError

VARIABLE = "OMNIOP_NUM_THREADS"


def default_threads() -> int:
    """As the environment says, else one for each CPU that the process may use. Raises DeviceError."""
    wanted = os.environ.get(VARIABLE, "")
    if wanted:
        if not (wanted.isdecimal() and int(wanted)):
            raise DeviceError(f"{VARIABLE} is a number of threads, at least 1, not {wanted!r}")
        return int(wanted)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(cpus, ceil(_quota())))


@cache
def _quota() -> float:
    """CPUs' worth of time; reading it takes longer than a small model."""
    return min(quotas(), default=os.cpu_count() or 1)


def quotas(groups: Path = Path("/proc/self/cgroup"), mounted: Path = Path("/sys/fs/cgroup")) -> Iterator[float]:
    """CPUs' worth of time that control groups give this process: its own one, and those around it.

    A container sees its own group as the root of what is mounted, under whatever name it has outside.
    """
    try:
        lines = groups.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        folder = mounted / "cpu" if "cpu" in controllers.split(",") else mounted
        if controllers and folder == mounted:
            continue  # another controller of version 1
        inner = folder / name.lstrip("/")
        for group in (inner, *inner.parents):
            if group.is_relative_to(folder):
                yield from _quota_of(group)


def _quota_of(group: Path) -> Iterator[float]:
    """Version 2 has both numbers in one file, version 1 in two; no quota is "max" or -1."""
    for files in (("cpu.max",), ("cpu.cfs_quota_us", "cpu.cfs_period_us")):
        try:
            quota, period = " ".join((group / file).read_text() for file in files).split()
            if quota != "max" and int(quota) > 0:
                yield int(quota) / int(period)
        except (OSError, ValueError, ZeroDivisionError):
            continue
