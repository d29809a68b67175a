"""Slots: tensors that live at the same time never share one."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from omniop.backends.reference import ReferenceDevice
from omniop.dispatcher.memory import Interval, colour
from omniop.opset import expr
from omniop.opset.definitions import Source, Tensor
from omniop.opset.dtype import FLOAT32, INT8

DEVICES = (ReferenceDevice(), ReferenceDevice())
N = expr.size("n")
ELEMENTS = (N, N * 4, expr.index(16), expr.index(256))


def tensor(k: int) -> Tensor:
    return Tensor((4,), (FLOAT32, INT8)[k % 2], Source(f"t{k}"))


def random_intervals(rng: np.random.Generator, count: int) -> list[Interval]:
    """Lives in the order that programs make them, some tensors on both devices."""
    found = []
    for k in range(count):
        t, elements = tensor(k), ELEMENTS[rng.integers(len(ELEMENTS))]
        for device in DEVICES if rng.random() < 0.2 else (DEVICES[rng.integers(2)],):
            first = int(rng.integers(count))
            found.append(Interval(t, device, elements, first, first + int(rng.geometric(0.2)) - 1))
    return found


@pytest.mark.parametrize("seed", range(20))
def test_lives_that_meet_have_slots_of_their_own(seed: int) -> None:
    rng = np.random.default_rng(seed)
    intervals = random_intervals(rng, 40)
    slots, place = colour(intervals)
    assert set(place) == {(i.tensor, i.device) for i in intervals}
    for i in intervals:
        slot = slots[place[i.tensor, i.device]]
        assert slot.device is i.device
        assert (i.elements, i.tensor.dtype.itemsize) in slot.sizes
    for i, j in combinations(intervals, 2):
        if i.first <= j.last and j.first <= i.last:
            assert place[i.tensor, i.device] != place[j.tensor, j.device], (i, j)


@pytest.mark.parametrize("seed", range(5))
def test_slots_are_as_few_as_can_be(seed: int) -> None:
    """Interval colouring is optimal: as many slots on a device as tensors live there at once."""
    intervals = random_intervals(np.random.default_rng(50 + seed), 40)
    slots, _ = colour(intervals)
    for device in DEVICES:
        own = [i for i in intervals if i.device is device]
        most = max(sum(i.first <= at <= i.last for i in own) for at in {i.first for i in own})
        assert sum(s.device is device for s in slots) == most


def test_a_slot_of_the_same_size_is_preferred() -> None:
    device = DEVICES[0]
    small, large, again, new = (tensor(2 * k) for k in range(4))
    slots, place = colour(
        [
            Interval(small, device, N, 0, 1),
            Interval(large, device, N * 100, 0, 1),
            Interval(again, device, N, 2, 3),
            Interval(new, device, N * 7, 2, 3),
        ]
    )
    assert place[again, device] == place[small, device]
    assert place[new, device] == place[large, device]
    assert [len(s.sizes) for s in slots] == [1, 2]
