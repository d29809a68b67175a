"""What a tile stores: a call's epilogue over the axes of a blocked result.

The numbers that layers differ in (steps from image to image, from block to block and from line to line, where something
begins, how many channels there are) are arguments of its kernel, so that layers share their tiles.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np

from omniop.backends.array_eval import size_names
from omniop.backends.codegen.axes import steps_of
from omniop.backends.codegen.llvm_tiles import TileStore
from omniop.backends.cpu import fused, jit
from omniop.backends.cpu.caps import CAPS
from omniop.opset import expr, poly
from omniop.opset.dtype import FLOAT32
from omniop.opset.expr import Expr
from omniop.opset.kernel import Call, Kernel, Param, Store
from omniop.opset.layout import Layout
from omniop.opset.legalise import stored_dtype

_IMAGE, _BLOCK, _Y, _PIXEL, _LANE = range(5)
_APART = 1 << 8
"""In offsets of sums: more than a tile has pixels."""
_MANY = 1 << 31
"""Extent of an axis where nothing depends on it."""


def tile_store(call: Call, layout: Layout, block: int, flat: bool) -> TileStore:
    """``layout``: of the result ``[N, C, (H,) W]``. ``flat``: pixels are counted as one run, see
    `fused.pixels_are_one_run`."""
    view = call.results[0]
    batch, channels, *space = view.shape
    height, width = space if len(space) == 2 else (expr.index(1), space[0])
    extents = (batch, poly.simplify((channels + (block - 1)) // block), height, width)
    if flat:
        extents = (*extents[:2], expr.index(1), poly.simplify(height * width))
    axes = tuple(expr.raw_axis(k, e) for k, e in enumerate((*extents, expr.index(block))))
    places = [axes[_IMAGE], axes[_BLOCK] * block + axes[_LANE]]
    if len(space) == 2:
        places.append(expr.index(0) if flat else axes[_Y])
    places.append(axes[_PIXEL])
    hole = len(call.params)
    dtype = view.dtype if call.epilogue is None else fused.hole_dtype(call)
    assert dtype is FLOAT32
    value = expr.load(hole, (_of_sum(axes),), dtype)
    if call.epilogue is not None:
        changes = {n: value for n in expr.walk(call.epilogue) if n.op == "hole"}
        own = {expr.axis(k, d): places[k] for k, d in enumerate(view.shape)}
        if flat:  # the last axis of space that has more than one place counts the pixels
            rest = [a for a in own if a.op == "axis" and a.attr >= 2]
            own |= {a: expr.index(0) for a in rest[:-1]} | dict.fromkeys(rest[-1:], axes[_PIXEL])
        value = expr.substitute(call.epilogue, changes | {a: p for a, p in own.items() if a.op == "axis"})
    offset = poly.simplify(layout.offset(tuple(places), view.shape))
    params = (*(Param(stored_dtype(p.dtype, CAPS), p.written) for p in call.params), Param(dtype))
    kernel = Kernel(params, axes, (Store(view.buffer, offset, value),), call.sizes)
    full = channels.op == "const" and channels.attr % block == 0
    return _shared(kernel, hole, None if full else channels)


def arguments(stored: TileStore, sizes: Sequence[int]) -> np.ndarray:
    """Of the kernel, for the call's own ``sizes``."""
    names = size_names(sizes)
    return np.array([*sizes, *(expr.evaluate(n, names) for n in stored.numbers), 0], np.int64)


def _shared(kernel: Kernel, hole: int, channels: Expr | None) -> TileStore:
    """With its numbers as arguments, where axes appear in places of memory alone, times what all points share."""
    (store,) = kernel.stores
    steps = steps_of(kernel)
    if steps is None:
        return TileStore(kernel, jit.content(kernel), hole, channels)
    axes = tuple(expr.raw_axis(k, expr.index(_MANY)) for k in range(len(kernel.axes)))
    numbers: list[Expr] = []

    def argument(number: Expr) -> Expr:
        numbers.append(number)
        return expr.size(f"{expr.SCALAR}s{kernel.sizes + len(numbers) - 1}")

    @cache
    def shared(start: Expr, steps: tuple[Expr, ...]) -> Expr:
        """A place in memory; of the same steps, with the same arguments."""
        place = start if expr.is_const(start, 0) else argument(start)
        of_pixel = not expr.is_const(steps[_PIXEL], 0)
        for k, step in enumerate(steps):
            known = k in (_PIXEL, _LANE) or (step.op == "const" and not of_pixel)
            place = place + axes[k] * (step if known else argument(step))
        return poly.simplify(place)

    loads = [n for n in expr.walk(store.value) if n.op == "load"]
    places = {n: _of_sum(axes) if n.attr.source == hole else shared(*steps[n.args[0]]) for n in loads}
    values = {n: expr.load(n.attr.source, (place,), n.dtype) for n, place in places.items()}
    offset = shared(*steps[store.offset])
    limit = None if channels is None else argument(channels)
    stores = (Store(store.buffer, offset, expr.substitute(store.value, values)),)
    changed = Kernel(kernel.params, axes, stores, kernel.sizes + len(numbers))
    return TileStore(changed, jit.content(changed), hole, limit, tuple(numbers))


def _of_sum(axes: Sequence[Expr]) -> Expr:
    """What tells sums of a tile apart."""
    return axes[_Y] * _APART + axes[_PIXEL] + axes[_LANE]
