"""The table of operators in the docs is drawn from its record, and the record is of the suite that is installed."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest

from omniop.conformance.cases import load_cases, sample_cases
from omniop.conformance.choices import LEVELS
from omniop.conformance.engines import omniop_engine
from omniop.conformance.ops_table import dump, main, page, take
from omniop.conformance.record import Report
from omniop.conformance.runner import judge
from omniop.conformance.verdict import Result, Verdict

DOCS = Path(__file__).parents[2] / "docs"
RECORD: dict[str, Any] = json.loads((DOCS / "ops.json").read_text())
FULL = [name for name, about in RECORD["devices"].items() if not about["sample"]]


def test_the_page_is_drawn_from_the_record() -> None:
    assert (DOCS / "ops.md").read_text() == page(RECORD), "run python -m omniop.conformance.ops_table"
    assert (DOCS / "ops.json").read_text() == dump(RECORD)


@pytest.mark.skipif(RECORD["onnx"] != onnx.__version__, reason=f"the record is of onnx {RECORD['onnx']}")
@pytest.mark.parametrize("name", FULL)
def test_the_record_has_every_case_of_the_suite(name: str) -> None:
    kinds = [kind for kind in LEVELS["L1"] if kind != "own" or RECORD["devices"][name].get("own")]
    cases = load_cases(kinds=kinds)
    assert RECORD["devices"][name]["run"] == len(cases)
    by_op = Counter(case.op for case in cases if case.op)
    assert {op: row[name][1] for op, row in RECORD["all"].items()} == by_op
    by_dtype = Counter((case.op, dtype) for case in cases for dtype in case.dtypes)
    found = {(op, dtype): row[name][1] for op, rows in RECORD["ops"].items() for dtype, row in rows.items()}
    assert found == by_dtype


@pytest.mark.skipif(RECORD["onnx"] != onnx.__version__, reason=f"the record is of onnx {RECORD['onnx']}")
def test_what_the_page_says_passes_does() -> None:
    """A spot check on the cpu; the whole is what `omniop conformance` is for."""
    sound = {op for op, row in RECORD["all"].items() if row["cpu"][0] == row["cpu"][1]}
    cases = sample_cases([case for case in load_cases(kinds=["node"]) if case.op in sound], 60)
    engine = omniop_engine("cpu")
    assert {case.name: verdict.reason for case in cases if (verdict := judge(case, engine)).status != "pass"} == {}


def report(device: str, *statuses: Any, **settings: Any) -> Report:
    results = [
        Result(f"test_{k}", "node", "Abs", ("float32", "int8")[k % 2 :][:1], Verdict(s)) for k, s in enumerate(statuses)
    ]
    about = {"name": device, "vendor": "me", "hardware": "chip", "driver": "1.0"}
    network = Result("test_net", "light", "", (), Verdict("pass"))
    return Report(device, (*results, network), about, settings, {"onnx": "1.23.2"})


def test_a_report_replaces_its_device_and_leaves_the_others() -> None:
    record = take({}, report("cpu", "pass", "pass", "fail"))
    record = take(record, report("gpu:0", "pass", sample=2))
    record = take(record, report("cpu", "pass", "unsupported"))
    assert record["all"] == {"Abs": {"cpu": [1, 2], "gpu:0": [1, 1]}}
    assert record["ops"] == {"Abs": {"float32": {"gpu:0": [1, 1], "cpu": [1, 1]}, "int8": {"cpu": [0, 1]}}}
    drawn = page(record)
    assert "| Abs | **1 of 2** | all 1 | float32, int8 |" in drawn
    assert "- `gpu:0` (chip, 1.0): 2 of a sample of 2 cases pass (2 of ONNX's, 0 of ours)" in drawn
    with pytest.raises(ValueError, match="start a new table"):
        take(record, replace(report("cpu", "pass"), versions={"onnx": "1.24.0"}))


def test_the_command_writes_both_files(tmp_path: Path) -> None:
    file = tmp_path / "cpu.json"
    report("cpu", "pass").write(file)
    main([file], tmp_path)
    assert json.loads((tmp_path / "ops.json").read_text())["all"] == {"Abs": {"cpu": [1, 1]}}
    first = (tmp_path / "ops.md").read_text()
    assert "| Abs | all 1 | float32 |" in first
    main([], tmp_path)
    assert (tmp_path / "ops.md").read_text() == first
