"""Products, convolutions and pooling by panels: against float64, at every width of vectors, whatever the split."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided, sliding_window_view
from vector_widths import each_width

from omniop.backends.codegen.llvm_blocks import Head
from omniop.backends.cpu import depthwise, products
from omniop.backends.cpu.memory import HostBuffer
from omniop.backends.cpu.views import Window
from omniop.backends.cpu.windows import Geometry
from omniop.opset import expr
from omniop.opset.dtype import FLOAT32
from omniop.opset.kernel import View

width = each_width(products.tile, products.gemm, depthwise.depthwise)


def window(array: np.ndarray, buffer: int) -> Window:
    numbers = [tuple(map(expr.index, v)) for v in (array.shape, [s // 4 for s in array.strides])]
    return Window(View(buffer, FLOAT32, *numbers, expr.index(0)), {})


def run(work: products.Product, arrays: list[np.ndarray], pieces: int = 1) -> None:
    """The work on arrays (a, b, c), its points in so many parts, the last one first."""
    context, _kept = work.context(0, (), 0)
    for k in range(3):
        context[2 * k] = k
    scratch = HostBuffer(int(context[Head.SCRATCH]))
    buffers = (ctypes.c_void_p * 4)(*[a.ctypes.data for a in arrays])
    cuts = [work.points * k // pieces for k in range(pieces + 1)]
    for first, last in reversed(list(pairwise(cuts))):
        work.function(ctypes.addressof(buffers), context.ctypes.data, first, last, scratch.address)


def close(actual: np.ndarray, expected: np.ndarray, magnitude: np.ndarray) -> None:
    """Within some roundings of the sum of the terms' magnitudes."""
    assert (np.abs(actual - expected) <= 2.0**-21 * magnitude).all()


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype("f")


def apart(*shape: int) -> np.ndarray:
    """An array whose elements have gaps between them."""
    wide = normal(*(2 * d for d in shape))
    return wide[tuple(slice(None, None, 2) for _ in shape)]


MATRICES = [(1, 1, 1), (6, 16, 16), (7, 5, 3), (13, 333, 150), (40, 7, 33), (270, 3, 9)]
ORDERS: dict[str, Callable[..., np.ndarray]] = {
    "rows": normal,
    "columns": lambda *shape: normal(*shape[:-2], shape[-1], shape[-2]).swapaxes(-1, -2),
    "apart": apart,
}


def product(a: np.ndarray, b: np.ndarray, pieces: int = 1) -> np.ndarray:
    c = np.full((*a.shape[:-1], b.shape[-1]), np.nan, "f")
    run(products.matrix_product(window(a, 0), window(b, 1), window(c, 2)), [a, b, c], pieces)
    return c


@pytest.mark.parametrize("b_order", ORDERS)
@pytest.mark.parametrize("a_order", ORDERS)
@pytest.mark.parametrize(
    "shape", [(1, 1, 1), (6, 16, 16), (7, 5, 3), (13, 333, 150), (40, 7, 33), (270, 3, 9)], ids=str
)
def test_product(shape: tuple[int, int, int], a_order: str, b_order: str, width: int) -> None:
    m, k, n = shape
    a, b = ORDERS[a_order](m, k), ORDERS[b_order](k, n)
    close(product(a, b), a.astype("d") @ b.astype("d"), abs(a) @ abs(b))


@pytest.mark.parametrize("b_order", ORDERS)
def test_batches(b_order: str) -> None:
    """One of the right operand for several of the left, too."""
    a, b = normal(3, 2, 20, 24), ORDERS[b_order](2, 24, 19)
    several = as_strided(b, (3, *b.shape), (0, *b.strides))
    close(product(a, several), a.astype("d") @ b.astype("d"), abs(a) @ abs(b))


def test_a_split_changes_nothing() -> None:
    a, b = normal(2, 300, 200), normal(2, 200, 300)
    np.testing.assert_array_equal(product(a, b), product(a, b, pieces=5))


@pytest.mark.parametrize("n", [16, 21])
@pytest.mark.parametrize("m", [3, 30])
def test_special_values_stay_where_they_are(m: int, n: int) -> None:
    a, b = normal(m, 40), normal(40, n)
    a[1, 7], b[5, n - 1], b[9, 0] = np.inf, np.nan, -np.inf
    with np.errstate(invalid="ignore"):
        expected = a.astype("d") @ b.astype("d")
    np.testing.assert_allclose(product(a, b), expected, rtol=1e-4, atol=1e-5)


