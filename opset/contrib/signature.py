"""A schema from one line: ``"A:T B:T C?:T rest*:V -> Y:T"`` and the attributes by name.

``?`` marks an optional parameter, ``*`` a variadic one whose members may differ in type. A type that ``types`` does not
name is a dtype itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx
from onnx.defs import OpSchema

DOMAIN = "com.microsoft"

FLOATS = "float16 float bfloat16"
REALS = "float16 float double bfloat16"
BYTES = "uint8 int8"
NUMBERS = "uint8 uint16 uint32 uint64 int8 int16 int32 int64 float16 float double bfloat16 bool"

_OPTIONS = {
    "": OpSchema.FormalParameterOption.Single,
    "?": OpSchema.FormalParameterOption.Optional,
    "*": OpSchema.FormalParameterOption.Variadic,
}
_NAMES: dict[object, str] = {int: "INT", float: "FLOAT", str: "STRING", list[int]: "INTS", list[float]: "FLOATS"}
_NAMES[list[str]] = "STRINGS"


class Required:
    """An attribute of a type that has to be given. A type itself means one that may be left out, without a default."""

    def __init__(self, kind: Any) -> None:
        self.kind = kind


def schema(
    name: str, signature: str, doc: str, types: Mapping[str, str], domain: str = DOMAIN, **attributes: Any
) -> OpSchema:
    """The schema of ``domain``'s operator since version 1. An attribute is its default value, a type (int, float, str,
    list[int], ...) where it has none, or `Required`.

    ``types``: the dtypes that each type variable of the signature stands for, as TensorProto calls them.
    """
    inputs, _, outputs = signature.partition("->")
    return OpSchema(
        name,
        domain,
        1,
        doc,
        inputs=[_parameter(text, types) for text in inputs.split()],
        outputs=[_parameter(text, types) for text in outputs.split()],
        type_constraints=[(t, [f"tensor({d})" for d in dtypes.split()], "") for t, dtypes in types.items()],
        attributes=[_attribute(key, value) for key, value in attributes.items()],
    )


def _parameter(text: str, types: Mapping[str, str]) -> OpSchema.FormalParameter:
    label, _, kind = text.partition(":")
    name, mark = (label[:-1], label[-1]) if label[-1] in "?*" else (label, "")
    return OpSchema.FormalParameter(
        name,
        kind if kind in types else f"tensor({kind})",
        param_option=_OPTIONS[mark],
        is_homogeneous=mark != "*",
    )


def _attribute(name: str, value: Any) -> OpSchema.Attribute:
    required = isinstance(value, Required)
    kind = value.kind if required else value
    if kind in _NAMES:
        return OpSchema.Attribute(name, getattr(OpSchema.AttrType, _NAMES[kind]), required=required)
    return OpSchema.Attribute(name, onnx.helper.make_attribute(name, value))
