"""Linear quantization, and products and convolutions of quantized integers."""

from __future__ import annotations

from collections.abc import Sequence

from omniop.opset import dtype as dtypes
from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.definitions import Tensor
from omniop.opset.dtype import FLOAT32, INT32, UINT8, DType
from omniop.opset.expr import Expr
from omniop.opset.lower.casts import to_float8
from omniop.opset.lower.common import axis_of, element, require_equal
from omniop.opset.lower.convolution import convolve
from omniop.opset.lower.linalg import matmul
from omniop.opset.lower.windows import ceil_div
from omniop.opset.lowering import Node, lowering


def spread(node: Node, t: Tensor, x: Tensor) -> Tensor:
    """A scale or a zero point in a shape that broadcasts to ``x``: one number, one an index of an axis, or blocks."""
    block = node.attr("block_size", 0)
    if t.rank == 0 or (t.rank == 1 and t.shape[0] == 1):
        return p.reshape(t, [])
    axis = axis_of(node, node.attr("axis", 1) if x.rank > 1 else 0, x.rank)
    if block:
        for k in range(x.rank):
            wanted = ceil_div(x.shape[k], block) if k == axis else x.shape[k]
            require_equal(node, t.shape[k], wanted, f"scales along axis {k} in blocks of {block}")
        return p.map_of(x.shape, lambda *i: t.at(*(a // block if k == axis else a for k, a in enumerate(i))))
    if t.rank > 1:
        return t
    require_equal(node, t.shape[0], x.shape[axis], f"scales along axis {axis}")
    return p.reshape(t, [t.shape[0] if k == axis else 1 for k in range(x.rank)])


@lowering("DequantizeLinear")
def dequantize_linear(node: Node, x: Tensor, scale: Tensor, zero_point: Tensor | None = None) -> Tensor:
    """(x - zero_point) * scale: the difference exact, the product in float32, rounded once."""
    number = node.attr("output_dtype", 0)
    result = dtypes.of_onnx(number) if number else scale.dtype
    exact = INT32 if x.dtype.is_int else FLOAT32

    def real(e: Expr, s: Expr, *zero: Expr) -> Expr:
        value = expr.cast(e, exact)
        for z in zero:
            value = value - expr.cast(z, exact)
        return expr.cast(expr.cast(value, FLOAT32) * expr.cast(s, FLOAT32), result)

    zeros = [] if zero_point is None else [spread(node, zero_point, x)]
    return p.elementwise(real, x, spread(node, scale, x), *zeros)


@lowering("QuantizeLinear")
def quantize_linear(node: Node, x: Tensor, scale: Tensor, zero_point: Tensor | None = None) -> Tensor:
    """saturate(round(x / scale) + zero_point), the quotient rounded to the division's precision."""
    number = node.attr("output_dtype", 0)
    result = zero_point.dtype if zero_point is not None else dtypes.of_onnx(number) if number else UINT8
    division = _division_dtype(node, x.dtype, scale.dtype)
    wide = p.accumulator(division)
    saturate = bool(node.attr("saturate", 1))

    def quantized(e: Expr, s: Expr, *zero: Expr) -> Expr:
        quotient = expr.cast(expr.cast(e, wide) / expr.cast(s, wide), division)
        if result.is_float:  # their zero point is 0
            return to_float8(quotient, result, saturate) if result.bits == 8 else expr.cast(quotient, result)
        return rounded(expr.cast(quotient, wide), result, *zero)

    zeros = [] if zero_point is None else [spread(node, zero_point, x)]
    return p.elementwise(quantized, x, spread(node, scale, x), *zeros)


def _division_dtype(node: Node, x: DType, scale: DType) -> DType:
    precision = node.attr("precision", 0)
    if precision:
        return dtypes.of_onnx(precision)
    floats = [d for d in (x, scale) if d.is_float and d.bits >= 16]
    widest = max(floats, key=lambda d: d.bits, default=FLOAT32)
    return FLOAT32 if any(d is not widest and d.bits == widest.bits for d in floats) else widest


def rounded(x: Expr, result: DType, *zero: Expr) -> Expr:
    """Half to even, plus the zero point, saturated to an integer dtype, as casts do."""
    value = expr.alu("rint", x)
    for z in zero:
        value = value + expr.cast(z, value.dtype)
    return expr.cast(value, result)


@lowering("DynamicQuantizeLinear", since=11)
def dynamic_quantize_linear(node: Node, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """To uint8, by a range that holds all of ``x`` and 0: y, its scale and its zero point."""
    y, scale, zero = by_range(x, range(x.rank))
    return y, p.reshape(scale, ()), p.reshape(zero, ())


def by_range(x: Tensor, axes: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """To uint8, by a range that holds 0 and all of ``x`` along ``axes``: y, scale and zero point, with axes of 1."""
    low = p.elementwise(lambda e: expr.minimum(e, 0), p.reduce("min", x, axes, keepdims=True))
    high = p.elementwise(lambda e: expr.maximum(e, 0), p.reduce("max", x, axes, keepdims=True))
    scale = p.elementwise(lambda a, b: (b - a) / 255.0, low, high)
    zero = p.elementwise(lambda a, s: rounded(expr.select(s.eq(0.0), s, -a / s), UINT8), low, scale)
    y = p.elementwise(lambda e, s, z: rounded(expr.select(s.eq(0.0), s, e / s), UINT8, z), x, scale, zero)
    return y, scale, zero


# Products and convolutions --------------------------------------------------------------------------------------------


def centred(x: Tensor, zero_point: Tensor | None) -> Tensor:
    """``x - zero_point`` in int32."""
    if zero_point is None:
        return p.cast(x, INT32)
    return p.elementwise(lambda e, z: expr.cast(e, INT32) - expr.cast(z, INT32), x, zero_point)


def _rows(t: Tensor) -> Tensor:
    """A vector with a number for each row, as a column."""
    return p.unsqueeze(t, [1]) if t.rank == 1 else t


def _channels(t: Tensor | None, rank: int) -> Tensor | None:
    """A vector with a number for each output channel, along the first axis of W."""
    return t if t is None or t.rank == 0 else p.reshape(t, [t.shape[0], *[1] * (rank - 1)])


def requantized(total: Tensor, scale: Tensor, zero_point: Tensor) -> Tensor:
    """Sums of products times a scale in float32, rounded to the zero point's dtype."""
    if zero_point.dtype.is_float:
        return p.elementwise(lambda e, f: to_float8(e * f, zero_point.dtype, saturate=True), total, scale)
    return p.elementwise(
        lambda e, f, z: rounded(expr.cast(e, FLOAT32) * f, zero_point.dtype, z), total, scale, zero_point
    )


def factor(a: Expr, b: Expr, y: Expr) -> Expr:
    """What takes a sum of products to the output's scale."""
    return expr.cast(a, FLOAT32) * expr.cast(b, FLOAT32) / expr.cast(y, FLOAT32)


@lowering("MatMulInteger", since=10)
def matmul_integer(
    node: Node, a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None
) -> Tensor:
    """In int32; zero points are for each row of ``a`` and each column of ``b``, or one.

    The product is of the elements as they are; what zero points change follows from sums of b's columns and a's rows,
    and is added behind it: modulo 2^32, in which int32 counts, nothing is lost.
    """
    if a.rank == 1 or b.rank == 1:
        return matmul(centred(a, a_zero), centred(b, b_zero))
    total = matmul(a, b, INT32, INT32)
    if b_zero is not None and node.is_zero(b_zero):
        b_zero = None
    if a_zero is not None and not node.is_zero(a_zero):
        columns = p.reduce("add", centred(b, b_zero), [-2], keepdims=True)
        total = p.elementwise(lambda e, z, c: e - expr.cast(z, INT32) * c, total, _rows(a_zero), columns)
    if b_zero is not None:
        rows = p.reduce("add", p.cast(a, INT32), [-1], keepdims=True)
        total = p.elementwise(lambda e, r, z: e - r * expr.cast(z, INT32), total, rows, b_zero)
    return total


@lowering("QLinearMatMul", since=10)
def qlinear_matmul(
    node: Node,
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
) -> Tensor:
    """MatMulInteger, taken to the output's scale in float32. Floats of 8 bits, whose zero points are 0, as they are."""
    if a.dtype.is_float:
        total = matmul(p.cast(a, FLOAT32), p.cast(b, FLOAT32))
    else:
        total = matmul_integer(node, a, b, a_zero, b_zero)
    if a.rank > 1:
        a_scale, y_scale, y_zero = map(_rows, (a_scale, y_scale, y_zero))
    return requantized(total, p.elementwise(factor, a_scale, b_scale, y_scale), y_zero)


@lowering("ConvInteger", since=10)
def conv_integer(
    node: Node, x: Tensor, w: Tensor, x_zero: Tensor | None = None, w_zero: Tensor | None = None
) -> Tensor:
    """In int32; the padding stands for the zero point of ``x``. Weights mostly have none: then elements are multiplied
    as they are."""
    x_zero = p.full([], 0, x.dtype) if x_zero is None else p.reshape(x_zero, [])
    if w_zero is None or node.is_zero(w_zero):
        return convolve(node, x, w, INT32, x_zero)
    return convolve(node, centred(x, x_zero), centred(w, _channels(w_zero, w.rank)), INT32)


@lowering("QLinearConv", since=10)
def qlinear_conv(
    node: Node,
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor,
    w: Tensor,
    w_scale: Tensor,
    w_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
    b: Tensor | None = None,
) -> Tensor:
    """ConvInteger plus an int32 bias, taken to the output's scale in float32."""
    total = conv_integer(node, x, w, x_zero, w_zero)
    if b is not None:
        total = p.add(total, p.reshape(b, [1, b.shape[0], *[1] * (x.rank - 2)]))
    scales = w_scale if w_scale.rank == 0 else p.reshape(w_scale, [1, w_scale.shape[0], *[1] * (x.rank - 2)])
    scale = p.elementwise(lambda s: factor(element(x_scale), s, element(y_scale)), scales)
    return requantized(total, scale, p.reshape(y_zero, []))
