"""What onnxruntime gives for one ONNX node, to compare a lowering with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
from harness import LATEST, run, same
from onnx import helper


def onnxruntime_gives(op: str, inputs: Sequence[Any], opset: int, outputs: int = 1, **attrs: Any) -> list[np.ndarray]:
    """The node's outputs; None among ``inputs`` is an absent one."""
    names = [f"x{k}" if v is not None else "" for k, v in enumerate(inputs)]
    wanted = [f"y{k}" for k in range(outputs)]
    given = {n: v for n, v in zip(names, inputs, strict=True) if v is not None}
    types = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in given.items()
    ]
    results = [onnx.ValueInfoProto(name=n) for n in wanted]
    graph = helper.make_graph([helper.make_node(op, names, wanted, **attrs)], "one", types, results)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(y) for y in session.run(None, given)]


def agrees(
    op: str,
    inputs: Sequence[Any],
    opset: int = 21,
    outputs: int = 1,
    rtol: float = 1e-4,
    atol: float = 1e-5,
    **attrs: Any,
) -> None:
    """The lowering gives what onnxruntime gives."""
    expected = onnxruntime_gives(op, inputs, opset, outputs, **attrs)
    for a, b in zip(run(op, inputs, min(opset, LATEST), outputs, **attrs), expected, strict=True):
        same(a, b, rtol, atol)
