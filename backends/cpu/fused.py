"""Kernels around structured calls: epilogues, and depthwise convolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from omniop.backends.codegen.llvm_blocks import BlockSize
from omniop.opset import expr, poly
from omniop.opset.dtype import FLOAT32, DType
from omniop.opset.expr import Expr
from omniop.opset.kernel import Call, Kernel, Param, Store, View
from omniop.opset.legalise import Capabilities, legalise_expr, stored_params

MAX_TAPS = 64
"""Elements of a window that are written out one by one."""


def hole_dtype(call: Call) -> DType:
    """The dtype in which the epilogue wants the prim's value."""
    assert call.epilogue is not None
    return next(n.dtype for n in expr.walk(call.epilogue) if n.op == "hole")


def rounding(call: Call, caps: Capabilities, sums: DType) -> Call:
    """The call with the epilogue that takes ``sums`` to a result of another dtype, where it has none."""
    dtype = call.results[0].dtype
    if call.epilogue is not None or dtype is sums:
        return call
    tail = legalise_expr(expr.hole(dtype), caps)
    assert isinstance(tail, Expr)
    return replace(call, epilogue=tail)


def epilogue_kernel(call: Call, caps: Capabilities) -> Kernel:
    """The call's epilogue over a value that lies in row-major order in one more buffer, behind the call's own.

    That buffer may be the result's own memory, since each point reads its place before it writes it.
    """
    view = call.results[0]
    dtype = hole_dtype(call)
    place = poly.linear(_axes(view), view.shape)
    params = (*stored_params(call, caps), Param(dtype))
    return _with_epilogue(call, params, expr.load(len(call.params), (place,), dtype), call.sizes)


def block_kernel(call: Call, caps: Capabilities, sums: DType | None = None) -> Kernel:
    """The call's epilogue, or a plain copy, from a block of its value that lies in one more buffer into the result.
    The block is of ``sums``, by default what the value is.

    Behind the call's sizes come those of the block: `omniop.backends.codegen.llvm_blocks.BlockSize`.
    """
    view = call.results[0]
    rank = len(view.shape)
    dtype = view.dtype if call.epilogue is None else hole_dtype(call)
    ranges = {BlockSize.ROW: BlockSize.ROWS, BlockSize.Y: BlockSize.COUNT_Y, BlockSize.X: BlockSize.COUNT_X}

    def size(which: int, least: str = "") -> Expr:
        return expr.size(f"{least}s{call.sizes + which}")

    lead, rest = 1, expr.index(0)
    if call.prim in ("contract", "attention"):
        lead, sides = rank - 2, {rank - 2: BlockSize.ROW, rank - 1: BlockSize.X}
    elif pixels_are_one_run(call):
        sides = {1: BlockSize.ROW, _last_of_space(view): BlockSize.X}
    else:
        sides = {1: BlockSize.ROW, rank - 2: BlockSize.Y, rank - 1: BlockSize.X}
        rest = size(BlockSize.Z, expr.SCALAR)
    axes = {side: expr.axis(n, size(ranges[side])) for n, side in enumerate(sides.values())}
    places = [size(BlockSize.PLACES + k, expr.SCALAR) if k < lead else rest for k in range(rank)]
    for k, side in sides.items():
        places[k] = axes[side] + size(side, expr.SCALAR)
    place = axes[BlockSize.ROW] * size(BlockSize.BLOCK_ROW) + axes[BlockSize.X]
    if BlockSize.Y in axes:
        place = place + axes[BlockSize.Y] * size(BlockSize.COUNT_X)
    sums = sums or dtype
    value = expr.cast(expr.load(len(call.params), (place,), sums), dtype)
    if call.epilogue is not None:
        changes = {n: value for n in expr.walk(call.epilogue) if n.op == "hole"}
        changes |= {a: p for a, p in zip(_axes(view), places, strict=True) if a.op == "axis"}
        value = expr.substitute(call.epilogue, changes)
    params = (*stored_params(call, caps), Param(sums))
    stores = (Store(view.buffer, _offset(view, places), value),)
    return Kernel(params, tuple(axes.values()), stores, call.sizes + BlockSize.PLACES + lead)


def scores_kernel(call: Call, caps: Capabilities) -> Kernel:
    """An attention's scores from a block of its first product that lies in one more buffer into another one, which may
    be the same memory. Sizes are as of `block_kernel`."""
    (*batch, queries, _), (*_, keys) = call.operands[0].shape, call.operands[1].shape
    rank = len(batch) + 2
    assert call.scores is not None

    def size(which: int, least: str = "") -> Expr:
        return expr.size(f"{least}s{call.sizes + which}")

    row, column = (expr.axis(n, size(s)) for n, s in enumerate((BlockSize.ROWS, BlockSize.COUNT_X)))
    places = [size(BlockSize.PLACES + k, expr.SCALAR) for k in range(len(batch))]
    places += [row + size(BlockSize.ROW, expr.SCALAR), column + size(BlockSize.X, expr.SCALAR)]
    place = row * size(BlockSize.BLOCK_ROW) + column
    value = expr.load(len(call.params), (place,), FLOAT32)
    axes = (expr.axis(k, d) for k, d in enumerate((*batch, queries, keys)))
    changes = {n: value for n in expr.walk(call.scores) if n.op == "hole"}
    changes |= {a: p for a, p in zip(axes, places, strict=True) if a.op == "axis"}
    params = (*(replace(p, written=False) for p in stored_params(call, caps)), Param(FLOAT32), Param(FLOAT32, True))
    store = Store(len(call.params) + 1, place, expr.substitute(call.scores, changes))
    return Kernel(params, (row, column), (store,), call.sizes + BlockSize.PLACES + rank - 2)


