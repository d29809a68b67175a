"""One node of ONNX Runtime's own: what onnxruntime gives for it, what its lowering gives, and what devices give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
from evaluate import lower
from harness import same
from onnx import helper, numpy_helper

import omniop
from omniop.opset import contrib
from omniop.opset.nodes import attributes
from omniop.opset.schemas import schema_for

_rng = np.random.default_rng(7)


def normal(*shape: int) -> np.ndarray:
    return _rng.standard_normal(shape).astype(np.float32)


def positive(*shape: int) -> np.ndarray:
    return np.abs(normal(*shape)) + np.float32(0.1)


def uint8(*shape: int, top: int = 256) -> np.ndarray:
    return _rng.integers(0, top, shape).astype(np.uint8)


def int8(*shape: int) -> np.ndarray:
    """Of 7 bits: without VNNI, onnxruntime saturates sums of two products at 16 bits."""
    return _rng.integers(-64, 64, shape).astype(np.int8)


def coins(*shape: int) -> np.ndarray:
    """int32 of 0 and 1."""
    return (_rng.random(shape) > 0.3).astype(np.int32)


def f32(value: Any) -> np.ndarray:
    return np.asarray(value, np.float32)


def i32(*values: int) -> np.ndarray:
    return np.asarray(values, np.int32)


@dataclass(frozen=True, eq=False)
class Case:
    """One node. ``inputs``: None for one left out. ``outputs``: False for one left out, a TensorProto.DataType where
    onnxruntime cannot tell it. ``held``: the inputs that are initializers."""

    op: str
    inputs: Sequence[np.ndarray | None]
    attrs: dict[str, Any] = field(default_factory=dict)
    outputs: Sequence[bool | int] = (True,)
    domain: str = contrib.DOMAIN
    opset: int = 17
    held: Sequence[int] = ()
    rtol: float = 1e-4
    atol: float = 2e-5

    def model(self, dynamic: bool = True) -> onnx.ModelProto:
        names = [f"x{k}" if v is not None else "" for k, v in enumerate(self.inputs)]
        wanted = [f"y{k}" if w else "" for k, w in enumerate(self.outputs)]
        types = [
            helper.make_tensor_value_info(
                n, helper.np_dtype_to_tensor_dtype(v.dtype), [None] * v.ndim if dynamic else v.shape
            )
            for k, (n, v) in enumerate(zip(names, self.inputs, strict=True))
            if v is not None and k not in self.held
        ]
        results = [
            onnx.ValueInfoProto(name=n) if w is True else helper.make_tensor_value_info(n, int(w), None)
            for n, w in zip(wanted, self.outputs, strict=True)
            if n
        ]
        constants = [numpy_helper.from_array(self.inputs[k], names[k]) for k in self.held]
        node = helper.make_node(self.op, names, wanted, domain=self.domain, **self.attrs)
        graph = helper.make_graph([node], "one", types, results, constants)
        imports = [helper.make_opsetid("", self.opset), helper.make_opsetid(contrib.DOMAIN, 1)]
        return helper.make_model(graph, opset_imports=imports, ir_version=10)

    @property
    def feeds(self) -> dict[str, np.ndarray]:
        return {f"x{k}": v for k, v in enumerate(self.inputs) if v is not None and k not in self.held}

    def expected(self) -> list[np.ndarray]:
        """onnxruntime's outputs, on one thread and without rewriting."""
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        model = self.model(dynamic=False).SerializeToString()
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        return [np.asarray(y) for y in session.run(None, self.feeds)]

    def lowered(self, symbolic: bool) -> list[np.ndarray]:
        """The lowering's outputs, by the interpreter of traces."""
        schema = schema_for(self.domain, self.op, self.opset)
        node = next(iter(ir.serde.deserialize_model(self.model()).graph))
        inputs = list(self.inputs)
        while inputs and inputs[-1] is None:
            inputs.pop()
        values = attributes(node, schema)
        found = lower(self.op, schema.since_version, inputs, values, len(self.outputs), self.domain, symbolic)
        return [y for y, w in zip(found, self.outputs, strict=True) if w]

    def on(self, device: str) -> list[np.ndarray]:
        """A session's outputs on a device, without fallback."""
        session = omniop.load(self.model(), device=device, fallback="error")
        return [np.asarray(y) for y in session.run(self.feeds).values()]

    def agrees(self, found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> None:
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            same(a, b, self.rtol, self.atol)


def check(case: Case) -> None:
    """The lowering gives what onnxruntime gives, with symbolic and with constant dims."""
    expected = case.expected()
    for symbolic in (True, False):
        case.agrees(case.lowered(symbolic), expected)
