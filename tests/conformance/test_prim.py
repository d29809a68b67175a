"""Level L0: a device asked for memory and for each operation of its kernels, at their edges."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from omniop.conformance.cases import load_cases, sample_cases
from omniop.conformance.choices import LEVELS
from omniop.conformance.engines import omniop_engine
from omniop.conformance.oracles import reference_engine
from omniop.conformance.oracles.arithmetic import cast, edges, exact, operations
from omniop.conformance.prim.arithmetic import COMPUTED
from omniop.conformance.runner import judge, result_of
from omniop.conformance.table import worst_ulps
from omniop.opset.dtype import FLOAT32, FLOAT64, INT4, INT8, UINT8
from tests.conformance.planted import Planted
from tests.conformance.test_strict import overruns

L0 = load_cases(kinds=LEVELS["L0"])


def test_every_operation_has_a_case_in_every_dtype() -> None:
    found = {case.name for case in L0}
    assert {f"prim_{name}_{dtype}_edges" for dtype in COMPUTED for name in operations(dtype)} <= found
    assert len(found) == len(L0)
    assert {case.kind for case in L0} == {"memory", "prim"}


def test_a_sound_device_passes(device: str) -> None:
    verdicts = {case.name: judge(case, omniop_engine(device)) for case in sample_cases(L0, 120)}
    assert {name: v.reason for name, v in verdicts.items() if v.status not in ("pass", "unsupported")} == {}
    assert all("expands" in v.reason for v in verdicts.values() if v.status == "unsupported")


def test_every_check_of_memory_passes(device: str) -> None:
    memory = load_cases(kinds=["memory"])
    assert {v.status for case in memory if (v := judge(case, omniop_engine(device)))} == {"pass"}


def test_the_worst_error_of_a_function_is_told() -> None:
    cases = load_cases("^prim_(exp|tanh|sqrt)_.*_ulp$")
    found = worst_ulps(result_of(case, judge(case, omniop_engine("reference"))) for case in cases)
    assert set(found) == {"exp", "tanh", "sqrt"}
    assert all(set(row) == {"float32", "float64", "float16", "bfloat16"} for row in found.values())
    assert all(0.4 < ulp <= limit for row in found.values() for ulp, limit in row.values())
    assert found["exp"]["float32"][1] == 3
    assert found["sqrt"]["float64"][1] == 0.5


def test_sentinels_lie_behind_every_buffer(plant: Callable[[Planted], str]) -> None:
    (case,) = load_cases("^prim_map_straight_float32$")
    found = judge(case, omniop_engine(plant(Planted("overruns", overruns))))
    assert found.status == "fail"
    assert "was overwritten" in found.reason


def test_an_oracle_has_no_device() -> None:
    assert judge(L0[0], reference_engine).status == "unsupported"


# -- what the oracle says ----------------------------------------------------------------------------------------------


def test_casts_saturate_wrap_and_round() -> None:
    values = np.array([np.nan, np.inf, -np.inf, 300.7, -300.7, -0.9], np.float32)
    assert cast(values, FLOAT32, INT8).tolist() == [0, 127, -128, 127, -128, 0]
    assert cast(np.array([200, 255], np.uint8), UINT8, INT8).tolist() == [-56, -1]
    assert cast(np.array([9, -9], np.int8), INT8, INT4).astype(np.int8).tolist() == [-7, 7]


def test_functions_are_known_beyond_their_dtype() -> None:
    x = edges(FLOAT64)
    found = exact("sin", FLOAT64, [x])
    assert found.dtype == np.longdouble
    finite = np.isfinite(x) & (np.abs(x) < 1e6)
    assert np.allclose(found[finite].astype(float), np.sin(x[finite]), rtol=1e-15)


@pytest.mark.parametrize("dtype", COMPUTED, ids=str)
def test_edges_are_of_the_dtype(dtype: object) -> None:
    values = edges(dtype)  # type: ignore[arg-type]
    assert values.dtype == dtype.numpy  # type: ignore[attr-defined]
    assert len(values) >= 2
