"""Blocks and rows."""

from __future__ import annotations

import numpy as np
from test_quads import turned

from omniop.demo.quads import Quad, rectangle
from omniop.demo.reading_order import in_order

BILL = (
    rectangle(200, 20),  # a heading over both columns
    rectangle(80, 20, 0, 30),
    rectangle(40, 20, 160, 33),
    rectangle(90, 20, 0, 60),
    rectangle(40, 20, 160, 57),
    rectangle(200, 20, 0, 90),
)
"""In reading order; the columns are held together by what spans them."""


def order(boxes: list[Quad]) -> list[list[int]]:
    """`in_order` of the boxes shuffled, told in their indices before that."""
    shuffled = np.random.default_rng(3).permutation(len(boxes))
    return [[int(shuffled[k]) for k in block] for block in in_order([boxes[k] for k in shuffled])]


def test_rows_from_the_top_and_each_from_its_left() -> None:
    assert order([box + 10 for box in BILL]) == [[0, 1, 2, 3, 4, 5]]


def test_a_turned_block_is_read_along_its_own_lines() -> None:
    for degrees in (-30, -5, 5, 30, 90, 180):
        assert order([turned(box, degrees) for box in BILL]) == [[0, 1, 2, 3, 4, 5]], degrees


def test_far_and_crossing_lines_are_blocks_of_their_own() -> None:
    left = [rectangle(80, 20, 0, 100), rectangle(80, 20, 0, 125)]
    right = [rectangle(80, 20, 150, 60), rectangle(80, 20, 150, 85)]
    across = [turned(rectangle(80, 20, 140, 80), 40)]
    assert order([*left, *right, *across]) == [[2, 3], [0, 1], [4]]


def test_nothing() -> None:
    assert in_order([]) == []