# Windows --------------------------------------------------------------------------------------------------------------

Sizes = tuple[int, ...]
SHAPES: dict[str, tuple[Sizes, Sizes, dict[str, Any]]] = {
    "plain": ((1, 3, 7, 9), (4, 3, 3, 3), {}),
    "padded": ((2, 3, 12, 30), (5, 3, 3, 3), {"pads": (1, 1, 1, 1)}),
    "wide padding": ((1, 2, 5, 6), (3, 2, 3, 7), {"pads": (9, 11, 8, 12)}),
    "cropped": ((1, 2, 9, 30), (3, 2, 3, 3), {"pads": (-1, -2, 0, -1)}),
    "by twos": ((1, 4, 20, 43), (7, 4, 3, 3), {"pads": (1, 1, 1, 1), "strides": (2, 2)}),
    "by threes": ((1, 4, 20, 43), (7, 4, 3, 3), {"pads": (0, 1, 2, 1), "strides": (2, 3)}),
    "dilated": ((1, 3, 20, 43), (7, 3, 3, 3), {"dilations": (2, 3), "pads": (2, 3, 2, 3)}),
    "groups": ((2, 6, 9, 10), (8, 3, 3, 3), {"group": 2, "pads": (1, 1, 1, 1)}),
    "pointwise": ((2, 33, 9, 10), (20, 33, 1, 1), {}),
    "pointwise by twos": ((1, 5, 9, 10), (20, 5, 1, 1), {"strides": (2, 2)}),
    "many channels": ((1, 70, 6, 7), (270, 70, 3, 3), {"pads": (1, 1, 1, 1)}),
    "long lines": ((1, 2, 4, 300), (3, 2, 3, 3), {"pads": (1, 1, 1, 1)}),
    "frames": ((1, 1, 700), (9, 1, 64), {"strides": (16,)}),
    "line": ((2, 4, 50), (6, 4, 5), {"pads": (4, 0)}),
    "volume": ((1, 2, 5, 6, 7), (3, 2, 3, 2, 3), {"pads": (1, 0, 1, 1, 1, 1), "strides": (2, 1, 2)}),
}


def convolved(x: np.ndarray, w: np.ndarray, geometry: Geometry, group: int) -> np.ndarray:
    """In float64, from the definition."""
    rank = len(geometry.kernel)
    before, after = geometry.pads[:rank], geometry.pads[rank:]
    x = np.pad(x.astype("d"), [(0, 0), (0, 0), *((max(b, 0), max(a, 0)) for b, a in zip(before, after, strict=True))])
    for k in range(rank):
        x = np.take(x, range(max(0, -before[k]), x.shape[2 + k] - max(0, -after[k])), axis=2 + k)
    reach = [(k - 1) * d + 1 for k, d in zip(geometry.kernel, geometry.dilations, strict=True)]
    space = tuple(range(2, 2 + rank))
    views = sliding_window_view(x, reach, axis=space)  # type: ignore[call-overload]  # a tuple of ints it is
    views = views[(slice(None), slice(None), *(slice(None, None, s) for s in geometry.strides))]
    views = views[(..., *(slice(None, None, d) for d in geometry.dilations))]
    outs, filters = [], len(w) // group
    for g in range(group):
        part = views[:, g * w.shape[1] : (g + 1) * w.shape[1]]
        axes = ([1, *range(2 + rank, 2 + 2 * rank)], [1, *range(2, 2 + rank)])
        outs.append(np.moveaxis(np.tensordot(part, w[g * filters : (g + 1) * filters].astype("d"), axes), -1, 1))
    return np.concatenate(outs, axis=1)


@pytest.mark.parametrize("by_lines", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_windows(name: str, by_lines: bool, width: int) -> None:
    shape, weights, attributes = SHAPES[name]
    rank, group = len(shape) - 2, attributes.get("group", 1)
    ones = (1,) * rank
    steps = attributes.get("strides", ones), attributes.get("dilations", ones)
    geometry = Geometry(weights[2:], *steps, attributes.get("pads", (0,) * 2 * rank))
    x, w = normal(*shape), normal(*weights, seed=1)
    expected = convolved(x, w, geometry, group)
    for pieces in (1, 3):
        out = np.full(expected.shape, np.nan, "f")
        work = products.convolution(window(x, 1), window(w, 0), window(out, 2), geometry, group, by_lines)
        run(work, [w, x, out], pieces)
        close(out, expected, convolved(abs(x), abs(w), geometry, group))
