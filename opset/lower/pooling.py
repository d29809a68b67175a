"""Pools over windows, over whole channels, over regions of interest; and the inverse of MaxPool."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.definitions import Tensor
from omniop.opset.dtype import INT64, DType
from omniop.opset.errors import ModelError
from omniop.opset.expr import Expr
from omniop.opset.lower.common import at_most, require_equal
from omniop.opset.lower.windows import Window, per_axis, window_of
from omniop.opset.lowering import Node, Value, lowering
from omniop.opset.sym import Dim, as_expr, product


def _window(node: Node, x: Tensor) -> Window:
    if x.rank < 3:
        raise ModelError(f"{node.label}: shape {list(x.shape)}; a pool needs spatial axes behind batch and channels")
    return window_of(node, x.shape[2:], tuple(node.attr("kernel_shape")))


def _reduced(x: Tensor, window: Window, monoid: str, dtype: DType) -> Tensor:
    shape = (*x.shape[:2], *window.out)
    geometry = {"kernel": window.kernel, **window.geometry}
    return p.structured("window_reduce", [x], [(shape, dtype)], monoid=monoid, **geometry)[0]


# MaxPool --------------------------------------------------------------------------------------------------------------


@lowering("MaxPool")
def max_pool(node: Node, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    window = _window(node, x)
    y = _reduced(x, window, "max", x.dtype)
    if len(node.outputs) < 2 or not node.outputs[1]:
        return y
    return y, _positions(x, window, bool(node.attr("storage_order", 0)))


def _positions(x: Tensor, window: Window, column_major: bool) -> Tensor:
    """Where in the whole tensor, as one flat index, each maximum lies: of equal ones the first in row-major order."""
    rank = len(window.kernel)
    least, behind = p.identity("max", x.dtype), p.identity("min", INT64)

    def element(*i: Expr) -> tuple[Expr, Expr]:
        lead, outs, steps = i[:2], i[2 : 2 + rank], i[2 + rank :]
        at = [window.place(k, outs[k], steps[k]) for k in range(rank)]
        limits = [as_expr(d) for d in x.shape[2:]]
        inside = expr.all_of([t for place, d in zip(at, limits, strict=True) for t in (place >= 0, place < d)])
        assert inside is not None
        flat = _flat((*lead, *at), x.shape)
        return x.at(*lead, *at, guard=inside, other=least), expr.select(inside, flat, behind)

    found = p.reduce_of([*x.shape[:2], *window.out], window.kernel, "argmax", element)
    return p.elementwise(lambda e: _column_major(e, x.shape[2:]), found) if column_major else found


def _flat(at: Sequence[Expr], shape: Sequence[Dim]) -> Expr:
    result = expr.index(0)
    for place, extent in zip(at, shape, strict=True):
        result = result * as_expr(extent) + place
    return result


def _split(flat: Expr, shape: Sequence[Dim]) -> list[Expr]:
    """The inverse of `_flat`; the first index is what is left."""
    result = []
    for extent in reversed(shape[1:]):
        result.append(flat % as_expr(extent))
        flat = flat // as_expr(extent)
    return [flat, *reversed(result)]


def _column_major(flat: Expr, spatial: Sequence[Dim]) -> Expr:
    """The index with the first spatial axis running fastest."""
    channel, *at = _split(flat, (1, *spatial))
    return _flat((channel, *reversed(at)), (1, *reversed(spatial)))


@lowering("MaxUnpool", host=(2,))
def max_unpool(node: Node, x: Tensor, indices: Tensor, output_shape: Value = None) -> Tensor:
    """Zeros, with each element of ``x`` where MaxPool found it. Indices count in the shape that the attributes give;
    a larger ``output_shape`` adds zeros behind."""
    rank = x.rank - 2
    kernel, strides = node.attr("kernel_shape"), per_axis(node, "strides", rank, 1)
    pads = per_axis(node, "pads", 2 * rank, 0)
    pooled = [
        (d - 1) * s - pads[k] - pads[rank + k] + kernel[k]
        for k, (d, s) in enumerate(zip(x.shape[2:], strides, strict=True))
    ]
    inner = [*x.shape[:2], *pooled]
    shape = node.ints(2) or inner
    if len(shape) != x.rank or not all(at_most(d, whole) for d, whole in zip(inner, shape, strict=True)):
        raise ModelError(f"{node.label}: output_shape {shape} does not hold the unpooled shape {inner}")
    what = f"{node.label}: an index"
    fault = p.checked_index(expr.index(0), product(tuple(inner)), what)[2]

    def store(*i: Expr) -> tuple[Sequence[Expr], Expr, Expr | None]:
        flat, valid, _ = p.checked_index(indices.at(*i), product(tuple(inner)), what)
        return _split(flat, inner), x.at(*i), valid

    return p.scatter_of(p.full(shape, 0, x.dtype), x.shape, store, fault=fault)


# Sums over windows ----------------------------------------------------------------------------------------------------


@lowering("AveragePool")
def average_pool(node: Node, x: Tensor) -> Tensor:
    """The sum over the window by the number of elements in it: those of ``x``, or the declared padding too."""
    window = _window(node, x)
    wide = p.accumulator(x.dtype)
    total = _reduced(x, window, "add", wide)
    padding = bool(node.attr("count_include_pad", 0))
    counts = [_count(window, k, x.shape[2 + k], padding, bool(node.attr("ceil_mode", 0))) for k in range(x.rank - 2)]

    def element(*i: Expr) -> Expr:
        number = expr.index(1)
        for count, out in zip(counts, i[2:], strict=True):
            number = number * count(out)
        return expr.cast(total.at(*i) / expr.cast(number, wide), x.dtype)

    return p.map_of(total.shape, element)


def _count(window: Window, k: int, extent: Dim, padding: bool, ceil: bool) -> Callable[[Expr], Expr]:
    """How many elements of the window count along one axis, for an output place."""
    kernel, stride, dilation = window.kernel[k], window.strides[k], window.dilations[k]
    begin, end = window.begins[k], window.ends[k]
    whole_front = padding or (isinstance(begin, int) and begin == 0)
    whole_back = not ceil and (padding or (isinstance(end, int) and end == 0))
    if whole_front and whole_back:
        return lambda out: as_expr(kernel)
    limit = as_expr(extent + end if padding else extent)

    def count(out: Expr) -> Expr:
        start = out * stride - as_expr(begin)
        first, last = expr.index(0), as_expr(kernel)
        if not whole_front:
            first = expr.maximum((dilation - 1 - start) // dilation, 0)
        if not whole_back:
            last = expr.minimum((limit - start + dilation - 1) // dilation, last)
        return last - first

    return count


@lowering("LpPool")
def lp_pool(node: Node, x: Tensor) -> Tensor:
    wide, power = p.accumulator(x.dtype), node.attr("p", 2)
    total = _reduced(_powered(x, power), _window(node, x), "add", wide)
    return p.elementwise(lambda e: expr.cast(_root(e, power), x.dtype), total)


def _powered(x: Tensor, power: float) -> Tensor:
    """|x| ** power, in the accumulator's dtype."""
    wide = p.accumulator(x.dtype)

    def element(e: Expr) -> Expr:
        e = expr.cast(e, wide)
        if power == 2:
            return e * e
        size = expr.alu("abs", e)
        return size if power == 1 else expr.binary("pow", size, float(power))

    return p.elementwise(element, x)


