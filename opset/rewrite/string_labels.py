"""Strings in ai.onnx.ml taken apart from the arithmetic, which then runs on a device.

A classifier with string labels becomes one with the labels 0, 1, ... and a CategoryMapper that names them; a
OneHotEncoder of strings becomes a CategoryMapper that numbers them and a OneHotEncoder of integers. CategoryMapper is
the same in every version of ai.onnx.ml, and a host step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx_ir as ir

from omniop.opset.nodes import node_label
from omniop.opset.rewrite.rule import Applied, display_name

_DOMAIN = "ai.onnx.ml"

_INTEGER_LABELS = {
    "LinearClassifier": "classlabels_ints",
    "SVMClassifier": "classlabels_ints",
    "TreeEnsembleClassifier": "classlabels_int64s",
}


def take_strings_apart(graph: ir.Graph | ir.Function) -> Iterator[Applied]:
    """Apply to the nodes of one graph."""
    for node in list(graph):
        if node.domain != _DOMAIN:
            continue
        if node.op_type in _INTEGER_LABELS and _strings(node, "classlabels_strings"):
            yield _number_labels(node)
        elif node.op_type == "OneHotEncoder" and _strings(node, "cats_strings"):
            yield _number_categories(node)


def _strings(node: ir.Node, name: str) -> list[str]:
    """A STRINGS attribute; empty when it is absent, or stands for an attribute of a function's call."""
    attr = node.attributes.get(name)
    return [] if attr is None or attr.is_ref() else list(attr.as_strings())


def _mapper(value: ir.Value, names: list[str], name: str) -> ir.Node:
    attributes: dict[str, Sequence[int] | Sequence[str]] = {"cats_int64s": range(len(names)), "cats_strings": names}
    return ir.node("CategoryMapper", [value], attributes, domain=_DOMAIN, name=name)


def _without(node: ir.Node, name: str, **new: list[int]) -> list[ir.Attr]:
    kept = [a for a in node.attributes.values() if a.name != name]
    return [*kept, *ir.convenience.convert_attributes(new)]


def _number_labels(node: ir.Node) -> Applied:
    labels = _strings(node, "classlabels_strings")
    integers = {_INTEGER_LABELS[node.op_type]: list(range(len(labels)))}
    attributes = _without(node, "classlabels_strings", **integers)
    numbered = ir.Node(_DOMAIN, node.op_type, node.inputs, attributes, num_outputs=len(node.outputs), name=node.name)
    mapper = _mapper(numbered.outputs[0], labels, f"{display_name(node)}/labels")
    new = [*mapper.outputs, *numbered.outputs[1:]]
    graph = node.graph
    assert graph is not None
    ir.convenience.replace_nodes_and_values(graph, node, [node], [numbered, mapper], node.outputs, new)
    return Applied("string labels", (display_name(node),), node_label(mapper))


def _number_categories(node: ir.Node) -> Applied:
    names = _strings(node, "cats_strings")
    assert node.inputs[0] is not None
    mapper = _mapper(node.inputs[0], names, f"{display_name(node)}/categories")
    attributes = _without(node, "cats_strings", cats_int64s=list(range(len(names))))
    numbered = ir.Node(_DOMAIN, node.op_type, mapper.outputs, attributes, name=node.name)
    graph = node.graph
    assert graph is not None
    ir.convenience.replace_nodes_and_values(graph, node, [node], [mapper, numbered], node.outputs, numbered.outputs)
    return Applied("string categories", (display_name(node),), node_label(mapper))
