"""One ONNX node on the cpu, which takes its prim whole, against the reference device, which expands it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

import omniop


def model(
    op: str,
    inputs: Mapping[str, np.ndarray],
    weights: Mapping[str, np.ndarray] | None = None,
    *,
    then: Sequence[onnx.NodeProto] = (),
    outputs: int = 1,
    opset: int = 22,
    fixed: bool = False,
    **attributes: Any,
) -> onnx.ModelProto:
    """``inputs`` are fed, with dims that differ from run to run unless ``fixed``; ``then`` follows on output y0."""
    weights = weights or {}
    results = [f"y{k}" for k in range(outputs)]
    node = helper.make_node(op, [*inputs, *weights], results, **attributes)
    fed = [
        helper.make_tensor_value_info(
            name,
            helper.np_dtype_to_tensor_dtype(x.dtype),
            x.shape if fixed else [f"{name}{k}" for k in range(x.ndim)],
        )
        for name, x in inputs.items()
    ]
    wanted = [*results[1:], then[-1].output[0] if then else results[0]]
    made = [helper.make_tensor_value_info(name, onnx.TensorProto.UNDEFINED, None) for name in wanted]
    held = [numpy_helper.from_array(x, name) for name, x in weights.items()]
    graph = helper.make_graph([node, *then], "one", fed, made, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def check(
    proto: onnx.ModelProto, *feeds: Mapping[str, np.ndarray], prim: str, rtol: float = 1e-5, atol: float = 1e-5
) -> str:
    """One session for all ``feeds``; gives the text of explain()."""
    tested, expected = (omniop.load(proto, device=d, fallback="error") for d in ("cpu", "reference"))
    for feed in feeds:
        for name, y in expected.run(feed).items():
            same(tested.run(feed)[name], y, rtol, atol)
    text = str(tested.explain())
    assert f"{prim} taken whole" in text or f" for {prim}" in text
    return text


def same(actual: np.ndarray, expected: np.ndarray, rtol: float, atol: float) -> None:
    """Dtype, shape and values; NaN equals NaN."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    if actual.dtype.kind in "biu":
        np.testing.assert_array_equal(actual, expected)
    else:
        wide = np.float64
        np.testing.assert_allclose(actual.astype(wide), expected.astype(wide), rtol=rtol, atol=atol)


def normal(*shape: int, dtype: Any = np.float32, seed: int = 0) -> np.ndarray:
    return np.asarray(np.random.default_rng(seed).standard_normal(shape)).astype(dtype)


def whole(*shape: int, low: int = -9, high: int = 10, dtype: Any = np.int64, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, shape).astype(dtype)