def _root(x: Expr, power: float) -> Expr:
    if power in (1, 2):
        return x if power == 1 else expr.alu("sqrt", x)
    return expr.binary("pow", x, 1.0 / power)


# Whole channels -------------------------------------------------------------------------------------------------------


@lowering("GlobalMaxPool")
def global_max_pool(node: Node, x: Tensor) -> Tensor:
    return p.reduce("max", x, range(2, x.rank), keepdims=True)


@lowering("GlobalAveragePool")
def global_average_pool(node: Node, x: Tensor) -> Tensor:
    wide, axes = p.accumulator(x.dtype), range(2, x.rank)
    number = as_expr(p.count(x, axes))
    total = p.reduce("add", p.cast(x, wide), axes, keepdims=True)
    return p.elementwise(lambda e: expr.cast(e / expr.cast(number, wide), x.dtype), total)


@lowering("GlobalLpPool")
def global_lp_pool(node: Node, x: Tensor) -> Tensor:
    power = node.attr("p", 2)
    total = p.reduce("add", _powered(x, power), range(2, x.rank), keepdims=True)
    return p.elementwise(lambda e: expr.cast(_root(e, power), x.dtype), total)


# Regions of interest --------------------------------------------------------------------------------------------------


@lowering("MaxRoiPool")
def max_roi_pool(node: Node, x: Tensor, rois: Tensor) -> Tensor:
    """The greatest element of each cell of a grid over each region; 0 for a cell outside the image."""
    require_equal(node, rois.shape[1], 5, "a region is (batch, x1, y1, x2, y2), but the columns of rois")
    rows, columns = node.attr("pooled_shape")
    scale, wide = node.attr("spatial_scale", 1.0), p.accumulator(x.dtype)
    number, channels, height, width = rois.shape[0], x.shape[1], x.shape[2], x.shape[3]

    def bounds(roi: Expr, first: int, cell: Expr, cells: int, extent: Dim) -> tuple[Expr, Expr]:
        """First place of a cell and the one behind its last; ``first`` is the column of the region's begin."""
        start, stop = (_round_away(expr.cast(rois.at(roi, first + far), wide) * scale) for far in (0, 2))
        size = expr.cast(expr.maximum(stop - start + 1, 1), wide) / cells
        low = expr.cast(expr.alu("floor", expr.cast(cell, wide) * size), INT64) + start
        high = expr.cast(expr.alu("ceil", expr.cast(cell + 1, wide) * size), INT64) + start
        limit = as_expr(extent)
        return expr.minimum(expr.maximum(low, 0), limit), expr.minimum(expr.maximum(high, 0), limit)

    least = p.identity("max", x.dtype)
    what = f"{node.label}: the batch of a region"

    def over_width(n: Expr, c: Expr, h: Expr, column: Expr, w: Expr) -> Expr:
        image, valid, fault = p.checked_index(expr.cast(rois.at(n, 0), INT64), x.shape[0], what)
        low, high = bounds(n, 1, column, columns, width)
        value = x.at(image, c, h, w, guard=valid, other=least, fault=fault)
        return expr.select((w >= low) & (w < high), value, least)

    strips = p.reduce_of([number, channels, height, columns], [width], "max", over_width)

    def over_height(n: Expr, c: Expr, row: Expr, column: Expr, h: Expr) -> Expr:
        low, high = bounds(n, 2, row, rows, height)
        return expr.select((h >= low) & (h < high), strips.at(n, c, h, column), least)

    y = p.reduce_of([number, channels, rows, columns], [height], "max", over_height)

    def filled(n: Expr, c: Expr, row: Expr, column: Expr) -> Expr:
        top, bottom = bounds(n, 2, row, rows, height)
        left, right = bounds(n, 1, column, columns, width)
        return expr.select((top < bottom) & (left < right), y.at(n, c, row, column), 0)

    return p.map_of(y.shape, filled)


