"""Which cases are run and how they are judged: samples, shards, suite mode, expectations, fallbacks, edge cases."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

import omniop
from omniop.conformance.archive import subject_of
from omniop.conformance.cases import Case, DataSet, load_cases, sample_cases, shard_cases
from omniop.conformance.distribution import judge_draws, tail
from omniop.conformance.engines import feed_constants, omniop_engine
from omniop.conformance.expectations import DRAWS, Expectations
from omniop.conformance.oracles import Prepared, onnxruntime_engine
from omniop.conformance.probe import Unavailable, probe
from omniop.conformance.runner import judge, result_of
from omniop.conformance.suite import Settings, run_suite
from omniop.conformance.verdict import Result, Verdict
from omniop.dispatcher.host_ops import HOST_OPS
from omniop.opset.host_nature import HOST_BY_NATURE
from tests.conformance.planted import Planted

# -- which cases -----------------------------------------------------------------------------------------------------


def test_a_sample_is_fixed_and_has_each_operator() -> None:
    cases = load_cases()
    sample = sample_cases(cases, 400)
    assert len(sample) == 400
    assert {case.op for case in sample} == {case.op for case in cases}
    assert sample == sample_cases(list(reversed(cases)), 400)[::-1]
    assert set(sample_cases(cases, 250)) <= set(sample)
    most = Counter(case.op for case in cases).most_common(1)[0][0]
    assert Counter(case.op for case in sample).most_common(1)[0][0] == most


def test_shards_share_out_every_case() -> None:
    cases = load_cases(kinds=["node"])
    shards = [shard_cases(cases, number, 3) for number in (1, 2, 3)]
    assert sorted(case.name for shard in shards for case in shard) == [case.name for case in cases]
    assert max(map(len, shards)) - min(map(len, shards)) <= 1
    with pytest.raises(ValueError, match="the number is 1 to 3"):
        shard_cases(cases, 4, 3)


@pytest.mark.parametrize(
    ("name", "op", "dtypes"),
    [
        ("test_cast_FLOAT_to_BFLOAT16", "Cast", ("bfloat16", "float32")),
        ("test_reshape_reordered_all_dims", "Reshape", ("float32",)),
        ("test_gelu_tanh_1_expanded", "Gelu", ("float32",)),
        ("test_and2d", "And", ("bool",)),
        ("test_string_concat", "StringConcat", ("string",)),
        ("test_ai_onnx_ml_binarizer", "ai.onnx.ml::Binarizer", ("float32",)),
        ("test_sequence_insert_at_back", "SequenceInsert", ("int64",)),
        ("test_resnet50", "", ()),
        ("edge_cast_empty", "Cast", ("float32", "int32")),
    ],
)
def test_a_case_knows_its_operator_and_dtypes(name: str, op: str, dtypes: tuple[str, ...]) -> None:
    (case,) = load_cases(f"^{name}$")
    assert (case.op, case.dtypes) == (op, dtypes)


def test_every_case_of_one_operator_has_a_dtype() -> None:
    assert [case.name for case in load_cases() if case.op and not case.dtypes] == []


# -- edge cases ------------------------------------------------------------------------------------------------------

# ONNX Runtime loses a NaN that is not the first of its row; numpy, torch and IEEE 754's maximum keep it.
_LOSES_NAN = {f"edge_reduce{which}_special_float{bits}" for which in ("max", "min") for bits in (16, 32, 64)}


def test_edge_expectations_have_a_second_opinion() -> None:
    verdicts = {case.name: judge(case, onnxruntime_engine) for case in load_cases(kinds=["edge"])}
    assert {name for name, verdict in verdicts.items() if verdict.status == "fail"} == _LOSES_NAN
    unsupported = [name for name, verdict in verdicts.items() if verdict.status == "unsupported"]
    assert all(name.endswith("float64") for name in unsupported)
    assert len(unsupported) <= 4


# -- suite mode ------------------------------------------------------------------------------------------------------


def affine(**constants: Any) -> onnx.ModelProto:
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> affine (float[2, 3] x) => (float[6] y) '
        "{ two = Constant <value_float = 2.0> () z = Mul (x, two) v = Add (z, b) y = Reshape (v, flat) }"
    )
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in constants.items())
    return model


def test_constants_are_fed_and_shapes_are_not() -> None:
    b, flat = np.ones((1, 3), np.float32), np.array([6], np.int64)
    model, feeds = feed_constants(affine(b=b, flat=flat))
    assert sorted(feeds) == ["b", "two"]
    assert {value.name for value in model.graph.input} == {"x", "b", "two"}
    assert [tensor.name for tensor in model.graph.initializer] == ["flat"]
    assert [node.op_type for node in model.graph.node] == ["Mul", "Add", "Reshape"]


@pytest.mark.parametrize(("fold", "folded"), [(True, 1), (False, 0)])
def test_nothing_is_computed_at_load_in_suite_mode(fold: bool, folded: int) -> None:
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> twice (float[1, 2] x) => (float[1, 2] y) '
        "<float[2, 2] w = {1, 2, 3, 4}> { square = MatMul (w, w) y = MatMul (x, square) }"
    )
    fed, feeds = (model, {}) if fold else feed_constants(model)
    session = omniop.load(fed, device="reference")
    found = session.run({**feeds, "x": np.ones((1, 2), np.float32)})
    assert found["y"].tolist() == [[22, 32]]
    assert [bool(t.constant_steps) for t in session.explain().templates] == [bool(folded)]


def test_the_oracles_know_neither_lowerings_nor_backends() -> None:
    """import-linter says so of the source; here of what is in fact imported."""
    code = (
        "import importlib, pkgutil, sys, onnx.parser, numpy as np\n"
        "from omniop.conformance import oracles\n"
        "from omniop.conformance.oracles import ENGINES\n"
        "for m in pkgutil.iter_modules(oracles.__path__): importlib.import_module(f'{oracles.__name__}.{m.name}')\n"
        'model = onnx.parser.parse_model(\'<ir_version: 10, opset_import: ["": 21]> '
        "g (float[2] x) => (float[2] y) { y = Relu (x) }')\n"
        "for engine in ENGINES.values(): engine(model)({'x': np.ones(2, np.float32)})\n"
        "print(*(m for m in sys.modules if m.startswith('omniop.')))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    judged = ("omniop.backends", "omniop.dispatcher", "omniop.opset.lower", "omniop.opset.prims")
    assert "omniop.conformance.oracles.numeric" in done.stdout
    assert not [name for name in done.stdout.split() if name.startswith(judged)]


# -- the host --------------------------------------------------------------------------------------------------------


def test_every_host_step_is_on_the_list() -> None:
    """Host forms of operators that devices run are for strings and draws; the engine tells when one is not."""
    assert {op for _, op in HOST_OPS} <= set(HOST_BY_NATURE)


def test_the_host_is_told_apart_from_a_fallback() -> None:
    (case,) = load_cases("^test_sequence_insert_at_back$")
    verdict = judge(case, omniop_engine("reference"))
    assert verdict.status == "pass"
    assert (verdict.facts.host, verdict.facts.fallbacks) == (("SequenceInsert",), ())


def test_a_tensor_operator_on_the_host_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    from omniop.dispatcher.host_ops import by_reference

    monkeypatch.setitem(HOST_OPS, ("", "Abs"), by_reference)
    (case,) = load_cases("^test_abs$")
    verdict = judge(case, omniop_engine("reference"))
    assert (verdict.status, verdict.reason) == ("fail", "Abs ran on the host")


def test_an_operator_that_left_its_device_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    load = omniop.load
    monkeypatch.setattr(omniop, "load", lambda *a, **k: load(*a, **k, exclude={"reference": ["Abs"]}))
    (case,) = load_cases("^test_abs$")
    verdict = judge(case, omniop_engine("reference", "silent"))
    assert verdict.status == "fail"
    assert verdict.reason.startswith("Abs ran on cpu, not on reference: excluded")
    assert judge(case, omniop_engine("reference", "error")).status == "unsupported"


# -- expectations ----------------------------------------------------------------------------------------------------


def expectations(tmp_path: Path, text: str) -> Expectations:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    return Expectations.load([file])


ENTRY = '[[xfail]]\ncases = ["test_abs"]\ndevices = ["my*"]\nreason = "no sign bit"\n'


def result(status: Any, name: str = "test_abs") -> Result:
    return Result(name, "node", "Abs", ("float32",), Verdict(status, "off by one"))


@pytest.mark.parametrize(
    ("status", "device", "becomes"),
    [
        ("fail", "mychip:0", "xfail"),
        ("crash", "mychip:0", "xfail"),
        ("timeout", "mychip:0", "xfail"),
        ("pass", "mychip:0", "xpass"),
        ("unsupported", "mychip:0", "unsupported"),
        ("fail", "cpu", "fail"),
        ("pass", "cpu", "pass"),
    ],
)
def test_expectations_are_of_a_device(status: str, device: str, becomes: str, tmp_path: Path) -> None:
    found = expectations(tmp_path, ENTRY).apply(result(status), device)
    assert found.verdict.status == becomes
    if becomes.startswith("x"):
        assert "no sign bit" in found.verdict.reason


def test_a_stale_expectation_is_named(tmp_path: Path) -> None:
    names = {case.name for case in load_cases()}
    assert Expectations.load().stale(names) == []
    found = expectations(tmp_path, ENTRY.replace("test_abs", "test_absent")).stale(names)
    assert found == ["mine.toml: there is no case 'test_absent'"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[xfail]\n", "is no list of expectations"),
        ('[[skip]]\ncases = ["test_abs"]\n', r"\[\[skip\]\] is none of"),
        ('[[xfail]]\ncases = ["test_abs"]\n', "it needs cases, devices, reason"),
    ],
)
def test_a_wrong_list_is_refused(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        expectations(tmp_path, text)


def collect(results: Any, total: int, title: str) -> list[Result]:
    return list(results)


def test_a_run_applies_them_by_the_devices_full_name(tmp_path: Path, plant: Callable[[Planted], str]) -> None:
    name = plant(Planted("mychip"))
    file = tmp_path / "mine.toml"
    file.write_text(ENTRY)
    report = run_suite(Settings(name, "^test_(abs|acos)$", jobs=0, expect=(file,)), collect)
    assert {r.name: r.verdict.status for r in report.results} == {"test_abs": "xpass", "test_acos": "pass"}
    assert report.device["name"] == "mychip"
    assert [r.name for r in report.wrong] == ["test_abs"]


# -- devices that are not there --------------------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", [0, 1])
def test_a_device_that_is_not_there_is_unavailable(jobs: int) -> None:
    report = run_suite(Settings("abacus", "^test_(abs|acos)$", jobs=jobs), collect)
    assert report.counts == {"unavailable": 2}
    assert "there is no device 'abacus'" in report.results[0].verdict.reason


def test_a_device_is_asked_in_a_process_of_its_own() -> None:
    found = probe("reference").fingerprint
    assert (found["name"], found["vendor"], found["hardware"]) == ("reference", "numpy", "reference")
    with pytest.raises(Unavailable, match="abacus"):
        probe("abacus")


# -- random draws ----------------------------------------------------------------------------------------------------

CHANCES = np.linspace(0.05, 0.95, 10).astype(np.float32)


def drawing(draw: Callable[[], np.ndarray], *, seeded: bool = False) -> str | None:
    return judge_draws(draw, np.zeros(10, np.float32), CHANCES, seeded=seeded)


def test_any_draw_that_fits_is_right() -> None:
    for seed in range(20):
        random = np.random.default_rng(seed)
        assert drawing(lambda r=random: (r.random(10) < CHANCES).astype(np.float32)) is None
        assert drawing(lambda r=random: (r.random(10) < CHANCES).astype(np.float32), seeded=True) is None


@pytest.mark.parametrize(
    ("draw", "reason"),
    [
        (lambda: (np.random.default_rng(0).random(10) < CHANCES).astype(np.float32), "of 64 draws"),
        (lambda: np.ones(10, np.float32), "of 64 draws"),
        (lambda: (CHANCES < np.random.random(10)).astype(np.float32), "of 64 draws"),
        (lambda: CHANCES, "neither 0 nor 1"),
        (lambda: np.zeros(10), "float64 [10], expected float32 [10]"),
        (lambda: np.zeros((2, 5), np.float32), "float32 [2, 5], expected"),
    ],
)
def test_a_draw_that_does_not_fit_is_wrong(draw: Callable[[], np.ndarray], reason: str) -> None:
    assert reason in (drawing(draw) or "")


def test_what_cannot_happen_is_wrong() -> None:
    impossible = judge_draws(lambda: np.ones(1), np.ones(1), np.zeros(1), seeded=True)
    assert impossible == "element 0 is 1 in 1 of 1 draws, its probability is 0"


def test_the_tail_is_the_binomials() -> None:
    assert tail([0.5] * 4, 0) == pytest.approx(2 / 16)
    assert tail([0.5] * 4, 3) == pytest.approx(2 * 5 / 16)
    assert tail([0.2, 0.7], 2) == pytest.approx(2 * 0.14)


def test_the_suites_draws_are_judged_by_their_distribution() -> None:
    cases = load_cases("bernoulli", kinds=["node"])
    assert {case.name for case in cases} == set(DRAWS)
    for case in cases:
        assert judge(case, omniop_engine("reference")).status == "pass", case.name
        stuck = judge(case, _stuck)
        assert stuck.status == ("pass" if "seed" in case.name else "fail"), case.name


def _stuck(model: onnx.ModelProto) -> Prepared:
    """Always the same draw, which fits."""
    prepared = omniop_engine("reference")(model)
    drawn: dict[str, Any] = {}

    def run(feeds: Any) -> dict[str, Any]:
        if not drawn:
            drawn.update(prepared(feeds))
        return drawn

    return run


def test_results_carry_their_case() -> None:
    case = Case("edge_x", "edge", "Abs", ("float32",))
    found = result_of(case, Verdict("pass"))
    assert (found.name, found.kind, found.op, found.dtypes) == ("edge_x", "edge", "Abs", ("float32",))
    assert Result.from_json(found.to_json()) == found


def test_subject_of_a_network_is_none() -> None:
    model = affine(b=np.ones((1, 3), np.float32), flat=np.array([6], np.int64))
    assert subject_of(model).op == ""
    assert isinstance(load_cases("^test_abs$")[0].data_sets[0], DataSet)