def copy_kernel(call: Call, operand: int, caps: Capabilities, row: int | None = None) -> Kernel:
    """An operand copied, row-major, to one more buffer; ``row``: elements from one of its rows to the next there."""
    view = call.operands[operand]
    axes = _axes(view)
    own = tuple(a for a in axes if a.op == "axis")
    value = expr.load(view.buffer, (_offset(view, axes),), view.dtype)
    params = tuple(replace(p, written=False) for p in stored_params(call, caps))
    shape = view.shape if row is None else (*view.shape[:-1], expr.index(row))
    store = Store(len(call.params), poly.linear(axes, shape), value)
    return Kernel((*params, Param(view.dtype, True)), own, (store,), call.sizes)


def pixels_are_one_run(call: Call) -> bool:
    """Whether what comes after a convolution sees the pixels of a channel as one run: a step along any axis of space is
    as many steps along the last one as there are pixels between."""
    view = call.results[0]
    axes = _axes(view)
    if len(axes) == 3:
        return True
    end = _last_of_space(view)
    last = axes[end]
    if last.op != "axis":
        return False
    offsets = [_offset(view, axes)]
    if call.epilogue is not None:
        loads = [n for n in expr.walk(call.epilogue) if n.op == "load"]
        bare = expr.substitute(call.epilogue, {n: expr.const(0, n.dtype) for n in loads})
        if any(n.attr.guarded for n in loads) or not expr.free_axes(bare).isdisjoint(axes[2:]):
            return False
        offsets += [n.args[0] for n in loads]
    step = last.args[0]
    for axis, extent in zip(axes[end - 1 : 1 : -1], view.shape[end - 1 : 1 : -1], strict=True):
        for offset in offsets:
            moved, run = ({axis: axis + 1}, {last: last + step})
            if axis.op == "axis" and not poly.same(expr.substitute(offset, moved), expr.substitute(offset, run)):
                return False
        step = poly.simplify(step * extent)
    return True


def _last_of_space(view: View) -> int:
    """The last axis of space of more than one element, if there is one."""
    rank = len(view.shape)
    return next((k for k in range(rank - 1, 1, -1) if not expr.is_const(view.shape[k], 1)), rank - 1)


def is_dense(view: View) -> bool:
    """Row-major from the start of its buffer."""
    return poly.same(_offset(view, _axes(view)), poly.linear(_axes(view), view.shape))


def depthwise_kernel(call: Call, caps: Capabilities) -> Kernel | None:
    """A convolution of each channel with a window of its own, epilogue included; None when the call is another one.

    Behind the call's buffers comes x with its padding; behind its sizes, the offset and all strides but the last, which
    is 1, of that array.
    """
    x, w = call.operands
    result = call.results[0]
    taps = 1
    for extent in w.shape[1:]:
        if extent.op != "const":
            return None
        taps *= extent.attr
    if w.shape[1].attr != 1 or not expr.is_const(w.shape[0], call.attr("group")) or taps > MAX_TAPS:
        return None
    value_dtype = result.dtype if call.epilogue is None else hole_dtype(call)
    if not x.dtype is w.dtype is value_dtype or x.dtype not in caps.compute:
        return None
    axes = _axes(result)
    offset, *strides = (expr.size(f"s{call.sizes + k}") for k in range(len(x.shape)))
    strides.append(expr.index(1))
    window = [extent.attr for extent in w.shape[2:]]
    # In terms that the taps share, and not simplified: that is for the printer, and most kernels come from a cache.
    begin = offset + axes[0] * strides[0] + axes[1] * strides[1]
    steps = [
        [
            (axes[2 + k] * call.attr("strides")[k] + i * call.attr("dilations")[k]) * strides[2 + k]
            for i in range(extent)
        ]
        for k, extent in enumerate(window)
    ]
    row = w.offset + axes[1] * w.strides[0]
    products: list[Expr] = []
    for tap in _points(window):
        place, weight = begin, row
        for k, i in enumerate(tap):
            place = place + steps[k][i]
            weight = weight + w.strides[2 + k] * i
        element = expr.load(len(call.params), (place,), x.dtype)
        products.append(element * expr.load(w.buffer, (weight,), w.dtype))
    params = (*stored_params(call, caps), Param(x.dtype))
    return _with_epilogue(call, params, _sum(products), call.sizes + len(x.shape))


def _sum(terms: Sequence[Expr]) -> Expr:
    """As a tree: a chain of additions would wait for each one."""
    if len(terms) == 1:
        return terms[0]
    half = len(terms) // 2
    return _sum(terms[:half]) + _sum(terms[half:])


def _with_epilogue(call: Call, params: tuple[Param, ...], value: Expr, sizes: int) -> Kernel:
    """Stores the epilogue of ``value``, or ``value`` itself, in the call's result."""
    view = call.results[0]
    if call.epilogue is not None:
        value = expr.substitute(call.epilogue, {n: value for n in expr.walk(call.epilogue) if n.op == "hole"})
    axes = _axes(view)
    own = tuple(a for a in axes if a.op == "axis")
    return Kernel(params, own, (Store(view.buffer, _offset(view, axes), value),), sizes)


def _axes(view: View) -> tuple[Expr, ...]:
    return tuple(expr.axis(k, d) for k, d in enumerate(view.shape))


def _offset(view: View, index: Sequence[Expr]) -> Expr:
    place = view.offset
    for i, stride in zip(index, view.strides, strict=True):
        place = place + i * stride
    return poly.simplify(place)


def _points(shape: Sequence[int]) -> list[tuple[int, ...]]:
    points: list[tuple[int, ...]] = [()]
    for extent in shape:
        points = [(*p, i) for p in points for i in range(extent)]
    return points
