"""The suite finds the bugs that backends have: each is planted, and a sound backend of the same make passes."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from omniop.conformance.cases import Case, load_cases
from omniop.conformance.engines import omniop_engine
from omniop.conformance.oracles import Engine
from omniop.conformance.runner import judge
from tests.conformance.planted import BUGS, Planted, squeezes_empty

Plant = Callable[[Planted], str]

FINDERS = {
    "ignores_nan": ("^edge_(max|min)_special|^prim_(max|min)_float(32|64)_edges$", "nan"),
    "reduces_past_nan": ("^edge_reducemax_special|^prim_reduce_max_nan_float(16|32)$", "nan"),
    "forgets_the_last": ("^edge_add_ends_(17|33)$|^prim_map_(straight|transposed)_float32$", "1 of"),
    "loses_updates": (
        "^prim_scatter_(add|max)_int(32|64)$|^own_scatternd_18_int32_.*reduction_add",
        "values differ|other bits",
    ),
    "sloppy_exp": ("^prim_exp_float(32|64)_ulp$", "ulp"),
}
"""The cases that find each bug, and what they say."""


def reasons(cases: list[Case], engine: Engine) -> dict[str, str]:
    return {case.name: verdict.reason for case in cases if (verdict := judge(case, engine)).status != "pass"}


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: str, plant: Plant) -> None:
    pattern, told = FINDERS[bug]
    cases = load_cases(pattern)
    found = reasons(cases, omniop_engine(plant(Planted(bug, BUGS[bug]))))
    assert len(cases) >= 2
    assert set(found) == {case.name for case in cases}
    assert all(re.search(told, reason) for reason in found.values())


def test_a_wrong_shape_of_nothing_is_found() -> None:
    cases = load_cases("^edge_(relu|concat_all|transpose|cast)_?", kinds=["edge"])
    empty = {case.name for case in cases if case.name.endswith("empty")}
    found = reasons([case for case in cases if case.name in empty], squeezes_empty("reference"))
    assert set(found) == empty
    assert all("shape [0], expected" in reason for reason in found.values())


def test_the_same_backend_without_a_bug_passes(plant: Plant) -> None:
    patterns = [pattern for pattern, _ in FINDERS.values()]
    cases = load_cases("|".join(patterns))
    assert not reasons(cases, omniop_engine(plant(Planted("sound"))))


def test_onnxs_own_cases_leave_these_bugs_to_ours(plant: Plant) -> None:
    """Why there are edge cases: ONNX's cases of Max and ReduceMax pass on a backend that loses NaN."""
    cases = load_cases("^test_(max|reduce_max)_(example|default_axes_keepdim_example|keepdims_random)$", kinds=["node"])
    assert len(cases) >= 2
    assert not reasons(cases, omniop_engine(plant(Planted("ignores_nan", BUGS["ignores_nan"]))))
