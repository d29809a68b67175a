"""What a tile stores: a call's epilogue over the axes of a blocked result."""

from __future__ import annotations

from omniop.backends.codegen.llvm_tiles import TileStore
from omniop.backends.cpu import fused, jit
from omniop.backends.cpu.caps import CAPS
from omniop.opset import expr, poly
from omniop.opset.dtype import FLOAT32
from omniop.opset.kernel import Call, Kernel, Param, Store
from omniop.opset.layout import Layout
from omniop.opset.legalise import stored_dtype

_IMAGE, _BLOCK, _Y, _PIXEL, _LANE = range(5)


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
    value = expr.load(hole, (axes[_Y] * width + axes[_PIXEL] + axes[_LANE],), dtype)
    if call.epilogue is not None:
        changes = {n: value for n in expr.walk(call.epilogue) if n.op == "hole"}
        own = {expr.axis(k, d): places[k] for k, d in enumerate(view.shape)}
        if flat:  # the last axis of space that has more than one place counts the pixels
            rest = [a for a in own if a.op == "axis" and a.attr >= 2]
            own |= {a: expr.index(0) for a in rest[:-1]} | dict.fromkeys(rest[-1:], axes[_PIXEL])
        value = expr.substitute(call.epilogue, changes | {a: p for a, p in own.items() if a.op == "axis"})
    offset = poly.simplify(layout.offset(tuple(places), view.shape))
    params = (*(Param(stored_dtype(p.dtype, CAPS), p.written) for p in call.params), Param(dtype))
    stored = Kernel(params, axes, (Store(view.buffer, offset, value),), call.sizes)
    full = channels.op == "const" and channels.attr % block == 0
    return TileStore(stored, jit.content(stored), hole, 0 if full else channels.attr)
