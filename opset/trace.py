"""The state of one trace: the prims recorded so far, whose node they belong to, and what they ask of the run.

Lowerings do not see this module; `omniop.opset.prims` records through `current()`.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from omniop.opset.sym import ShapeEnv

if TYPE_CHECKING:
    from omniop.opset.definitions import Definition, Tensor


@dataclass
class Trace:
    """Prims in the order they were recorded, interned: the same prim on the same operands is one definition."""

    env: ShapeEnv = field(default_factory=ShapeEnv)
    definitions: list[Definition] = field(default_factory=list)
    interned: dict[Hashable, tuple[Tensor, ...]] = field(default_factory=dict)
    origin: int = -1
    """Number of the ONNX node being lowered."""
    faults: list[tuple[int, str]] = field(default_factory=list)
    """(origin, what went wrong) by fault code - 1."""
    checked: dict[Hashable, int] = field(default_factory=dict)
    """Fault codes of index checks by what they check: a second one of the same index finds nothing that the first did
    not, and with its code layers that look up one index stay equal."""

    def fault(self, message: str) -> int:
        """The code of a fault of the node being lowered."""
        entry = (self.origin, message)
        if entry not in self.faults:
            self.faults.append(entry)
        return self.faults.index(entry) + 1


_current: ContextVar[Trace] = ContextVar("omniop_trace")


def current() -> Trace:
    """The active trace. Raises LookupError outside `tracing`."""
    return _current.get()


@contextmanager
def tracing(trace: Trace) -> Iterator[Trace]:
    token = _current.set(trace)
    try:
        yield trace
    finally:
        _current.reset(token)
