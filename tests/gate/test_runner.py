"""The conformance runner: it reads onnx's cases whole, compares strictly, and survives what it runs."""

from __future__ import annotations

import ctypes
import json
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from omniop.conformance import report
from omniop.conformance.__main__ import app
from omniop.conformance.cases import KINDS, load_cases
from omniop.conformance.compare import compare, compare_outputs
from omniop.conformance.oracles import Prepared, reference_engine
from omniop.conformance.pool import Pool
from omniop.conformance.runner import Result, Verdict, judge, run_cases
from omniop.opset.errors import UnsupportedError

# -- cases -----------------------------------------------------------------------------------------------------------


def test_every_case_of_onnx_is_there() -> None:
    counts = Counter(case.kind for case in load_cases())
    assert counts["node"] >= 1884
    assert {kind: counts[kind] for kind in KINDS[1:]} == {
        "simple": 23,
        "pytorch-converted": 82,
        "pytorch-operator": 35,
        "light": 9,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_cases_are_whole(kind: str) -> None:
    """Every output has an expectation, and every feed is an input of the model."""
    for case in load_cases(kinds=[kind])[:: 40 if kind == "node" else 5]:
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
    with pytest.raises(ValueError, match="there are node, simple"):
        load_cases(kinds=["nodes"])
    with pytest.raises(ValueError, match="not a regular expression"):
        load_cases("(")


# -- compare ---------------------------------------------------------------------------------------------------------


def array(*values: Any, dtype: Any = np.float32) -> np.ndarray:
    return np.array(values).astype(dtype)


@pytest.mark.parametrize(
    ("actual", "expected"),
    [
        (array(1, np.nan, np.inf), array(1.0009, np.nan, np.inf)),
        (np.float32(2), array(2).reshape(())),
        (array(1, dtype=ml_dtypes.bfloat16), array(1 + 2**-6, dtype=ml_dtypes.bfloat16)),
        (array(np.nan, 3, dtype=ml_dtypes.float8_e4m3fn), array(np.nan, 3, dtype=ml_dtypes.float8_e4m3fn)),
        (array(-8, 7, dtype=ml_dtypes.int4), array(-8, 7, dtype=ml_dtypes.int4)),
        (array(1 + 2j, dtype=np.complex64), array(1 + 2j, dtype=np.complex64)),
        (array("a", "", dtype=object), array("a", "", dtype=object)),
        ([array(1), array(2, 3)], [array(1), array(2, 3)]),
        ([{"a": array(1)}], [{"a": array(1)}]),
        (None, None),
        (array().reshape(0, 3), array().reshape(0, 3)),
    ],
)
def test_equal(actual: Any, expected: Any) -> None:
    assert compare(actual, expected, 1e-3, 1e-7) is None


@pytest.mark.parametrize(
    ("actual", "expected", "reason"),
    [
        (array(1, 2), array(1, 2.003), "1 of 2 values differ, first at [1]: 2.0, expected 2.003"),
        (array(1), array(1, dtype=np.float64), "dtype float32, expected float64"),
        (array(1), array(1).reshape(()), "shape [1], expected []"),
        (array(np.nan), array(1), "nan, expected 1.0"),
        (array(0), array(np.nan), "0.0, expected nan"),
        (array(np.inf), array(-np.inf), "inf, expected -inf"),
        (array(3.4e38), array(np.inf), "expected inf"),
        (array(10000, dtype=np.int32), array(10001, dtype=np.int32), "10000, expected 10001"),
        (array(7, dtype=ml_dtypes.int4), array(-8, dtype=ml_dtypes.int4), "7, expected -8"),
        (array(1, dtype=ml_dtypes.bfloat16), array(1.04, dtype=ml_dtypes.bfloat16), "1 of 1 values"),
        (array(1, dtype=ml_dtypes.float8_e5m2), array(1.25, dtype=ml_dtypes.float8_e5m2), "1 of 1 values"),
        (array(1 + 2j, dtype=np.complex64), array(1 + 3j, dtype=np.complex64), "2.0, expected 3.0"),
        (array("a", dtype=object), array("b", dtype=object), "a, expected b"),
        (array("a", dtype="U1"), array("a", dtype=object), "dtype str32, expected object"),
        ([array(1)], [array(1), array(2)], "1 elements, expected 2"),
        ([array(1), array(3)], [array(1), array(2)], "element 1: "),
        (array(1), [array(1)], "an array, expected a list"),
        ([array(1)], array(1), "a list, expected an array"),
        (array(1), None, "an array, expected None"),
        (None, array(1), "None, expected an array"),
        ({"a": array(1)}, {"b": array(1)}, "keys"),
    ],
)
def test_different(actual: Any, expected: Any, reason: str) -> None:
    assert reason in (compare(actual, expected, 1e-3, 1e-7) or "")


def test_a_missing_output_is_named() -> None:
    assert compare_outputs({"z": array(1)}, {"y": array(1)}, 0, 0) == "output 'y' is missing; there are z"


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


# -- command line and reports ----------------------------------------------------------------------------------------


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, [*arguments, "--oracle", "reference", "-n", "0"])


def test_command_writes_json_and_compares_with_it(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    done = invoke("--filter", CASES, "--json", str(file), "--min-pass", "5")
    assert done.exit_code == 0, done.output
    record = json.loads(file.read_text())
    assert record["counts"] == {"pass": 5}
    assert [case["name"] for case in record["cases"]] == sorted(case.name for case in load_cases(CASES))

    assert invoke("--filter", CASES, "--min-pass", "6").exit_code == 1
    assert invoke("--filter", CASES, "--baseline", str(file)).exit_code == 0
    failed = [Result("test_abs", "node", Verdict("fail", "wrong"))]
    assert report.lost_passes(failed, file) == failed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--filter", "("), "not a regular"),
        (("--filter", "^nothing$"), "no case matches"),
        (("--kind", "nodes"), "unknown kind nodes"),
        (("--filter", "^test_abs$", "--baseline", "/nonexistent.json"), "not a report"),
    ],
)
def test_command_names_a_wrong_option(arguments: tuple[str, ...], message: str) -> None:
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert message in " ".join(done.output.split())


def test_summary_groups_like_reasons(capsys: pytest.CaptureFixture[str]) -> None:
    reasons = [f"output 'y{i}': shape [{i}], expected [2]" for i in range(3)]
    report.summarise([Result(f"test_{i}", "node", Verdict("fail", text)) for i, text in enumerate(reasons)], "abacus")
    printed = " ".join(capsys.readouterr().out.split())
    assert "abacus" in printed
    assert "3 │ fail │ output '..': shape [..]" in printed
