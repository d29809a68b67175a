"""Slots: which tensors may share a buffer.

Tensors share by liveness over the steps of a segment. A slot's size is the largest of its members, which the binding
computes for each set of shapes.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field

from omniop.backends.base import Device
from omniop.opset.definitions import Tensor
from omniop.opset.expr import Expr


@dataclass
class Slot:
    """A buffer of a run context. ``sizes``: element counts of its members, with the bytes of one element; the first
    member of each. ``lives``: their first and last steps, in order."""

    device: Device
    sizes: dict[tuple[Expr, int], Tensor] = field(default_factory=dict)
    lives: list[tuple[int, int]] = field(default_factory=list)

    def idle(self, first: int, last: int) -> int | None:
        """How few steps lie between this life and those before and after it; None when they meet."""
        at = bisect_left(self.lives, (first, last))
        before = [first - end for _, end in self.lives[max(at - 1, 0) : at]]
        after = [begin - last for begin, _ in self.lives[at : at + 1]]
        between = min(before + after)
        return between if between > 0 else None


@dataclass
class Interval:
    """A tensor's life: from the step that writes it first to the last that touches it. ``nbytes``: for the shapes that
    were traced."""

    tensor: Tensor
    device: Device
    elements: Expr
    nbytes: int
    first: int
    last: int


def colour(intervals: Sequence[Interval]) -> tuple[list[Slot], dict[tuple[Tensor, Device], int]]:
    """Slots, and the slot of each tensor on each device that holds it.

    The largest tensors choose first, so that slots do not grow by those that come later; each takes the slot that was
    in use last, or is in use next. It is "greedy by size" of Pisarchyk and Lee, "Efficient Memory Management for Deep
    Neural Net Inference", 2020.
    """
    slots: list[Slot] = []
    place: dict[tuple[Tensor, Device], int] = {}
    for i in sorted(intervals, key=lambda i: (-i.nbytes, i.first)):
        idle = {k: slot.idle(i.first, i.last) for k, slot in enumerate(slots) if slot.device is i.device}
        free = {k: steps for k, steps in idle.items() if steps is not None}
        if free:
            chosen = min(free, key=lambda k: free[k])
        else:
            chosen = len(slots)
            slots.append(Slot(i.device))
        slots[chosen].sizes.setdefault((i.elements, i.tensor.dtype.itemsize), i.tensor)
        insort(slots[chosen].lives, (i.first, i.last))
        place[i.tensor, i.device] = chosen
    return slots, place
