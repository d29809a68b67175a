"""Magika names the kinds of files: an embedding, dense layers and a convolution over bytes, exported by tf2onnx."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import omniop
from omniop.conformance.oracles import onnxruntime_engine
from tests.models.conftest import MOSTLY, ModelFile
from tests.models.file_types import FOLDER, FileTypes

ROOT = Path(__file__).parents[2]
OWN = {
    "opset/prims.py": "python",
    "README.md": "markdown",
    "pyproject.toml": "toml",
    ".ci/run": "shell",
    "docs/road.svg": "svg",
    ".gitignore": "ignorefile",
    "LICENSE": "txt",
}
"""Files of this repository, each under a name that tells the model nothing: it sees bytes."""
PACKAGED = {"coffee.png": "png", "rocket.jpg": "jpeg", "multipage.tif": "tiff"}
"""Pictures of scikit-image."""


@pytest.fixture
def types(model_file: ModelFile) -> FileTypes:
    return FileTypes.read(model_file("magika", f"{FOLDER}/config.min.json"))


@pytest.fixture
def model(model_file: ModelFile) -> Path:
    return model_file("magika", f"{FOLDER}/model.onnx")


def test_features(types: FileTypes) -> None:
    """A short file is whole at both ends, stripped on the outer side alone; a long one gives both its ends."""
    (short,) = types.features(b" \nab \n")
    assert short[:5].tolist() == [*b"ab \n", types.padding]
    assert short[-5:].tolist() == [types.padding, *b" \nab"]
    (long,) = types.features(bytes(range(65, 91)) * 1000)
    assert long[0] == 65
    assert long[-1] == 90
    assert (long < types.padding).all()


def test_names_files(device: str, model: Path, types: FileTypes, model_file: ModelFile) -> None:
    paths = {ROOT / path: kind for path, kind in OWN.items()}
    paths |= {model_file("skimage", f"data/{name}"): kind for name, kind in PACKAGED.items()}
    paths[model] = "onnx"
    feeds = {"bytes": types.features(*(path.read_bytes() for path in paths))}
    session = omniop.load(model, device=device, fallback="error")
    (scores,) = session.run(feeds).values()
    assert types.names(scores) == list(paths.values())
    (expected,) = onnxruntime_engine(onnx.load(model))(feeds).values()
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-5)
    assert session.explain().share() >= MOSTLY


def test_batch_changes_no_answer(device: str, model: Path, types: FileTypes) -> None:
    """One file by itself gets the scores that it gets among others."""
    contents = [(ROOT / path).read_bytes() for path in list(OWN)[:3]]
    session = omniop.load(model, device=device, fallback="error")
    (together,) = session.run({"bytes": types.features(*contents)}).values()
    for content, expected in zip(contents, together, strict=True):
        (alone,) = session.run({"bytes": types.features(content)}).values()
        np.testing.assert_allclose(alone[0], expected, rtol=1e-4, atol=1e-6)
