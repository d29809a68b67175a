"""A graph being written: nodes, random weights, and its inputs together with what they are fed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

Feeds = dict[str, np.ndarray]

DECOMPOSED_OPSET = 17
"""That of PyTorch's TorchScript exporter, which takes most layers apart."""
FUSED_OPSET = 23
"""The first with Attention, RMSNormalization and RotaryEmbedding, which PyTorch's newer exporter writes."""
_IR_VERSIONS = {DECOMPOSED_OPSET: 8, FUSED_OPSET: 11}


class Graph:
    """Collects nodes and initialisers; values are named after the operators that make them.

    ``fused``: layers that a newer opset has an operator for are one node; else they are taken apart. Weights and feeds
    are drawn apart, so that a model's weights do not depend on its feeds.
    """

    def __init__(self, *, fused: bool = False, seed: int = 0) -> None:
        self.fused = fused
        self.random = np.random.default_rng(seed)
        self.feed_random = np.random.default_rng(seed + 1)
        self.feeds: Feeds = {}
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._names: dict[str, str] = {}

    # Borders ----------------------------------------------------------------------------------------------------------

    def input(self, name: str, feed: np.ndarray) -> str:
        """An input with the dtype and the shape of what it is fed."""
        dtype = helper.np_dtype_to_tensor_dtype(feed.dtype)
        self._inputs.append(helper.make_tensor_value_info(name, dtype, feed.shape))
        self.feeds[name] = feed
        return name

    def image(self, name: str, *shape: int) -> str:
        """An input of normally distributed f32."""
        return self.input(name, self.feed_random.standard_normal(shape, dtype=np.float32))

    def output(self, value: str, name: str, *shape: int) -> None:
        """An f32 output; ``value`` is what it has been called so far."""
        self._names[value] = name
        self._outputs.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))

    # Inside -----------------------------------------------------------------------------------------------------------

    def op(self, op: str, *inputs: str, **attributes: Any) -> str:
        """Append a node of one output and return the output's name."""
        return self.ops(op, 1, *inputs, **attributes)[0]

    def ops(self, op: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """Append a node and return the names of its outputs."""
        name = f"{op.lower()}_{len(self._nodes)}"
        made = [name if k == 0 else f"{name}_{k}" for k in range(outputs)]
        self._nodes.append(helper.make_node(op, inputs, made, name=name, **attributes))
        return made

    def weight(self, *shape: int, std: float = 0.02, mean: float = 0.0) -> str:
        """A normally distributed f32 initialiser."""
        value = self.random.standard_normal(shape, dtype=np.float32)
        value *= np.float32(std)
        value += np.float32(mean)
        return self.array(value)

    def array(self, value: np.ndarray) -> str:
        """An initialiser."""
        name = f"w_{len(self._initializers)}"
        self._initializers.append(numpy_helper.from_array(value, name))
        return name

    def scalar(self, value: float) -> str:
        """A Constant node of one f32, as exporters write them."""
        return self._constant(np.float32(value))

    def ints(self, *values: int) -> str:
        """A Constant node of an int64 vector."""
        return self._constant(np.array(values, np.int64))

    def index(self, value: int) -> str:
        """A Constant node of one int64."""
        return self._constant(np.int64(value))

    def _constant(self, value: Any) -> str:
        return self.op("Constant", value=numpy_helper.from_array(np.asarray(value)))

    def model(self, name: str) -> onnx.ModelProto:
        """What was written."""
        for node in self._nodes:
            for values in (node.input, node.output):
                values[:] = [self._names.get(value, value) for value in values]
        opset = FUSED_OPSET if self.fused else DECOMPOSED_OPSET
        graph = helper.make_graph(self._nodes, name, self._inputs, self._outputs, self._initializers)
        imports = [helper.make_opsetid("", opset)]
        return helper.make_model(
            graph, opset_imports=imports, ir_version=_IR_VERSIONS[opset], producer_name="omniop.benchmarks"
        )

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        return self.op("Reshape", x, self.ints(*shape))

    def transpose(self, x: str, *perm: int) -> str:
        return self.op("Transpose", x, perm=perm)
