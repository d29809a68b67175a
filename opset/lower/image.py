"""Sampling of images by grids, and the suppression of boxes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.definitions import Tensor
from omniop.opset.dtype import INT64, DType
from omniop.opset.errors import ModelError
from omniop.opset.expr import Expr
from omniop.opset.lower.common import at_most, element, real, require_equal
from omniop.opset.lower.sampling import Tap, cubic_weights, weighed, within
from omniop.opset.lower.selection import selected
from omniop.opset.lowering import Node, Value, lowering
from omniop.opset.sym import Dim, as_expr

_MODES = {"bilinear": "linear", "bicubic": "cubic", "linear": "linear", "cubic": "cubic", "nearest": "nearest"}
_PADDINGS = ("zeros", "border", "reflection")
_CUBIC = -0.75


@lowering("GridSample", since=16)
def grid_sample(node: Node, x: Tensor, grid: Tensor) -> Tensor:
    """``x`` at the places that ``grid`` names, last axis first, from -1 to 1 over each axis."""
    mode, padding = node.attr("mode", "linear"), node.attr("padding_mode", "zeros")
    if mode not in _MODES or padding not in _PADDINGS:
        known = ", ".join((*_MODES, *_PADDINGS))
        raise node.unsupported(f"mode {mode!r} with padding_mode {padding!r}; known: {known}")
    rank = x.rank - 2
    if grid.rank != x.rank:
        raise ModelError(f"{node.label}: X has {rank} spatial axes, and grid {grid.rank - 2}")
    require_equal(node, grid.shape[0], x.shape[0], "batches of grid and X")
    require_equal(node, grid.shape[-1], rank, "coordinates in grid")
    wide = max(real(x.dtype if mode != "nearest" else grid.dtype), real(grid.dtype), key=lambda d: d.bits)
    sampler = _Sampler(_MODES[mode], padding, bool(node.attr("align_corners", 0)), wide)

    def sample(n: Expr, c: Expr, *outs: Expr) -> Expr:
        axes = [
            sampler.taps(expr.cast(grid.at(n, *outs, rank - 1 - k), wide), as_expr(x.shape[2 + k])) for k in range(rank)
        ]
        if mode == "nearest":
            (single,) = zip(*axes, strict=True)
            inside = expr.all_of([tap.inside for tap in single if tap.inside is not None])
            return x.at(n, c, *(tap.place for tap in single), guard=inside)
        value = weighed(axes, lambda at, inside: expr.cast(x.at(n, c, *at, guard=inside), wide))
        return expr.cast(value, x.dtype)

    return p.map_of([*x.shape[:2], *grid.shape[1:-1]], sample)


@lowering("AffineGrid", since=20, host=(1,))
def affine_grid(node: Node, theta: Tensor, size: Value) -> Tensor:
    """The places that `GridSample` takes, last axis first: each point of an image moved by an affine matrix."""
    shape = node.ints(1) or []
    rank = len(shape) - 2
    if rank not in (2, 3) or theta.rank != 3:
        raise ModelError(f"{node.label}: size {shape} and theta of shape {list(theta.shape)} are not of 2 or 3 axes")
    for k, wanted in enumerate((shape[0], rank, rank + 1)):
        require_equal(node, theta.shape[k], wanted, f"dim {k} of theta")
    corners, wide = bool(node.attr("align_corners", 0)), p.accumulator(theta.dtype)

    def coordinate(i: Expr, extent: Dim) -> Expr:
        """From -1 to 1 over the axis; 0 at its middle, also when it has one element."""
        steps = expr.maximum(as_expr(extent) - 1, 1) if corners else as_expr(extent)
        return expr.cast(i * 2 + 1 - as_expr(extent), wide) / expr.cast(steps, wide)

    def moved(n: Expr, *rest: Expr) -> Expr:
        *places, k = rest
        value = expr.cast(theta.at(n, k, rank), wide)
        for axis, place in enumerate(places):
            value = value + expr.cast(theta.at(n, k, rank - 1 - axis), wide) * coordinate(place, shape[2 + axis])
        return expr.cast(value, theta.dtype)

    return p.map_of([shape[0], *shape[2:], rank], moved)


class _Sampler:
    """From a coordinate of the grid to the elements around it, along one axis."""

    def __init__(self, mode: str, padding: str, align_corners: bool, wide: DType) -> None:
        self.mode, self.padding, self.align_corners, self.wide = mode, padding, align_corners, wide

    def taps(self, coordinate: Expr, extent: Expr) -> list[Tap]:
        point = self._padded(self._point(coordinate, extent), extent)
        if self.mode == "nearest":
            return [self._tap(expr.const(1.0, self.wide), expr.cast(point, INT64), extent)]
        low = expr.alu("floor", point)
        share, first = point - low, expr.cast(low, INT64)
        if self.mode == "linear":
            return [self._tap(weight, first + k, extent) for k, weight in enumerate((1 - share, share))]
        return [self._tap(weight, first + k, extent) for k, weight in enumerate(cubic_weights(share, _CUBIC), -1)]

    def _point(self, coordinate: Expr, extent: Expr) -> Expr:
        """In elements; -1 and 1 are the centres of the outermost elements, or their outer edges."""
        size = expr.cast(extent, self.wide)
        shifted = coordinate + 1
        point = shifted / 2.0 * (size - 1) if self.align_corners else (shifted * size - 1) / 2.0
        return expr.alu("rint", point) if self.mode == "nearest" else point

    def _padded(self, point: Expr, extent: Expr) -> Expr:
        """A point beyond the outer edges, moved to the border or reflected by the edges."""
        if self.padding == "zeros":
            return point
        size = expr.cast(extent, self.wide)
        first = expr.const(0.0 if self.align_corners else -0.5, self.wide)
        length = size - 1 if self.align_corners else size
        if self.padding == "border":
            moved = expr.minimum(expr.maximum(point, 0.0), size - 1)
        else:
            rest = expr.alu("rem", expr.alu("abs", point - first), length * 2.0)
            moved = first + expr.minimum(rest, length * 2.0 - rest)
            if self.align_corners:
                moved = expr.select(length.eq(0.0), first, moved)
        return expr.select((point < first) | (point > first + length), moved, point)

    def _tap(self, weight: Expr, place: Expr, extent: Expr) -> Tap:
        if self.padding == "zeros":
            return Tap(weight, place, within(place, extent))
        if self.padding == "border":
            return Tap(weight, expr.minimum(expr.maximum(place, 0), extent - 1))
        return Tap(weight, self._reflected(place, extent))

    def _reflected(self, place: Expr, extent: Expr) -> Expr:
        if self.align_corners:
            period = extent * 2 - 2
            rest = place % expr.maximum(period, 1)
            return expr.select(rest < extent, rest, period - rest)
        rest = place % (extent * 2)
        return expr.select(rest < extent, rest, extent * 2 - 1 - rest)


# Boxes ----------------------------------------------------------------------------------------------------------------

_FEW = 64
"""Steps that are not worth a read-back to make them fewer."""


@lowering("NonMaxSuppression", since=10, host=(2,))
def non_max_suppression(
    node: Node,
    boxes: Tensor,
    scores: Tensor,
    most: Value = None,
    overlap: Tensor | None = None,
    threshold: Tensor | None = None,
) -> Tensor:
    """Rows (batch, class, box): of each class the best box again and again, without those that overlap it too much.

    All classes take a step at once. A score of minus infinity or NaN is never chosen.
    """
    require_equal(node, boxes.shape[1], scores.shape[2], "boxes and scores")
    batches, classes = scores.shape[:2]
    least = p.identity("max", scores.dtype)

    def initial(e: Expr) -> Expr:
        return expr.select(e > (least if threshold is None else element(threshold)), e, least)

    start = p.elementwise(initial, scores)
    steps = _steps(node, start, threshold is not None)
    box = _corners(boxes, bool(node.attr("center_point_box", 0)))

    def choose(step: Dim, left: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        best = p.arg_reduce("argmax", left, 2)
        found = p.map_of(
            best.shape, lambda b, c: expr.select(left.at(b, c, best.at(b, c)) > least, best.at(b, c), expr.index(-1))
        )

        def kept(b: Expr, c: Expr, n: Expr) -> Expr:
            chosen = best.at(b, c)
            limit = expr.const(0.0, boxes.dtype) if overlap is None else element(overlap)
            gone = n.eq(chosen) | _overlaps(box(b, chosen), box(b, n), limit)
            return expr.select(gone, least, left.at(b, c, n))

        return [p.map_of(left.shape, kept)], [found]

    _, (chosen,) = p.repeat(steps, [start], choose)
    runs, width = as_expr(steps), as_expr(classes)

    def place(flat: Expr) -> tuple[Expr, Expr, Expr]:
        """(step, batch, class) in the order of the output."""
        return flat % runs, flat // (runs * width), flat // runs % width

    flags = p.map_of([batches * classes * steps], lambda i: chosen.at(*place(i)) >= 0)
    rows = selected(node, flags)

    def row(i: Expr, k: Expr) -> Expr:
        step, b, c = place(rows.at(i))
        return expr.select(k.eq(0), b, expr.select(k.eq(1), c, chosen.at(step, b, c)))

    return p.map_of([rows.shape[0], 3], row)


def _steps(node: Node, scores: Tensor, filtered: bool) -> Dim:
    """How many boxes of one class may be chosen."""
    given = node.ints(2)
    most: Dim = given[0] if given else 0
    most = 0 if at_most(most, 0) else most
    count = scores.shape[2]
    most = most if at_most(most, count) else count
    if not filtered or at_most(most, _FEW):
        return most
    least = p.identity("max", scores.dtype)
    candidates = p.reduce("add", p.elementwise(lambda e: expr.cast(e > least, INT64), scores), [2])
    number: Dim = node.read(p.reduce("max", candidates, [0, 1]), "candidates").array.reshape(-1)[0]
    return most if at_most(most, number) else number


Box = tuple[tuple[Expr, Expr], tuple[Expr, Expr]]
"""(least, greatest) along each of two axes."""


def _corners(boxes: Tensor, centred: bool) -> Callable[[Expr, Expr], Box]:
    """A box by batch and number: of two opposite corners in any order, or of a centre and a size."""

    def box(b: Expr, n: Expr) -> Box:
        first, second, third, fourth = (boxes.at(b, n, k) for k in range(4))
        if centred:
            return (first - third / 2, first + third / 2), (second - fourth / 2, second + fourth / 2)
        return _ordered(first, third), _ordered(second, fourth)

    return box


def _ordered(a: Expr, b: Expr) -> tuple[Expr, Expr]:
    return expr.minimum(a, b), expr.maximum(a, b)


def _overlaps(a: Box, b: Box, limit: Expr) -> Expr:
    """Whether intersection over union exceeds ``limit``; boxes without area overlap nothing."""
    sides = [expr.minimum(s[1], t[1]) - expr.maximum(s[0], t[0]) for s, t in zip(a, b, strict=True)]
    common = sides[0] * sides[1]
    areas = [(box[0][1] - box[0][0]) * (box[1][1] - box[1][0]) for box in (a, b)]
    real_boxes = (areas[0] > 0.0) & (areas[1] > 0.0) & (sides[0] > 0.0) & (sides[1] > 0.0)
    return real_boxes & (common / (areas[0] + areas[1] - common) > limit)