def _round_away(x: Expr) -> Expr:
    """To the nearest integer, halves away from zero."""
    return expr.cast(expr.alu("trunc", x + expr.select(x < 0, expr.const(-0.5, x.dtype), 0.5)), INT64)


@lowering("RoiAlign")
def roi_align(node: Node, x: Tensor, rois: Tensor, images: Tensor) -> Tensor:
    """The mean (or the greatest term) of samples taken between the pixels, on a grid in each cell of each region."""
    rows, columns = node.attr("output_height", 1), node.attr("output_width", 1)
    scale, ratio = node.attr("spatial_scale", 1.0), node.attr("sampling_ratio", 0)
    centred = node.since >= 16 and node.attr("coordinate_transformation_mode", "half_pixel") == "half_pixel"
    average = node.attr("mode", "avg").lower() == "avg"
    wide = p.accumulator(x.dtype)
    shift = 0.5 if centred else 0.0

    def begin_and_size(n: Expr, far: int, cells: int) -> tuple[Expr, Expr]:
        """Where a region begins and the size of its cells; ``far`` 1 is vertical."""
        start, stop = (expr.cast(rois.at(n, k), wide) * scale - shift for k in (far, 2 + far))
        size = stop - start
        return start, (size if centred else expr.maximum(size, 1.0)) / cells

    def samples(n: Expr, far: int, cells: int) -> Expr:
        """How many samples a cell has along one axis."""
        if ratio > 0:
            return expr.index(ratio)
        return expr.maximum(expr.cast(expr.alu("ceil", begin_and_size(n, far, cells)[1]), INT64), 0)

    def bound(far: int, cells: int) -> Dim:
        if ratio > 0:
            return int(ratio)
        most = p.reduce_of([], [rois.shape[0]], "max", lambda n: samples(n, far, cells))
        value: Dim = node.read(most, f"samples {far}").array.reshape(-1)[0]
        return 0 if at_most(value, 0) else value

    def around(n: Expr, far: int, cells: int, cell: Expr, step: Expr) -> tuple[list[Expr], list[Expr], Expr]:
        """The two pixels around a sample, their weights, and whether the sample is near the image."""
        extent = x.shape[3 - far]
        start, size = begin_and_size(n, far, cells)
        count = expr.cast(samples(n, far, cells), wide)
        place = start + expr.cast(cell, wide) * size + (expr.cast(step, wide) + 0.5) * size / count
        near = (place >= -1.0) & (place <= expr.cast(as_expr(extent), wide))
        place, last = expr.maximum(place, 0.0), as_expr(extent) - 1
        low = expr.minimum(expr.cast(place, INT64), last)
        share = expr.select(low >= last, expr.const(0.0, wide), place - expr.cast(low, wide))
        return [low, expr.minimum(low + 1, last)], [1 - share, share], near

    def element(*i: Expr) -> Expr:
        n, c, row, column, v, h = i
        ys, y_weights, y_near = around(n, 1, rows, row, v)
        xs, x_weights, x_near = around(n, 0, columns, column, h)
        image, valid, fault = p.checked_index(images.at(n), x.shape[0], f"{node.label}: the batch of a region")
        terms = [
            expr.cast(x.at(image, c, ys[a], xs[b], guard=valid, fault=fault), wide) * y_weights[a] * x_weights[b]
            for a in (0, 1)
            for b in (0, 1)
        ]
        value = terms[0]
        for term in terms[1:]:
            value = value + term if average else expr.maximum(value, term)
        counted = (v < samples(n, 1, rows)) & (h < samples(n, 0, columns))
        value = expr.select(y_near & x_near, value, 0.0)
        return expr.select(counted, value, p.identity("add" if average else "max", wide))

    shape = [rois.shape[0], x.shape[1], rows, columns]
    total = p.reduce_of(shape, [bound(1, rows), bound(0, columns)], "add" if average else "max", element)

    def finished(*i: Expr) -> Expr:
        number = samples(i[0], 1, rows) * samples(i[0], 0, columns)
        value = total.at(*i)
        value = value / expr.cast(expr.maximum(number, 1), wide) if average else value
        return expr.cast(expr.select(number > 0, value, 0.0), x.dtype)

    return p.map_of(shape, finished)
