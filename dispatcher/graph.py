"""What does not change about a graph: its nodes in order, what lives where, and which values are wanted on the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from omniop.opset import lowering
from omniop.opset.errors import UnsupportedError
from omniop.opset.host_arithmetic import HOST_ARITHMETIC
from omniop.opset.importer import ImportedModel
from omniop.opset.nodes import attributes, check_arity, node_label
from omniop.opset.schemas import COMPOSITE_DOMAIN, COMPOSITE_VERSION, schema_for

CONTROL_FLOW_HOST_INPUTS = {"If": (0,), "Loop": (0, 1)}


@dataclass
class NodeInfo:
    """A node with its schema looked up."""

    node: ir.Node
    label: str
    origin: int
    """Number in the session's list of nodes."""
    since: int = 0
    attributes: dict[str, Any] = field(default_factory=dict)
    entry: lowering.Entry | None = None
    version: int = 1
    imports: Mapping[str, int] = field(default_factory=dict)


class Labels:
    """Numbers the nodes of a session, subgraphs included, for decisions, faults and ``explain``."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.ops: list[str] = []

    def add(self, node: ir.Node) -> int:
        self.names.append(node_label(node))
        self.ops.append(node.op_type)
        return len(self.names) - 1


class GraphContext:
    """One graph of a model (the main one, a branch or a body)."""

    def __init__(
        self, model: ImportedModel, graph: ir.Graph, labels: Labels, imports: Mapping[str, int] | None = None
    ) -> None:
        self.model = model
        self.graph = graph
        self.imports = model.opset_imports if imports is None else imports
        self.labels = labels
        self.subgraphs: dict[ir.Graph, GraphContext] = {}
        self.nodes = [self._info(node) for node in graph]
        self.captured = self._captured()
        self.live = self._liveness()
        self.host_wanted = self._host_wanted()

    def _info(self, node: ir.Node) -> NodeInfo:
        for attr in node.attributes.values():
            if attr.type == ir.AttributeType.GRAPH and not attr.is_ref():
                graph = attr.as_graph()
                self.subgraphs[graph] = GraphContext(self.model, graph, self.labels, self.imports)
        return describe(self.model, node, self.labels.add(node), self.imports)

    def uses(self, info: NodeInfo) -> list[ir.Value]:
        """Inputs of a node and what its subgraphs capture."""
        found = [v for v in info.node.inputs if v is not None]
        for attr in info.node.attributes.values():
            if attr.type == ir.AttributeType.GRAPH and not attr.is_ref():
                found += self.subgraphs[attr.as_graph()].captured
        return found

    def _captured(self) -> list[ir.Value]:
        """Values of enclosing graphs that this one uses; initializers of enclosing graphs are not among them."""
        own = set(self.graph.inputs) | set(self.graph.initializers.values())
        for info in self.nodes:
            own.update(info.node.outputs)
        used: dict[ir.Value, None] = {}
        for info in self.nodes:
            for v in self.uses(info):
                if v not in own and v.const_value is None:
                    used.setdefault(v)
        for v in self.graph.outputs:
            if v not in own and v.const_value is None:
                used.setdefault(v)
        return list(used)

    def _liveness(self) -> list[list[ir.Value]]:
        """Before each node (and at the end): values that are needed there or later and are not initializers."""
        live = dict.fromkeys(self.graph.outputs)
        result = [list(live)]
        for info in reversed(self.nodes):
            for v in info.node.outputs:
                live.pop(v, None)
            live.update(dict.fromkeys(self.uses(info)))
            result.append([v for v in live if v.const_value is None or v in self.graph.inputs])
        return list(reversed(result))

    def _host_wanted(self) -> set[ir.Value]:
        """Values that feed a host operand, directly or through shape arithmetic."""
        wanted: set[ir.Value] = set()
        for sub in self.subgraphs.values():
            wanted |= sub.host_wanted
        for info in reversed(self.nodes):
            inputs = info.node.inputs
            positions = info.entry.host if info.entry is not None else ()
            positions = (*positions, *CONTROL_FLOW_HOST_INPUTS.get(info.node.op_type, ()))
            wanted.update(v for k in positions if k < len(inputs) and (v := inputs[k]) is not None)
            if info.node.op_type in HOST_ARITHMETIC and any(v in wanted for v in info.node.outputs):
                wanted.update(v for v in inputs if v is not None)
        return wanted


def describe(model: ImportedModel, node: ir.Node, origin: int, imports: Mapping[str, int] | None = None) -> NodeInfo:
    """Look a node up: schema, attributes, lowering. An op nobody defines is found out when it is placed."""
    label = node_label(node)
    info = NodeInfo(node, label, origin)
    imports = model.opset_imports if imports is None else imports
    info.imports = imports
    info.version = COMPOSITE_VERSION if node.domain == COMPOSITE_DOMAIN else imports.get(node.domain, 1)
    if node.op_identifier() in model.functions:
        return info
    try:
        schema = schema_for(node.domain, node.op_type, info.version)
    except UnsupportedError:
        info.entry = lowering.find(node.domain, node.op_type, info.version)
        info.since = info.version
        info.attributes = attributes(node, None)
        return info
    check_arity(node, schema)
    info.since = schema.since_version
    info.attributes = attributes(node, schema)
    info.entry = lowering.find(node.domain, node.op_type, info.since)
    return info
