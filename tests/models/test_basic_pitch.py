"""Basic Pitch hears which notes are played: a constant-Q transform and convolutions, exported by tf2onnx."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import omniop
from omniop.conformance.oracles import onnxruntime_engine
from omniop.demo.pitch import RATE, WINDOW
from tests.models.conftest import MOSTLY, ModelFile
from tests.models.notes import FILE, INPUT, NOTES, bin_of, heard, played


@pytest.fixture
def model(model_file: ModelFile) -> Path:
    return model_file("basic_pitch", FILE)


def test_bins() -> None:
    assert [bin_of(note) for note in ("A0", "C1", "C4", "A4", "C8")] == [0, 3, 39, 48, 87]


def test_hears_a_pure_tone(device: str, model: Path) -> None:
    """440 Hz is A4."""
    t = np.arange(WINDOW) / RATE
    tone = (0.3 * np.sin(2 * np.pi * 440 * t)).astype(np.float32)[None, :, None]
    session = omniop.load(model, device=device, fallback="error")
    assert heard(session.run({INPUT: tone})[NOTES]) == {48}


def test_hears_notes_and_chords(device: str, model: Path) -> None:
    session, oracle = omniop.load(model, device=device, fallback="error"), onnxruntime_engine(onnx.load(model))
    for notes in (("E2",), ("A4",), ("C4", "E4", "G4"), ("D3", "F#3", "A3", "D5")):
        feeds = {INPUT: played(*notes)}
        outputs = session.run(feeds)
        assert heard(outputs[NOTES]) == {bin_of(note) for note in notes}, notes
        for name, expected in oracle(feeds).items():
            np.testing.assert_allclose(outputs[name], expected, atol=1e-3, err_msg=name)
    assert session.explain().share() >= MOSTLY
