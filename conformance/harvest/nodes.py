"""One node as a model of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, helper, numpy_helper

from omniop.opset import dtype as dtypes

Values = Mapping[str, Any]
"""Arrays, lists (sequences), None (empty optionals) by name."""


class Untyped(Exception):
    """A value has no type that a model could declare; the message says which."""


def graphs_of(node: onnx.NodeProto) -> list[onnx.GraphProto]:
    """The bodies of a node."""
    found = [attribute.g for attribute in node.attribute if attribute.type == AttributeProto.GRAPH]
    return found + [graph for attribute in node.attribute for graph in attribute.graphs]


def reads(node: onnx.NodeProto) -> list[str]:
    """The names that a node reads: its inputs, and what its bodies take from around them."""
    captured = (name for graph in graphs_of(node) for name in _captured(graph))
    return list(dict.fromkeys(name for name in (*node.input, *captured) if name))


def _captured(graph: onnx.GraphProto) -> Iterator[str]:
    inside = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    inside |= {name for node in graph.node for name in node.output}
    wanted = [*(name for node in graph.node for name in reads(node)), *(value.name for value in graph.output)]
    return (name for name in wanted if name not in inside)


def model_of(
    node: onnx.NodeProto,
    values: Values,
    constants: Collection[str],
    imports: Sequence[onnx.OperatorSetIdProto],
    ir: int,
) -> onnx.ModelProto:
    """A model of this node alone: what it reads are inputs, or initialisers for the names among ``constants``.

    Its outputs' types are open. Raises Untyped.
    """
    names = reads(node)
    kept = [n for n in names if n in constants and isinstance(values[n], np.ndarray) and values[n].dtype != object]
    infos = [helper.make_value_info(name, _type(name, values[name])) for name in names if name not in kept]
    outputs = [onnx.ValueInfoProto(name=name) for name in node.output if name]
    graph = helper.make_graph([node], node.op_type, infos, outputs)
    graph.initializer.extend(numpy_helper.from_array(values[name], name) for name in kept)
    return helper.make_model(graph, opset_imports=imports, ir_version=ir)


def typed(model: onnx.ModelProto, outputs: Values) -> onnx.ModelProto:
    """The model with the types that its outputs turned out to have."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for info in copy.graph.output:
        if outputs.get(info.name) is not None:
            info.CopyFrom(helper.make_value_info(info.name, _type(info.name, outputs[info.name], shape=False)))
    return copy


def key_of(model: onnx.ModelProto) -> str:
    """A digest of what makes a node distinct: operator, versions, attributes, and types of what it reads. Names and the
    elements of weights say nothing; small constants, which are axes and shapes, do."""
    (node,) = model.graph.node
    digest = hashlib.sha256(f"{node.domain}::{node.op_type}".encode())
    for one in sorted(model.opset_import, key=lambda one: one.domain):
        digest.update(f"{one.domain}={one.version}".encode())
    for attribute in sorted(node.attribute, key=lambda attribute: attribute.name):
        digest.update(attribute.SerializeToString(deterministic=True))
    places = {name: str(k) for k, name in enumerate(reads(node))}
    digest.update(repr([places.get(name) for name in node.input]).encode())
    digest.update(repr([bool(name) for name in node.output]).encode())
    for info in model.graph.input:
        digest.update(places[info.name].encode() + info.type.SerializeToString(deterministic=True))
    for tensor in model.graph.initializer:
        digest.update(f"{places[tensor.name]} {tensor.data_type} {list(tensor.dims)}".encode())
        if tensor.data_type == onnx.TensorProto.INT64 and len(tensor.dims) < 2:
            digest.update(tensor.raw_data)
    return digest.hexdigest()[:10]


def _type(name: str, value: Any, *, shape: bool = True) -> onnx.TypeProto:
    if isinstance(value, list):
        if not value:
            raise Untyped(f"{name!r} is an empty sequence, of no known type")
        return helper.make_sequence_type_proto(_type(name, value[0], shape=False))
    if not isinstance(value, np.ndarray | np.generic):
        raise Untyped(f"{name!r} is {'an empty optional' if value is None else f'a {type(value).__name__}'}")
    array = np.asarray(value)
    return helper.make_tensor_type_proto(dtypes.of_numpy(array.dtype).onnx, array.shape if shape else None)
