"""Modules whose import is put off until they are used."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from omniop.opset.later_import import put_off

SOURCES = {
    "seldom": "value = 1\nclass Kind: ...\n",
    "user": "import seldom\ndef value():\n    return seldom.value\n"
    "def is_kind(x):\n    return isinstance(x, seldom.Kind)\n",
    "eager": "import seldom\nvalue = seldom.value\n",
}


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, source in SOURCES.items():
        (tmp_path / f"{name}.py").write_text(source)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(tmp_path)


def imported_with(name: str) -> ModuleType:
    with put_off("seldom"):
        return importlib.import_module(name)


@pytest.mark.usefixtures("modules")
def test_it_is_imported_on_its_first_use() -> None:
    user = imported_with("user")
    assert "seldom" not in sys.modules
    assert user.value() == 1
    assert "seldom" in sys.modules


@pytest.mark.usefixtures("modules")
def test_others_have_the_module_itself() -> None:
    user = imported_with("user")
    seldom = importlib.import_module("seldom")
    assert type(seldom) is ModuleType
    assert user.is_kind(seldom.Kind())
    with pytest.raises(AttributeError, match="nothing"):
        _ = user.seldom.nothing


@pytest.mark.usefixtures("modules")
def test_what_uses_it_while_it_is_imported_has_it() -> None:
    assert imported_with("eager").value == 1
    assert type(sys.modules["seldom"]) is ModuleType


@pytest.mark.usefixtures("modules")
def test_what_was_imported_before_stays() -> None:
    seldom = importlib.import_module("seldom")
    assert imported_with("user").seldom is seldom
    assert sys.modules["seldom"] is seldom
