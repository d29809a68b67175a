"""A fixture for tests that are to hold whatever the width of the CPU's vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from omniop.backends.codegen.llvm_ir import Target
from omniop.backends.cpu import jit

WIDTHS = {128: Target(128, fma=False), 256: Target(256, frozenset((32, 64))), 512: Target(512, frozenset((32, 64)))}


def each_width(*cached: Any) -> Callable[..., Iterator[int]]:
    """A fixture: vectors of so many bits, which LLVM makes of what this CPU has. ``cached``: functions to forget."""

    @pytest.fixture(params=WIDTHS)
    def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
        monkeypatch.setattr(jit, "host_target", lambda: WIDTHS[request.param])
        for function in cached:
            function.cache_clear()
        yield request.param
        for function in cached:
            function.cache_clear()

    return width
