"""From the imported model (onnx-ir) to the dispatcher's own graphs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import onnx
import onnx_ir as ir

from omniop.dispatcher.graph import Graph, Labels, NodeInfo, Value, ValueType
from omniop.opset import dtype as dtypes
from omniop.opset.errors import UnsupportedError
from omniop.opset.host_arithmetic import HOST_ARITHMETIC
from omniop.opset.importer import ImportedModel
from omniop.opset.nodes import attributes, check_arity, check_bodies, declared_type, initializer_array, node_label
from omniop.opset.schemas import COMPOSITE_DOMAIN, COMPOSITE_VERSION, schema_for

CONTROL_FLOW_HOST_INPUTS = {"If": (0,), "Loop": (0, 1)}


class Reader:
    """Graphs of an imported model as `Graph`s; a value met twice is one `Value`."""

    def __init__(self, imported: ImportedModel, labels: Labels) -> None:
        self.imported = imported
        self.labels = labels
        self.values: dict[ir.Value, Value] = {}

    def graph(
        self, graph: ir.Graph | ir.Function, imports: Mapping[str, int] | None = None, caller: NodeInfo | None = None
    ) -> Graph:
        """``caller``: the node that the nodes count as."""
        imports = self.imported.opset_imports if imports is None else imports
        nodes = [self.node(node, imports, caller) for node in graph]
        inputs, outputs = ([self.value(v) for v in ends] for ends in (graph.inputs, graph.outputs))
        for v, declared in zip([*inputs, *outputs], [*graph.inputs, *graph.outputs], strict=True):
            v.type = value_type(declared_type(declared))
        return Graph(inputs, outputs, nodes, _captured(inputs, outputs, nodes), _host_wanted(nodes))

    def value(self, v: ir.Value) -> Value:
        if v not in self.values:
            load = None if v.const_value is None else partial(initializer_array, v)
            self.values[v] = Value(v.name or "", load)
        return self.values[v]

    def node(self, node: ir.Node, imports: Mapping[str, int], caller: NodeInfo | None) -> NodeInfo:
        """Look a node up: schema and attributes. An op nobody defines is found out when it is placed."""
        own = node_label(node)
        version = COMPOSITE_VERSION if node.domain == COMPOSITE_DOMAIN else imports.get(node.domain, 1)
        info = NodeInfo(node.op_type, node.domain, own, -1, version=version, imports=imports, source=node)
        try:
            schema = schema_for(node.domain, node.op_type, version)
        except UnsupportedError:
            schema = None
        key = node.op_identifier()
        if key in self.imported.functions:
            info.function = key
        elif schema is None:
            info.since, info.attributes = version, attributes(node, None)
        else:
            check_arity(node, schema)
            check_bodies(node, schema)
            info.since, info.attributes = schema.since_version, attributes(node, schema)
        for name, attr in node.attributes.items():
            if attr.type == ir.AttributeType.GRAPH and not attr.is_ref():
                info.attributes[name] = self.graph(attr.as_graph(), imports, caller)
        if caller is None:
            info.origin = self.labels.add(own)
        else:
            info.label, info.origin = f"{caller.label} / {own}", caller.origin
        info.inputs = [None if v is None else self.value(v) for v in node.inputs]
        info.outputs = [self.value(v) for v in node.outputs]
        return info


def _captured(inputs: list[Value], outputs: list[Value], nodes: list[NodeInfo]) -> list[Value]:
    own = {*inputs, *(v for info in nodes for v in info.outputs)}
    used = [v for info in nodes for v in info.uses()] + outputs
    return list(dict.fromkeys(v for v in used if v not in own and not v.constant))


def _host_wanted(nodes: list[NodeInfo]) -> set[Value]:
    wanted: set[Value] = set()
    for info in nodes:
        for graph in info.graphs:
            wanted |= graph.host_wanted
    for info in reversed(nodes):
        positions = info.entry.host if info.entry is not None else ()
        positions = (*positions, *CONTROL_FLOW_HOST_INPUTS.get(info.op_type, ()))
        wanted.update(v for k in positions if k < len(info.inputs) and (v := info.inputs[k]) is not None)
        if info.op_type in HOST_ARITHMETIC and any(v in wanted for v in info.outputs):
            wanted.update(v for v in info.inputs if v is not None)
    return wanted


def value_type(proto: onnx.TypeProto) -> ValueType | None:
    """A declared type; None where nothing is declared."""
    kind = proto.WhichOneof("value")
    if kind == "sequence_type":
        return ValueType("sequence", element=value_type(proto.sequence_type.elem_type))
    if kind == "optional_type":
        return ValueType("optional", element=value_type(proto.optional_type.elem_type))
    if kind == "map_type":
        key = dtypes.of_onnx(proto.map_type.key_type)
        return ValueType("map", key, element=value_type(proto.map_type.value_type))
    if kind is None:
        return None
    tensor = getattr(proto, kind)
    dims = tuple(map(_dim, tensor.shape.dim)) if tensor.HasField("shape") else None
    return ValueType("tensor", dtypes.of_onnx(tensor.elem_type) if tensor.elem_type else None, dims)


def _dim(dim: onnx.TensorShapeProto.Dimension) -> int | str | None:
    """A dim as declared; exporters write "?" and -1 for a dim that has none."""
    if dim.HasField("dim_value"):
        return dim.dim_value if dim.dim_value >= 0 else None
    return dim.dim_param if dim.dim_param.strip("?") else None
