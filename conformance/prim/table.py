"""The checks of a device, by name."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from omniop.conformance import prim
from omniop.conformance.prim.bench import Bench

DOMAIN = "prim"
"""What stands before the name of a prim where operators have their domain."""


@dataclass(frozen=True)
class Check:
    """One check: what it is about, as results tell it, and what it does on a bench. ``op`` is a prim or an operation of
    one (``exp``), "" where it is none."""

    name: str
    op: str
    dtypes: tuple[str, ...]
    run: Callable[[Bench], None]
    kind: Literal["memory", "prim"] = "prim"

    @property
    def key(self) -> str:
        """Its operation as reports name it."""
        return f"{DOMAIN}::{self.op}"


Checks = Callable[[], Iterator[Check]]
FAMILIES: list[Checks] = []


def checks(function: Checks) -> Checks:
    """Decorator: the function yields checks."""
    FAMILIES.append(function)
    return function


@functools.cache
def catalogue() -> Mapping[str, Check]:
    """All checks by name, sorted."""
    for module in pkgutil.iter_modules(prim.__path__):
        importlib.import_module(f"{prim.__name__}.{module.name}")
    return {check.name: check for check in sorted((c for f in FAMILIES for c in f()), key=lambda c: c.name)}
