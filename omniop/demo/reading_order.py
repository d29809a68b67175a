"""Boxes in the order in which people read them: block by block, row by row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from omniop.demo.quads import Quad, sides

_LINE_GAP, _COLUMN_GAP = 1.4, 4.0
"""Boxes of one block leave less than this many heights between them: from row to row, along a row."""
_TURN = np.cos(np.radians(9))
"""Boxes of one block differ in direction by less than this."""
_SAME_ROW = 0.5
"""Boxes of one row have middles within this many heights, across the row."""


def in_order(boxes: Sequence[Quad]) -> list[list[int]]:
    """Indices into ``boxes``, a list for each block, from the top of the picture to its bottom.

    A box's first side points where its text runs to, so that a block that lies upside down is read from its own top.
    """
    blocks = _blocks(boxes)
    blocks.sort(key=lambda block: min(boxes[k][:, 1].min() for k in block))
    return [[k for row in _rows(block, boxes) for k in row] for block in blocks]


def _blocks(boxes: Sequence[Quad]) -> list[list[int]]:
    """Boxes that are neighbours, or neighbours of neighbours."""
    owner = list(range(len(boxes)))
    for a in range(len(boxes)):
        for b in range(a):
            if owner[a] != owner[b] and _neighbours(boxes[a], boxes[b]):
                joined, into = owner[a], owner[b]
                owner = [into if one == joined else one for one in owner]
    return [[k for k, one in enumerate(owner) if one == block] for block in dict.fromkeys(owner)]


def _neighbours(a: Quad, b: Quad) -> bool:
    along = _direction(a)
    if along @ _direction(b) < _TURN:
        return False
    height = max(sides(a)[1], sides(b)[1])
    p, q = _seen_along(a, along), _seen_along(b, along)
    gap = np.maximum(p.min(axis=0), q.min(axis=0)) - np.minimum(p.max(axis=0), q.max(axis=0))
    if abs(p.mean(axis=0) - q.mean(axis=0))[1] < _SAME_ROW * height:
        return bool(gap[0] < _COLUMN_GAP * height)
    return bool(gap[0] < 0 and gap[1] < _LINE_GAP * height)


def _rows(block: Sequence[int], boxes: Sequence[Quad]) -> list[list[int]]:
    """The block's boxes by rows from its top, each from its start."""
    along = np.mean([_direction(boxes[k]) for k in block], axis=0)
    along /= np.linalg.norm(along)
    middle = {k: _seen_along(boxes[k], along).mean(axis=0) for k in block}
    rows: list[list[int]] = []
    for k in sorted(block, key=lambda k: float(middle[k][1])):
        if rows and middle[k][1] - middle[rows[-1][0]][1] < _SAME_ROW * sides(boxes[k])[1]:
            rows[-1].append(k)
        else:
            rows.append([k])
    return [sorted(row, key=lambda k: float(middle[k][0])) for row in rows]


def _direction(quad: Quad) -> npt.NDArray[np.float64]:
    """The unit vector along the text."""
    step = quad[1] - quad[0]
    return step / np.linalg.norm(step)


def _seen_along(quad: Quad, along: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The corners in the axes along and across a direction."""
    return quad @ np.column_stack([along, (-along[1], along[0])])
