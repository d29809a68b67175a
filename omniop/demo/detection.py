"""From a picture to the boxes around its lines of text: before and after the detection network (PP-OCR's, a DBNet)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy import ndimage

from omniop.demo import quads
from omniop.demo.quads import Quad

LONGEST, SHORTEST = 960, 320
"""The picture is made no longer than the one for the network, and no narrower than the other if that allows it."""
_STRIDE = 32
_THRESHOLD, _SCORE, _GROWTH, _THINNEST = 0.3, 0.6, 1.6, 3
"""Of a text pixel's probability; of a box's mean; how far a box grows; and the fewest pixels across it in the map."""


@dataclass(frozen=True)
class Box:
    """A line of text found on a picture, in the picture's pixels, and how sure the network is of it."""

    quad: Quad
    score: float


def network_size(width: int, height: int) -> tuple[int, int]:
    """(width, height) for the network: multiples of 32 of about the picture's proportions."""
    scale = min(LONGEST / max(width, height), max(1.0, SHORTEST / min(width, height)))
    fit = [min(max(_STRIDE, round(side * scale / _STRIDE) * _STRIDE), LONGEST) for side in (width, height)]
    return fit[0], fit[1]


def pixels(picture: Image.Image) -> npt.NDArray[np.float32]:
    """f32 [3, height, width] in -1 .. 1: blue, green, red, as PP-OCR's networks were trained on them."""
    values = np.asarray(picture.convert("RGB"), np.float32)[:, :, ::-1]
    return np.ascontiguousarray((values / 127.5 - 1).transpose(2, 0, 1))


def network_input(picture: Image.Image) -> npt.NDArray[np.float32]:
    """f32 [1, 3, height, width]: the picture at `network_size`."""
    return pixels(picture.resize(network_size(*picture.size), Image.Resampling.BILINEAR))[None]


def boxes(probability: npt.NDArray[np.float32], size: tuple[int, int]) -> list[Box]:
    """The boxes of a map f32 [height, width] of how likely each pixel is text, for a picture of ``size``."""
    labels, _ = ndimage.label(probability > _THRESHOLD, np.ones((3, 3), bool))
    scale = np.array(size) / probability.shape[::-1]
    found = []
    for k, window in enumerate(ndimage.find_objects(labels), 1):
        start = np.array([window[1].start, window[0].start])
        quad = quads.smallest_rectangle(_outline(labels[window] == k) + start)
        score = _mean_inside(probability, quad)
        if min(quads.sides(quad)) < _THINNEST or score < _SCORE:
            continue
        found.append(Box(np.clip(quads.grown(quad, _GROWTH) * scale, 0, size), score))
    return found


def _outline(region: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """f64 [n, 2]: corners of the first and last pixel of every row, which the region's convex hull is made of."""
    rows = np.flatnonzero(region.any(axis=1))
    left = region[rows].argmax(axis=1)
    right = region.shape[1] - region[rows, ::-1].argmax(axis=1)
    return np.concatenate([np.column_stack([x, y]) for x in (left, right) for y in (rows, rows + 1)]).astype(np.float64)


def _mean_inside(probability: npt.NDArray[np.float32], quad: Quad) -> float:
    """The mean over the pixels whose centres lie in a rectangle."""
    low = np.maximum(np.floor(quad.min(axis=0)), 0).astype(int)
    high = np.minimum(np.ceil(quad.max(axis=0)), probability.shape[::-1]).astype(int)
    y, x = np.mgrid[low[1] : high[1], low[0] : high[0]] + 0.5
    inside = np.ones(x.shape, bool)
    for (u, v), (p, q) in zip(quad, np.roll(quad, -1, axis=0), strict=True):
        inside &= (p - u) * (y - v) - (q - v) * (x - u) >= 0
    return float(probability[low[1] : high[1], low[0] : high[0]][inside].mean()) if inside.any() else 0.0
