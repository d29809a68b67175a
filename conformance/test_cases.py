"""Every case of the suite as a test. See `omniop.conformance.plugin` for the options."""

from __future__ import annotations

import functools

import pytest

from omniop.conformance.cases import Case, load_cases, sample_cases
from omniop.conformance.choices import QUICK
from omniop.conformance.engines import omniop_engine
from omniop.conformance.expectations import Expectations
from omniop.conformance.probe import here
from omniop.conformance.runner import judge, result_of


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" not in metafunc.fixturenames:
        return
    config = metafunc.config
    cases = load_cases() if config.getoption("--omniop-device") else []
    if config.getoption("quick", False):
        cases = sample_cases(cases, QUICK)
    metafunc.parametrize("case", cases, ids=[f"{case.kind}-{case.name}" for case in cases])


@functools.lru_cache(maxsize=1)
def _full_name(device: str) -> str:
    return here(device).fingerprint["name"]


@functools.lru_cache(maxsize=1)
def _expectations(config: pytest.Config) -> Expectations:
    return Expectations.load(config.getoption("--omniop-expect"))


def test_case(case: Case, pytestconfig: pytest.Config) -> None:
    """Passes as the suite's verdict does; what is unsupported or unjudged skips, with the reason."""
    device = pytestconfig.getoption("--omniop-device")
    engine = omniop_engine(device, pytestconfig.getoption("--omniop-fallback"))
    verdict = _expectations(pytestconfig).apply(result_of(case, judge(case, engine)), _full_name(device)).verdict
    match verdict.status:
        case "unsupported" | "unjudged":
            pytest.skip(verdict.reason)
        case "xfail":
            pytest.xfail(verdict.reason)
        case "pass":
            return
    told = f"{verdict.status}: {verdict.reason}\n{verdict.trace}"
    pytest.fail(f"{told}\nomniop conformance --device {device} --filter '^{case.name}$' -vv", pytrace=False)


def test_expectations_are_not_stale(pytestconfig: pytest.Config) -> None:
    if not pytestconfig.getoption("--omniop-device"):
        pytest.skip("give --omniop-device")
    assert _expectations(pytestconfig).stale({case.name for case in load_cases()}) == []
