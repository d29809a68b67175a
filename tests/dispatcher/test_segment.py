"""Tracing a segment: lowerings that find out late that they need elements."""

from __future__ import annotations

import numpy as np
import onnx

import omniop
from omniop.opset import prims as p
from omniop.opset.definitions import Tensor
from omniop.opset.dtype import INT64
from omniop.opset.lowering import Node, lowering


@lowering("SortThenTake", domain="tests.segment")
def sort_then_take(node: Node, x: Tensor, count: Tensor) -> Tensor:
    """The least ``count`` elements; asks for the count after it has recorded a prim."""
    values, _ = p.structured("sort", [x], [(x.shape, x.dtype), (x.shape, INT64)], descending=False)
    taken = node.read(count, "count")
    return p.narrow(values, 0, 0, taken.array.reshape(-1)[0])


def test_prims_before_a_late_read_are_placed() -> None:
    """The lowering runs twice in one trace; what the first try recorded is expanded and given a device all the same."""
    make = onnx.helper
    graph = make.make_graph(
        [make.make_node("SortThenTake", ["x", "n"], ["y"], domain="tests.segment")],
        "g",
        [
            make.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N"]),
            make.make_tensor_value_info("n", onnx.TensorProto.INT64, []),
        ],
        [make.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
    )
    opsets = [make.make_opsetid("", 21), make.make_opsetid("tests.segment", 1)]
    session = omniop.load(make.make_model(graph, opset_imports=opsets), device="reference", fallback="error")
    x = np.array([3, 1, 2, 5, 4], np.float32)
    for n in (2, 4):
        np.testing.assert_array_equal(session.run({"x": x, "n": np.array(n)})["y"], np.sort(x)[:n])
