"""Thirteen architectures, written as ONNX with random weights: what people run, in the spellings that exporters give.

``write(name)`` makes one; ``stored(name, folder)`` keeps it in a folder, its weights as external data.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import platformdirs

from benchmarks.architectures.convnext import convnext
from benchmarks.architectures.decoders import gpt2, llama
from benchmarks.architectures.encoders import bert, distilbert, vit, whisper
from benchmarks.architectures.graph import Feeds, Graph
from benchmarks.architectures.mobilenet import mobilenet
from benchmarks.architectures.resnet import resnet
from benchmarks.architectures.unet import unet
from benchmarks.architectures.yolo import yolo


@dataclass(frozen=True)
class Architecture:
    """``family`` writes it into a graph; ``tiny`` are its arguments at the size of a test."""

    what: str
    family: Callable[..., None]
    tiny: Mapping[str, Any]
    options: Mapping[str, Any] = field(default_factory=dict)
    fused: bool = False
    """Written in the operators of opset 23 by default."""


_TEXT = {"length": 9, "layers": 2, "hidden": 32, "heads": 4, "vocabulary": 50}
_LLAMA = {**_TEXT, "shared": 2, "inner": 48}
_STAGES = ((1, 8, 1, 1), (6, 12, 2, 2), (6, 16, 1, 1))

ARCHITECTURES: Mapping[str, Architecture] = {
    "resnet50": Architecture(
        "a picture of 224 x 224; batch normalisation folded",
        resnet,
        {"image": 32, "width": 8, "depths": (1, 2, 1, 1), "classes": 10},
    ),
    "mobilenetv2": Architecture(
        "a picture of 224 x 224; BatchNormalization, depthwise convolutions",
        mobilenet,
        {"image": 32, "stages": _STAGES, "stem": 8, "last": 24, "classes": 10},
    ),
    "convnext_tiny": Architecture(
        "a picture of 224 x 224; windows of 7 x 7",
        convnext,
        {"image": 64, "widths": (8, 12, 16, 24), "depths": (1, 1, 2, 1), "classes": 10},
    ),
    "vit_base": Architecture(
        "a picture of 224 x 224; Attention and Gelu of opset 23",
        vit,
        {"image": 32, "patch": 8, "layers": 2, "hidden": 32, "heads": 4, "classes": 10},
        fused=True,
    ),
    "bert_base": Architecture("128 tokens; gelu and attention taken apart", bert, _TEXT),
    "distilbert": Architecture("128 tokens; layer normalisation taken apart too, Where masks", distilbert, _TEXT),
    "gpt2_prefill": Architecture("128 tokens", gpt2, _TEXT, {"decode": False}),
    "gpt2_decode": Architecture("a token after 128", gpt2, _TEXT, {"decode": True}),
    "llama_prefill": Architecture("128 tokens; rotary, shared keys, SwiGLU", llama, _LLAMA, {"decode": False}),
    "llama_decode": Architecture("a token after 128", llama, _LLAMA, {"decode": True}),
    "whisper_tiny": Architecture(
        "the encoder, 30 s of sound: attention of 1500 on 1500",
        whisper,
        {"frames": 30, "bands": 8, "layers": 2, "hidden": 32, "heads": 4},
    ),
    "yolo_n": Architecture(
        "a picture of 640 x 640",
        yolo,
        {"image": 64, "widths": (4, 8, 8, 16, 16), "depths": (1, 1, 1, 1), "head": 8, "classes": 3},
    ),
    "unet": Architecture("a picture of 256 x 256", unet, {"image": 32, "width": 4, "levels": 2}),
}


def write(name: str, *, tiny: bool = False, fused: bool | None = None) -> tuple[onnx.ModelProto, Feeds]:
    """The model and what it is fed, the same each time. Raises KeyError for an unknown name."""
    found = ARCHITECTURES[name]
    g = Graph(fused=found.fused if fused is None else fused)
    found.family(g, **found.options, **(found.tiny if tiny else {}))
    return g.model(name), g.feeds


def stored(name: str, folder: Path) -> tuple[Path, Feeds]:
    """The model's file, written on first use, and its feeds."""
    place = folder / f"{name}-{_version()}"
    if not place.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as private:
            made = Path(private) / name
            made.mkdir()
            model, feeds = write(name)
            onnx.save_model(model, made / "model.onnx", save_as_external_data=True, location="model.onnx.data")
            np.savez(made / "feeds.npz", allow_pickle=False, **feeds)
            for old in folder.glob(f"{name}-*"):  # a model of other code
                shutil.rmtree(old)
            made.rename(place)
    with np.load(place / "feeds.npz") as kept:
        return place / "model.onnx", dict(kept)


def models_folder() -> Path:
    """Where `stored` keeps them by default: beside omniop's own caches."""
    return Path(platformdirs.user_cache_dir("omniop", appauthor=False)) / "architectures"


@cache
def _version() -> str:
    """Of the code that writes them."""
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]
