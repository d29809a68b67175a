"""Run conformance cases on a device: one verdict a case, one process a shard.

A verdict is never better than what happened: "not implemented" is ``unsupported``, a process that dies is a ``crash``
and one that hangs a ``timeout``, each at the cost of that one case.
"""

from __future__ import annotations

import functools
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import onnx

from omniop.conformance.cases import KINDS, Case, load_cases
from omniop.conformance.compare import compare_outputs
from omniop.conformance.oracles import Engine, Prepared
from omniop.opset.errors import PlacementError, UnsupportedError

Fallback = Literal["warn", "error", "silent"]

Status = Literal["pass", "fail", "unsupported", "crash", "timeout"]
STATUSES: tuple[Status, ...] = ("pass", "fail", "unsupported", "crash", "timeout")

MIN_RTOL, MIN_ATOL = 1e-3, 1e-7
"""No case is judged more strictly than this, as in onnx's own runner."""


@dataclass(frozen=True)
class Verdict:
    """What became of a case, why where it did not pass, and how long it took (load, compile and run)."""

    status: Status
    reason: str = ""
    seconds: float = 0.0
    trace: str = ""


@dataclass(frozen=True)
class Result:
    """A verdict with the case that it is about."""

    name: str
    kind: str
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        """A flat, JSON-ready record."""
        return {"name": self.name, "kind": self.kind, **asdict(self.verdict)}


def omniop_engine(device: str, fallback: Fallback = "error") -> Engine:
    """omniop itself on ``device``; the engine can be pickled."""
    return functools.partial(_prepare_omniop, device=device, fallback=fallback)


def _prepare_omniop(model: onnx.ModelProto, device: str, fallback: Fallback) -> Prepared:
    import omniop

    session = omniop.load(model, device=device, fallback=fallback)
    return lambda feeds: session.run(dict(feeds))


def run_case(case: Case, device: str = "cpu", fallback: Fallback = "error") -> Verdict:
    """Run one case with omniop on ``device``, in this process."""
    return judge(case, omniop_engine(device, fallback))


def judge(case: Case, engine: Engine) -> Verdict:
    """Run one case with ``engine``, in this process, over all its data sets; any exception is a verdict."""
    start = time.perf_counter()
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            reason = _run(case, engine)
    except (UnsupportedError, PlacementError) as error:
        return Verdict("unsupported", str(error), time.perf_counter() - start, traceback.format_exc())
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        return Verdict("fail", reason, time.perf_counter() - start, traceback.format_exc())
    return Verdict("fail" if reason else "pass", reason or "", time.perf_counter() - start)


def _run(case: Case, engine: Engine) -> str | None:
    rtol, atol = max(case.rtol, MIN_RTOL), max(case.atol, MIN_ATOL)
    prepared = engine(case.model)
    for feeds, expected in case.data_sets:
        if reason := compare_outputs(prepared(feeds), expected, rtol, atol):
            return reason
    return None


def run_cases(cases: Sequence[Case], engine: Engine, jobs: int = 2, timeout: float = 60.0) -> Iterator[Result]:
    """Run ``cases`` with ``engine`` and yield each result as it comes, in no particular order.

    ``jobs`` worker processes share the cases (``engine`` must be picklable); with ``jobs=0`` all run in this process,
    where a crash is a crash and ``timeout`` is not kept.
    """
    if jobs == 0:
        yield from (Result(case.name, case.kind, judge(case, engine)) for case in cases)
        return
    from omniop.conformance.pool import Pool

    with Pool(engine, jobs, timeout) as pool:
        for case, verdict in pool.run(cases):
            yield Result(case.name, case.kind, verdict)


def run(
    device: str, filter: str = "", jobs: int = 2, *, kinds: Sequence[str] = KINDS, fallback: Fallback = "error"
) -> list[Result]:
    """Run the suite's cases that match ``filter`` with omniop on ``device``, with a progress bar; in listed order."""
    from omniop.conformance.report import track

    cases = load_cases(filter, kinds)
    results = track(run_cases(cases, omniop_engine(device, fallback), jobs), len(cases), title=device)
    order = {(case.kind, case.name): i for i, case in enumerate(cases)}
    return sorted(results, key=lambda result: order[result.kind, result.name])
