"""One demo on one device: loaded, run twice, timed, and where its nodes ran."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import omniop

Progress = Callable[[str, float], None]
"""Told what is being done, and how much of the whole is behind it, 0 to 1."""

R_co = TypeVar("R_co", covariant=True)
R = TypeVar("R")

_LOADED, _FIRST = 0.05, 0.85
"""Shares of a trial's time after loading and after the first run, in which kernels are compiled."""


class Runner(Protocol[R_co]):
    """Networks loaded onto a device, with what they are to be run on."""

    @property
    def sessions(self) -> Sequence[omniop.Session]: ...

    def run(self, progress: Progress) -> R_co: ...


@dataclass(frozen=True)
class Placement:
    """Where the nodes of a trial's networks ran."""

    nodes: dict[str, int]
    """Nodes by device; those without work count for none."""
    kernels: int
    copied_bytes: int
    """Between devices, in each network's last run."""
    fallbacks: list[str]
    """What was said of nodes that went to another device."""


@dataclass(frozen=True)
class Trial(Generic[R]):
    """What came of a demo on a device. The first run plans and compiles what the second one uses."""

    device: str
    result: R
    load_seconds: float
    first_seconds: float
    second_seconds: float
    placement: Placement


@dataclass(frozen=True)
class Failure:
    """A device on which a demo did not run, and why."""

    device: str
    reason: str


Outcome = Trial[Any] | Failure


def try_on(device: str, load: Callable[[], Runner[R]], progress: Progress) -> Trial[R]:
    """Load and run twice. Raises what `omniop.load` and `Session.run` raise."""

    def part(low: float, high: float) -> Progress:
        return lambda what, done: progress(what, low + done * (high - low))

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", omniop.FallbackWarning)
        progress("loading", 0.0)
        start = time.perf_counter()
        runner = load()
        loaded = time.perf_counter()
        result = runner.run(part(_LOADED, _FIRST))
        first = time.perf_counter()
        runner.run(part(_FIRST, 1.0))
        second = time.perf_counter()
    fallbacks = [str(w.message) for w in caught if issubclass(w.category, omniop.FallbackWarning)]
    placement = placed(runner.sessions, fallbacks)
    return Trial(device, result, loaded - start, first - loaded, second - first, placement)


def placed(sessions: Sequence[omniop.Session], fallbacks: list[str]) -> Placement:
    """What the sessions' explanations say, added up."""
    explained = [session.explain() for session in sessions]
    nodes = Counter(node.device for one in explained for node in one.nodes if node.device != "-")
    kernels = sum(len(one.kernels()) for one in explained)
    return Placement(dict(nodes), kernels, sum(one.copied_bytes for one in explained), fallbacks)
