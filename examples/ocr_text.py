"""Reading a line of text with PP-OCR's recogniser: all but running the network, which is ``ocr.py``'s part.

The model comes with the package ``rapidocr-onnxruntime``; the characters that it knows are in its metadata.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import onnx
from PIL import Image, ImageDraw, ImageFont

LINES = (
    "Hello, world!",
    "ONNX runs on any device",
    "Call me at 555-0199",
    "user@example.com",
    "Total: 98.6%",
    "2026-11-22 14:45",
    "Is it 5 or 6? (Both.)",
)
"""Lines that the model reads exactly: letters, digits and punctuation."""

_MODEL = "ch_PP-OCRv4_rec_infer.onnx"
_FONT_SIZE, _MARGIN = 40, 2
_HEIGHT = 48  # the network's input height
_STRIDE = 8  # it reads one character, or a part of one, from every 8 columns


def model_path() -> Path:
    """Where the recogniser lies. FileNotFoundError, saying what to install, where it does not."""
    spec = importlib.util.find_spec("rapidocr_onnxruntime")  # finding it does not import it
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / "models" / _MODEL
        if path.exists():
            return path
    raise FileNotFoundError(f"{_MODEL} is not installed: pip install rapidocr-onnxruntime")


def characters(path: Path) -> list[str]:
    """What each class of the output stands for: class 0 is CTC's blank, the last one is the space."""
    model = onnx.load(path, load_external_data=False)
    (known,) = (entry.value for entry in model.metadata_props if entry.key == "character")
    return ["", *known.splitlines(), " "]


def render_line(text: str) -> Image.Image:
    """``text`` in black on white, in Pillow's own font."""
    font = ImageFont.load_default(size=_FONT_SIZE)
    left, _, right, _ = font.getbbox(text)
    ascent, descent = font.getmetrics()  # type: ignore[union-attr]  # with a size, it is a FreeTypeFont
    image = Image.new("RGB", (int(right - left) + 2 * _MARGIN, ascent + descent + 2 * _MARGIN), "white")
    ImageDraw.Draw(image).text((_MARGIN - left, _MARGIN), text, font=font, fill="black")
    return image


def preprocess(image: Image.Image) -> np.ndarray:
    """The network's input: f32 [1, 3, 48, width] in -1 .. 1, the width by the picture's ratio, rounded up to 8."""
    width = max(1, round(image.width * _HEIGHT / image.height))
    width = -(-width // _STRIDE) * _STRIDE
    pixels = np.asarray(image.convert("RGB").resize((width, _HEIGHT), Image.Resampling.BILINEAR), np.float32)
    return np.ascontiguousarray(((pixels / 255 - 0.5) / 0.5).transpose(2, 0, 1))[None]


def decode(probabilities: np.ndarray, alphabet: list[str]) -> tuple[str, float]:
    """Greedy CTC over f32 [steps, classes]: repeats count once, blanks vanish. The text, and the mean confidence."""
    best = probabilities.argmax(axis=-1)
    kept = (best != 0) & (best != np.concatenate(([-1], best[:-1])))
    confidence = probabilities.max(axis=-1)[kept]
    return "".join(alphabet[i] for i in best[kept]), float(confidence.mean()) if confidence.size else 0.0
