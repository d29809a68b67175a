"""Lower one ONNX node, compute it in numpy, and compare with onnx's own reference or with a given result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from evaluate import lower
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from omniop.opset import lowering, prims, trace
from omniop.opset.dtype import DType
from omniop.opset.lowering import HostValue, Node

LATEST = 28


def python_value(attribute: onnx.AttributeProto) -> Any:
    """An attribute as lowerings see it."""
    value = helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode()
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def schema_and_attributes(op: str, opset: int, attrs: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """The since-version in force, and the attributes with the schema's defaults filled in."""
    schema = onnx.defs.get_schema(op, opset)
    defaults = {n: python_value(a.default_value) for n, a in schema.attributes.items() if a.default_value.type}
    return schema.since_version, defaults | attrs


def run(op: str, inputs: Sequence[Any], opset: int = LATEST, outputs: int = 1, **attrs: Any) -> list[Any]:
    """Outputs of the lowering; checked to be the same with symbolic and with constant dims."""
    since, attributes = schema_and_attributes(op, opset, attrs)
    symbolic, static = (lower(op, since, list(inputs), attributes, outputs, symbolic=s) for s in (True, False))
    for a, b in zip(symbolic, static, strict=True):
        same(a, b, rtol=0, atol=0)
    return symbolic


def reference(op: str, inputs: Sequence[Any], opset: int = LATEST, outputs: int = 1, **attrs: Any) -> list[Any]:
    """What onnx's reference gives."""
    names = [f"x{k}" if v is not None else "" for k, v in enumerate(inputs)]
    wanted = [f"y{k}" for k in range(outputs)]
    protos = {n: numpy_helper.from_array(v) if isinstance(v, np.ndarray) else v for n, v in attrs.items()}
    node = helper.make_node(op, names, wanted, **protos)
    types = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for n, v in zip(names, inputs, strict=True)
        if v is not None
    ]
    results = [helper.make_tensor_value_info(n, onnx.TensorProto.UNDEFINED, None) for n in wanted]
    model = helper.make_model(
        helper.make_graph([node], "one", types, results), opset_imports=[helper.make_opsetid("", opset)]
    )
    feeds = {n: v for n, v in zip(names, inputs, strict=True) if v is not None}
    return [np.asarray(y) for y in ReferenceEvaluator(model).run(None, feeds)]


def same(actual: np.ndarray, expected: np.ndarray, rtol: float = 1e-5, atol: float = 1e-6) -> None:
    """Same dtype, shape and values; NaN and infinities count as values."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    if actual.dtype.kind in "biu":
        np.testing.assert_array_equal(actual, expected)
    else:
        np.testing.assert_allclose(actual.astype(np.float64), expected.astype(np.float64), rtol=rtol, atol=atol)


def check(
    op: str,
    inputs: Sequence[Any],
    opset: int = LATEST,
    outputs: int = 1,
    rtol: float = 1e-5,
    atol: float = 1e-6,
    **attrs: Any,
) -> None:
    """The lowering agrees with onnx's reference."""
    expected = reference(op, inputs, opset, outputs, **attrs)
    for a, b in zip(run(op, inputs, opset, outputs, **attrs), expected, strict=True):
        same(a, b, rtol, atol)


def traced(
    op: str, inputs: Sequence[Any], opset: int = LATEST, outputs: int = 1, **attrs: Any
) -> tuple[Any, trace.Trace]:
    """The lowering's result, not computed, and its trace. A (shape, dtype) pair is an input with symbolic dims."""
    since, attributes = schema_and_attributes(op, opset, attrs)
    entry = lowering.find("", op, since)
    assert entry is not None
    tr = trace.Trace()
    with trace.tracing(tr):
        values = [_symbolic(tr, k, v) if isinstance(v, tuple) else v for k, v in enumerate(inputs)]
        node = Node(op, "", since, op, attributes, values, (True,) * outputs)
        return entry.function(node, *values), tr


def _symbolic(tr: trace.Trace, number: int, value: tuple[Sequence[int], DType]) -> prims.Tensor:
    shape, dtype = value
    return prims.source(f"x{number}", [tr.env.symbol(f"d{number}_{a}", n) for a, n in enumerate(shape)], dtype)


def host(values: Any, dtype: DType) -> HostValue:
    """A host value of a nested list, SymInts included."""
    return HostValue(np.asarray(values, dtype=object), dtype)


def random(shape: Sequence[int], dtype: Any = np.float32, seed: int = 0, scale: float = 3.0) -> np.ndarray:
    """Normal numbers for floats; whole numbers of both signs, or from 0 up, for integers; coins for bool."""
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype).kind
    if kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if kind in "iu":
        return rng.integers(0 if kind == "u" else -9, 10, shape).astype(dtype)
    return np.asarray(rng.standard_normal(shape) * scale).astype(dtype)
