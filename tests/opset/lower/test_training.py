"""Optimizers against onnx's reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from evaluate import lower
from harness import random, same
from onnx import helper
from onnx.reference import ReferenceEvaluator

import omniop
from omniop.opset.errors import ModelError
from omniop.opset.lower.training import DOMAIN
from omniop.opset.nodes import attributes
from omniop.opset.schemas import schema_for

STATES = {"Adagrad": 1, "Momentum": 1, "Adam": 2}
MOMENTUM = {"alpha": 0.9, "beta": 0.7, "norm_coefficient": 0.01, "mode": "standard"}
ATTRIBUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "adagrad": ("Adagrad", {"decay_factor": 0.1, "epsilon": 1e-5, "norm_coefficient": 0.01}),
    "adagrad-plain": ("Adagrad", {}),
    "momentum": ("Momentum", MOMENTUM),
    "nesterov": ("Momentum", {**MOMENTUM, "mode": "nesterov"}),
    "adam": ("Adam", {"norm_coefficient": 0.01, "norm_coefficient_post": 0.02}),
    "adam-fast": ("Adam", {"alpha": 0.0, "beta": 0.5}),
}


def inputs(op: str, steps: int, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    kinds = 2 + STATES[op]
    state = [np.asarray(np.abs(random(s, seed=k * 9 + n))) for k in range(kinds) for n, s in enumerate(shapes)]
    return [np.array(0.1, np.float32), np.array(steps, np.int64), *state]


def model(op: str, arrays: list[np.ndarray], attrs: dict[str, Any]) -> onnx.ModelProto:
    names = [f"x{k}" for k in range(len(arrays))]
    tensors = (len(arrays) - 2) // (2 + STATES[op])
    outputs = [f"y{k}" for k in range(tensors * (1 + STATES[op]))]
    types = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(a.dtype), [None] * a.ndim)
        for n, a in zip(names, arrays, strict=True)
    ]
    node = helper.make_node(op, names, outputs, domain=DOMAIN, **attrs)
    graph = helper.make_graph([node], "one", types, [helper.make_tensor_value_info(n, 1, None) for n in outputs])
    imports = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=9)


def reference(op: str, arrays: list[np.ndarray], attrs: dict[str, Any]) -> list[np.ndarray]:
    proto = model(op, arrays, attrs)
    return ReferenceEvaluator(proto).run(None, {f"x{k}": a for k, a in enumerate(arrays)})


@pytest.mark.parametrize(("op", "attrs"), ATTRIBUTES.values(), ids=ATTRIBUTES)
@pytest.mark.parametrize("steps", [0, 1, 1000])
@pytest.mark.parametrize("shapes", [[(5,)], [(2, 3), ()], [(0, 3), (1,), (4,)]], ids=str)
def test_as_the_reference(op: str, attrs: dict[str, Any], steps: int, shapes: list[tuple[int, ...]]) -> None:
    arrays = inputs(op, steps, shapes)
    node = next(iter(ir.serde.deserialize_model(model(op, arrays, attrs)).graph))
    given = attributes(node, schema_for(DOMAIN, op, 1))
    expected = reference(op, arrays, attrs)
    for symbolic in (True, False):
        found = lower(op, 1, arrays, given, len(expected), DOMAIN, symbolic)
        for a, b in zip(found, expected, strict=True):
            same(a, b.astype(np.float32))


@pytest.mark.parametrize("name", ["adagrad", "nesterov", "adam"])
def test_on_devices(name: str, device: str) -> None:
    op, attrs = ATTRIBUTES[name]
    arrays = inputs(op, 3, [(2, 3), (5,)])
    session = omniop.load(model(op, arrays, attrs), device=device, fallback="error")
    found = session.run({f"x{k}": a for k, a in enumerate(arrays)})
    for a, b in zip(found.values(), reference(op, arrays, attrs), strict=True):
        same(a, b.astype(np.float32))


def test_mistakes() -> None:
    arrays = inputs("Momentum", 0, [(3,)])
    with pytest.raises(ModelError, match="2 tensors behind R and T; each that is updated needs 3"):
        lower("Momentum", 1, arrays[:-1], MOMENTUM, 2, DOMAIN)
    with pytest.raises(ModelError, match=r"a gradient or a state is of shape \[2\], and \[3\] is needed"):
        lower("Momentum", 1, [*arrays[:-1], random((2,))], MOMENTUM, 2, DOMAIN, symbolic=False)
    with pytest.raises(ModelError, match="mode is 'wild'; known are standard, nesterov"):
        lower("Momentum", 1, arrays, {**MOMENTUM, "mode": "wild"}, 2, DOMAIN)
