"""``--from-model``: each distinct node of a user's model is a case, bodies and functions included."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser
from typer.testing import CliRunner

from omniop.conformance.__main__ import app
from omniop.conformance.cases import Case
from omniop.conformance.engines import omniop_engine
from omniop.conformance.harvest.case import HarvestedCase, LostCase, harvested_cases
from omniop.conformance.record import Report
from omniop.conformance.runner import judge

HEAD = '<ir_version: 10, opset_import: ["": 21, "mine": 1]>\n'


def save(folder: Path, text: str, **weights: np.ndarray) -> Path:
    model = parser.parse_model(HEAD + text)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    path = folder / "net.onnx"
    onnx.save(model, path)
    return path


def cases_of(path: Path, folder: Path, files: dict[str, Path] | None = None, **sizes: int) -> dict[str, Case]:
    return {case.name: case for case in harvested_cases(path, sizes, files or {}, folder / "cases")}


def judged(cases: dict[str, Case], device: str = "reference") -> dict[str, str]:
    return {name: judge(case, omniop_engine(device, fold=True)).reason for name, case in cases.items()}


def test_each_distinct_node_is_a_case(tmp_path: Path) -> None:
    """Two products of one shape are one case, a third of another shape is a second; values are those of a run."""
    path = save(
        tmp_path,
        "g (float[n, 4] x) => (float[n, 3] y) "
        "{ a = MatMul (x, w) r = Relu (a) b = MatMul (r, w) c = Relu (b) y = MatMul (c, v) }",
        w=np.full((4, 4), 0.5, np.float32),
        v=np.ones((4, 3), np.float32),
    )
    found = cases_of(path, tmp_path, n=5)
    assert list(found) == ["net_MatMul", "net_Relu", "net_MatMul_2"]
    first = found["net_MatMul"]
    assert (first.op, first.dtypes, first.kind) == ("MatMul", ("float32",), "harvested")
    assert [tensor.name for tensor in first.model.graph.initializer] == ["w"]
    assert first.data_sets[0].feeds["x"].shape == (5, 4)
    np.testing.assert_allclose(found["net_Relu"].data_sets[0].feeds["a"], first.data_sets[0].expected["a"], 1e-5)
    assert set(judged(found).values()) == {""}


def test_a_wrong_device_is_found(tmp_path: Path) -> None:
    path = save(tmp_path, "g (float[3] x) => (float[3] y) { y = Exp (x) }")
    (case,) = cases_of(path, tmp_path).values()
    verdict = judge(case, lambda model: lambda feeds: {"y": np.exp(feeds["x"]) * np.float32(1.001)})
    assert verdict.status == "fail"


def test_bodies_are_harvested_at_their_first_turn(tmp_path: Path) -> None:
    path = save(
        tmp_path,
        """g (bool c, float[2, 3] x) => (float[2, 3] y, float[3, 2, 3] s) {
          p = If (c) <then_branch = t () => (float[2, 3] a) { a = Neg (x) },
                      else_branch = e () => (float[2, 3] b) { b = Floor (x) }>
          k = Constant <value_int = 3> ()
          q = Constant <value = bool {1}> ()
          y, s = Loop (k, q, p) <body = l (int64 i, bool go, float[2, 3] v) => (bool on, float[2, 3] w, float[2, 3] z)
             { on = Identity (go) f = Cast <to = 1> (i) u = Add (v, f) w = Sqrt (u) z = Mul (w, x) }>
        }""",
    )
    found = cases_of(path, tmp_path)
    ops = [case.op for case in found.values()]
    assert {"If", "Neg", "Floor", "Loop", "Sqrt", "Mul", "Add"} <= set(ops)
    branch = next(case for case in found.values() if case.op == "If")
    assert set(branch.data_sets[0].feeds) == {"c", "x"}  # what the bodies take from around them is fed
    assert set(judged(found).values()) == {""}


def test_functions_are_written_out(tmp_path: Path) -> None:
    text = """g (float[4] x) => (float[4] y) { y = mine.twice (x) }
    <domain: "mine", opset_import: ["": 21]>
    twice (a) => (b) { h = Abs (a) b = Add (h, h) }"""
    found = cases_of(save(tmp_path, text), tmp_path)
    assert [case.op for case in found.values()] == ["Abs", "Add"]
    assert set(judged(found).values()) == {""}


def test_external_data_is_read_and_what_lies_elsewhere_refused(tmp_path: Path) -> None:
    model = onnx.load(save(tmp_path, "g (float[2] x) => (float[2] y) { y = Mul (x, w) }", w=np.full(2, 3, np.float32)))
    path = tmp_path / "far.onnx"
    onnx.save(model, path, save_as_external_data=True, location="far.bin", size_threshold=0)
    assert judged(cases_of(path, tmp_path)) == {"far_Mul": ""}
    moved = onnx.load(path, load_external_data=False)
    next(e for e in moved.graph.initializer[0].external_data if e.key == "location").value = "../far.bin"
    path.write_bytes(moved.SerializeToString())
    done = invoke(path)
    assert done.exit_code == 2
    assert "far.bin" in done.output


def test_what_no_oracle_runs_is_told(tmp_path: Path) -> None:
    path = save(
        tmp_path, "g (float[3] x) => (float[3] y) { h = Abs (x) r = Reshape (h, s) y = Neg (r) }", s=np.array([7])
    )
    found = cases_of(path, tmp_path)
    assert isinstance(found["net_Abs"], HarvestedCase)
    assert isinstance(found["net_Reshape"], LostCase)
    reshape, neg = (judge(found[f"net_{op}"], omniop_engine("reference")) for op in ("Reshape", "Neg"))
    assert (reshape.status, neg.status) == ("unjudged", "unjudged")
    assert "no oracle runs it" in reshape.reason
    assert "no oracle gives 'r'" in neg.reason


def test_an_input_may_come_from_a_file(tmp_path: Path) -> None:
    path = save(tmp_path, "g (int64[1] i, float[9] x) => (float[1] y) { y = Gather (x, i) }")
    np.save(tmp_path / "i.npy", np.array([8]))
    (case,) = cases_of(path, tmp_path, {"i": tmp_path / "i.npy"}).values()
    assert case.data_sets[0].feeds["i"].tolist() == [8]


# -- the command -----------------------------------------------------------------------------------------------------


def invoke(path: Path, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["--device", "reference", "-n", "0", "--from-model", str(path), *arguments])


def test_the_command_judges_a_model_and_reports(tmp_path: Path) -> None:
    path = save(tmp_path, "g (float[n, 3] x) => (float[n, 3] y) { h = Tanh (x) y = Softmax (h) }")
    report, page = tmp_path / "report.json", tmp_path / "report.html"
    done = invoke(path, "--dim", "n=4", "--json", str(report), "--html", str(page))
    assert done.exit_code == 0, done.output
    found = Report.read(report)
    assert [(r.name, r.verdict.status) for r in found.results] == [("net_Softmax", "pass"), ("net_Tanh", "pass")]
    assert found.settings["dims"] == {"n": 4}
    assert page.stat().st_size > 10_000
    listed = invoke(path, "--dim", "n=4", "--list", "--filter", "Tanh")
    assert listed.output.split() == ["harvested/net_Tanh"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "input 'x' (float32 [n, x:1]): give --dim n=SIZE --dim x:1=SIZE"),
        (("--dim", "n=2", "--dim", "x:1=2", "--dim", "m=3"), "no input has a dim 'm'; open dims: n, x:1"),
        (("--dim", "n"), "'n' is not NAME=SIZE"),
        (("--input", "z=z.npy"), "z.npy is not an array"),
        (("--input", "z"), "'z' is not NAME=FILE"),
        (("--dim", "n=2", "--dim", "x:1=2", "--filter", "Conv"), "no node of"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = invoke(save(tmp_path, "g (float[n, ?] x) => (float[n, 3] y) { y = Abs (x) }"), *arguments)
    assert done.exit_code == 2
    assert message in " ".join(re.sub("[│╭╮╰╯─]", " ", done.output).split())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04 and more", "a zip archive"),
        (b"\x08\x0a", "holds no graph"),
        (None, "cannot be read"),
    ],
)
def test_a_bad_model_is_named(tmp_path: Path, data: bytes | None, message: str) -> None:
    path = tmp_path / "bad.onnx"
    if data is not None:
        path.write_bytes(data)
    done = invoke(path)
    assert done.exit_code == 2
    assert message in " ".join(re.sub("[│╭╮╰╯─]", " ", done.output).split())
    assert "Traceback" not in done.output


def test_dims_without_a_model_are_a_mistake() -> None:
    assert CliRunner().invoke(app, ["--dim", "n=2", "--filter", "^test_abs$"]).exit_code == 2
