"""Slots: which tensors may share a buffer.

Tensors are coloured by liveness over the steps of a segment. A slot's size is the largest of its members, which
the binding computes for each set of shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from omniop.backends.base import Device
from omniop.opset.definitions import Tensor
from omniop.opset.expr import Expr


@dataclass
class Slot:
    """A buffer of a run context. ``sizes``: element counts of its members, with the bytes of one element; the first
    member of each."""

    device: Device
    sizes: dict[tuple[Expr, int], Tensor] = field(default_factory=dict)


@dataclass
class Interval:
    """A tensor's life: from the step that writes it first to the last that touches it."""

    tensor: Tensor
    device: Device
    elements: Expr
    first: int
    last: int


def colour(intervals: Sequence[Interval]) -> tuple[list[Slot], dict[tuple[Tensor, Device], int]]:
    """Slots, and the slot of each tensor on each device that holds it.

    A slot that held the same size expression is preferred, then the newest.
    """
    slots: list[Slot] = []
    place: dict[tuple[Tensor, Device], int] = {}
    free: list[int] = []
    busy: list[tuple[int, int]] = []
    for interval in sorted(intervals, key=lambda i: i.first):
        free += [k for last, k in busy if last < interval.first]
        busy = [(last, k) for last, k in busy if last >= interval.first]
        key = (interval.elements, interval.tensor.dtype.itemsize)
        usable = [k for k in free if slots[k].device is interval.device]
        chosen = next((k for k in usable if key in slots[k].sizes), usable[-1] if usable else None)
        if chosen is None:
            slots.append(Slot(interval.device))
            chosen = len(slots) - 1
        else:
            free.remove(chosen)
        slots[chosen].sizes.setdefault(key, interval.tensor)
        place[interval.tensor, interval.device] = chosen
        busy.append((interval.last, chosen))
    return slots, place
