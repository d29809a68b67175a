"""com.microsoft: products of quantized matrices, and operators that dequantize, compute and quantize again."""

from __future__ import annotations

from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.contrib import DOMAIN
from omniop.opset.definitions import Tensor
from omniop.opset.dtype import FLOAT32
from omniop.opset.errors import ModelError
from omniop.opset.lower.activation import sigmoid
from omniop.opset.lower.common import axis_of, formula, require_rank
from omniop.opset.lower.contrib_normalization import embed_layer_normalization
from omniop.opset.lower.pooling import average_pool, global_average_pool
from omniop.opset.lower.quantization import (
    centred,
    dequantize_linear,
    dynamic_quantize_linear,
    factor,
    matmul_integer,
    qlinear_conv,
    quantize_linear,
    requantized,
)
from omniop.opset.lower.softmax import softmax
from omniop.opset.lowering import Node, lowering

lowering("DequantizeLinear", domain=DOMAIN)(dequantize_linear)
lowering("QuantizeLinear", domain=DOMAIN)(quantize_linear)

# Products -------------------------------------------------------------------------------------------------------------


@lowering("MatMulIntegerToFloat", domain=DOMAIN)
def scaled_product(
    node: Node,
    a: Tensor,
    b: Tensor,
    a_scale: Tensor,
    b_scale: Tensor,
    a_zero: Tensor | None = None,
    b_zero: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """MatMulInteger taken to floats: times ``a_scale`` and ``b_scale`` (one, or one a column), plus ``bias`` [columns].

    Raises ModelError when a scale of ``a`` is not one number.
    """
    if a_scale.rank > 1 or not (a_scale.rank == 0 or p.dims_equal(a_scale.shape[0], 1)):
        raise ModelError(f"{node.label}: the scale of A is of shape {list(a_scale.shape)}, and one number is needed")
    total = matmul_integer(node, a, b, a_zero, b_zero)
    dtype, (a_scale, b_scale) = a_scale.dtype, (p.cast(s, FLOAT32) for s in (a_scale, b_scale))
    result = p.elementwise(lambda e, s, t: expr.cast(e, FLOAT32) * (s * t), total, a_scale, b_scale)
    return p.cast(result if bias is None else p.add(result, p.cast(bias, FLOAT32)), dtype)


@lowering("DynamicQuantizeMatMul", domain=DOMAIN)
def dynamic_quantize_matmul(
    node: Node, a: Tensor, b: Tensor, b_scale: Tensor, b_zero: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    quantized, scale, zero = dynamic_quantize_linear(node, a)
    return scaled_product(node, quantized, b, scale, b_scale, zero, b_zero, bias)


@lowering("QGemm", domain=DOMAIN)
def qgemm(
    node: Node,
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    c: Tensor | None = None,
    y_scale: Tensor | None = None,
    y_zero: Tensor | None = None,
) -> Tensor:
    """alpha * (op(A) * op(B) + C): C is int32 on the scale of the product. Float without ``y_scale``."""
    for t in (a, b):
        require_rank(node, t, 2)
    a = p.transpose(a, (1, 0)) if node.attr("transA", 0) else a
    b = p.transpose(b, (1, 0)) if node.attr("transB", 0) else b
    alpha = node.attr("alpha", 1.0)
    total = matmul_integer(node, a, b, a_zero, b_zero)
    total = total if c is None else p.add(total, c)
    scale = p.elementwise(lambda s, t: alpha * s * t, a_scale, b_scale)
    if y_scale is None:
        return p.elementwise(lambda e, f: expr.cast(e, FLOAT32) * f, total, scale)
    return requantized(total, p.div(scale, y_scale), _zero(y_zero, a))


@lowering("QLinearConv", domain=DOMAIN)
def qlinear_conv_any_layout(node: Node, x: Tensor, *others: Tensor) -> Tensor:
    """ONNX's. The weights are [out, in, ...] whatever ``channels_last`` says of x and y."""
    return _as_given(node, qlinear_conv(node, _channels_first(node, x), *others))


def _channels_first(node: Node, x: Tensor) -> Tensor:
    last = x.rank - 1
    return p.transpose(x, [0, last, *range(1, last)]) if node.attr("channels_last", 0) else x


def _as_given(node: Node, y: Tensor) -> Tensor:
    return p.transpose(y, [0, *range(2, y.rank), 1]) if node.attr("channels_last", 0) else y


# Dequantized, computed and quantized again ----------------------------------------------------------------------------


def _quantized(node: Node, y: Tensor, scale: Tensor, zero: Tensor | None, like: Tensor) -> Tensor:
    return quantize_linear(node, y, scale, _zero(zero, like))


def _zero(given: Tensor | None, like: Tensor) -> Tensor:
    """The zero point, or 0 in ``like``'s dtype."""
    return p.full((), 0, like.dtype) if given is None else given


@lowering("QLinearAdd", domain=DOMAIN)
def qlinear_add(
    node: Node,
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor | None,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor | None,
    c_scale: Tensor,
    c_zero: Tensor | None = None,
) -> Tensor:
    total = p.add(dequantize_linear(node, a, a_scale, a_zero), dequantize_linear(node, b, b_scale, b_zero))
    return _quantized(node, total, c_scale, c_zero, a)


@lowering("QLinearMul", domain=DOMAIN)
def qlinear_mul(
    node: Node,
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor | None,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor | None,
    c_scale: Tensor,
    c_zero: Tensor | None = None,
) -> Tensor:
    """The product of the integers, which is exact, times one number."""
    scale = p.elementwise(factor, *(p.reshape(s, ()) for s in (a_scale, b_scale, c_scale)))
    return requantized(p.mul(centred(a, a_zero), centred(b, b_zero)), scale, _zero(c_zero, a))


@lowering("QLinearSigmoid", domain=DOMAIN)
def qlinear_sigmoid(
    node: Node, x: Tensor, x_scale: Tensor, x_zero: Tensor | None, y_scale: Tensor, y_zero: Tensor | None = None
) -> Tensor:
    y = formula(sigmoid, dequantize_linear(node, x, x_scale, x_zero))
    return _quantized(node, y, y_scale, y_zero, x)


@lowering("QLinearLeakyRelu", domain=DOMAIN)
def qlinear_leaky_relu(
    node: Node, x: Tensor, x_scale: Tensor, x_zero: Tensor | None, y_scale: Tensor, y_zero: Tensor | None = None
) -> Tensor:
    alpha = node.attr("alpha")
    y = formula(lambda e: expr.select(e < 0, e * alpha, e), dequantize_linear(node, x, x_scale, x_zero))
    return _quantized(node, y, y_scale, y_zero, x)


@lowering("QLinearSoftmax", domain=DOMAIN)
def qlinear_softmax(
    node: Node, x: Tensor, x_scale: Tensor, x_zero: Tensor | None, y_scale: Tensor, y_zero: Tensor
) -> Tensor:
    """Over one axis, or before opset 13 over that and all later ones."""
    axis = axis_of(node, node.attr("axis"), x.rank)
    axes = range(axis, x.rank) if node.attr("opset") < 13 else [axis]
    return _quantized(node, softmax(dequantize_linear(node, x, x_scale, x_zero), axes), y_scale, y_zero, x)


@lowering("QLinearConcat", domain=DOMAIN)
def qlinear_concat(node: Node, y_scale: Tensor, y_zero: Tensor, *parts: Tensor) -> Tensor:
    """``parts``: tensor, scale and zero point, again and again."""
    if not parts or len(parts) % 3:
        raise ModelError(f"{node.label}: {len(parts)} inputs behind Y's; three for each tensor are needed")
    axis = axis_of(node, node.attr("axis"), parts[0].rank)
    real = [dequantize_linear(node, *parts[k : k + 3]) for k in range(0, len(parts), 3)]
    return _quantized(node, p.concat(real, axis), y_scale, y_zero, parts[0])


@lowering("QLinearWhere", domain=DOMAIN)
def qlinear_where(
    node: Node,
    condition: Tensor,
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor,
    y: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
    z_scale: Tensor,
    z_zero: Tensor,
) -> Tensor:
    real = [dequantize_linear(node, x, x_scale, x_zero), dequantize_linear(node, y, y_scale, y_zero)]
    return _quantized(node, p.where(condition, *real), z_scale, z_zero, x)


@lowering("QLinearAveragePool", domain=DOMAIN)
def qlinear_average_pool(
    node: Node, x: Tensor, x_scale: Tensor, x_zero: Tensor | None, y_scale: Tensor, y_zero: Tensor | None = None
) -> Tensor:
    real = dequantize_linear(node, _channels_first(node, x), x_scale, x_zero)
    return _as_given(node, _quantized(node, average_pool(node, real), y_scale, y_zero, x))


@lowering("QLinearGlobalAveragePool", domain=DOMAIN)
def qlinear_global_average_pool(
    node: Node, x: Tensor, x_scale: Tensor, x_zero: Tensor, y_scale: Tensor, y_zero: Tensor
) -> Tensor:
    real = dequantize_linear(node, _channels_first(node, x), x_scale, x_zero)
    return _as_given(node, _quantized(node, global_average_pool(node, real), y_scale, y_zero, x))


@lowering("QEmbedLayerNormalization", domain=DOMAIN)
def qembed_layer_normalization(
    node: Node, ids: Tensor, segments: Tensor | None, *parameters: Tensor | None
) -> tuple[Tensor, ...]:
    """``parameters``: the five tables and vectors (words, positions, segments, gamma, beta), the mask, and in the same
    order five scales and five zero points. A row is dequantized where it is read."""

    def real(k: int) -> Tensor:
        table, scale = parameters[k], parameters[6 + k]
        assert table is not None
        assert scale is not None
        return dequantize_linear(node, table, scale, parameters[11 + k])

    segment_table = None if parameters[2] is None else real(2)
    return embed_layer_normalization(
        node, ids, segments, real(0), real(1), segment_table, real(3), real(4), parameters[5]
    )
