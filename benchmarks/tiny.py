"""Models so small that a run of them is what a call costs: chains of additions and products of 16 numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from benchmarks.measure import Task

CHAINS = {"call_1_node": 1, "call_100_nodes": 100}
_SHAPE = (1, 16)
_OPSET = 17


def chain(nodes: int, folder: Path) -> Task:
    """``nodes`` operators, each on the result of the one before; written into ``folder``."""
    ops = ("Add", "Mul")
    made = [helper.make_node(ops[k % 2], [f"t{k}", "b"], [f"t{k + 1}"]) for k in range(nodes)]
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, _SHAPE) for name in ("t0", "b", f"t{nodes}")]
    graph = helper.make_graph(made, "chain", values[:2], values[2:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
    path = folder / "chain.onnx"
    onnx.save(model, path)
    feeds = {"t0": np.linspace(-1, 1, 16, dtype=np.float32).reshape(_SHAPE), "b": np.full(_SHAPE, 0.9, np.float32)}
    return Task(f"call_{nodes}_node{'s' * (nodes > 1)}", path, feeds)
