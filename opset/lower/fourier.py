"""Discrete Fourier transforms, and the mel scale's weights."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from omniop.opset import dtype as dtypes
from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.definitions import Tensor, TensorStore
from omniop.opset.dtype import FLOAT64, INT64, DType
from omniop.opset.errors import ModelError
from omniop.opset.expr import Expr
from omniop.opset.lower.common import at_most, axis_of, element, require_equal
from omniop.opset.lower.fft import Complex, Signal, Sink, inverse_real, transform, transform_real
from omniop.opset.lowering import Node, Value, lowering
from omniop.opset.sym import Dim, as_expr


@lowering("DFT", since=17, host=(1,))
def dft_attribute(node: Node, x: Tensor, length: Value = None) -> Tensor:
    return _dft(node, x, node.attr("axis", 1))


@lowering("DFT", since=20, host=(1, 2))
def dft(node: Node, x: Tensor, length: Value = None, axis: Value = None) -> Tensor:
    given = node.static_ints(2)
    return _dft(node, x, given[0] if given else -2)


def _dft(node: Node, x: Tensor, axis: int) -> Tensor:
    """Along one axis of a real ([..., 1]) or complex ([..., 2]) tensor, cut or filled with zeros to a length, which
    the template is for."""
    axis = axis_of(node, axis, x.rank)
    if axis == x.rank - 1:
        raise ModelError(f"{node.label}: axis {axis} holds the real and imaginary parts")
    complex_ = _is_complex(node, x)
    inverse, onesided = bool(node.attr("inverse", 0)), bool(node.attr("onesided", 0))
    given, extent = node.ints(1), x.shape[axis]
    mirrored = inverse and onesided
    length = int(given[0] if given else (extent - 1) * 2 if mirrored else extent)
    bins = length // 2 + 1 if onesided and not inverse else length
    used = length // 2 + 1 if mirrored else length
    shape = (*x.shape[:axis], bins, *x.shape[axis + 1 : -1], 1 if mirrored else 2)
    wide = p.accumulator(x.dtype)

    def sample(*i: Expr) -> Complex:
        *lead, t = i
        place = (*lead[:axis], t, *lead[axis:])
        guard = None if at_most(used, extent) else t < as_expr(extent)
        return _parts(lambda part: expr.cast(x.at(*place, part, guard=guard), wide), complex_)

    def stores(lead: Sequence[Expr], k: Expr, value: Complex) -> list[TensorStore]:
        place = (*lead[:axis], k, *lead[axis:])
        return _stores(place, value.scaled(1 / length) if inverse else value, shape[-1], x.dtype)

    if x.empty or length < 1:
        return p.full(shape, 0, x.dtype)
    signal = Signal((*x.shape[:axis], *x.shape[axis + 1 : -1]), length, sample, wide)
    way = inverse_real if mirrored else transform if complex_ else transform_real
    return way(signal, 1 if inverse else -1, Sink(bins, [(shape, x.dtype)], stores))[0]


def _is_complex(node: Node, x: Tensor) -> bool:
    """By the last axis: 1 (real) or 2 (complex). Raises ModelError for another."""
    if x.shape[-1] != 1 and x.shape[-1] != 2:
        raise ModelError(f"{node.label}: a last axis of {x.shape[-1]}, where 1 (real) or 2 (complex) is needed")
    return bool(x.shape[-1] == 2)


def _parts(at: Callable[[int], Expr], complex_: bool) -> Complex:
    real = at(0)
    return Complex(real, at(1) if complex_ else expr.const(0.0, real.dtype))


def _stores(place: tuple[Expr, ...], value: Complex, parts: Dim, dtype: DType) -> list[TensorStore]:
    """A number into the last axis of a tensor, or its real part alone."""
    kept = value if parts == 2 else value[:1]
    return [TensorStore(0, (*place, expr.index(n)), expr.cast(part, dtype)) for n, part in enumerate(kept)]


@lowering("STFT", since=17, host=(1, 3))
def stft(node: Node, signal: Tensor, step: Value, window: Tensor | None = None, length: Value = None) -> Tensor:
    """Transforms of frames, each ``step`` after the one before, under a window: [batch, frames, bins, 2]."""
    steps, given = node.ints(1), node.ints(3)
    if not steps:
        raise ModelError(f"{node.label}: frame_step is missing")
    samples = int(given[0] if given else window.shape[0] if window is not None else signal.shape[1])
    batch, total, _ = signal.shape
    if not at_most(samples, total):
        raise ModelError(f"{node.label}: a frame of {samples} is longer than the signal of {total}")
    if window is not None:
        require_equal(node, window.shape[0], samples, "values of the window, for a frame")
    complex_ = _is_complex(node, signal)
    frames = (total - samples) // steps[0] + 1
    bins = samples // 2 + 1 if node.attr("onesided", 1) else samples
    shape, wide = (batch, frames, bins, 2), p.accumulator(signal.dtype)

    def sample(b: Expr, f: Expr, t: Expr) -> Complex:
        value = _parts(lambda c: expr.cast(signal.at(b, f * as_expr(steps[0]) + t, c), wide), complex_)
        return value if window is None else Complex(*(part * expr.cast(window.at(t), wide) for part in value))

    def stores(lead: Sequence[Expr], k: Expr, value: Complex) -> list[TensorStore]:
        return _stores((*lead, k), value, 2, signal.dtype)

    if signal.empty or samples < 1:
        return p.full(shape, 0, signal.dtype)
    way = transform if complex_ else transform_real
    return way(Signal((batch, frames), samples, sample, wide), -1, Sink(bins, [(shape, signal.dtype)], stores))[0]


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
