"""Helpers on onnx-ir nodes and graphs: names for messages, attributes as Python values, captured values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from omniop.opset.errors import ModelError
from omniop.opset.tensor_data import tensor_array

Attributes = Mapping[str, ir.Attr]

_ONNX_TYPE = "onnx_type"
_ARRAY = "array"

_VARIADIC = 1 << 30
"""onnx gives 2**31 - 1 as the most that a variadic parameter takes."""


def node_label(node: ir.Node) -> str:
    """A node for messages, in one line: ``Conv "stem.0"``; by its first output where it has no name."""
    op_type = node.op_type or "a node without an operator"
    name = f"{node.domain}::{op_type}" if node.domain else op_type
    output = next((v.name for v in node.outputs if v.name), None)
    label = f'{name} "{node.name}"' if node.name else f'{name} of "{output}"' if output else name
    return " ".join(label.split())


def check_arity(node: ir.Node, schema: onnx.defs.OpSchema) -> None:
    """Raise ModelError when a node has more or fewer inputs or outputs than its operator, or lacks a required one."""
    for kind, values, least, most in (
        ("inputs", node.inputs, schema.min_input, schema.max_input),
        ("outputs", node.outputs, schema.min_output, schema.max_output),
    ):
        if not least <= len(values) <= most:
            needed = str(least) if least == most else f"{least} to {most}" if most < _VARIADIC else f"at least {least}"
            raise ModelError(f"{node_label(node)} has {len(values)} {kind}, and {needed} are needed")
    for value, formal in zip(node.inputs, schema.inputs, strict=False):
        if value is None and formal.option == onnx.defs.OpSchema.FormalParameterOption.Single:
            raise ModelError(f"{node_label(node)} lacks its input {formal.name!r}")


_MISSING_INPUTS = {"Loop": 2, "Scan": 0, "SequenceMap": 0}
"""Inputs that a body has even where its node leaves them out: of a Loop, the step and the condition."""


def check_bodies(node: ir.Node, schema: onnx.defs.OpSchema) -> None:
    """Raise ModelError when a branch or a body of ONNX's control flow takes or gives too little for its node."""
    if node.domain or schema.name not in ("If", *_MISSING_INPUTS):
        return
    inputs, outputs = 0, len(node.outputs)
    if schema.name != "If":
        inputs = max(len(node.inputs), _MISSING_INPUTS[schema.name])
        inputs -= schema.name == "Scan" and schema.since_version < 9  # the lengths of sequences
        outputs += schema.name == "Loop"
    for name, attr in node.attributes.items():
        if attr.type != ir.AttributeType.GRAPH or attr.is_ref():
            continue
        body = attr.as_graph()
        for kind, values, needed in (("inputs", body.inputs, inputs), ("outputs", body.outputs, outputs)):
            if len(values) < needed or (kind == "inputs" and len(values) > needed):
                raise ModelError(f"{node_label(node)}: its {name} has {len(values)} {kind}, and {needed} are needed")


def initializer_array(value: ir.Value) -> np.ndarray:
    """The array of an initializer, as `tensor_data.tensor_array`: one object, which all templates share.

    Raises ModelError when it is none or is damaged.
    """
    tensor = value.const_value
    if tensor is None:
        raise ModelError(f'"{value.name}" is not an initializer')
    kept, array = value.meta.get(_ARRAY, (None, None))
    if kept is not tensor:
        array = tensor_array(tensor, f'initializer "{value.name}"')
        value.meta[_ARRAY] = (tensor, array)
    return array


def declared_type(value: ir.Value) -> onnx.TypeProto:
    """The type the model declares for a value, maps included; an empty TypeProto where it declares none."""
    kept = value.meta.get(_ONNX_TYPE)
    if kept is not None:
        return kept
    proto = onnx.TypeProto()
    if value.type is not None:
        ir.serde.serialize_type_into(proto, value.type)
        if value.shape is not None:
            ir.serde.serialize_shape_into(proto, value.shape)
    return proto


def keep_type(value: ir.Value, proto: onnx.TypeProto) -> None:
    """Remember a type that onnx-ir cannot hold, for `declared_type`."""
    value.meta[_ONNX_TYPE] = proto


# Attributes -----------------------------------------------------------------------------------------------------------


