"""The gate's operators on every device."""

from __future__ import annotations

import pytest

import omniop
from tests.gate.case import GateCase
from tests.gate.gate_ops import gate_cases, gate_models


@pytest.mark.parametrize("case", gate_cases(), ids=lambda case: case.name)
def test_case(device: str, case: GateCase) -> None:
    session = omniop.load(case.model, device=device, fallback="error")
    _check(session, case)


@pytest.mark.parametrize("cases", gate_models().values(), ids=gate_models().keys())
def test_one_session_takes_every_shape(device: str, cases: tuple[GateCase, ...]) -> None:
    """The shapes of one model one after another, then the first again: also after a run that raised."""
    session = omniop.load(cases[0].model, device=device, fallback="error")
    for case in (*cases, cases[0]):
        _check(session, case)


def _check(session: omniop.Session, case: GateCase) -> None:
    if case.raises is None:
        assert case.mismatch(session.run(dict(case.feeds))) is None
        return
    with pytest.raises(case.raises, match=case.op):  # the message names the node's operator
        session.run(dict(case.feeds))


@pytest.mark.parametrize(
    "case", [case for case in gate_cases() if case.second and case.raises is None], ids=lambda case: case.name
)
def test_oracles_agree(case: GateCase) -> None:
    """What the gate expects does not rest on one implementation."""
    assert case.mismatch(case.second_opinion) is None


def test_names_are_unique() -> None:
    names = [case.name for case in gate_cases()]
    assert len(names) == len(set(names))
