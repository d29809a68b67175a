"""Layouts: where elements lie, against numpy's own reshapes and transposes."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from omniop.opset import expr
from omniop.opset.layout import ROW_MAJOR, Layout, blocked

SIZES = {"n": 2, "c": 20, "h": 3}
N, C, H = map(expr.size, SIZES)
SHAPE = (N, C, H, expr.index(5))
NHWC = Layout("NHWC", ((0, 0, "whole"), (2, 0, "whole"), (3, 0, "whole"), (1, 0, "whole")))
LAYOUTS = (ROW_MAJOR, NHWC, blocked(4, 1, 16), blocked(4, 1, 4), blocked(4, 3, 2), blocked(4, 0, 8))


def extents(shape: tuple[expr.Expr, ...]) -> list[int]:
    return [expr.evaluate(e, SIZES) for e in shape]


def offsets(layout: Layout) -> np.ndarray:
    axes = tuple(expr.axis(k, e) for k, e in enumerate(SHAPE))
    place = layout.offset(axes, SHAPE)
    shape = extents(SHAPE)
    values = [expr.evaluate(place, SIZES, dict(enumerate(index))) for index in product(*map(range, shape))]
    return np.array(values).reshape(shape)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_every_element_has_a_place_of_its_own(layout: Layout) -> None:
    found = offsets(layout)
    size = expr.evaluate(layout.size(SHAPE), SIZES)
    assert found.min() == 0
    assert found.max() < size
    assert np.unique(found).size == found.size
    assert size == np.prod(extents(layout.physical_shape(SHAPE)))


def test_row_major_is_numpys() -> None:
    np.testing.assert_array_equal(offsets(ROW_MAJOR).reshape(-1), np.arange(2 * 20 * 3 * 5))


def test_nhwc_is_a_transpose() -> None:
    expected = np.arange(2 * 3 * 5 * 20).reshape(2, 3, 5, 20).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(offsets(NHWC), expected)


def test_blocks_are_padded() -> None:
    """20 channels are two blocks of 16, the second one with 12 elements of padding."""
    layout = blocked(4, 1, 16)
    assert str(layout) == "NCHW16c"
    assert extents(layout.physical_shape(SHAPE)) == [2, 2, 3, 5, 16]
    physical = np.arange(2 * 2 * 3 * 5 * 16).reshape(2, 2, 3, 5, 16)
    logical = physical.transpose(0, 1, 4, 2, 3).reshape(2, 32, 3, 5)[:, :20]
    np.testing.assert_array_equal(offsets(layout), logical)


def test_names() -> None:
    assert [str(blocked(rank, 1, 8)) for rank in (2, 3, 4, 5)] == ["ab8b", "NCW8c", "NCHW8c", "NCDHW8c"]
    assert blocked(4, 1, 16) == blocked(4, 1, 16)
    assert blocked(4, 1, 16) != blocked(4, 1, 8)
