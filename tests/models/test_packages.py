"""What finds the models: no import, and a command where one is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.models.packages import INSTALL, find

REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def test_finding_imports_nothing() -> None:
    before = set(sys.modules)
    assert find("wsgiref", "handlers.py").name == "handlers.py"
    assert not {name for name in set(sys.modules) - before if name.startswith("wsgiref")}


def test_a_missing_file_is_told_with_its_remedy() -> None:
    with pytest.raises(FileNotFoundError, match=r"magika/none\.onnx is not installed: pip install 'omniop\[test\]'"):
        find("magika", "none.onnx")


def test_requirements_name_each_package_once() -> None:
    """Pinned, and those that `packages.INSTALL` says come from there."""
    lines = [line for line in REQUIREMENTS.read_text().splitlines() if not line.startswith("#")]
    names = [line.split("==")[0].replace("-", "_") for line in lines]
    assert names == sorted(names)
    assert {name for name, command in INSTALL.items() if REQUIREMENTS.name in command} <= set(names)
