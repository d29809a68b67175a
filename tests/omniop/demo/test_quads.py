"""Rotated rectangles and perspective."""

from __future__ import annotations

import numpy as np
import pytest

from omniop.demo import quads

UNIT = quads.rectangle(1, 1)


def turned(quad: quads.Quad, degrees: float) -> quads.Quad:
    """Clockwise on the screen, about the origin."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return quad @ np.array([[c, s], [-s, c]])


@pytest.mark.parametrize("degrees", [-80, -44, -30, -5, 0, 5, 30, 44, 80])
def test_smallest_rectangle_of_a_rectangle_is_itself(degrees: float) -> None:
    """A line's box starts at its left, or at its top where the line runs down; noise inside it does not matter."""
    rectangle = turned(quads.rectangle(20, 6), degrees)
    inside = turned(np.random.default_rng(0).uniform((0.5, 0.5), (19.5, 5.5), (50, 2)), degrees)
    points = np.random.default_rng(1).permutation(np.concatenate([rectangle, inside]))
    found = quads.smallest_rectangle(points)
    start = rectangle if degrees > -50 else np.roll(rectangle, 2, axis=0)
    np.testing.assert_allclose(found, start, atol=1e-9)


def test_smallest_rectangle_of_a_triangle_lies_on_a_side() -> None:
    found = quads.smallest_rectangle(np.array([[0.0, 0], [10, 0], [5, 3]]))
    np.testing.assert_allclose(found, quads.rectangle(10, 3), atol=1e-9)


def test_grown_moves_every_side_by_one_distance() -> None:
    """The distance: 8 * 2 * 1.5 / (2 * (8 + 2)) = 1.2."""
    np.testing.assert_allclose(quads.grown(quads.rectangle(8, 2), 1.5), quads.rectangle(10.4, 4.4) - 1.2)
    grown = quads.grown(turned(quads.rectangle(8, 2), 30), 1.5)
    np.testing.assert_allclose(grown, turned(quads.rectangle(10.4, 4.4) - 1.2, 30))


def test_homography_maps_corners_and_keeps_lines_straight() -> None:
    target = np.array([[3.0, 1], [9, 2], [8, 7], [2, 5]])
    matrix = quads.homography(UNIT, target)
    np.testing.assert_allclose(quads.mapped(UNIT, matrix), target)
    start, middle, end = quads.mapped(np.array([[0, 0], [0.3, 0.3], [1, 1]]), matrix)
    assert np.linalg.matrix_rank(np.stack([middle - start, end - start]), tol=1e-9) == 1


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (UNIT, 1.0),
        (quads.rectangle(1, 1, 0.5, 0), 1 / 3),
        (quads.rectangle(1, 1, 2, 0), 0.0),
        (UNIT * 0.5 + 0.25, 0.25),
        (turned(UNIT - 0.5, 45) + 0.5, 0.7071),
    ],
)
def test_overlap(other: quads.Quad, expected: float) -> None:
    assert quads.overlap(UNIT, other) == pytest.approx(expected, abs=1e-4)
    assert quads.overlap(other, UNIT) == pytest.approx(expected, abs=1e-4)
