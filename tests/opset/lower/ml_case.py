"""One node of ai.onnx.ml, run by omniop on a device and by onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

import omniop

DOMAIN = "ai.onnx.ml"
LATEST = 5


def _type(value: Any, named: str) -> onnx.ValueInfoProto:
    """The type of a feed: of an array, its dims open, or of a map."""
    if isinstance(value, dict):
        key, element = next(iter(value.items()))
        key_type = TensorProto.STRING if isinstance(key, str) else TensorProto.INT64
        kinds = {str: TensorProto.STRING, int: TensorProto.INT64, np.float64: TensorProto.DOUBLE}
        of_value = helper.make_tensor_type_proto(kinds.get(type(element), TensorProto.FLOAT), [])
        return helper.make_value_info(named, helper.make_map_type_proto(key_type, of_value))
    dtype = TensorProto.STRING if value.dtype == object else helper.np_dtype_to_tensor_dtype(value.dtype)
    return helper.make_tensor_value_info(named, dtype, [None] * value.ndim)


def model_of(
    op: str, inputs: Sequence[Any], opset: int, outputs: int, attrs: dict[str, Any], ir_version: int = 9
) -> onnx.ModelProto:
    names, wanted = [f"x{k}" for k in range(len(inputs))], [f"y{k}" for k in range(outputs)]
    protos = {n: numpy_helper.from_array(v) if isinstance(v, np.ndarray) else v for n, v in attrs.items()}
    node = helper.make_node(op, names, wanted, domain=DOMAIN, name="it", **protos)
    types = [_type(v, n) for v, n in zip(inputs, names, strict=True)]
    graph = helper.make_graph([node], "one", types, [onnx.ValueInfoProto(name=n) for n in wanted])
    imports = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, opset)]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir_version)


def run(
    op: str, inputs: Sequence[Any], device: str = "reference", opset: int = 3, outputs: int = 1, **attrs: Any
) -> list[Any]:
    """What omniop gives, without leaving the device."""
    session = omniop.load(model_of(op, inputs, opset, outputs, attrs), device, fallback="error")
    return list(session.run({f"x{k}": v for k, v in enumerate(inputs)}).values())


def onnxruntime_gives(op: str, inputs: Sequence[Any], opset: int = 3, outputs: int = 1, **attrs: Any) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    model = model_of(op, inputs, opset, outputs, attrs).SerializeToString()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(None, {f"x{k}": v for k, v in enumerate(inputs)})


def same(actual: Any, expected: Any, rtol: float = 1e-4, atol: float = 1e-6) -> None:
    """Same type, shape and values."""
    if isinstance(expected, list):
        assert isinstance(actual, list)
        assert [list(m) for m in actual] == [list(m) for m in expected]  # keys, in order
        actual, expected = (np.array([list(m.values()) for m in v]) for v in (actual, expected))
    expected = np.asarray(expected)
    if expected.dtype.kind in "UO":
        assert actual.dtype == object
        assert actual.tolist() == expected.tolist()
        return
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def agrees(
    op: str, inputs: Sequence[Any], device: str = "reference", opset: int = 3, outputs: int = 1, **attrs: Any
) -> None:
    """omniop gives what onnxruntime gives."""
    expected = onnxruntime_gives(op, inputs, opset, outputs, **attrs)
    for a, b in zip(run(op, inputs, device, opset, outputs, **attrs), expected, strict=True):
        same(a, b)
