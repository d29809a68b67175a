"""Quadrilaterals on pictures: rotated rectangles around points, and the perspective that maps one to another.

A quad is f64 [4, 2]: the (x, y) of its corners, clockwise on the screen from the one where its text starts at the top.
Coordinates are continuous: pixel (column, row) covers column .. column + 1 and row .. row + 1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.spatial import ConvexHull

Quad = npt.NDArray[np.float64]

LONG = 1.5
"""Text runs along the longer sides of a box that is this many times longer than it is wide."""


def rectangle(width: float, height: float, left: float = 0, top: float = 0) -> Quad:
    """The quad of an upright rectangle."""
    right, bottom = left + width, top + height
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]], np.float64)


def sides(quad: Quad) -> tuple[float, float]:
    """Width and height: the means of opposite sides."""
    lengths = np.linalg.norm(np.roll(quad, -1, axis=0) - quad, axis=1)
    return float(lengths[0] + lengths[2]) / 2, float(lengths[1] + lengths[3]) / 2


def area(polygon: npt.NDArray[np.float64]) -> float:
    """The area of a polygon f64 [n, 2] that does not cross itself, by the shoelace formula."""
    (x, y), (u, v) = polygon.T, np.roll(polygon, -1, axis=0).T
    return abs(float(x @ v - y @ u)) / 2


def smallest_rectangle(points: npt.NDArray[np.float64]) -> Quad:
    """The rectangle of least area around points f64 [n, 2] that do not all lie on one line.

    One of its sides lies on a side of the convex hull (Freeman and Shapira, 1975), so those directions are tried. Its
    first side runs along the text in it: to the right, or, for a long box that is rather upright, down.
    """
    hull = points[ConvexHull(points).vertices]
    edges = np.roll(hull, -1, axis=0) - hull
    along = edges / np.linalg.norm(edges, axis=1, keepdims=True)  # [sides, 2]
    across = along[:, ::-1] * (-1, 1)
    u, v = hull @ along.T, hull @ across.T  # [points, sides]
    best = int(np.argmin(np.ptp(u, axis=0) * np.ptp(v, axis=0)))
    low, high = (u.min(0)[best], v.min(0)[best]), (u.max(0)[best], v.max(0)[best])
    corners = np.array([[low[0], low[1]], [high[0], low[1]], [high[0], high[1]], [low[0], high[1]]])
    return _start_of_text(corners @ np.stack([along[best], across[best]]))


def _start_of_text(quad: Quad) -> Quad:
    """The same corners, from the one where a line of text starts."""
    if _turn(quad[1] - quad[0], quad[2] - quad[1]) < 0:  # anticlockwise on the screen
        quad = quad[::-1]
    steps = np.roll(quad, -1, axis=0) - quad
    lengths = np.linalg.norm(steps, axis=1)
    down = False
    if lengths.max() >= LONG * lengths.min():
        steps[lengths < lengths.mean()] = 0
        down = np.abs(steps[:, 1]).max() > np.abs(steps[:, 0]).max()
    return np.roll(quad, -int(np.argmax(steps[:, int(down)])), axis=0)


def _turn(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The cross product of vectors f64 [..., 2]: positive where b lies clockwise of a, on the screen."""
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def grown(quad: Quad, ratio: float) -> Quad:
    """A rectangle moved outwards on every side by ``area * ratio / perimeter``.

    So DB's shrunken text regions become boxes around the text (Liao et al., "Real-time Scene Text Detection with
    Differentiable Binarization", 2020, section 3.5).
    """
    width, height = sides(quad)
    offset = width * height * ratio / (2 * (width + height))
    along, across = (quad[1] - quad[0]) / width, (quad[3] - quad[0]) / height
    return quad + offset * np.array([-along - across, along - across, along + across, across - along])


def homography(source: Quad, target: Quad) -> npt.NDArray[np.float64]:
    """The f64 [3, 3] that maps the corners of ``source`` to those of ``target`` in homogeneous coordinates."""
    (x, y), (u, v) = source.T, target.T
    one, zero = np.ones(4), np.zeros(4)
    rows = [
        np.stack([x, y, one, zero, zero, zero, -u * x, -u * y], axis=1),
        np.stack([zero, zero, zero, x, y, one, -v * x, -v * y], axis=1),
    ]
    solved = np.linalg.solve(np.concatenate(rows), np.concatenate([u, v]))
    return np.append(solved, 1).reshape(3, 3)


def mapped(points: npt.NDArray[np.float64], matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Points f64 [n, 2] under a homography."""
    moved = np.column_stack([points, np.ones(len(points))]) @ matrix.T
    return moved[:, :2] / moved[:, 2:]


def clipped(subject: npt.NDArray[np.float64], window: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The part of a convex polygon inside another, both clockwise (Sutherland and Hodgman, 1974). f64 [n, 2]."""
    for start, end in zip(window, np.roll(window, -1, axis=0), strict=True):
        if not len(subject):
            break
        inside = _turn(end - start, subject - start)
        kept = []
        for k, point in enumerate(subject):
            before, last = inside[k - 1], subject[k - 1]
            if (before < 0) != (inside[k] < 0):
                kept.append(last + (point - last) * (before / (before - inside[k])))
            if inside[k] >= 0:
                kept.append(point)
        subject = np.array(kept).reshape(-1, 2)
    return subject


def overlap(a: Quad, b: Quad) -> float:
    """Intersection over union of two convex quads, 0 to 1."""
    common = clipped(a, b)
    shared = area(common) if len(common) else 0.0
    return shared / (area(a) + area(b) - shared)
