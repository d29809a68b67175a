"""Discrete Fourier transforms, and the mel scale's weights.

A transform is one product with a matrix of cosines and sines, in float64: sums of terms that cancel come out as 0, or
as near to it as the result's own dtype tells.
"""

from __future__ import annotations

import math

from omniop.opset import dtype as dtypes
from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.dtype import FLOAT64, INT64, DType
from omniop.opset.errors import ModelError
from omniop.opset.expr import Expr
from omniop.opset.lower.common import at_most, axis_of, element
from omniop.opset.lowering import Node, Value, lowering
from omniop.opset.prims import Tensor
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
    halved = inverse and onesided
    length = given[0] if given else (extent - 1) * 2 if halved else extent
    most = length // 2 + 1 if halved else length
    used = extent if at_most(extent, most) else most
    last = [k for k in range(x.rank - 1) if k != axis]
    rows = p.narrow(p.transpose(x, [*last, axis, x.rank - 1]), -2, 0, used)
    if halved:
        y = _transformed(node, rows, _real_inverse(used, _parts(node, x), length), x.dtype)
    else:
        bins = length // 2 + 1 if onesided else length
        y = _transformed(node, rows, _matrix(used, _parts(node, x), bins, length, inverse), x.dtype)
    order = [*last, axis, x.rank - 1]
    return p.transpose(y, [order.index(k) for k in range(x.rank)])


def _parts(node: Node, x: Tensor) -> int:
    """1 for a real tensor, 2 for a complex one."""
    parts = int(x.shape[-1])
    if parts not in (1, 2):
        raise ModelError(f"{node.label}: the last axis holds {parts} numbers where 1 (real) or 2 (complex) belong")
    return parts


def _transformed(node: Node, x: Tensor, matrix: Tensor, dtype: DType) -> Tensor:
    """``x`` [..., samples, parts] by a matrix [samples, parts, bins, parts], as one product in float64."""
    lead, inner = x.shape[:-2], product(x.shape[-2:])
    rows = p.cast(p.reshape(x, [product(lead), inner]), FLOAT64)
    columns = p.reshape(matrix, [inner, product(matrix.shape[2:])])
    return p.cast(p.reshape(p.contract(rows, columns), [*lead, *matrix.shape[2:]]), dtype)


def _angle(a: Expr, b: Expr, length: Dim) -> Expr:
    """2 pi a b / length, reduced to a full turn while still whole."""
    turn = expr.cast(a * b % as_expr(length), FLOAT64)
    return turn * (2 * math.pi) / expr.cast(as_expr(length), FLOAT64)


def _matrix(samples: Dim, parts: int, bins: Dim, length: Dim, inverse: bool) -> Tensor:
    """exp(-2 pi i t k / length) as [t, part in, k, part out]; the inverse: of the other sign, divided by length."""

    def entry(t: Expr, c: Expr, k: Expr, d: Expr) -> Expr:
        angle = _angle(t, k, length)
        sine = expr.alu("sin", angle) * expr.cast(d - c if inverse else c - d, FLOAT64)
        value = expr.select(c.eq(d), expr.alu("cos", angle), sine)
        return value / expr.cast(as_expr(length), FLOAT64) if inverse else value

    return p.map_of([samples, parts, bins, 2], entry)


def _real_inverse(bins: Dim, parts: int, length: Dim) -> Tensor:
    """From half a spectrum to the real signal, as [k, part, t, 1]: the other half is the conjugate of this one."""

    def entry(k: Expr, c: Expr, t: Expr, _: Expr) -> Expr:
        angle = _angle(k, t, length)
        own = k.eq(0) | (k * 2).eq(as_expr(length))
        value = expr.select(c.eq(0), expr.alu("cos", angle), -expr.alu("sin", angle))
        return expr.select(own, value, value * 2.0) / expr.cast(as_expr(length), FLOAT64)

    return p.map_of([bins, parts, length, 1], entry)


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
    frames, parts = (total - samples) // steps[0] + 1, _parts(node, signal)

    def framed(b: Expr, f: Expr, t: Expr, c: Expr) -> Expr:
        value = expr.cast(signal.at(b, f * as_expr(steps[0]) + t, c), FLOAT64)
        return value if window is None else value * expr.cast(window.at(t), FLOAT64)

    rows = p.map_of([batch, frames, samples, parts], framed)
    bins = samples // 2 + 1 if node.attr("onesided", 1) else samples
    return _transformed(node, rows, _matrix(samples, parts, bins, samples, inverse=False), signal.dtype)


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
