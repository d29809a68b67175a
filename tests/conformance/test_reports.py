"""Reports: JSON is the truth, the other forms are drawn from it, two are compared; and the command."""

from __future__ import annotations

import base64
import gzip
import importlib.util
import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from omniop.conformance import report as terminal
from omniop.conformance.__main__ import app
from omniop.conformance.cases import load_cases
from omniop.conformance.diff import diff
from omniop.conformance.markdown import markdown_text
from omniop.conformance.record import Report, lost_passes
from omniop.conformance.render import FORMS
from omniop.conformance.table import columns, operator_cells
from omniop.conformance.verdict import STATUSES, Error, Facts, Node, Result, Verdict

CASES = "^test_(abs|acos|add|and2d|ceil)$"
"""A few cases; and2d is of booleans."""


def result(name: str, status: Any = "pass", op: str = "Abs", *dtypes: str, reason: str = "", **facts: Any) -> Result:
    kind = "node" if op else "simple"
    error = Error(1e-7, 2e-7, 3.0) if status == "pass" else None
    return Result(name, kind, op, dtypes or ("float32",), Verdict(status, reason, 0.25, "", error, Facts(**facts)))


REPORT = Report(
    "mychip",
    (
        result("test_abs", nodes=(Node("Abs", "mychip:0", "core prims"),)),
        result("test_abs_half", "fail", "Abs", "float16", reason="1 of 3 values </script> | differ"),
        result("test_sum", "crash", "ReduceSum", reason="killed by SIGSEGV\x00"),
        result("test_wait", "timeout", "Loop"),
        result("test_sort", "unsupported", "TopK", reason="no TopK"),
        result("test_odd", "unjudged", "Odd", reason="pip install oracle"),
        result("test_noise", "xfail", "DFT", reason="noise"),
        result("test_late", "xpass", "DFT", reason="passed"),
        result("test_net", "pass", "", host=("If",)),
        result("test_left", "fail", "Add", "int8", reason="left", fallbacks=("Add ran on cpu, not on mychip:0",)),
    ),
    {"name": "mychip:0", "vendor": "me"},
    {"fallback": "error", "fold": True},
    {"onnx": "1.23.2"},
    ("mine.toml: there is no case 'x'",),
    12.5,
    "2026-01-01T00:00:00Z",
)

# -- the record ------------------------------------------------------------------------------------------------------


def test_a_report_survives_its_file(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    REPORT.write(file)
    assert Report.read(file) == REPORT
    record = json.loads(file.read_text())
    assert record["counts"] == {"pass": 2, "fail": 2} | dict.fromkeys(
        ("crash", "timeout", "unsupported", "unjudged", "xfail", "xpass"), 1
    )
    assert len(file.read_text().splitlines()) < 40 + len(REPORT.results)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "Expecting value"),
        ("[]", "not a report"),
        ('{"format": 1}', "its format is 1"),
        ('{"format": 2}', "'cases'"),
    ],
)
def test_another_file_is_no_report(text: str, why: str, tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=why):
        Report.read(file)


def test_an_unknown_status_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    REPORT.write(file)
    file.write_text(file.read_text().replace('"status": "crash"', '"status": "great"'))
    with pytest.raises(ValueError, match="status 'great'"):
        Report.read(file)


# -- what changed ----------------------------------------------------------------------------------------------------


def test_diff_tells_losses_from_gains() -> None:
    after = Report(
        "mychip",
        (
            result("test_abs", "fail"),
            result("test_abs_half", "pass", "Abs", "float16"),
            result("test_sum", "timeout", "ReduceSum"),
            result("test_new"),
            *REPORT.results[3:-1],
        ),
    )
    found = {kind: [(was, r.name) for was, r in cases] for kind, cases in diff(REPORT, after).items()}
    assert found == {
        "lost": [("pass", "test_abs")],
        "changed": [("crash", "test_sum")],
        "gained": [("fail", "test_abs_half")],
        "new": [("", "test_new")],
        "gone": [("fail", "test_left")],
    }
    assert next(iter(found)) == "lost"
    assert diff(REPORT, REPORT) == {}
    assert [r.name for r in lost_passes(after.results, REPORT)] == ["test_abs"]


# -- forms -----------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """The tags of a page, what they refer to, and the data in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.references: list[str] = []
        self.scripts: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self._inside = tag
        self.references += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts.append(data)


