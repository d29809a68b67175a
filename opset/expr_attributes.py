"""Attributes of expressions that are more than a number or a name: see the table of `omniop.opset.expr`."""

from __future__ import annotations

from typing import Any, NamedTuple


class Load(NamedTuple):
    """What a load reads. ``source`` is a `definitions.Tensor` while tracing (one index per axis) and the number of a
    buffer in a `kernel.Kernel` (one index: the element offset). ``fault`` above 0 is written to the error word
    when the guard fails."""

    source: Any
    guarded: bool = False
    fault: int = 0


class Reduce(NamedTuple):
    """``values`` has two members for argmin and argmax: the value and its index; the index is the result."""

    monoid: str
    axes: int
