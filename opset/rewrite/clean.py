"""Nodes that compute what another one computes, and nodes whose results nobody uses."""

from __future__ import annotations

import struct
from collections.abc import Hashable, Iterator

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from omniop.opset import contrib
from omniop.opset.nodes import node_label, subgraphs_of
from omniop.opset.rewrite.rule import Applied, display_name
from omniop.opset.schemas import COMPOSITE_DOMAIN

_PURE_DOMAINS = frozenset({"", "ai.onnx.ml", COMPOSITE_DOMAIN, contrib.DOMAIN})
_RANDOM = frozenset(
    {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)

_MAX_COMPARED_ELEMENTS = 1024
"""Larger tensors in attributes count as different: comparing them costs more than it saves."""


def merge_duplicates(model: ir.Model) -> Iterator[Applied]:
    """Let the first of several nodes with the same operator, inputs and attributes stand for the others of its graph.

    onnx-ir's own pass leaves functions and subgraphs alone, and takes 0.0 for -0.0, references to two attributes for
    one, and Bernoulli and Dropout for deterministic. A node that makes a graph output is kept, and with it the name.
    """
    roots = [model.graph, *(f.graph for f in model.functions.values())]
    for graph in (g for root in roots for g in (root, *root.subgraphs())):
        seen: dict[Hashable, ir.Node] = {}
        for node in list(graph):
            key = None if node.op_identifier() in model.functions else _key(node)
            if key is None:
                continue
            first = seen.setdefault(key, node)
            if first is not node and not any(v.is_graph_output() for v in node.outputs):
                ir.convenience.replace_all_uses_with(node.outputs, first.outputs)
                graph.remove(node, safe=True)
                yield Applied("duplicate", (display_name(node),), node_label(first))


def _key(node: ir.Node) -> Hashable | None:
    """Equal for nodes that compute the same; None for one that is not to be merged."""
    if node.domain not in _PURE_DOMAINS or node.op_type in _RANDOM or any(True for _ in subgraphs_of(node)):
        return None
    attributes = []
    for name, attr in sorted(node.attributes.items()):
        value = _attribute_key(attr)
        if value is None:
            return None
        attributes.append((name, attr.type, value))
    # Which outputs there are is part of what a node does: training, or an index besides a value.
    outputs = tuple(bool(v.name) for v in node.outputs)
    return node.op_identifier(), tuple(node.inputs), outputs, tuple(attributes)


def _attribute_key(attr: ir.Attr) -> Hashable | None:
    if attr.is_ref():
        return "reference", attr.ref_attr_name
    if attr.type == ir.AttributeType.TENSOR:
        tensor = attr.value
        if tensor.dtype == ir.DataType.STRING or tensor.size > _MAX_COMPARED_ELEMENTS:
            return None
        return tensor.dtype, tuple(tensor.shape.numpy()), tensor.tobytes()
    if attr.type in (ir.AttributeType.FLOAT, ir.AttributeType.FLOATS):
        numbers = (attr.value,) if attr.type == ir.AttributeType.FLOAT else attr.value
        return struct.pack(f"{len(numbers)}d", *numbers)
    return attr.value if attr.type in _PLAIN_TYPES else None


_PLAIN_TYPES = (
    ir.AttributeType.INT,
    ir.AttributeType.INTS,
    ir.AttributeType.STRING,
    ir.AttributeType.STRINGS,
)


def remove_unused(model: ir.Model) -> Iterator[Applied]:
    """Remove nodes and initializers that nothing uses, and optional outputs that nobody reads. Expects sorted nodes."""
    before = [(node, display_name(node)) for node in _all_nodes(model)]
    for graph in (model.graph, *(f.graph for f in model.functions.values())):
        _sweep(graph)
    # By now only initializers and optional outputs are left to it.
    RemoveUnusedNodesPass()(model)
    after = set(_all_nodes(model))
    removed = tuple(name for node, name in before if node not in after)
    if removed:
        yield Applied("unused", removed)


def _sweep(graph: ir.Graph) -> None:
    """Remove unused nodes. onnx-ir's pass would let what stood in their subgraphs go on using outer values."""
    outputs = set(graph.outputs)
    for node in reversed(list(graph)):
        if any(v in outputs or v.uses() for v in node.outputs):
            for nested in subgraphs_of(node):
                _sweep(nested)
        else:
            _remove(node)


def _remove(node: ir.Node) -> None:
    for nested in subgraphs_of(node):
        nested.outputs.clear()
        for inner in reversed(list(nested)):
            _remove(inner)
    assert node.graph is not None
    node.graph.remove(node, safe=True)


def _all_nodes(model: ir.Model) -> Iterator[ir.Node]:
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()