def held(page: Page) -> dict[str, Any]:
    """The data of a page."""
    found: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(page.scripts[0])))
    return found


def test_the_page_holds_everything_and_loads_nothing() -> None:
    text = FORMS["html"](REPORT)
    page = Page(text)
    assert page.references == []
    assert page.tags["link"] == page.tags["img"] == page.tags["iframe"] == 0
    assert "@import" not in text
    assert "url(" not in text
    assert page.tags["script"] == 2  # a case's text ends no element
    data = held(page)
    assert [case["name"] for case in data["cases"]] == [r.name for r in REPORT.results]
    assert data["cases"][1]["reason"] == "1 of 3 values </script> | differ"
    assert data["backends"][0]["command"] == "omniop conformance --device mychip --fold -vv --filter"
    assert data["dtypes"] == ["float32", "float16", "int8"]
    assert "prefers-color-scheme: dark" in text


def test_several_backends_share_a_page(tmp_path: Path) -> None:
    other = replace(
        REPORT, target="gpu", device={"name": "gpu:0"}, results=REPORT.results[:2], kernels=("kernel panels",)
    )
    files = [tmp_path / "one.json", tmp_path / "two.json"]
    for file, report in zip(files, (REPORT, other), strict=True):
        report.write(file)
    page = tmp_path / "both.html"
    done = CliRunner().invoke(app, ["draw", *map(str, files), "--html", str(page)])
    assert done.exit_code == 0, done.output
    data = held(Page(page.read_text()))
    assert [backend["name"] for backend in data["backends"]] == ["mychip:0", "gpu:0"]
    assert [case["backend"] for case in data["cases"]] == [0] * len(REPORT.results) + [1, 1]
    assert data["backends"][1]["command"].startswith("omniop conformance --device gpu ")
    refused = CliRunner().invoke(app, ["draw", *map(str, files), "--markdown", str(tmp_path / "both.md")])
    assert refused.exit_code == 2


def test_the_page_tells_tuned_kernels_and_the_error_of_functions() -> None:
    exact = Verdict("pass", error=Error(0, 0, 0.75), facts=Facts(tuned=("kernel panels",)))
    results = (
        Result("prim_exp_float32_ulp", "prim", "prim::exp", ("float32",), exact),
        Result("tuned_matmul", "tuned", "tuned::MatMul", ("float32",), exact),
    )
    report = replace(REPORT, results=results, kernels=("kernel dusty", "kernel panels"))
    (backend,) = held(Page(FORMS["html"](report)))["backends"]
    assert backend["ulps"] == {"exp": {"float32": [0.75, 3.0]}}
    assert backend["kernels"] == {"kernel dusty": [0, 0, 0.0], "kernel panels": [1, 0, 0.75]}
    text = markdown_text(report)
    assert "| exp | 0.75 of 3 |" in text
    assert "| kernel dusty | **none** | 0 | 0 |" in text


def test_the_page_of_a_full_run_is_small() -> None:
    many = tuple(replace(r, name=f"{r.name}_{k}") for k in range(2500) for r in REPORT.results)
    assert len(many) > 20_000
    assert len(FORMS["html"](replace(REPORT, results=many))) < 2_000_000


def test_the_page_colours_every_status() -> None:
    text = FORMS["html"](REPORT)
    (order,) = re.findall(r"const ORDER = (\[.*?\]);", text)
    assert set(json.loads(order)) == set(STATUSES)
    assert all(re.search(rf"\.{status}\b[^{{]*\{{ --c:", text) for status in STATUSES)


def test_the_command_on_the_page_is_one(tmp_path: Path) -> None:
    """What the page says repeats a case does so."""
    data = held(Page(FORMS["html"](REPORT)))
    words = data["backends"][0]["command"].replace("mychip", "reference").split()
    assert words[:2] == ["omniop", "conformance"]
    done = CliRunner().invoke(app, [*words[2:], "^test_abs$", "-n", "0"])
    assert done.exit_code == 0, done.output


