"""Gradient nodes, which name the graph that they differentiate, given that graph as an attribute."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from omniop.opset.errors import ModelError
from omniop.opset.lower.training import DOMAIN
from omniop.opset.nodes import node_label
from omniop.opset.rewrite.rule import Applied, display_name, import_composites
from omniop.opset.schemas import COMPOSITE_DOMAIN


def cut_out_gradients(graph: ir.Graph) -> Iterator[Applied]:
    """Make each Gradient of a graph the composite of that name. What nobody else needs of the graph then is unused.

    Raises ModelError when a name is not one of the graph's, or the names do not bound a part of it.
    """
    for node in list(graph):
        if (node.domain, node.op_type) != (DOMAIN, "Gradient"):
            continue
        names = [
            *node.attributes["xs"].as_strings(),
            *(node.attributes["zs"].as_strings() if "zs" in node.attributes else ()),
        ]
        try:
            body = ir.convenience.extract(graph, names, [node.attributes["y"].as_string()])
        except ValueError as error:
            raise ModelError(f"{node_label(node)}: {error}") from error
        attributes = [ir.AttrGraph("body", body)]
        new = ir.Node(
            COMPOSITE_DOMAIN, "Gradient", node.inputs, attributes, num_outputs=len(node.outputs), name=node.name
        )
        ir.convenience.replace_nodes_and_values(graph, node, [node], [new], node.outputs, new.outputs)
        import_composites(graph)
        yield Applied("gradient", (display_name(node),), node_label(new))
