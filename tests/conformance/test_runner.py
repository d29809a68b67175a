"""The conformance runner: it reads onnx's cases whole, compares strictly, and survives what it runs."""

from __future__ import annotations

import ctypes
import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from omniop.conformance.cases import DeviceCase, load_cases
from omniop.conformance.choices import KINDS, ONNX
from omniop.conformance.oracles import Prepared, reference_engine
from omniop.conformance.pool import Pool
from omniop.conformance.runner import judge, run_cases
from omniop.conformance.verdict import Verdict
from omniop.opset.errors import UnsupportedError

# -- cases -----------------------------------------------------------------------------------------------------------


def test_every_case_of_onnx_is_there() -> None:
    counts = Counter(case.kind for case in load_cases())
    assert counts["node"] >= 1884
    assert counts["edge"] >= 260
    assert {kind: counts[kind] for kind in ONNX[1:]} == {
        "simple": 23,
        "pytorch-converted": 82,
        "pytorch-operator": 35,
        "light": 9,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_cases_are_whole(kind: str) -> None:
    """Every output has an expectation, and every feed is an input of the model."""
    for case in load_cases(kinds=[kind])[:: {"node": 40, "own": 100}.get(kind, 5)]:
        if case.refused or isinstance(case, DeviceCase):
            continue
        assert case.data_sets, case.name
        for feeds, expected in case.data_sets:
            assert list(expected) == [output.name for output in case.model.graph.output], case.name
            assert set(feeds) <= {value.name for value in case.model.graph.input}, case.name


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("test_optional_has_element_empty_optional_input", type(None)),
        ("test_sequence_insert_at_back", list),
        ("test_identity_opt", list),
        ("test_strnormalizer_nostopwords_nochangecase", np.ndarray),
    ],
)
def test_values_keep_their_type(name: str, type_: type) -> None:
    (case,) = load_cases(f"^{name}$")
    value = next(iter(case.data_sets[0].feeds.values()))
    assert isinstance(value, type_)


def test_unknown_kind_and_bad_pattern_are_refused() -> None:
    with pytest.raises(ValueError, match="there are memory, prim, node, simple"):
        load_cases(kinds=["nodes"])
    with pytest.raises(ValueError, match="not a regular expression"):
        load_cases("(")


# -- runner ----------------------------------------------------------------------------------------------------------


def engine(behaviour: Callable[[], Any]) -> Callable[[onnx.ModelProto], Prepared]:
    """An engine that behaves so on test_abs and like onnx.reference on all else."""

    def prepare(model: onnx.ModelProto) -> Prepared:
        if model.graph.name == "test_abs":
            behaviour()
        return reference_engine(model)

    return prepare


def crash() -> None:
    ctypes.string_at(0)


def leave() -> None:
    os._exit(3)


def hang() -> None:
    time.sleep(60)


def refuse() -> None:
    raise UnsupportedError("no lowering for Abs")


def err() -> None:
    raise NotImplementedError("abs")


def crashing(model: onnx.ModelProto) -> Prepared:
    return engine(crash)(model)


def leaving(model: onnx.ModelProto) -> Prepared:
    return engine(leave)(model)


def hanging(model: onnx.ModelProto) -> Prepared:
    return engine(hang)(model)


def verdicts(results: Any) -> dict[str, Verdict]:
    return {result.name: result.verdict for result in results}


CASES = "^test_(abs|acos|add|and2d|ceil)$"
"""A few cases; and2d is of booleans."""


@pytest.mark.parametrize(("behaviour", "status"), [(refuse, "unsupported"), (err, "fail")])
def test_only_omniops_own_refusals_are_unsupported(behaviour: Callable[[], None], status: str) -> None:
    (case,) = load_cases("^test_abs$")
    verdict = judge(case, engine(behaviour))
    assert verdict.status == status
    assert "bs" in verdict.reason
    assert behaviour.__name__ in verdict.trace


def test_a_wrong_value_fails() -> None:
    (case,) = load_cases("^test_abs$")
    verdict = judge(case, lambda model: lambda feeds: {"y": -np.abs(feeds["x"])})
    assert verdict.status == "fail"
    assert verdict.reason.startswith("output 'y': 60 of 60 values differ")
    assert verdict.seconds > 0


@pytest.mark.parametrize(
    ("broken", "status", "reason"),
    [
        (crashing, "crash", "killed by SIGSEGV"),
        (leaving, "crash", "exited with status 3"),
        (hanging, "timeout", "no answer in 3 s"),
    ],
)
def test_a_broken_case_costs_itself_alone(broken: Any, status: str, reason: str) -> None:
    cases = load_cases(CASES)
    found = verdicts(run_cases(cases, broken, jobs=1, timeout=3))
    assert set(found) == {case.name for case in cases}
    assert found["test_abs"].status == status
    assert reason in found["test_abs"].reason
    assert {verdict.status for name, verdict in found.items() if name != "test_abs"} == {"pass"}


def test_the_stack_of_a_hang_is_the_reason() -> None:
    found = verdicts(run_cases(load_cases("^test_abs$"), hanging, jobs=1, timeout=2))
    assert "in hang" in found["test_abs"].reason


def test_workers_are_recycled() -> None:
    cases = load_cases(CASES)
    with Pool(process_id, jobs=1, timeout=20, recycle=2) as pool:
        workers = Counter(verdict.reason for _, verdict in pool.run(cases))
    assert len(workers) == 3
    assert max(workers.values()) == 2


def process_id(model: onnx.ModelProto) -> Prepared:
    raise UnsupportedError(f"process {os.getpid()}")


def test_a_worker_that_cannot_start_is_an_error() -> None:
    with Pool(Fatal(), jobs=1, timeout=20) as pool, pytest.raises(RuntimeError, match="did not start"):
        list(pool.run(load_cases("^test_abs$")))


class Fatal:
    """An engine that reaches the worker and cannot be rebuilt there."""

    def __call__(self, model: onnx.ModelProto) -> Prepared:
        raise AssertionError("never called")

    def __reduce__(self) -> tuple[Any, ...]:
        return os._exit, (5,)


def test_no_case_is_lost_between_workers() -> None:
    cases = load_cases("^test_(abs|add|argmax|cast)", kinds=["node"])
    found = verdicts(run_cases(cases, reference_engine, jobs=2))
    assert set(found) == {case.name for case in cases}
    assert {verdict.status for verdict in found.values()} == {"pass"}
