"""A trained network on real input: PP-OCR's recogniser reads rendered lines exactly."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from PIL import Image, ImageDraw, ImageFont

import omniop
from omniop.conformance.oracles import Prepared, onnxruntime_engine
from omniop.demo import models, ocr, quads

LINES = (
    "Hello, world!",
    "ONNX runs on any device",
    "Call me at 555-0199",
    "user@example.com",
    "Total: 98.6%",
    "2026-11-22 14:45",
    "Is it 5 or 6? (Both.)",
)
"""Letters, digits and punctuation."""
SLOW = {"reference": 1, "cuda:emu": 1}
"""How many lines a slow device reads; the others read all."""


@pytest.fixture(scope="module")
def alphabet() -> list[str]:
    return ocr.alphabet(models.RECOGNITION.path())


@pytest.fixture(scope="module")
def oracle() -> Prepared:
    return onnxruntime_engine(onnx.load(models.RECOGNITION.path()))


def feeds(text: str) -> dict[str, np.ndarray]:
    """``text`` in black on white, in Pillow's own font, as the network takes it."""
    font = ImageFont.load_default(size=40)
    left, top, right, bottom = font.getbbox(text, anchor="ls")
    image = Image.new("RGB", (int(right - left) + 20, int(bottom - top) + 20), "white")
    ImageDraw.Draw(image).text((10 - left, 10 - top), text, font=font, fill="black", anchor="ls")
    strip = ocr.strip(image, quads.rectangle(*image.size), 1600)
    return {"x": ocr.stacked([strip], -(-strip.shape[2] // 8) * 8)}


def test_lines_are_readable(alphabet: list[str], oracle: Prepared) -> None:
    """ONNX Runtime reads every line exactly, and no character by a hair."""
    for line in LINES:
        (probabilities,) = oracle(feeds(line)).values()
        second, first = np.sort(probabilities[0], axis=-1)[:, -2:].T
        assert ocr.decode(probabilities[0], alphabet)[0] == line
        assert (first - second).min() > 0.1, line


def test_reads_lines(device: str, alphabet: list[str], oracle: Prepared) -> None:
    session = omniop.load(models.RECOGNITION.path(), device=device, fallback="error")
    for line in LINES[: SLOW.get(device, len(LINES))]:
        (probabilities,), (expected,) = session.run(feeds(line)).values(), oracle(feeds(line)).values()
        assert ocr.decode(probabilities[0], alphabet)[0] == line
        np.testing.assert_allclose(probabilities, expected, rtol=1e-2, atol=1e-3)