def attributes(node: ir.Node, schema: onnx.defs.OpSchema | None, bound: Attributes | None = None) -> dict[str, Any]:
    """A node's attributes as Python values, with the schema's defaults filled in.

    int, float, str; tuples of them; numpy arrays for tensors (as `tensor_array`); ir.Graph for graphs;
    ir.TypeAndShape for types. ``bound`` holds the attributes of the call when the node stands in a function's body: a
    reference to one that the caller left out is an absent attribute. With no schema (an op that ONNX does not define)
    whatever the node has is taken. Raises ModelError on an attribute that is unknown, missing or of another type.
    """
    given = resolved_attributes(node, bound)
    if schema is not None:
        _check(node, schema, given)
    values = {} if schema is None else dict(_defaults(schema))
    values.update((name, _python_value(node, attr)) for name, attr in given.items())
    return values


def resolved_attributes(node: ir.Node, bound: Attributes | None = None) -> dict[str, ir.Attr]:
    """A node's own attributes, with references replaced by what ``bound`` holds for them, or left out."""
    resolved: dict[str, ir.Attr] = {}
    for name, attr in node.attributes.items():
        if attr.is_ref():
            target = (bound or {}).get(attr.ref_attr_name or "")
            if target is None:
                continue
            attr = ir.Attr(name, target.type, target.value)
        resolved[name] = attr
    return resolved


def bind_attributes(function: ir.Function, node: ir.Node, bound: Attributes | None = None) -> dict[str, ir.Attr]:
    """What references in a function's body mean when ``node`` calls it: the node's attributes over the function's
    defaults. ``bound`` is the same of the function that the node itself stands in. What neither gives is absent.

    Raises ModelError on an attribute that the function does not declare.
    """
    given = resolved_attributes(node, bound)
    for name in given:
        if name not in function.attributes:
            raise _unknown(node, name, function.attributes)
    result = {}
    for name, declared in function.attributes.items():
        attr = given.get(name, declared)
        if attr.value is not None:
            result[name] = attr
    return result


def _check(node: ir.Node, schema: onnx.defs.OpSchema, given: Attributes) -> None:
    for name, attr in given.items():
        if name not in schema.attributes:
            raise _unknown(node, name, schema.attributes)
        wanted = str(schema.attributes[name].type).rpartition(".")[2]
        if attr.type.name != wanted:
            raise ModelError(f"{node_label(node)}: attribute {name!r} is {attr.type.name}, and {wanted} is needed")
    for name, declared in schema.attributes.items():
        if declared.required and name not in given:
            raise ModelError(f"{node_label(node)}: the required attribute {name!r} is missing")


def _unknown(node: ir.Node, name: str, known: Mapping[str, object]) -> ModelError:
    names = ", ".join(sorted(known)) or "none"
    return ModelError(f"{node_label(node)}: unknown attribute {name!r}; {node.op_type} has: {names}")


@cache
def default_attributes(schema: onnx.defs.OpSchema) -> Attributes:
    """The attributes that have a default in the schema."""
    return {
        name: ir.serde.deserialize_attribute(declared.default_value)
        for name, declared in schema.attributes.items()
        if declared.default_value.type
    }


@cache
def _defaults(schema: onnx.defs.OpSchema) -> dict[str, Any]:
    return {name: attr.value for name, attr in default_attributes(schema).items()}


def _python_value(node: ir.Node, attr: ir.Attr) -> Any:
    what = f"{node_label(node)}, attribute {attr.name!r},"
    # Not as_tensor(): its isinstance check on a protocol costs more than all else here, and evaluates properties.
    if attr.type == ir.AttributeType.TENSOR:
        return tensor_array(attr.value, what)
    if attr.type == ir.AttributeType.TENSORS:
        return tuple(tensor_array(t, what) for t in attr.value)
    # onnx-ir leaves what is not UTF-8 as bytes.
    if isinstance(attr.value, bytes):
        return attr.value.decode("utf-8", "surrogateescape")
    return attr.value


# Graphs ---------------------------------------------------------------------------------------------------------------


def subgraphs_of(node: ir.Node) -> Iterator[ir.Graph]:
    """The graphs among a node's own attributes: branches and bodies."""
    for attr in node.attributes.values():
        if attr.is_ref():
            continue
        if attr.type == ir.AttributeType.GRAPH:
            yield attr.as_graph()
        elif attr.type == ir.AttributeType.GRAPHS:
            yield from attr.as_graphs()


def captures(graph: ir.Graph) -> list[ir.Value]:
    """Values of outer scopes that a subgraph uses, its own subgraphs included, in the order of first use."""
    inside: set[ir.Value] = set()
    used: dict[ir.Value, None] = {}

    def visit(scope: ir.Graph) -> None:
        inside.update(scope.inputs)
        inside.update(scope.initializers.values())
        for node in scope:
            inside.update(node.outputs)
        for node in scope:
            used.update((value, None) for value in node.inputs if value is not None)
            for nested in subgraphs_of(node):
                visit(nested)

    visit(graph)
    return [value for value in used if value not in inside]
