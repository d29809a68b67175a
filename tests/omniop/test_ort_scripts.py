"""Programs written for onnxruntime, run as they are with omniop in its place: they print the same."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

READ_A_LINE = """
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rapidocr_onnxruntime import RapidOCR

picture = Image.new("RGB", (560, 120), "white")
ImageDraw.Draw(picture).text((20, 30), "Hello, omniop 2024", fill="black", font=ImageFont.load_default(40))
found, _ = RapidOCR()(np.asarray(picture))
for box, text, score in found:
    print(text, np.round(box).astype(int).tolist(), f"{float(score):.2f}")
"""

TELL_FILE_TYPES = """
from magika import Magika

magika = Magika()
for content in (
    b"import sys\\n\\ndef main() -> None:\\n    print(sys.argv)\\n" * 8,
    b"# A title\\n\\nSome *text*, and [a link](https://example.org).\\n" * 20,
    b'{"a": [1, 2, {"b": null}]}' * 30,
):
    found = magika.identify_bytes(content)
    print(found.output.label, f"{found.score:.2f}")
"""

PREAMBLE = """
import sys
import {module} as ort
sys.modules["onnxruntime"] = ort
"""


def printed(program: str, module: str) -> str:
    command = [sys.executable, "-c", PREAMBLE.format(module=module) + program]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("package", "program", "word"),
    [
        pytest.param("rapidocr_onnxruntime", READ_A_LINE, "omniop 2024", id="rapidocr"),
        pytest.param("magika", TELL_FILE_TYPES, "python", id="magika"),
    ],
)
def test_the_same_program_on_both(package: str, program: str, word: str) -> None:
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    expected = printed(program, "onnxruntime")
    assert word in expected
    assert printed(program, "omniop") == expected
