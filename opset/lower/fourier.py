"""Discrete Fourier transforms, and the mel scale's weights.

A transform is a product with a matrix of cosines and sines, in float64: sums of terms that cancel come out as 0, or as
near to it as the result's own dtype tells.
"""

from __future__ import annotations

import math

from omniop.opset import dtype as dtypes
from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.definitions import Tensor
from omniop.opset.dtype import FLOAT64, INT64
from omniop.opset.errors import ModelError
from omniop.opset.expr import Expr
from omniop.opset.lower.common import at_most, axis_of, element
from omniop.opset.lowering import Node, Value, lowering
from omniop.opset.sym import Dim, as_expr, product


@lowering("DFT", since=17, host=(1,))
def dft_attribute(node: Node, x: Tensor, length: Value = None) -> Tensor:
    return _dft(node, x, node.attr("axis", 1))


@lowering("DFT", since=20, host=(1, 2))
def dft(node: Node, x: Tensor, length: Value = None, axis: Value = None) -> Tensor:
    given = node.static_ints(2)
    return _dft(node, x, given[0] if given else -2)


def _dft(node: Node, x: Tensor, axis: int) -> Tensor:
    """Along one axis of a real ([..., 1]) or complex ([..., 2]) tensor, cut or filled with zeros to a length."""
    axis = axis_of(node, axis, x.rank)
    if axis == x.rank - 1:
        raise ModelError(f"{node.label}: axis {axis} holds the real and imaginary parts")
    inverse, onesided = bool(node.attr("inverse", 0)), bool(node.attr("onesided", 0))
    given, extent = node.ints(1), x.shape[axis]
    mirrored = inverse and onesided
    length = given[0] if given else (extent - 1) * 2 if mirrored else extent
    order = [*(k for k in range(x.rank - 1) if k != axis), axis, x.rank - 1]
    samples = p.transpose(x, order)
    _check_parts(node, samples)
    if mirrored:
        y = p.narrow(_spectrum(_whole(samples, length), length, length, 1), -1, 0, 1)
    else:
        y = _spectrum(samples, length, length // 2 + 1 if onesided else length, 1 if inverse else -1)
    if inverse:
        y = p.elementwise(lambda e: e / expr.cast(as_expr(length), FLOAT64), y)
    return p.transpose(p.cast(y, x.dtype), [order.index(k) for k in range(x.rank)])


def _check_parts(node: Node, x: Tensor) -> None:
    if x.shape[-1] != 1 and x.shape[-1] != 2:
        raise ModelError(f"{node.label}: a last axis of {x.shape[-1]}, where 1 (real) or 2 (complex) is needed")


def _whole(x: Tensor, length: Dim) -> Tensor:
    """The spectrum of a real signal: its first half and, mirrored, the conjugate of it."""
    used = as_expr(x.shape[-2])

    def element(*i: Expr) -> Expr:
        *lead, k, part = i
        second = k > as_expr(length // 2)
        place = expr.select(second, as_expr(length) - k, k)
        value = x.at(*lead, place, part, guard=place < used)
        return expr.select(second & part.eq(1), -value, value)

    return p.map_of([*x.shape[:-2], length, x.shape[-1]], element)


_DIRECT = 512
"""Up to this length a transform is one product; a longer one is two rounds of shorter ones, where it has divisors."""


def _spectrum(x: Tensor, length: Dim, bins: Dim, sign: int) -> Tensor:
    """sum over t of ``x[..., t, :]`` exp(sign 2 pi i t k / length), for k below ``bins``: [..., bins, 2] in float64."""
    if isinstance(length, int) and length > _DIRECT:
        columns = max(d for d in range(1, math.isqrt(length) + 1) if length % d == 0)
        if columns > 1:
            return p.narrow(_in_rounds(x, length, columns, sign), -2, 0, bins)
    used = x.shape[-2] if at_most(x.shape[-2], length) else length
    x = p.narrow(x, -2, 0, used)
    lead, parts = x.shape[:-2], x.shape[-1]

    def entry(t: Expr, c: Expr, k: Expr, d: Expr) -> Expr:
        angle = _angle(t, k, length)
        return expr.select(c.eq(d), expr.alu("cos", angle), expr.alu("sin", angle) * expr.cast((d - c) * sign, FLOAT64))

    table = p.reshape(p.map_of([used, parts, bins, 2], entry), [used * parts, bins * 2])
    rows = p.cast(p.reshape(x, [product(lead), used * parts]), FLOAT64)
    return p.reshape(p.contract(rows, table), [*lead, bins, 2])


def _angle(a: Expr, b: Expr, length: Dim) -> Expr:
    """2 pi a b / length, reduced to a full turn while still whole."""
    turn = expr.cast(a * b % as_expr(length), FLOAT64)
    return turn * (2 * math.pi) / expr.cast(as_expr(length), FLOAT64)


def _in_rounds(x: Tensor, length: int, columns: int, sign: int) -> Tensor:
    """Sample t = rows * t1 + t2 and bin k = k1 + columns * k2: transforms over t1, a turn by t2 k1, transforms over t2.

    J. W. Cooley and J. W. Tukey, "An algorithm for the machine calculation of complex Fourier series", 1965.
    """
    rows = length // columns
    lead, parts = x.shape[:-2], x.shape[-1]

    def dealt(*i: Expr) -> Expr:
        *at, second, first, part = i
        t = first * rows + second
        return x.at(*at, t, part, guard=t < as_expr(x.shape[-2]))

    inner = _spectrum(p.map_of([*lead, rows, columns, parts], dealt), columns, columns, sign)

    def turned(*i: Expr) -> Expr:
        *at, first, second, part = i
        angle = _angle(first, second, length)
        cosine, sine = expr.alu("cos", angle), expr.alu("sin", angle) * float(sign)
        real, imaginary = (inner.at(*at, second, first, k) for k in (0, 1))
        return expr.select(part.eq(0), real * cosine - imaginary * sine, real * sine + imaginary * cosine)

    outer = _spectrum(p.map_of([*lead, columns, rows, 2], turned), rows, rows, sign)
    return p.map_of([*lead, length, 2], lambda *i: outer.at(*i[:-2], i[-2] % columns, i[-2] // columns, i[-1]))


@lowering("STFT", since=17, host=(1, 3))
def stft(node: Node, signal: Tensor, step: Value, window: Tensor | None = None, length: Value = None) -> Tensor:
    """Transforms of frames, each ``step`` after the one before, under a window: [batch, frames, bins, 2]."""
    steps, given = node.ints(1), node.ints(3)
    if not steps:
        raise ModelError(f"{node.label}: frame_step is missing")
    samples: Dim = given[0] if given else window.shape[0] if window is not None else signal.shape[1]
    batch, total, _ = signal.shape
    if not at_most(samples, total):
        raise ModelError(f"{node.label}: a frame of {samples} is longer than the signal of {total}")
    _check_parts(node, signal)
    frames = (total - samples) // steps[0] + 1

    def framed(b: Expr, f: Expr, t: Expr, c: Expr) -> Expr:
        value = expr.cast(signal.at(b, f * as_expr(steps[0]) + t, c), FLOAT64)
        return value if window is None else value * expr.cast(window.at(t), FLOAT64)

    bins = samples // 2 + 1 if node.attr("onesided", 1) else samples
    return p.cast(
        _spectrum(p.map_of([batch, frames, samples, signal.shape[2]], framed), samples, bins, -1), signal.dtype
    )


@lowering("MelWeightMatrix", since=17, host=(0, 1))
def mel_weight_matrix(node: Node, mels: Value, length: Value, rate: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Triangles over the bins of a spectrum, evenly spaced on the mel scale: [bins, mels], in float64 until the end."""
    sizes = [node.ints(k) for k in (0, 1)]
    count, samples = (values[0] for values in sizes if values)
    result = dtypes.of_onnx(node.attr("output_datatype", 1))

    def mel(edge: Tensor) -> Expr:
        return expr.alu("log", expr.cast(element(edge), FLOAT64) / 700.0 + 1.0) * (2595.0 / math.log(10.0))

    def edge(i: Expr) -> Expr:
        """The bin of the i-th point between the two edges."""
        step = (mel(high) - mel(low)) / expr.cast(as_expr(count + 2), FLOAT64)
        hertz = (expr.alu("exp", (mel(low) + expr.cast(i, FLOAT64) * step) * (math.log(10.0) / 2595.0)) - 1.0) * 700.0
        place = hertz * expr.cast(as_expr(samples + 1), FLOAT64) / expr.cast(element(rate), FLOAT64)
        return expr.cast(expr.alu("floor", place), INT64)

    edges = p.map_of([count + 2], edge)

    def weight(j: Expr, i: Expr) -> Expr:
        left, centre, right = (edges.at(i + k) for k in range(3))
        rising = expr.cast(j - left, FLOAT64) / expr.cast(centre - left, FLOAT64)
        falling = expr.cast(right - j, FLOAT64) / expr.cast(right - centre, FLOAT64)
        value = expr.select(j.eq(centre), expr.const(1.0, FLOAT64), 0.0)
        value = expr.select((j >= left) & (j < centre), rising, value)
        return expr.cast(expr.select((j >= centre) & (j < right), falling, value), result)

    return p.map_of([samples // 2 + 1, count], weight)