def test_junit_counts_what_ci_counts() -> None:
    root = ElementTree.fromstring(FORMS["junit"](REPORT))
    node, simple = root.findall("testsuite")
    assert {k: node.get(k) for k in ("tests", "failures", "errors", "skipped")} == {
        **{"tests": "9", "failures": "3", "errors": "2", "skipped": "3"},
    }
    assert simple.get("tests") == "1"
    (failed,) = (case for case in node.findall("testcase") if case.get("name") == "test_abs_half")
    found = failed.find("failure")
    assert found is not None
    assert found.get("message") == "fail: 1 of 3 values </script> | differ"


def test_markdown_names_what_went_wrong() -> None:
    text = FORMS["markdown"](REPORT)
    assert text.startswith("# Conformance of mychip:0\n")
    assert "- `test_abs_half` (fail): 1 of 3 values &lt;/script> \\| differ" in text
    assert "## Unsupported\n\n- no TopK: `test_sort`" in text
    assert "## Unjudged\n\n- pip install oracle: `test_odd`" in text
    assert "- by nature, with the cases that have it: If 1" in text
    assert "- fallback: Add ran on cpu, not on mychip:0 (1)" in text
    assert "12" not in text.replace("1.23.2", "")  # no durations: equal runs, equal pages


def test_cells_are_by_operator_and_dtype() -> None:
    cells = operator_cells(REPORT.results)
    assert list(cells) == ["Abs", "Add", "DFT", "Loop", "Odd", "ReduceSum", "TopK"]
    assert cells["Abs"] == {"float32": Counter(["pass"]), "float16": Counter(["fail"])}
    assert columns(cells) == ["float32", "float16", "int8"]


# -- the terminal and the command ------------------------------------------------------------------------------------


