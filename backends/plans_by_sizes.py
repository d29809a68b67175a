"""Launches of a piece of work, planned once for each set of sizes that it meets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

_MOST = 256
"""Sets of sizes whose plans are kept."""

S = TypeVar("S")


class PlansBySizes(Generic[S]):
    """``plan(sizes, buffers)`` makes the steps; the buffers are those of the first run with these sizes."""

    def __init__(self, plan: Callable[[tuple[int, ...], Sequence[Any]], S]) -> None:
        self._plan = plan
        self._plans: dict[tuple[int, ...], S] = {}

    def steps(self, sizes: Sequence[int], buffers: Sequence[Any]) -> S:
        key = tuple(map(int, sizes))
        found = self._plans.get(key)
        if found is None:
            found = self._plan(key, buffers)
            if len(self._plans) >= _MOST:
                self._plans.clear()
            self._plans[key] = found
        return found
