"""Whole models for the gate, spelled as exporters spell them, with random weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.gate.case import IR_VERSION, integers

_MASKED = float(np.finfo(np.float32).min)
_POSITIONS = 512


@dataclass
class _Graph:
    """Collects nodes and initialisers, naming values after the operators that make them."""

    random: np.random.Generator
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: list[onnx.TensorProto] = field(default_factory=list)

    def add(self, op: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Append a node of one output and return the output's name."""
        output = name or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def weight(self, *shape: int, scale: float, offset: float = 0.0) -> str:
        """A random initialiser around ``offset``."""
        return self.array((self.random.standard_normal(shape) * scale + offset).astype(np.float32))

    def array(self, value: np.ndarray) -> str:
        name = f"w_{len(self.initializers)}"
        self.initializers.append(numpy_helper.from_array(value, name))
        return name

    def constant(self, value: Any, dtype: Any) -> str:
        """A Constant node, as exporters write the small ones."""
        return self.add("Constant", value=numpy_helper.from_array(np.asarray(value, dtype)))

    def dim(self, x: str, axis: int) -> str:
        """One dimension of ``x`` as a vector of one, the way PyTorch's exporter reads it."""
        size = self.add("Gather", self.add("Shape", x), self.constant(axis, np.int64), axis=0)
        return self.add("Unsqueeze", size, self.constant([0], np.int64))

    def model(
        self, inputs: Sequence[onnx.ValueInfoProto], outputs: Sequence[onnx.ValueInfoProto], opset: int
    ) -> onnx.ModelProto:
        graph = helper.make_graph(self.nodes, "gate", list(inputs), list(outputs), self.initializers)
        imports = [helper.make_opsetid("", opset)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION, producer_name="gate")
        onnx.checker.check_model(model, full_check=True)
        return model


def bert(
    layers: int = 2,
    hidden: int = 64,
    heads: int = 4,
    ffn: int = 256,
    vocab: int = 1000,
    *,
    opset: int = 17,
    seed: int = 0,
) -> onnx.ModelProto:
    """A BERT-shaped encoder with symbolic ``batch`` and ``sequence``, in the operators of a PyTorch export.

    Feeds ``input_ids`` and ``attention_mask``, int64 [batch, sequence] with sequence <= 512; gives
    ``last_hidden_state`` f32 [batch, sequence, hidden] and ``pooler_output`` f32 [batch, hidden]. LayerNormalization
    and Gelu are spelled out.
    """
    g = _Graph(np.random.default_rng(seed))
    ids = ["batch", "sequence"]
    inputs = [helper.make_tensor_value_info(name, TensorProto.INT64, ids) for name in ("input_ids", "attention_mask")]
    outputs = [
        helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*ids, hidden]),
        helper.make_tensor_value_info("pooler_output", TensorProto.FLOAT, ["batch", hidden]),
    ]
    mask = _additive_mask(g)
    x = _embeddings(g, hidden, vocab)
    for layer in range(layers):
        attended = _attention(g, x, mask, hidden, heads)
        x = _layer_norm(g, g.add("Add", attended, x), hidden)
        name = "last_hidden_state" if layer == layers - 1 else ""
        x = _layer_norm(g, g.add("Add", _feed_forward(g, x, hidden, ffn), x), hidden, name)
    first = g.add("Gather", x, g.constant(0, np.int64), axis=1)
    pooled = g.add("Gemm", first, g.weight(hidden, hidden, scale=0.1), g.weight(hidden, scale=0.1), transB=1)
    g.add("Tanh", pooled, name="pooler_output")
    return g.model(inputs, outputs, opset)


def _additive_mask(g: _Graph) -> str:
    """[batch, 1, 1, sequence]: 0 where attention may go, the least float where it may not."""
    wide = g.add("Unsqueeze", "attention_mask", g.constant([1], np.int64))
    wide = g.add("Cast", g.add("Unsqueeze", wide, g.constant([2], np.int64)), to=TensorProto.FLOAT)
    return g.add("Mul", g.add("Sub", g.constant(1, np.float32), wide), g.constant(_MASKED, np.float32))


