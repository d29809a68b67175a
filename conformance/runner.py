"""Run conformance cases on a device: one verdict a case, one process a shard.

A verdict is never better than what happened: "not implemented" is ``unsupported``, one that no
oracle answers ``unjudged``, a process that dies is a ``crash``
and one that hangs a ``timeout``, each at the cost of that one case; right outputs of a tensor operator that left its
device are a ``fail``.
"""

from __future__ import annotations

import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from omniop.conformance.cases import Case, DeviceCase
from omniop.conformance.compare import compare_outputs, error_of
from omniop.conformance.distribution import judge_choices, judge_draws, judge_mask, judge_values
from omniop.conformance.engines import OmniopEngine
from omniop.conformance.expectations import DRAWS
from omniop.conformance.oracles import Engine, NoOracle, Prepared
from omniop.conformance.verdict import Error, Facts, Result, Telling, Verdict
from omniop.opset.errors import OmniopError, PlacementError, UnsupportedError


def judge(case: Case, engine: Engine) -> Verdict:
    """Run one case with ``engine``, in this process, over all its data sets; any exception is a verdict."""
    start, cpu = time.perf_counter(), time.process_time()
    verdict = _verdict(case, engine)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    return replace(verdict, seconds=round(seconds, 4), cpu_seconds=round(cpu_seconds, 4))


def _verdict(case: Case, engine: Engine) -> Verdict:
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            if isinstance(case, DeviceCase):
                return _answer(case, engine)
            if case.refused:
                return _refusal(case, engine)
            if case.as_it_is and isinstance(engine, OmniopEngine):
                engine = replace(engine, fold=True)
            prepared = engine(case.model)
            reason, error = _draw(case, prepared) if case.draw or case.name in DRAWS else _run(case, prepared)
            facts = prepared.facts() if isinstance(prepared, Telling) else Facts()
    except NoOracle as absent:
        return Verdict("unjudged", str(absent))
    except (UnsupportedError, PlacementError) as refusal:
        return Verdict("unsupported", str(refusal), trace=traceback.format_exc())
    except Exception as fault:
        reason = f"{type(fault).__name__}: {fault}"
        return Verdict("fail", reason, trace=traceback.format_exc())
    reason = reason or "; ".join(facts.fallbacks)
    return Verdict("fail" if reason else "pass", reason, error=error, facts=facts)


def _answer(case: DeviceCase, engine: Engine) -> Verdict:
    """What a case makes of the engine's device."""
    if not isinstance(engine, OmniopEngine):
        raise UnsupportedError("this case asks a device, and an oracle has none")
    reason, error, facts = case.ask(engine.device)
    return Verdict("fail" if reason else "pass", reason, error=error, facts=facts)


def _refusal(case: Case, engine: Engine) -> Verdict:
    """A pass where loading or running the case ends in an error that says what is wrong with the model or its feeds."""
    try:
        prepared = engine(case.model)
        for feeds, _ in case.data_sets:
            prepared(feeds)
    except UnsupportedError as refusal:
        return Verdict("unsupported", str(refusal))
    except OmniopError:
        return Verdict("pass")
    return Verdict("fail", "it was accepted, and has to be refused")


def _run(case: Case, prepared: Prepared) -> tuple[str, Error | None]:
    """Why the outputs are wrong ("" where they are right), and the worst error of the last data set that was run."""
    reason, error = None, None
    for feeds, expected in case.data_sets:
        outputs = prepared(feeds)
        reason, error = compare_outputs(outputs, expected, case.tolerance), error_of(outputs, expected)
        if reason:
            break
    return reason or "", error


def _draw(case: Case, prepared: Prepared) -> tuple[str, None]:
    """Judge a random draw by its distribution."""
    ((feeds, expected),) = case.data_sets
    (name, example), *_ = expected.items()
    values = list(feeds.values())
    if case.name in DRAWS:
        seeded = any(attribute.name == "seed" for node in case.model.graph.node for attribute in node.attribute)
        return judge_draws(
            lambda: prepared(feeds)[name], example, DRAWS[case.name](values[0]), seeded=seeded
        ) or "", None
    of, *parameters = case.draw
    match of:
        case "bernoulli":
            found = judge_draws(lambda: prepared(feeds)[name], example, values[0], seeded=parameters[0])
        case "multinomial":
            found = judge_choices(lambda: prepared(feeds)[name], example, values[0])
        case "dropout":
            output, mask = prepared(feeds).values()
            found = judge_mask(values[0], output, mask, parameters[0])
        case _:
            found = judge_values(lambda: prepared(feeds)[name], example, case.draw)
    return found or "", None


def run_cases(cases: Sequence[Case], engine: Engine, jobs: int = 2, timeout: float = 120.0) -> Iterator[Result]:
    """Run ``cases`` with ``engine`` and yield each result as it comes, in no particular order.

    ``jobs`` worker processes share the cases (``engine`` must be picklable); with ``jobs=0`` all run in this process,
    where a crash is a crash and ``timeout`` is not kept.
    """
    if jobs == 0:
        yield from (result_of(case, judge(case, engine)) for case in cases)
        return
    from omniop.conformance.pool import Pool

    longest_first = sorted(cases, key=lambda case: case.kind != "light")
    with Pool(engine, jobs, timeout) as pool:
        for case, verdict in pool.run(longest_first):
            yield result_of(case, verdict)


def result_of(case: Case, verdict: Verdict) -> Result:
    """The verdict with what is known of its case."""
    return Result(case.name, case.kind, case.op, case.dtypes, verdict)
