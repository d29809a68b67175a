"""A trained network on real input: PP-OCR's recogniser reads rendered lines exactly."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import omniop
from examples.ocr_text import LINES, characters, decode, model_path, preprocess, render_line
from omniop.conformance.oracles import Prepared, onnxruntime_engine

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "ocr.py"
SLOW = {"reference": 1, "cuda:emu": 1}
"""How many lines a slow device reads; the others read all."""

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("rapidocr_onnxruntime") is None, reason="rapidocr-onnxruntime is not made for this Python"
)


@pytest.fixture(scope="module")
def alphabet() -> list[str]:
    return characters(model_path())


@pytest.fixture(scope="module")
def oracle() -> Prepared:
    import onnx

    return onnxruntime_engine(onnx.load(model_path()))


def test_lines_are_readable(alphabet: list[str], oracle: Prepared) -> None:
    """ONNX Runtime reads every line exactly, and no character by a hair."""
    for line in LINES:
        (probabilities,) = oracle({"x": preprocess(render_line(line))}).values()
        second, first = np.sort(probabilities[0], axis=-1)[:, -2:].T
        assert decode(probabilities[0], alphabet)[0] == line
        assert (first - second).min() > 0.1, line


def test_reads_lines(device: str, alphabet: list[str], oracle: Prepared) -> None:
    session = omniop.load(model_path(), device=device, fallback="error")
    for line in LINES[: SLOW.get(device, len(LINES))]:
        feeds = {"x": preprocess(render_line(line))}
        (probabilities,), (expected,) = session.run(feeds).values(), oracle(feeds).values()
        assert decode(probabilities[0], alphabet)[0] == line
        np.testing.assert_allclose(probabilities, expected, rtol=1e-2, atol=1e-3)


def test_example_says_what_it_read() -> None:
    """The README's first command, on one device."""
    done = _run_example("Hello, world!", "--device", "cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Hello, world!" in done.stdout
    assert "1 of 1 lines read exactly" in done.stdout


def test_example_fails_on_an_unknown_device() -> None:
    done = _run_example("Hello, world!", "--device", "abacus")
    assert done.returncode == 1
    assert "abacus" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def _run_example(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLE), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
