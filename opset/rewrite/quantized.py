"""Operators between DequantizeLinear and QuantizeLinear, as quantisers write them, made operators on integers.

    QuantizeLinear(Conv(DequantizeLinear(x), DequantizeLinear(w), DequantizeLinear(b)))  ->  QLinearConv
    QuantizeLinear(MatMul(DequantizeLinear(a), DequantizeLinear(b)))                     ->  QLinearMatMul
    QuantizeLinear(Gemm(DequantizeLinear(a), DequantizeLinear(b), DequantizeLinear(c)))  ->  com.microsoft's QGemm

What floats would sum with roundings, integers sum exactly; then both round once, to the output's scale. The results
are the same but where that last rounding falls differently: they are at most one quantum apart, as ONNX Runtime's are,
which does the same. Biases have to be on the scale of the products, within float32's rounding, and scales float32.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from omniop.opset import contrib
from omniop.opset.nodes import node_label
from omniop.opset.rewrite.pattern import constant_tensor
from omniop.opset.rewrite.rule import REPLACES, Applied, replaced_names
from omniop.opset.tensor_data import tensor_array

_BYTES = (ir.DataType.UINT8, ir.DataType.INT8)
_BIAS_TOLERANCE = 1e-5
"""How far, relatively, the scale of a bias may be from that of the products."""


@dataclass(frozen=True)
class _Quantized:
    """A tensor of integers, its scale and its zero point."""

    value: ir.Value
    scale: ir.Value
    zero: ir.Value
    axis: int

    def scales(self) -> np.ndarray | None:
        """The scale's numbers, where they are constants in float32."""
        return _float32(self.scale)

    @property
    def triple(self) -> tuple[ir.Value, ir.Value, ir.Value]:
        return self.value, self.scale, self.zero


def fold_quantized(graph: ir.Graph) -> Iterator[Applied]:
    """Apply to the nodes of one graph."""
    for node in list(graph):
        if node.graph is graph and not node.domain and node.op_type == "QuantizeLinear":
            applied = _fold(node)
            if applied is not None:
                yield applied


def _fold(quantize: ir.Node) -> Applied | None:
    """The operator in front of a QuantizeLinear and the DequantizeLinear in front of that, as one node."""
    result = _parameters(quantize)
    inner = quantize.inputs[0].producer() if quantize.inputs and quantize.inputs[0] is not None else None
    if result is None or inner is None or inner.domain or inner.graph is not quantize.graph:
        return None
    build = _BUILDERS.get(inner.op_type)
    (made,) = inner.outputs if len(inner.outputs) == 1 else (None,)
    if build is None or made is None or made.is_graph_output() or len(made.uses()) != 1:
        return None
    operands = [None if v is None else _dequantized(v) for v in inner.inputs]
    given = [operand is not None for operand in operands]
    if given != [v is not None for v in inner.inputs] or any(o is None for o in operands[:2]):
        return None
    whole = [o for o in operands if o is not None]
    new = build(inner, whole, result)
    if new is None:
        return None
    graph = quantize.graph
    assert graph is not None
    names = tuple(name for node in (quantize, inner) for name in replaced_names(node))
    new.name = quantize.name
    new.metadata_props[REPLACES] = json.dumps(names)
    old = quantize.outputs
    ir.convenience.replace_nodes_and_values(graph, quantize, [quantize, inner], [new], old, new.outputs)
    return Applied("integers between scales", names, node_label(new))


def _parameters(node: ir.Node) -> _Quantized | None:
    """Value, scale and zero point of a QuantizeLinear or DequantizeLinear of bytes or, for biases, int32: whole
    tensors, or along one axis."""
    if len(node.inputs) != 3 or any(v is None for v in node.inputs):
        return None
    known = {"axis", "saturate"}
    if any(a.name not in known or a.is_ref() for a in node.attributes.values()):
        return None
    value, scale, zero = node.inputs
    assert value is not None
    assert scale is not None
    assert zero is not None
    axis = node.attributes.get("axis")
    return _Quantized(value, scale, zero, 1 if axis is None else axis.as_int())


