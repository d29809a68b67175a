"""Slots: tensors that live at the same time never share one."""

from __future__ import annotations

from dataclasses import replace
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
            nbytes = expr.evaluate(elements, {"n": 8}) * t.dtype.itemsize
            found.append(Interval(t, device, elements, nbytes, first, first + int(rng.geometric(0.2)) - 1))
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
def test_slots_of_one_size_are_as_few_as_can_be(seed: int) -> None:
    """Interval colouring is optimal: as many slots on a device as tensors live there at once."""
    intervals = [replace(i, nbytes=64) for i in random_intervals(np.random.default_rng(50 + seed), 40)]
    slots, _ = colour(intervals)
    for device in DEVICES:
        own = [i for i in intervals if i.device is device]
        most = max(sum(i.first <= at <= i.last for i in own) for at in {i.first for i in own})
        assert sum(s.device is device for s in slots) == most


def test_small_tensors_leave_large_slots_to_large_ones() -> None:
    """Those that come first would have taken them, and a second slot would have become as large."""
    device = DEVICES[0]
    lives = {"large": (0, 2), "small": (1, 9), "next": (3, 5), "tiny": (4, 8), "last": (6, 9)}
    elements = {"large": N * 100, "small": N * 7, "next": N * 80, "tiny": N, "last": N * 90}
    named = {name: tensor(2 * k) for k, name in enumerate(lives)}
    intervals = [
        Interval(named[name], device, elements[name], 4 * expr.evaluate(elements[name], {"n": 5}), *life)
        for name, life in lives.items()
    ]
    slots, place = colour(intervals)
    together = [[name for name in lives if place[named[name], device] == k] for k in range(len(slots))]
    assert together == [["large", "next", "last"], ["small"], ["tiny"]]
    assert [len(s.sizes) for s in slots] == [3, 1, 1]


def test_the_slot_that_was_in_use_last_is_preferred() -> None:
    """It is in a cache."""
    device = DEVICES[0]
    early, late, taker = (tensor(2 * k) for k in range(3))
    intervals = [
        Interval(early, device, N, 20, 0, 2),
        Interval(late, device, N, 20, 1, 3),
        Interval(taker, device, N, 20, 5, 6),
    ]
    _, place = colour(intervals)
    assert place[taker, device] == place[late, device] != place[early, device]
