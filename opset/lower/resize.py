"""Resize and Upsample.

A place of the output lies at a rational coordinate of the input: every mode's formula is a quotient of integers once
the scale is one. So its floor and its fraction are exact, on every device, and an index such as ``x // 2`` stays one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from omniop.opset import expr, poly
from omniop.opset import prims as p
from omniop.opset.definitions import Tensor
from omniop.opset.dtype import FLOAT64, DType
from omniop.opset.errors import ModelError
from omniop.opset.expr import Expr
from omniop.opset.lower.common import at_most, axes_of, real
from omniop.opset.lower.sampling import Tap, cubic_weight, cubic_weights, total, weighed, within
from omniop.opset.lowering import Node, Value, lowering
from omniop.opset.sym import Dim, as_expr


@dataclass(frozen=True)
class Axis:
    """One axis that is resized: by ``up / down``, to ``out`` elements of what would be ``width[0] / width[1]``."""

    number: int
    extent: Dim
    out: Dim
    up: Dim
    down: Dim
    width: tuple[Dim, Dim]
    roi: tuple[Fraction, Fraction]
    mode: str
    """coordinate_transformation_mode"""

    def coordinate(self, x: Expr) -> tuple[Expr, Expr]:
        """Numerator and denominator (above 0) of the input coordinate of output place ``x``."""
        up, down, extent, out = (as_expr(d) for d in (self.up, self.down, self.extent, self.out))
        if self.mode == "asymmetric":
            return x * down, up
        if self.mode == "half_pixel":
            return (x * 2 + 1) * down - up, up * 2
        if self.mode == "half_pixel_symmetric":
            return (x * 2 + 1) * down - up + extent * up - out * down, up * 2
        if self.mode == "tf_half_pixel_for_nn":
            return (x * 2 + 1) * down, up * 2
        single = p.dims_equal(self.out, 1)
        if self.mode == "tf_crop_and_resize":
            return self._cropped(x, single)
        if single:
            return expr.index(0), expr.index(1)
        if self.mode == "pytorch_half_pixel":
            return (x * 2 + 1) * down - up, up * 2
        width, part = as_expr(self.width[0]), as_expr(self.width[1])
        return x * (extent - 1) * part, width - part

    def _cropped(self, x: Expr, single: bool) -> tuple[Expr, Expr]:
        """Between the ends of ``roi``, which are shares of the input."""
        start, end = self.roi
        common = math.lcm(start.denominator, end.denominator)
        first, last = int(start * common), int(end * common)
        span = as_expr(self.extent) - 1
        if single:
            return span * (first + last), expr.index(2 * common)
        steps = as_expr(self.out) - 1
        return span * (steps * first + x * (last - first)), steps * common


_MODES = (
    *("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric", "asymmetric", "align_corners"),
    *("tf_half_pixel_for_nn", "tf_crop_and_resize"),
)

_WHOLE = (Fraction(0), Fraction(1))

_ROUNDINGS = {
    "floor": lambda n, d: n // d,
    "ceil": lambda n, d: (n + d - 1) // d,
    "round_prefer_floor": lambda n, d: (n * 2 + d - 1) // (d * 2),
    "round_prefer_ceil": lambda n, d: (n * 2 + d) // (d * 2),
}


@dataclass(frozen=True)
class Filter:
    """How the elements around a coordinate are weighed."""

    mode: str
    rounding: str = "round_prefer_floor"
    cubic: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False
    extrapolation: float = 0.0


# The operators --------------------------------------------------------------------------------------------------------


@lowering("Upsample")
def upsample_2d(node: Node, x: Tensor) -> Tensor:
    return _by_scales(node, x, [1.0, 1.0, node.attr("height_scale"), node.attr("width_scale")])


@lowering("Upsample", since=7)
def upsample_attribute(node: Node, x: Tensor) -> Tensor:
    return _by_scales(node, x, node.attr("scales"))


@lowering("Upsample", since=9, host=(1,))
@lowering("Resize", since=10, host=(1,))
def upsample(node: Node, x: Tensor, scales: Value) -> Tensor:
    return _by_scales(node, x, _floats(node, 1) or ())


def _by_scales(node: Node, x: Tensor, scales: Sequence[float]) -> Tensor:
    """Before opset 11 an output place lies at x / scale, and the nearest element is the one before."""
    axes = list(range(x.rank))
    whole = [_WHOLE] * x.rank
    resized = _scaled(node, x, axes, scales, whole, "asymmetric")
    return resize(x, resized, Filter("nearest" if node.attr("mode", "nearest") == "nearest" else "linear", "floor"))


@lowering("Resize", since=11, host=(2, 3))
def resize_op(node: Node, x: Tensor, roi: Value = None, scales: Value = None, sizes: Value = None) -> Tensor:
    mode = node.attr("coordinate_transformation_mode", "half_pixel")
    if mode not in _MODES:
        raise node.unsupported(f"coordinate_transformation_mode {mode!r}; known: {', '.join(_MODES)}")
    given = node.attr("axes")
    axes = list(range(x.rank)) if given is None else axes_of(node, given, x.rank)
    regions = [_WHOLE] * len(axes)
    if mode == "tf_crop_and_resize":
        ends = [_fraction(v, 1 << 20, _continuous(node, x)) for v in _floats(node, 1) or ()]
        if len(ends) != 2 * len(axes):
            raise ModelError(f"{node.label}: roi has {len(ends)} numbers where {2 * len(axes)} are needed")
        regions = list(zip(ends[: len(axes)], ends[len(axes) :], strict=True))
    factors, targets = _floats(node, 2), node.ints(3)
    if factors:
        resized = _scaled(node, x, axes, factors, regions, mode)
    elif targets:
        resized = _sized(node, x, axes, targets, regions, mode)
    else:
        raise ModelError(f"{node.label}: neither scales nor sizes are given")
    return resize(
        x,
        resized,
        Filter(
            node.attr("mode", "nearest"),
            node.attr("nearest_mode", "round_prefer_floor"),
            node.attr("cubic_coeff_a", -0.75),
            bool(node.attr("exclude_outside", 0)),
            bool(node.attr("antialias", 0)),
            node.attr("extrapolation_value", 0.0),
        ),
    )


def _floats(node: Node, position: int) -> list[float] | None:
    value = node.host(position)
    return None if value is None else [float(v) for v in value.array.reshape(-1)]


def _continuous(node: Node, x: Tensor) -> bool:
    """Whether coordinates are those of the very float32 that scales and regions are: where float64 shows the
    difference. Otherwise they are of the number that was meant, with 2 / 0.4 at 5, and not before it."""
    return x.dtype is FLOAT64 and node.attr("mode", "nearest") != "nearest"


def _fraction(value: float, limit: int, continuous: bool = False) -> Fraction:
    """The number that a float32 was written as: the simplest one that rounds to it, or one very near."""
    exact = Fraction(value)
    if continuous:
        return exact.limit_denominator(1 << 30)
    simple = exact.limit_denominator(1 << 12)
    return simple if abs(simple - exact) * (1 << 24) <= abs(exact) else exact.limit_denominator(limit)


def _scaled(
    node: Node,
    x: Tensor,
    axes: Sequence[int],
    scales: Sequence[float],
    regions: Sequence[tuple[Fraction, Fraction]],
    mode: str,
) -> list[Axis]:
    if len(scales) != len(axes):
        raise ModelError(f"{node.label}: {len(scales)} scales for {len(axes)} axes")
    result = []
    for k, value, roi in zip(axes, scales, regions, strict=True):
        if value <= 0:
            raise ModelError(f"{node.label}: scale {value} is not above 0")
        meant, factor = _fraction(value, 1 << 30), _fraction(value, 1 << 30, _continuous(node, x))
        extent, up, down = x.shape[k], factor.numerator, factor.denominator
        # the size of a cropped region is left out, as by onnx's reference and shape inference, against the text
        out = extent * meant.numerator // meant.denominator
        result.append(Axis(k, extent, out, up, down, (extent * up, down), roi, mode))
    return result


def _sized(
    node: Node,
    x: Tensor,
    axes: Sequence[int],
    sizes: Sequence[Dim],
    regions: Sequence[tuple[Fraction, Fraction]],
    mode: str,
) -> list[Axis]:
    if len(sizes) != len(axes):
        raise ModelError(f"{node.label}: {len(sizes)} sizes for {len(axes)} axes")
    policy = node.attr("keep_aspect_ratio_policy", "stretch")
    ratios = [(size, x.shape[k]) for k, size in zip(axes, sizes, strict=True)]
    result = []
    for k, ratio, roi in zip(axes, ratios, regions, strict=True):
        extent = x.shape[k]
        if policy == "stretch":
            result.append(Axis(k, extent, ratio[0], *ratio, (ratio[0], 1), roi, mode))
            continue
        up, down = _extreme(ratios, least=policy == "not_larger")
        out = (extent * up * 2 + down) // (down * 2)
        result.append(Axis(k, extent, out, up, down, (extent * up, down), roi, mode))
    return result


def _extreme(ratios: Sequence[tuple[Dim, Dim]], least: bool) -> tuple[Dim, Dim]:
    """The least or the greatest of quotients."""
    best = ratios[0]
    for ratio in ratios[1:]:
        smaller = ratio[0] * best[1] < best[0] * ratio[1]
        best = ratio if smaller == least else best
    return best


# Interpolation --------------------------------------------------------------------------------------------------------


def resize(x: Tensor, axes: Sequence[Axis], how: Filter) -> Tensor:
    """Interpolation along each axis in turn or, where there are few elements to weigh, along several at once."""
    axes = [a for a in axes if not _unchanged(a)]
    if not axes:
        return x
    if any(isinstance(a.out, int) and a.out == 0 for a in axes):
        outs = {a.number: a.out for a in axes}
        return p.full([outs.get(k, d) for k, d in enumerate(x.shape)], 0, x.dtype)
    if how.mode == "nearest":
        return _extrapolated(_nearest(x, axes, how), axes, how)
    wide = real(x.dtype)
    together = {"linear": 3, "cubic": 2}[how.mode]
    y = x
    plain = []
    for a in axes:
        if how.antialias and not at_most(a.down, a.up):
            y = _antialiased(y, a, how, wide)
        else:
            plain.append(a)
    for k in range(0, len(plain), together):
        y = _interpolated(y, plain[k : k + together], how, wide)
    if x.dtype.is_int:
        y = p.alu("rint", y)
    return _extrapolated(p.cast(y, x.dtype), axes, how)


def _unchanged(a: Axis) -> bool:
    cropped = a.mode == "tf_crop_and_resize" and a.roi != _WHOLE
    if cropped or a.mode == "tf_half_pixel_for_nn":
        return False
    fixed = isinstance(a.up, int) and isinstance(a.down, int)
    return a.up == a.down if fixed else p.dims_equal(a.out, a.extent) and p.dims_equal(a.up, a.down)


def _resized_shape(x: Tensor, axes: Sequence[Axis]) -> list[Dim]:
    outs = {a.number: a.out for a in axes}
    return [outs.get(k, d) for k, d in enumerate(x.shape)]


def _clamped(place: Expr, a: Axis, x: Expr) -> Expr:
    """``place`` within the input. It does not fall as ``x`` grows, so its values at both ends tell what is needed."""
    last = as_expr(a.extent) - 1
    if not poly.nonnegative(expr.substitute(place, {x: expr.index(0)})):
        place = expr.maximum(place, 0)
    top = expr.substitute(place, {x: as_expr(a.out) - 1})
    return place if poly.nonnegative(last - top) else expr.minimum(place, last)


def _nearest(x: Tensor, axes: Sequence[Axis], how: Filter) -> Tensor:
    def element(*i: Expr) -> Expr:
        at = list(i)
        for a in axes:
            place = poly.simplify(_ROUNDINGS[how.rounding](*a.coordinate(i[a.number])))
            at[a.number] = _clamped(place, a, i[a.number])
        return x.at(*at)

    return p.map_of(_resized_shape(x, axes), element)


def _around(a: Axis, x: Expr, wide: DType) -> tuple[Expr, Expr]:
    """The element at or before a coordinate, and how far behind it the coordinate lies: 0 to 1."""
    numerator, denominator = a.coordinate(x)
    share = expr.cast(numerator % denominator, wide) / expr.cast(denominator, wide)
    return poly.simplify(numerator // denominator), share


def _interpolated(x: Tensor, axes: Sequence[Axis], how: Filter, wide: DType) -> Tensor:
    """Every element around a point, weighed, in one map."""

    def element(*i: Expr) -> Expr:
        def read(places: tuple[Expr, ...], inside: Expr | None) -> Expr:
            moved = dict(zip((a.number for a in axes), places, strict=True))
            return expr.cast(x.at(*(moved.get(k, index) for k, index in enumerate(i))), wide)

        return weighed([_taps(a, i[a.number], how, wide) for a in axes], read)

    return p.map_of(_resized_shape(x, axes), element)


def _taps(a: Axis, x: Expr, how: Filter, wide: DType) -> list[Tap]:
    """The elements around output place ``x``."""
    low, share = _around(a, x, wide)
    if how.mode == "linear":
        first, weights = 0, [1 - share, share]
    else:
        first, weights = -1, cubic_weights(share, how.cubic)
    places = [low + (first + k) for k in range(len(weights))]
    if how.exclude_outside:
        weights = [_inside(a, place, weight) for place, weight in zip(places, weights, strict=True)]
        whole = total(weights)
        weights = [weight / whole for weight in weights]
    return [Tap(weight, _clamped(place, a, x)) for place, weight in zip(places, weights, strict=True)]


def _inside(a: Axis, place: Expr, weight: Expr) -> Expr:
    return expr.select(within(place, as_expr(a.extent)), weight, 0.0)


def _antialiased(x: Tensor, a: Axis, how: Filter, wide: DType) -> Tensor:
    """Along one axis that shrinks: the filter is as much wider as the axis gets shorter, its weights sum to 1."""
    reach = 1 if how.mode == "linear" else 2
    first = -(a.down * reach) // a.up + 1
    (step,) = p.axes_of([2 - first * 2], x.rank)
    scale = expr.cast(as_expr(a.up), wide) / expr.cast(as_expr(a.down), wide)

    def element(*i: Expr) -> Expr:
        low, share = _around(a, i[a.number], wide)
        place = low + step + as_expr(first)
        distance = expr.alu("abs", (expr.cast(step + as_expr(first), wide) - share) * scale)
        weight = expr.maximum(1 - distance, 0.0) if how.mode == "linear" else cubic_weight(distance, how.cubic)
        if how.exclude_outside:
            weight = _inside(a, place, weight)
        near = expr.minimum(expr.maximum(place, 0), as_expr(a.extent) - 1)
        value = expr.cast(x.at(*i[: a.number], near, *i[a.number + 1 :]), wide)
        whole = expr.reduce("add", (step,), (weight,))
        return expr.reduce("add", (step,), (weight * value,)) / whole

    return p.map_of(_resized_shape(x, [a]), element)


def _extrapolated(y: Tensor, axes: Sequence[Axis], how: Filter) -> Tensor:
    """A constant where a cropped coordinate lies outside the input."""
    cropped = [a for a in axes if a.mode == "tf_crop_and_resize"]
    if not cropped:
        return y

    def element(*i: Expr) -> Expr:
        tests = []
        for a in cropped:
            numerator, denominator = a.coordinate(i[a.number])
            tests += [numerator >= 0, numerator <= (as_expr(a.extent) - 1) * denominator]
        inside = expr.all_of(tests)
        return y.at(*i) if inside is None else expr.select(inside, y.at(*i), expr.const(how.extrapolation, y.dtype))

    return p.map_of(y.shape, element)