def _embeddings(g: _Graph, hidden: int, vocab: int) -> str:
    words = g.add("Gather", g.weight(vocab, hidden, scale=0.5), "input_ids")
    length = g.dim("input_ids", 1)
    positions = g.array(np.arange(_POSITIONS, dtype=np.int64)[None])
    zero, one = g.constant([0], np.int64), g.constant([1], np.int64)
    here = g.add("Slice", positions, zero, length, one, one)
    places = g.add("Gather", g.weight(_POSITIONS, hidden, scale=0.5), here)
    shape = g.add("Shape", "input_ids")
    types = g.add("ConstantOfShape", shape, value=numpy_helper.from_array(np.zeros(1, np.int64)))
    kinds = g.add("Gather", g.weight(2, hidden, scale=0.5), types)
    return _layer_norm(g, g.add("Add", g.add("Add", words, kinds), places), hidden)


def _layer_norm(g: _Graph, x: str, hidden: int, name: str = "") -> str:
    d = g.add("Sub", x, g.add("ReduceMean", x, axes=[-1]))
    square = g.add("Pow", d, g.constant(2, np.float32))
    variance = g.add("Add", g.add("ReduceMean", square, axes=[-1]), g.constant(1e-12, np.float32))
    n = g.add("Div", d, g.add("Sqrt", variance))
    return g.add("Add", g.add("Mul", n, g.weight(hidden, scale=0.1, offset=1)), g.weight(hidden, scale=0.1), name=name)


def _linear(g: _Graph, x: str, inputs: int, outputs: int) -> str:
    product = g.add("MatMul", x, g.weight(inputs, outputs, scale=inputs**-0.5))
    return g.add("Add", g.weight(outputs, scale=0.1), product)


def _attention(g: _Graph, x: str, mask: str, hidden: int, heads: int) -> str:
    size = hidden // heads

    def split(perm: list[int]) -> str:
        projected = _linear(g, x, hidden, hidden)
        dims = [g.dim(projected, 0), g.dim(projected, 1), g.constant([heads], np.int64), g.constant([size], np.int64)]
        return g.add("Transpose", g.add("Reshape", projected, g.add("Concat", *dims, axis=0)), perm=perm)

    q, k, v = split([0, 2, 1, 3]), split([0, 2, 3, 1]), split([0, 2, 1, 3])
    scores = g.add("Div", g.add("MatMul", q, k), g.constant(size**0.5, np.float32))
    weights = g.add("Softmax", g.add("Add", scores, mask), axis=-1)
    mixed = g.add("Transpose", g.add("MatMul", weights, v), perm=[0, 2, 1, 3])
    dims = [g.dim(mixed, 0), g.dim(mixed, 1), g.constant([hidden], np.int64)]
    return _linear(g, g.add("Reshape", mixed, g.add("Concat", *dims, axis=0)), hidden, hidden)


def _feed_forward(g: _Graph, x: str, hidden: int, ffn: int) -> str:
    x = _linear(g, x, hidden, ffn)
    erf = g.add("Erf", g.add("Div", x, g.constant(2**0.5, np.float32)))
    gelu = g.add("Mul", x, g.add("Add", erf, g.constant(1, np.float32)))
    return _linear(g, g.add("Mul", gelu, g.constant(0.5, np.float32)), ffn, hidden)


def bert_feeds(batch: int, sequence: int, vocab: int = 1000, seed: int = 0) -> dict[str, np.ndarray]:
    """Token ids, and a mask that hides a tail of every row but the first."""
    lengths = np.maximum(1, sequence - np.arange(batch) % sequence) if sequence else np.zeros(batch, np.int64)
    mask = (np.arange(sequence) < lengths[:, None]).astype(np.int64)
    return {"input_ids": integers(batch, sequence, low=0, high=vocab, seed=seed), "attention_mask": mask}


def two_convs(
    channels: int = 32, batch: int | str = "N", height: int | str = "H", width: int | str = "W", *, seed: int = 0
) -> onnx.ModelProto:
    """Conv -> Relu -> Conv, 3x3, padded, with bias, in NCHW; feeds ``x``, gives ``y`` of the same shape.

    ``channels`` should be a multiple of 16, so that a blocked layout needs no padding; a string is a symbolic dim.
    """
    g = _Graph(np.random.default_rng(seed))

    def conv(x: str, name: str = "") -> str:
        weight = g.weight(channels, channels, 3, 3, scale=(9 * channels) ** -0.5)
        bias = g.weight(channels, scale=0.1)
        return g.add("Conv", x, weight, bias, name=name, kernel_shape=[3, 3], pads=[1, 1, 1, 1])

    conv(g.add("Relu", conv("x")), name="y")
    shape = [batch, channels, height, width]
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    return g.model(infos[:1], infos[1:], opset=17)
