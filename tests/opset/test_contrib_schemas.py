"""The tables of `omniop.opset.contrib` say what onnxruntime's own schemas say, and each operator has a lowering."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
from onnx.defs import OpSchema
from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

from omniop.opset import contrib, lowering
from omniop.opset.errors import UnsupportedError
from omniop.opset.schemas import schema_for

THEIRS = {(s.domain, s.name): s for s in get_all_operator_schema() if s.since_version == 1}
COMPLEX = {"tensor(complex64)", "tensor(complex128)"}


def parameters(schema: Any, which: str) -> list[tuple[str, str, frozenset[str]]]:
    """(name, option, dtypes) of each; onnx's and onnxruntime's classes differ in how they spell the type."""
    types = {t.type_param_str: frozenset(t.allowed_type_strs) - COMPLEX for t in schema.type_constraints}
    found = []
    for p in getattr(schema, which):
        kind = p.type_str if hasattr(p, "type_str") else p.typeStr
        found.append((p.name, p.option.name, types.get(kind, frozenset({kind}))))
    return found


def default(attribute: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute) if attribute.type else None
    return pytest.approx(value, rel=1e-6) if isinstance(value, float) else value


@pytest.mark.parametrize("schema", contrib.SCHEMAS, ids=lambda s: s.name)
def test_says_what_onnxruntime_says(schema: OpSchema) -> None:
    other = THEIRS[schema.domain, schema.name]
    for which in ("inputs", "outputs"):
        assert parameters(schema, which) == parameters(other, which)
    assert (schema.min_input, schema.max_input) == (other.min_input, other.max_input)
    assert set(schema.attributes) == set(other.attributes)
    for name, attribute in schema.attributes.items():
        known = other.attributes[name]
        proto = onnx.AttributeProto.FromString(known._default_value)
        assert (attribute.type.name, attribute.required) == (known.type.name, known.required)
        assert default(attribute.default_value) == default(proto)


@pytest.mark.parametrize("schema", contrib.SCHEMAS, ids=lambda s: s.name)
def test_has_a_lowering(schema: OpSchema) -> None:
    assert lowering.find(schema.domain, schema.name, 1) is not None
    assert schema_for(schema.domain, schema.name, 1) is schema
    assert schema.doc


def test_a_lowering_of_the_domain_has_a_schema() -> None:
    known = {schema.name for schema in contrib.SCHEMAS if schema.domain == contrib.DOMAIN}
    assert {e.op_type for e in lowering.entries() if e.domain == contrib.DOMAIN} == known


def test_onnx_does_not_learn_of_them() -> None:
    assert not onnx.defs.has("FusedMatMul", 1, contrib.DOMAIN)


def test_others_are_unknown() -> None:
    with pytest.raises(UnsupportedError, match="no schema is known for BeamSearch of the domain com"):
        schema_for(contrib.DOMAIN, "BeamSearch", 1)
