"""A convolution and the BatchNormalization behind it as one operator, whose weights are scaled once.

    BatchNormalization(Conv(x, w, b), scale, bias, mean, variance)  ->  omniop's ConvBatchNormalization

Where all but x is constant. The sums are then of scaled products, and not scaled themselves: results differ by
rounding, as they do in ONNX Runtime.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import onnx_ir as ir

from omniop.opset.nodes import node_label
from omniop.opset.rewrite.pattern import constant_tensor
from omniop.opset.rewrite.rule import REPLACES, Applied, replaced_names
from omniop.opset.schemas import COMPOSITE_DOMAIN

_PLAIN = {"epsilon": None, "momentum": None, "training_mode": 0, "is_test": 1, "spatial": 1}
"""Attributes of a BatchNormalization that only applies given statistics, and the value that they have to have."""


def fold_batch_normalization(graph: ir.Graph) -> Iterator[Applied]:
    """Apply to the nodes of one graph."""
    for node in list(graph):
        if node.graph is graph and not node.domain and node.op_type == "BatchNormalization":
            applied = _fold(node)
            if applied is not None:
                yield applied


def _fold(normalization: ir.Node) -> Applied | None:
    conv = normalization.inputs[0].producer() if normalization.inputs and normalization.inputs[0] is not None else None
    if conv is None or conv.domain or conv.op_type != "Conv" or conv.graph is not normalization.graph:
        return None
    (between,) = conv.outputs
    if between.is_graph_output() or len(between.uses()) != 1 or not _applies_alone(normalization):
        return None
    x, w, *bias = conv.inputs
    statistics = normalization.inputs[1:]
    if len(statistics) != 4 or not all(map(_is_float32, (w, *statistics, *(b for b in bias if b is not None)))):
        return None
    epsilon = normalization.attributes.get("epsilon")
    attributes = [*conv.attributes.values(), ir.AttrFloat32("epsilon", 1e-5 if epsilon is None else epsilon.as_float())]
    names = tuple(name for node in (normalization, conv) for name in replaced_names(node))
    new = ir.Node(
        COMPOSITE_DOMAIN,
        "ConvBatchNormalization",
        (x, w, *statistics, *bias),
        attributes,
        name=conv.name,
        metadata_props={REPLACES: json.dumps(names)},
    )
    graph = normalization.graph
    assert graph is not None
    old = normalization.outputs[:1]
    ir.convenience.replace_nodes_and_values(graph, normalization, [normalization, conv], [new], old, new.outputs)
    return Applied("batch normalization", names, node_label(new))


def _applies_alone(node: ir.Node) -> bool:
    """Whether it has one output and nothing of training."""
    for name, attribute in node.attributes.items():
        if name not in _PLAIN or attribute.is_ref():
            return False
        if _PLAIN[name] is not None and attribute.as_int() != _PLAIN[name]:
            return False
    return len(node.outputs) == 1


def _is_float32(value: ir.Value | None) -> bool:
    tensor = None if value is None else constant_tensor(value)
    return tensor is not None and tensor.dtype == ir.DataType.FLOAT
