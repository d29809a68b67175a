"""A place for planted backends."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from omniop.dispatcher.registry import registry
from tests.conformance.planted import Planted


@pytest.fixture
def plant() -> Iterator[Callable[[Planted], str]]:
    """Registers a planted backend for one test; gives its device's name."""
    names: list[str] = []

    def register(backend: Planted) -> str:
        registry().register(backend, trusted=True)
        names.append(backend.name)
        return backend.name

    yield register
    for name in names:
        registry().unregister(name)
