"""A run of the suite: which cases, on what, judged how."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omniop.conformance.cases import Case, load_cases, matching, sample_cases, shard_cases
from omniop.conformance.choices import KINDS, LEVELS, QUICK, USUAL, Extent, Fallback, Oracle
from omniop.conformance.engines import omniop_engine
from omniop.conformance.expectations import Expectations
from omniop.conformance.oracles import ENGINES
from omniop.conformance.probe import Known, Unavailable, here, probe
from omniop.conformance.record import Report, installed_versions, now
from omniop.conformance.runner import result_of, run_cases
from omniop.conformance.verdict import Result, Verdict

Show = Callable[[Iterable[Result], int, str], list[Result]]
"""Collects results as they come, given how many there will be and the target's name."""


@dataclass(frozen=True)
class Settings:
    """What to run and how to judge it.

    ``extent``: a quick sample, everything, or everything but for the cases of kind ``own``, of which there is a sample
    unless a filter or their kind asks for them. Trained networks (L3) are left to those who ask for them, and to runs
    of everything. ``filter``: a regular expression on case names. ``sample``:
    so many of the cases, 0 for all. ``shard``: one part of so many. ``fold``: let constants be constants, as a user's
    session does. ``strict``: run each case in all the ways of `omniop.conformance.strict`. ``oracle``: run one of
    `ENGINES` instead of omniop on ``device``. ``jobs``: worker processes, 0 for none. ``expect``: lists of expectations
    beside the suite's. ``model``: instead of all of these cases, the nodes of a model file, its open dims sized by
    ``dims``, some of its inputs read from ``inputs``.
    """

    device: str = "cpu"
    filter: str = ""
    kinds: Sequence[str] = KINDS
    sample: int = 0
    shard: tuple[int, int] = (1, 1)
    fallback: Fallback = "error"
    fold: bool = False
    oracle: Oracle | None = None
    jobs: int = 2
    timeout: float = 120.0
    expect: tuple[Path, ...] = ()
    extent: Extent = "usual"
    strict: bool = False
    model: Path | None = None
    dims: Mapping[str, int] = field(default_factory=dict)
    inputs: Mapping[str, Path] = field(default_factory=dict)

    @property
    def target(self) -> str:
        return self.oracle or self.device

    def to_json(self) -> dict[str, Any]:
        """What chose and judged the cases."""
        return {
            "extent": self.extent,
            "filter": self.filter,
            "kinds": list(self.kinds),
            "sample": self.sample,
            "shard": f"{self.shard[0]}/{self.shard[1]}",
            "fallback": self.fallback,
            "fold": self.fold,
            "strict": self.strict,
            "oracle": self.oracle or "",
            "timeout": self.timeout,
            "model": str(self.model or ""),
            "dims": dict(self.dims),
            "inputs": {name: str(file) for name, file in self.inputs.items()},
        }


@contextmanager
def selected(settings: Settings) -> Iterator[list[Case]]:
    """The chosen cases, those of a model for as long as their files are there. ValueError for a setting that is wrong;
    for a model that cannot be harvested, ModelError and FeedError."""
    if settings.model is None:
        yield select(settings)
        return
    from omniop.conformance.harvest.case import harvested_cases

    with tempfile.TemporaryDirectory(prefix="omniop-harvest-") as folder:
        found = harvested_cases(settings.model, settings.dims, settings.inputs, Path(folder))
        cases = matching(found, settings.filter)
        if not cases:
            raise ValueError(f"no node of {settings.model} matches {settings.filter!r}")
        yield shard_cases(cases, *settings.shard)


def select(settings: Settings) -> list[Case]:
    """The suite's own cases: filtered, then sampled, then the shard. ValueError for a setting that is wrong."""
    whole = tuple(settings.kinds) != KINDS or settings.extent == "full" or settings.filter
    cases = load_cases(settings.filter, settings.kinds if whole else [k for k in KINDS if k not in LEVELS["L3"]])
    if not cases:
        raise ValueError(f"no case matches {settings.filter!r}")
    if settings.extent == "usual" and not settings.filter and tuple(settings.kinds) != ("own",):
        ours = {case for case in cases if case.kind == "own"}
        chosen = set(sample_cases([case for case in cases if case in ours], USUAL))
        cases = [case for case in cases if case not in ours or case in chosen]
    if size := settings.sample or (QUICK if settings.extent == "quick" else 0):
        cases = sample_cases(cases, size)
    return shard_cases(cases, *settings.shard)


def run_suite(settings: Settings, show: Show) -> Report:
    """Run the suite. Raises what `selected` does; a device that is not there makes cases ``unavailable``."""
    with selected(settings) as cases:
        return _run(settings, cases, show)


def _run(settings: Settings, cases: Sequence[Case], show: Show) -> Report:
    expected = Expectations.load(settings.expect)
    stale = expected.stale({case.name for case in (*load_cases(), *cases)})
    start = time.perf_counter()
    known, results = _device_and_results(settings, cases)
    judged = (expected.apply(result, known.fingerprint.get("name", settings.target)) for result in results)
    collected = in_order(show(judged, len(cases), settings.target))
    seconds = round(time.perf_counter() - start, 1)
    return Report(
        settings.target,
        tuple(collected),
        known.fingerprint,
        settings.to_json(),
        installed_versions(),
        tuple(stale),
        seconds,
        now(),
        known.kernels,
    )


def _device_and_results(settings: Settings, cases: Sequence[Case]) -> tuple[Known, Iterator[Result]]:
    if settings.oracle:
        return Known({}), run_cases(cases, ENGINES[settings.oracle], settings.jobs, settings.timeout)
    engine = omniop_engine(
        settings.device, settings.fallback, fold=settings.fold or settings.model is not None, strict=settings.strict
    )
    try:
        known = probe(settings.device) if settings.jobs else here(settings.device)
    except Unavailable as error:
        verdict = Verdict("unavailable", str(error))
        return Known({}), (result_of(case, verdict) for case in cases)
    return known, run_cases(cases, engine, settings.jobs, settings.timeout)


def in_order(results: Sequence[Result]) -> list[Result]:
    """Results by kind and name, as cases are listed."""
    return sorted(results, key=lambda result: (KINDS.index(result.kind), result.name))
