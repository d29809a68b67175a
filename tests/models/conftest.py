"""Trained models on the devices that people run them on.

A model whose package is missing skips, with the command that installs it; with ``OMNIOP_REQUIRE_MODELS`` set, it fails.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import required, unavailable
from tests.models import packages

MOSTLY = 0.95
"""The least part of a model's tensor work that is done on the device asked for."""

ModelFile = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def model_file() -> ModelFile:
    """``model_file(package, path)``: where a package's file lies."""

    def find(package: str, path: str) -> Path:
        try:
            return packages.find(package, path)
        except FileNotFoundError as missing:
            return (pytest.fail if os.environ.get("OMNIOP_REQUIRE_MODELS") else pytest.skip)(str(missing))

    return find


@pytest.fixture(params=["cpu", "opencl"])
def device(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if (reason := unavailable(name)) is not None:
        (pytest.fail if name in required() else pytest.skip)(reason)
    return name
