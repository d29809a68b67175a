"""The suite's own cases: what is there, that it is the same everywhere, and that its oracles are sound."""

from __future__ import annotations

import pickle
import sys
from collections import defaultdict
from typing import Any

import numpy as np
import onnx
import pytest

from omniop.conformance.cases import Case, load_cases, sample_cases
from omniop.conformance.choices import LEVELS, QUICK, USUAL
from omniop.conformance.distribution import judge_choices, judge_mask, judge_values
from omniop.conformance.engines import omniop_engine
from omniop.conformance.oracles import onnxruntime_engine
from omniop.conformance.oracles.expected import expect
from omniop.conformance.oracles.numeric import NUMERIC
from omniop.conformance.runner import judge
from omniop.conformance.samples import models
from omniop.conformance.samples.catalogue import catalogue, ops
from omniop.conformance.samples.drawing import normal, special, wide
from omniop.conformance.samples.op import Op
from omniop.conformance.suite import Settings, select
from omniop.conformance.tolerance import Relative, Ulps, tolerance_of

OWN = load_cases(kinds=["own"])


def op(name: str, version: int) -> Op:
    return next(one for one in ops() if (one.name, one.version, one.domain) == (name, version, ""))


# -- what is there ---------------------------------------------------------------------------------------------------


def test_there_are_enough_of_every_operator() -> None:
    assert len(OWN) >= 10_000
    found = {sample.key for sample in catalogue().values()}
    wanted = {f"{one.domain}::{one.name}" if one.domain else one.name for one in ops()}
    assert found == wanted
    assert len({name for name in found if "::" not in name}) >= 201


_FEWER = {"Col2Im": {"string"}}
"""What has no meaning: strings do not add up."""


def test_every_dtype_of_a_schema_has_a_case() -> None:
    dtypes: dict[str, set[str]] = defaultdict(set)
    for sample in catalogue().values():
        dtypes[sample.op] |= set(sample.dtypes)
    missing = {
        one.name: lacking
        for one in ops()
        if one.newest and not one.domain
        if (lacking := set(one.dtypes()) - dtypes[one.name])
    }
    assert missing == _FEWER


def test_a_quick_run_is_small_and_a_filter_finds_every_case() -> None:
    assert len(select(Settings(extent="quick"))) == QUICK
    usual = select(Settings())
    assert sum(case.kind == "own" for case in usual) == USUAL
    trained = load_cases(kinds=LEVELS["L3"])
    assert not set(trained) & set(usual)
    assert len(select(Settings(extent="full"))) == len(usual) - USUAL + len(OWN) + len(trained)
    assert select(Settings(filter=f"^{OWN[17].name}$")) == [OWN[17]]


# -- the same everywhere ---------------------------------------------------------------------------------------------


def test_a_case_travels_by_its_name() -> None:
    case = next(case for case in OWN if case.name.startswith("own_conv_"))
    twin: Case = pickle.loads(pickle.dumps(type(case)(case.name, "own", case.op, case.dtypes)))
    assert twin == case
    assert twin.model == case.model
    for one, other in zip(twin.data_sets, case.data_sets, strict=True):
        assert all(np.array_equal(one.feeds[name], value) for name, value in other.feeds.items())
        assert all(np.array_equal(one.expected[name], value) for name, value in other.expected.items())


def test_what_is_drawn_is_of_its_dtype_and_shape() -> None:
    random = np.random.default_rng(0)
    for dtype in ("float32", "bfloat16", "float8_e4m3fn", "float8_e8m0fnu", "float4_e2m1fn", "int2", "uint4", "bool"):
        for draw in (normal, wide, special):
            found = draw(dtype, 3, 0, 2).draw(random), draw(dtype, 40).draw(random)
            assert [(array.dtype.name, array.shape) for array in found] == [(dtype, (3, 0, 2)), (dtype, (40,))]
    assert np.isnan(special("float16", 13).draw(random)).any()
    assert special("uint64", 6).draw(random).max() == 2**64 - 1


def test_a_version_without_an_attribute_or_a_dtype_has_no_such_case() -> None:
    assert op("ArgMax", 11)(normal("float32", 3), select_last_index=1) is None
    assert op("Add", 14)(normal("string", 3), normal("string", 3)) is None
    found = op("Squeeze", 11)(normal("float32", 1, 3), axes=[0])
    assert found is not None
    assert found.attributes == {"axes": [0]}


# -- oracles ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", range(4))
def test_every_oracle_answers_in_the_dtypes_of_the_model(part: int) -> None:
    cases = [case for case in sample_cases(OWN, 500)[part::4] if not case.refused]
    for case in cases:
        for (_, expected), _ in zip(case.data_sets, range(1), strict=False):
            types = {value.name: value.type.tensor_type.elem_type for value in case.model.graph.output}
            for name, value in expected.items():
                if types[name] and isinstance(value, np.ndarray) and value.dtype != object:
                    assert value.dtype == onnx.helper.tensor_dtype_to_np_dtype(types[name]), case.name


CHECKED = (
    *("Mean", "Softsign", "ReduceLogSum", "ReduceLogSumExp", "BatchNormalization", "LRN", "GlobalLpPool", "MaxPool"),
    *("MaxRoiPool", "ConvTranspose", "OneHot", "Pad", "LpPool", "Erf", "Gelu", "LpNormalization"),
    "com.microsoft::FusedGemm",
)