def _dequantized(value: ir.Value) -> _Quantized | None:
    node = value.producer()
    if node is None or node.domain or node.op_type != "DequantizeLinear":
        return None
    return _parameters(node)


def _float32(value: ir.Value) -> np.ndarray | None:
    tensor = constant_tensor(value)
    return None if tensor is None or tensor.dtype != ir.DataType.FLOAT else tensor_array(tensor)


def _zeros(quantized: _Quantized) -> np.ndarray | None:
    """The zero point's numbers, where they are constants in bytes."""
    tensor = constant_tensor(quantized.zero)
    return None if tensor is None or tensor.dtype not in _BYTES else tensor_array(tensor)


def _is_whole(quantized: _Quantized) -> bool:
    """Whether it is of bytes with one constant scale."""
    scale, zero = quantized.scales(), _zeros(quantized)
    return scale is not None and zero is not None and scale.size == zero.size == 1


def _is_along(quantized: _Quantized, axis: int) -> bool:
    """Whether it is of bytes with one constant scale, or one for each index along an axis."""
    scale, zero = quantized.scales(), _zeros(quantized)
    if scale is None or zero is None or scale.shape != zero.shape:
        return False
    return scale.size == 1 or (scale.ndim == 1 and quantized.axis == axis)


def _is_bias(bias: _Quantized, a: _Quantized, b: _Quantized) -> bool:
    """Whether it is of int32, counted from 0, on the scale of the products."""
    zero, scale = constant_tensor(bias.zero), bias.scales()
    left, right = a.scales(), b.scales()
    if zero is None or zero.dtype != ir.DataType.INT32 or scale is None or left is None or right is None:
        return False
    wanted = left.reshape(-1) * right.reshape(-1)
    fits = scale.size in (1, wanted.size) and np.allclose(scale.reshape(-1), wanted, _BIAS_TOLERANCE, 0.0)
    return bool(fits) and not tensor_array(zero).any()


def _convolution(node: ir.Node, operands: list[_Quantized], result: _Quantized) -> ir.Node | None:
    x, w, *bias = operands
    if not (_is_whole(x) and _is_along(w, 0) and _is_whole(result)):
        return None
    if bias and not _is_bias(bias[0], x, w):
        return None
    inputs = (*x.triple, *w.triple, result.scale, result.zero, *(b.value for b in bias))
    return ir.Node("", "QLinearConv", inputs, list(node.attributes.values()))


def _product(node: ir.Node, operands: list[_Quantized], result: _Quantized) -> ir.Node | None:
    a, b = operands
    if not (_is_whole(a) and _is_whole(b) and _is_whole(result)):
        return None
    return ir.Node("", "QLinearMatMul", (*a.triple, *b.triple, result.scale, result.zero))


def _gemm(node: ir.Node, operands: list[_Quantized], result: _Quantized) -> ir.Node | None:
    """The bias is a vector: a scale of its own for each column would not go with one for the whole matrix."""
    a, b, *bias = operands
    attributes = {a.name: a for a in node.attributes.values()}
    factors = [attributes[name].as_float() for name in ("alpha", "beta") if name in attributes]
    columns = 0 if "transB" in attributes and attributes["transB"].as_int() else 1
    if any(f != 1.0 for f in factors) or not (_is_whole(a) and _is_along(b, columns) and _is_whole(result)):
        return None
    if bias and not _is_bias(bias[0], a, b):
        return None
    kept = [attributes[name] for name in ("transA", "transB") if name in attributes]
    inputs = (*a.triple, *b.triple, bias[0].value if bias else None, result.scale, result.zero)
    return ir.Node(contrib.DOMAIN, "QGemm", inputs, kept)


_BUILDERS: dict[str, Callable[[ir.Node, list[_Quantized], _Quantized], ir.Node | None]] = {
    "Conv": _convolution,
    "MatMul": _product,
    "Gemm": _gemm,
}
