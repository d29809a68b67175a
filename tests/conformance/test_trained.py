"""Level L3: trained networks where their packages are installed."""

from __future__ import annotations

import pytest

from omniop.conformance import trained
from omniop.conformance.cases import load_cases
from omniop.conformance.engines import omniop_engine
from omniop.conformance.oracles import onnxruntime_engine, reference_engine
from omniop.conformance.runner import judge
from omniop.conformance.trained import TRAINED, Trained


def test_a_network_is_judged_whole(device: str) -> None:
    """Where it is installed, which CI sees to."""
    (case,) = load_cases("^trained_silero_vad_sequence$", kinds=["trained"])
    found = judge(case, omniop_engine(device))
    assert found.status == "pass" or "is not installed" in found.reason, found.reason


def test_a_package_that_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(trained.TRAINED, "trained_abacus", Trained("abacus", "a.onnx", "abacus==1.0"))  # type: ignore[misc]
    (case,) = load_cases("^trained_abacus$", kinds=["trained"])
    found = judge(case, omniop_engine("reference"))
    assert (found.status, found.reason) == ("unjudged", "abacus is not installed: pip install abacus==1.0")


def test_two_oracles_agree() -> None:
    """On one network; onnx.reference takes long for others, or has no kernel of theirs."""
    if TRAINED["trained_silero_vad_sequence"].path() is None:
        pytest.skip("silero-vad is not installed")
    (case,) = load_cases("^trained_silero_vad_sequence$", kinds=["trained"])
    assert judge(case, reference_engine).reason == ""
    assert judge(case, onnxruntime_engine).reason == ""