def test_the_summary_tells_it_all(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.summarise(REPORT)
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.startswith("mychip, 12 s, onnx 1.23.2")
    assert "on the host by nature: If (1)" in printed
    assert "left the device: Add ran on cpu" in printed
    assert "stale: mine.toml" in printed


def test_like_reasons_are_one(capsys: pytest.CaptureFixture[str]) -> None:
    reasons = [f"output 'y{i}': shape [{i}], expected [2]" for i in range(3)]
    found = tuple(result(f"test_{i}", "fail", reason=text) for i, text in enumerate(reasons))
    alone = result("test_3", "fail", reason="output 'z': no 7 of them")
    terminal.summarise(Report("abacus", (*found, alone), versions={"onnx": "1"}))
    printed = " ".join(capsys.readouterr().out.split())
    assert "3 │ fail │ output '..': shape [..]" in printed
    assert "1 │ fail │ output 'z': no 7 of them" in printed


def test_a_part_of_the_cases_says_nothing_of_kernels_that_it_does_not_reach(capsys: pytest.CaptureFixture[str]) -> None:
    facts = Facts(tuned=("kernel panels",))
    results = (Result("tuned_matmul", "tuned", "tuned::MatMul", ("float32",), Verdict("pass", facts=facts)),)
    whole = replace(REPORT, results=results, kernels=("kernel dusty", "kernel panels"))
    terminal.summarise(whole)
    assert "reached by no case: kernel dusty" in capsys.readouterr().out
    for part in ({"extent": "quick"}, {"filter": "matmul"}, {"sample": 7}, {"shard": "1/2"}):
        terminal.summarise(replace(whole, settings=part))
        printed = capsys.readouterr().out
        assert "kernel panels" in printed
        assert "dusty" not in printed


def invoke(*arguments: str, oracle: str = "reference") -> Any:
    return CliRunner().invoke(app, ["--oracle", oracle, "-n", "0", *arguments])


def test_the_command_writes_every_form_and_compares(tmp_path: Path) -> None:
    paths = {form: tmp_path / f"report.{form}" for form in ("json", *FORMS)}
    options = [word for form, path in paths.items() for word in (f"--{form}", str(path))]
    done = invoke("--filter", CASES, *options, "--min-pass", "5")
    assert done.exit_code == 0, done.output
    report = Report.read(paths["json"])
    assert report.counts == {"pass": 5}
    assert [r.name for r in report.results] == sorted(case.name for case in load_cases(CASES))
    for form, form_text in FORMS.items():
        assert paths[form].read_text() == form_text(report)

    again = tmp_path / "again.html"
    assert CliRunner().invoke(app, ["draw", str(paths["json"]), "--html", str(again)]).exit_code == 0
    assert again.read_text() == paths["html"].read_text()
    assert invoke("--filter", CASES, "--min-pass", "6").exit_code == 1
    assert invoke("--filter", CASES, "--baseline", str(paths["json"])).exit_code == 0


def test_diff_fails_on_a_loss(tmp_path: Path) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    Report("a", (result("test_abs"),)).write(good)
    Report("a", (result("test_abs", "fail", reason="wrong"),)).write(bad)
    lost = CliRunner().invoke(app, ["diff", str(good), str(bad)])
    assert lost.exit_code == 1
    assert "pass -> fail test_abs" in lost.output
    gained = CliRunner().invoke(app, ["diff", str(bad), str(good)])
    assert (gained.exit_code, "gained: 1" in gained.output) == (0, True)


def test_a_failure_fails_the_run(tmp_path: Path) -> None:
    xfail = tmp_path / "mine.toml"
    xfail.write_text('[[xfail]]\ncases = ["test_abs"]\ndevices = ["reference"]\nreason = "x"\n')
    done = invoke("--filter", CASES, "--expect", str(xfail))
    assert done.exit_code == 1
    assert "xpass" in done.output
    xfail.write_text(xfail.read_text().replace("test_abs", "test_absent"))
    done = invoke("--filter", CASES, "--expect", str(xfail))
    assert done.exit_code == 1
    assert "there is no case 'test_absent'" in " ".join(done.output.split())


def test_a_device_that_is_not_there_fails_the_run() -> None:
    done = CliRunner().invoke(app, ["--device", "abacus", "--filter", "^test_abs$", "-n", "0"])
    assert done.exit_code == 1
    assert done.stdout.startswith("abacus is unavailable: there is no device 'abacus'; available: ")
    assert len(done.stdout.splitlines()) == 1


def test_what_cannot_be_written_is_told_before_the_run(tmp_path: Path) -> None:
    for form in ("json", *FORMS):
        for path, why in ((tmp_path / "none" / "it", "none is not a folder"), (tmp_path, "is a folder, not a file")):
            done = invoke("--filter", CASES, f"--{form}", str(path))
            assert (done.exit_code, done.stdout) == (1, "")
            (line,) = done.stderr.splitlines()
            assert line.startswith("error: ")
            assert why in line


def test_lines_of_cases_are_whole(tmp_path: Path) -> None:
    """Who reads them with grep finds them."""
    name, reason = "test_" + 40 * "long_", "differs " * 30
    files = [tmp_path / f"{status}.json" for status in ("pass", "fail")]
    for file in files:
        Report("a", (result(name, file.stem, reason=reason),)).write(file)
    done = CliRunner().invoke(app, ["diff", *map(str, files)])
    assert any(name in line and reason.strip() in line for line in done.output.splitlines())


def test_ctrl_c_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("omniop.conformance.suite.run_suite", interrupted)
    done = invoke("--filter", CASES)
    assert (done.exit_code, done.stderr) == (130, "\ninterrupted\n")


def test_an_oracle_that_is_not_installed_is_a_wrong_option(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxruntime" else find(name))
    done = invoke("--filter", CASES, oracle="onnxruntime")
    assert done.exit_code == 2
    assert "pip install onnxruntime" in done.output


def test_the_command_lists_a_sample_and_a_shard() -> None:
    sample = invoke("--list", "--sample", "210").output.split()
    assert len(sample) == 210
    parts = [invoke("--list", "--sample", "210", "--shard", f"{i}/2").output.split() for i in (1, 2)]
    assert sorted(parts[0] + parts[1]) == sorted(sample)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--filter", "("), "not a regular"),
        (("--filter", "^nothing$"), "no case matches"),
        (("--kind", "nodes"), "unknown kind nodes"),
        (("--shard", "2"), "'2' is not I/N"),
        (("--shard", "3/2"), "the number is 1 to 2"),
        (("--oracle", "delphi"), "not one of 'reference', 'onnxruntime'"),
        (("--expect", "/nonexistent.toml"), "is no list of"),
        (
            ("--filter", "^test_abs$", "--baseline", "/nonexistent.json"),
            "/nonexistent.json cannot be read: No such file",
        ),
    ],
)
def test_the_command_names_a_wrong_option(arguments: tuple[str, ...], message: str) -> None:
    done = invoke(*arguments)
    assert done.exit_code == 2
    assert message in " ".join(re.sub("[│╭╮╰╯─]", " ", done.output).split())
