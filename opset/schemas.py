"""Schemas: which version of an operator an opset means, and operators that are defined by others (functions).

ONNX's own schemas, those of `omniop.opset.contrib`, and those of the composite ops in our domain ``omniop``, which
`omniop.opset.rewrite` makes of exporters' spellings. Ours are not registered with onnx: its registry belongs to the
process.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import onnx
import onnx_ir as ir
from onnx.defs import OpSchema

from omniop.opset import contrib
from omniop.opset.errors import UnsupportedError, meant
from omniop.opset.nodes import (
    Attributes,
    check_arity,
    declared_type,
    default_attributes,
    node_label,
    resolved_attributes,
)

COMPOSITE_DOMAIN = "omniop"
COMPOSITE_VERSION = 1

_Param = OpSchema.FormalParameter
_FLOATS = ("T", ["tensor(float16)", "tensor(bfloat16)", "tensor(float)", "tensor(double)"], "A floating-point type.")
_OPTIONAL = OpSchema.FormalParameterOption.Optional
_WINDOW = ("dilations", "kernel_shape", "pads", "strides")
_VARIADIC = OpSchema.FormalParameterOption.Variadic

_COMPOSITES = (
    OpSchema(
        "LayerNormalization",
        COMPOSITE_DOMAIN,
        COMPOSITE_VERSION,
        "Y = (X - mean) / sqrt(variance + epsilon) * Scale + B, mean and biased variance over the axes from `axis` "
        "on. Scale and B broadcast to X; left out they are 1 and 0. `stash_type` is the TensorProto.DataType in which "
        "the part before Scale is computed, its result then cast to X's type; 0 is X's own type.",
        inputs=[
            _Param("X", "T", "Any shape of rank 1 or more."),
            _Param("Scale", "T", "At most rank 1.", param_option=_OPTIONAL),
            _Param("B", "T", "At most rank 1.", param_option=_OPTIONAL),
        ],
        outputs=[_Param("Y", "T", "Of X's shape.")],
        type_constraints=[_FLOATS],
        attributes=[
            OpSchema.Attribute("axis", onnx.helper.make_attribute("axis", -1)),
            OpSchema.Attribute("epsilon", onnx.helper.make_attribute("epsilon", 1e-5)),
            OpSchema.Attribute("stash_type", onnx.helper.make_attribute("stash_type", 0)),
        ],
    ),
    OpSchema(
        "Gelu",
        COMPOSITE_DOMAIN,
        COMPOSITE_VERSION,
        "ai.onnx's Gelu for models of any opset: x/2 * (1 + erf(x/sqrt(2))), or with approximate = tanh "
        "x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 * x^3))).",
        inputs=[_Param("X", "T", "Any shape.")],
        outputs=[_Param("Y", "T", "Of X's shape.")],
        type_constraints=[_FLOATS],
        attributes=[OpSchema.Attribute("approximate", onnx.helper.make_attribute("approximate", "none"))],
    ),
    OpSchema(
        "ConvBatchNormalization",
        COMPOSITE_DOMAIN,
        COMPOSITE_VERSION,
        "(Conv(X, W, B) - mean) / sqrt(variance + epsilon) * scale + shift, one of each a channel, computed as a "
        "convolution by scaled weights.",
        inputs=[
            _Param("X", "T", "[N, C, ...]"),
            _Param("W", "T", "[M, C / group, ...]"),
            *(_Param(name, "T", "[M]") for name in ("scale", "shift", "mean", "variance")),
            _Param("B", "T", "[M]", param_option=_OPTIONAL),
        ],
        outputs=[_Param("Y", "T", "[N, M, ...]")],
        type_constraints=[_FLOATS],
        attributes=[
            OpSchema.Attribute("auto_pad", onnx.helper.make_attribute("auto_pad", "NOTSET")),
            *(OpSchema.Attribute(n, OpSchema.AttrType.INTS, required=False) for n in _WINDOW),
            OpSchema.Attribute("group", onnx.helper.make_attribute("group", 1)),
            OpSchema.Attribute("epsilon", onnx.helper.make_attribute("epsilon", 1e-5)),
        ],
    ),
    OpSchema(
        "Gradient",
        COMPOSITE_DOMAIN,
        COMPOSITE_VERSION,
        "The derivatives of the sum of `body`'s output by the first of its inputs, as many as there are outputs, at "
        "the values given: ai.onnx.preview.training's Gradient, which names the ends of that graph, with it cut out.",
        inputs=[_Param("Inputs", "T", "Of the body.", param_option=_VARIADIC, is_homogeneous=False)],
        outputs=[_Param("Outputs", "D", "Of the inputs' shapes.", param_option=_VARIADIC, is_homogeneous=False)],
        type_constraints=[
            ("T", [f"tensor({name})" for name in contrib.NUMBERS.split()], "Numbers."),
            ("D", _FLOATS[1], "A floating-point type."),
        ],
        attributes=[OpSchema.Attribute("body", OpSchema.AttrType.GRAPH, required=True)],
    ),
)


@cache
def _versions() -> dict[tuple[str, str], list[OpSchema]]:
    """Every schema by (domain, op), in ascending order of since-version."""
    table: dict[tuple[str, str], list[OpSchema]] = {}
    known = (*onnx.defs.get_all_schemas_with_history(), *_COMPOSITES, *contrib.SCHEMAS)
    for schema in sorted(known, key=lambda s: s.since_version):
        table.setdefault((schema.domain, schema.name), []).append(schema)
    return table


@cache
def schema_for(domain: str, op_type: str, opset_version: int) -> OpSchema:
    """The schema in force for an operator at an opset version ("" and "ai.onnx" are one domain).

    A version newer than onnx knows means the newest that it knows. A deprecated operator keeps its last schema.
    Raises UnsupportedError when there is none, with the versions that there are.
    """
    domain = "" if domain == "ai.onnx" else domain
    versions = _versions().get((domain, op_type), [])
    chosen = [s for s in versions if s.since_version <= opset_version]
    if chosen:
        return chosen[-1]
    shown = domain or "ai.onnx"
    if versions:
        since = ", ".join(str(s.since_version) for s in versions)
        raise UnsupportedError(f"{shown} has no {op_type} at opset {opset_version}; its versions are {since}")
    known = [name for where, name in _versions() if where == domain]
    close = meant(op_type, known) or "; a function in the model may define it"
    raise UnsupportedError(
        f"no schema is known for {op_type} of the domain {shown}, at opset {opset_version} or other{close}"
    )


def since_version(domain: str, op_type: str, opset_version: int) -> int:
    """The version since which the operator has been what it is at ``opset_version``. Raises as `schema_for`."""
    return schema_for(domain, op_type, opset_version).since_version


# Functions ------------------------------------------------------------------------------------------------------------


def function_body(
    node: ir.Node,
    opset_imports: Mapping[str, int],
    input_types: Sequence[onnx.TypeProto | None] = (),
    bound: Attributes | None = None,
) -> onnx.FunctionProto | None:
    """The body that defines the node's operator by others, written for the newest opset up to the one imported: its own
    ``opset_import`` says which. None when the operator has none, or none for these types.

    ``opset_imports``: of the graph or function that the node stands in. ``input_types``: of the node's inputs, None for
    an absent one; bodies that depend on their context need element types, some need shapes. By default what the model
    declares. ``bound``: as in `nodes.attributes`.
    Raises UnsupportedError when the operator has no schema, or onnx cannot build the body; ModelError when the node has
    not the inputs and outputs of its operator.
    """
    opset_version = opset_imports.get(node.domain, 1)
    schema = schema_for(node.domain, node.op_type, opset_version)
    check_arity(node, schema)
    body = _plain_body(schema, opset_version) or _context_body(node, schema, opset_version, input_types, bound)
    if body is not None and all(entry.domain for entry in body.opset_import):
        # The bodies of preview operators import their own domain alone.
        version = opset_imports.get("", onnx.defs.onnx_opset_version())
        body.opset_import.append(onnx.helper.make_opsetid("", version))
    return body


# onnx's type stubs lack what OpSchema offers on functions: hence Any.


def _plain_body(schema: Any, opset_version: int) -> onnx.FunctionProto | None:
    version = _newest(schema.function_opset_versions, opset_version) if schema.has_function else None
    if version is None:
        return None
    return _parse(schema.get_function_with_opset_version(version))


def _context_body(
    node: ir.Node,
    schema: Any,
    opset_version: int,
    input_types: Sequence[onnx.TypeProto | None],
    bound: Attributes | None,
) -> onnx.FunctionProto | None:
    if not schema.has_context_dependent_function:
        return None
    version = _newest(schema.context_dependent_function_opset_versions, opset_version)
    if version is None:
        return None
    types = input_types or [None if v is None else declared_type(v) for v in node.inputs]
    wire = [(t or onnx.TypeProto()).SerializeToString() for t in types]
    caller = _resolved_proto(node, bound).SerializeToString()
    try:
        built = schema.get_context_dependent_function_with_opset_version(version, caller, wire)
    except (RuntimeError, ValueError) as e:
        raise UnsupportedError(f"{node_label(node)}: onnx cannot build its body: {e}") from e
    body = _parse(built)
    # A builder that declines the types leaves what it has begun: nodes, without a signature.
    return body if body.node and body.output else None


def _parse(encoded: bytes) -> onnx.FunctionProto:
    body = onnx.FunctionProto()
    body.ParseFromString(encoded)
    return body


def _newest(versions: Sequence[int], limit: int) -> int | None:
    return max((v for v in versions if v <= limit), default=None)


def _resolved_proto(node: ir.Node, bound: Attributes | None) -> onnx.NodeProto:
    proto = ir.serde.serialize_node(node)
    if any(attr.is_ref() for attr in node.attributes.values()):
        del proto.attribute[:]
        proto.attribute.extend(map(ir.serde.serialize_attribute, resolved_attributes(node, bound).values()))
    return proto


def function_graph(
    node: ir.Node,
    opset_imports: Mapping[str, int],
    input_types: Sequence[onnx.TypeProto | None] = (),
    bound: Attributes | None = None,
) -> ir.Function | None:
    """`function_body` ready to be traced: references in it are replaced by the node's attributes or else the schema's
    defaults, so nothing is left to bind, and ``opset_imports`` holds every domain.

    Inputs and outputs go by position; the node may have fewer of either. Optional outputs that the node does not ask
    for are not computed: they are missing at the end, and elsewhere another output stands in their place.
    Raises as `function_body`.
    """
    body = function_body(node, opset_imports, input_types, bound)
    if body is None:
        return None
    _drop_absent_outputs(body)
    function = ir.serde.deserialize_function(body)
    schema = schema_for(node.domain, node.op_type, opset_imports.get(node.domain, 1))
    own_defaults = {name: attr for name, attr in function.attributes.items() if attr.value is not None}
    values = {**default_attributes(schema), **own_defaults, **resolved_attributes(node, bound)}
    for inner in function.all_nodes():
        resolved = resolved_attributes(inner, values)
        inner.attributes.clear()
        inner.attributes.update(resolved)
    return function


def _drop_absent_outputs(body: onnx.FunctionProto) -> None:
    made = {name for node in body.node for name in node.output} | set(body.input)
    outputs = list(body.output)
    while outputs and outputs[-1] not in made:
        outputs.pop()
    body.output[:] = [name if name in made else outputs[-1] for name in outputs]