def onnxruntime_gives(model: onnx.ModelProto, feeds: dict[str, Any]) -> Any:
    """Its outputs, by its kernels of an older opset where it has none of this one; None where it has no such either."""
    for version in (model.opset_import[0].version, 17):
        model.opset_import[0].version = version
        try:
            return onnxruntime_engine(model)(feeds)
        except Exception:
            continue
    return None


@pytest.mark.parametrize("name", CHECKED)
def test_our_own_oracles_have_a_second_opinion(name: str) -> None:
    """ONNX Runtime's, wherever it has a kernel."""
    assert name in NUMERIC
    mine = [sample for sample in catalogue().values() if sample.key == name and not sample.refused]
    judged = 0
    for sample in [one for one in mine if one.dtypes[0] == "float32"][:25]:
        model = models.build(sample, closed=True)
        feeds = models.feeds(sample, 0, model)
        if (theirs := onnxruntime_gives(model, feeds)) is None:
            continue
        ours = expect(sample, model, feeds)
        for key, value in ours.items():
            finite = np.isfinite(value) & np.isfinite(theirs[key])
            np.testing.assert_allclose(theirs[key][finite], value[finite], rtol=2e-4, atol=2e-5, err_msg=sample.name)
        judged += 1
    assert judged


# -- tolerances ------------------------------------------------------------------------------------------------------


def near(tolerance: Any, actual: list[float], expected: list[float], dtype: Any = np.float32) -> list[bool]:
    return tolerance.near(np.array(actual, dtype), np.array(expected, dtype))[0].tolist()  # type: ignore[no-any-return]


def test_without_onnx_runtime_its_cases_are_unjudged_and_no_device_is_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    engine = omniop_engine("reference")
    verdicts = [judge(case, engine) for case in sample_cases(load_cases("^own_ml_", ["own"]), 120)]
    assert {v.status for v in verdicts} == {"pass", "unjudged"}, [v.reason for v in verdicts]
    told = "only ONNX Runtime says what it has to give: pip install onnxruntime"
    assert any(v.reason.startswith(told) for v in verdicts)


def test_units_in_the_last_place() -> None:
    one = 1 + 2.0**-23
    assert near(Ulps(0), [1, one, np.nan], [1, 1, np.nan]) == [True, False, True]
    assert near(Ulps(1), [one, 1 + 2.0**-22, np.inf], [1, 1, 3e38]) == [True, False, False]
    assert near(Ulps(1, 2), [2.0**-22, 2.0**-20, 1], [0, 0, 1]) == [True, False, True]
    assert near(Ulps(1), [0.0], [1e-40]) == [True]  # flushed
    assert near(Ulps(1, coarse=True), [one], [1], np.float64) == [True]
    assert near(Ulps(1), [1 + 2.0**-52], [1], np.float64) == [True]
    assert near(Relative(1e-3, 0), [1.0005], [1]) == [True]


def test_the_table_is_about_operators() -> None:
    assert tolerance_of("Add") == Ulps(0)
    assert tolerance_of("Exp") == Ulps(3)
    assert tolerance_of("com.microsoft::Gelu") == tolerance_of("Gelu") != Ulps(0)


# -- errors and draws ------------------------------------------------------------------------------------------------


def test_what_has_to_be_refused() -> None:
    (case,) = (
        case
        for case in OWN
        if case.name.startswith("own_concat_13_float32") and case.refused and "2x3_3x3" in case.name
    )
    assert judge(case, omniop_engine("reference")).status == "pass"
    accepting = judge(case, lambda model: lambda feeds: {})
    assert (accepting.status, accepting.reason) == ("fail", "it was accepted, and has to be refused")
    assert judge(case, _breaking).status == "fail"


def _breaking(model: onnx.ModelProto) -> Any:
    raise ZeroDivisionError("a crash is no refusal")


def test_draws_are_judged_by_their_distribution() -> None:
    random, example = np.random.default_rng(3), np.zeros(4096, np.float32)

    def drawn(values: np.ndarray) -> Any:
        return lambda: values.astype(np.float32)

    fitting = lambda: random.normal(2, 3, 4096).astype(np.float32)  # noqa: E731
    assert judge_values(fitting, example, ("normal", 2.0, 3.0, False)) is None
    assert "apart from" in (judge_values(fitting, example, ("normal", 2.0, 4.0, False)) or "")
    assert "without a seed" in (
        judge_values(drawn(random.normal(size=4096)), example, ("normal", 0.0, 1.0, False)) or ""
    )
    assert "leaves" in (judge_values(drawn(random.uniform(0, 2, 4096)), example, ("uniform", 0.0, 1.0, True)) or "")
    assert judge_values(drawn(random.uniform(0, 1, 4096)), example, ("uniform", 0.0, 1.0, True)) is None
    logits = np.log(np.array([[0.2, 0.8]]))
    choices = random.choice(2, (1, 4000), p=[0.2, 0.8])
    assert judge_choices(lambda: choices, np.zeros((1, 4000), choices.dtype), logits) is None
    assert "its probability" in (judge_choices(lambda: 1 - choices, np.zeros((1, 4000), choices.dtype), logits) or "")
    x, mask = np.ones(4000, np.float32), random.random(4000) > 0.25
    assert judge_mask(x, np.where(mask, x / np.float32(0.75), 0).astype(np.float32), mask, 0.25) is None
    assert "scaled" in (judge_mask(x, np.where(mask, x, 0), mask, 0.25) or "")
    assert "are dropped" in (judge_mask(x, np.where(mask, x * 2, 0), mask, 0.5) or "")
