"""Cases of our own, of kind ``edge``: what ONNX's cases leave out, and where backends go wrong.

``special``: NaN, infinities, zeros of both signs and extreme values, every pair of them for two inputs. ``empty``:
tensors without elements. ``ends``: sizes just beside those that vectors, groups and unrolled loops like, the value that
matters being the last. Expectations are onnx.reference's; the suite's own tests ask ONNX Runtime for a second opinion.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
from onnx import helper

_OPSET, _IR = 21, 10
Array = np.ndarray


class EdgeCase(NamedTuple):
    """A model of one node, and its feeds."""

    name: str
    model: onnx.ModelProto
    feeds: Mapping[str, Array]


def edge_cases() -> Iterator[EdgeCase]:
    """All of them; names are unique."""
    yield from _special()
    yield from _empty()
    yield from _ends()


def _case(name: str, op: str, inputs: Sequence[Array], **attributes: Any) -> EdgeCase:
    """The outputs' shapes are left open, and their dtypes to shape inference."""
    feeds = {f"x{k}": array for k, array in enumerate(inputs)}
    infos = [
        helper.make_tensor_value_info(key, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for key, array in feeds.items()
    ]
    node = helper.make_node(op, list(feeds), ["y"], **attributes)
    graph = helper.make_graph([node], name, infos, [onnx.ValueInfoProto(name="y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    inferred.graph.output[0].type.tensor_type.ClearField("shape")
    return EdgeCase(f"edge_{name}", inferred, feeds)


# -- special values --------------------------------------------------------------------------------------------------

_FLOATS = (np.float16, np.float32, np.float64)
_UNARY = (
    *("Abs", "Neg", "Floor", "Ceil", "Round", "Sqrt", "Reciprocal", "Identity", "IsNaN", "IsInf"),
    *("Exp", "Log", "Tanh", "Sigmoid", "Erf", "Atan", "Softsign", "Relu", "LeakyRelu"),
)
_BINARY = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual")
_REDUCE = ("ReduceMax", "ReduceMin", "ReduceSum", "ReduceProd", "ReduceMean")


def _values(dtype: Any) -> Array:
    """NaN and infinity first and last, so that a rule that looks at one side only is found out."""
    limits = np.finfo(dtype)
    found = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, -2.5, limits.max, limits.min, limits.tiny, np.nan]
    return np.array(found, dtype)


def _special() -> Iterator[EdgeCase]:
    for dtype in _FLOATS:
        values, tag = _values(dtype), np.dtype(dtype).name
        for op in _UNARY:
            if op not in ("IsInf", "Erf") or dtype is not np.float16:
                yield _case(f"{op.lower()}_special_{tag}", op, [values])
        left, right = (np.ascontiguousarray(a.reshape(-1)) for a in np.meshgrid(values, values))
        for op in _BINARY:
            yield _case(f"{op.lower()}_special_{tag}", op, [left, right])
        # A NaN at the start, in the middle, at the end, and nowhere.
        rows = np.arange(28, dtype=dtype).reshape(4, 7)
        rows[0, 0] = rows[1, 3] = rows[2, 6] = np.nan
        for op in _REDUCE:
            yield _case(f"{op.lower()}_special_{tag}", op, [rows, np.array([1], np.int64)])
    infinite = np.array([[np.inf, -np.inf, 1], [-np.inf, 1, 2]], np.float32)
    for op in ("ReduceMax", "ReduceMin", "ReduceSum"):
        yield _case(f"{op.lower()}_infinite_float32", op, [infinite, np.array([1], np.int64)])
    yield _case("softmax_minus_infinity_float32", "Softmax", [np.array([[-np.inf, 0, 1]], np.float32)])
    for tag in ("int8", "int32", "int64"):
        low, high = np.iinfo(tag).min, np.iinfo(tag).max
        pair = [np.array([low, high, high, low], tag), np.array([1, 1, high, -1], tag)]
        for op in ("Add", "Sub", "Mul"):
            yield _case(f"{op.lower()}_wraps_{tag}", op, pair)


# -- tensors without elements ----------------------------------------------------------------------------------------


def _empty() -> Iterator[EdgeCase]:
    none, some = np.zeros((0, 3), np.float32), np.arange(6, dtype=np.float32).reshape(2, 3)
    axes, index = np.array([0], np.int64), np.zeros((0,), np.int64)
    yield _case("relu_empty", "Relu", [none])
    yield _case("add_empty_broadcast", "Add", [none, some[:1]])
    yield _case("where_empty", "Where", [none > 0, none, some[:1]])
    yield _case("cast_empty", "Cast", [none], to=onnx.TensorProto.INT32)
    yield _case("transpose_empty", "Transpose", [none], perm=[1, 0])
    yield _case("concat_empty_first", "Concat", [none, some], axis=0)
    yield _case("concat_empty_last", "Concat", [some, none], axis=0)
    yield _case("concat_all_empty", "Concat", [none, none], axis=0)
    yield _case("gather_nothing", "Gather", [some, index])
    yield _case("slice_to_nothing", "Slice", [some, np.array([1], np.int64), np.array([1], np.int64), axes])
    yield _case("reshape_empty", "Reshape", [none, np.array([3, 0], np.int64)], allowzero=1)
    yield _case("expand_empty", "Expand", [none, np.array([2, 0, 3], np.int64)])
    yield _case("tile_by_zero", "Tile", [some, np.array([0, 2], np.int64)])
    yield _case("reducesum_empty", "ReduceSum", [none, axes])
    yield _case("reduceprod_empty", "ReduceProd", [none, axes])
    yield _case("reducemax_of_no_rows", "ReduceMax", [none, np.array([1], np.int64)])
    yield _case("argmax_of_no_rows", "ArgMax", [none], axis=1)
    yield _case("softmax_empty", "Softmax", [none], axis=1)
    yield _case("cumsum_empty", "CumSum", [none, np.array(0, np.int64)])
    yield _case("matmul_no_rows", "MatMul", [none, np.ones((3, 4), np.float32)])
    yield _case("matmul_over_nothing", "MatMul", [np.zeros((2, 0), np.float32), np.zeros((0, 3), np.float32)])
    yield _case("conv_no_batch", "Conv", [np.zeros((0, 2, 5, 5), np.float32), np.ones((3, 2, 3, 3), np.float32)])
    yield _case("nonzero_nowhere", "NonZero", [np.zeros((2, 3), np.float32)])
    yield _case("shape_empty", "Shape", [none])


# -- the ends of buffers ---------------------------------------------------------------------------------------------

_SIZES = (1, 2, 15, 17, 33, 63, 65, 129, 1023, 1025)


def _ends() -> Iterator[EdgeCase]:
    for n in _SIZES:
        rising, one = np.arange(n, dtype=np.float32), np.array([1], np.int64)
        rows = np.stack([rising, rising[::-1]])
        yield _case(f"add_ends_{n}", "Add", [rising, rising + 1])
        yield _case(f"add_ends_uint8_{n}", "Add", [np.arange(n).astype(np.uint8), np.ones(n, np.uint8)])
        yield _case(f"not_ends_{n}", "Not", [np.arange(n) % 3 == 0])
        yield _case(f"reducemax_ends_{n}", "ReduceMax", [rows, one])
        yield _case(f"reducesum_ends_{n}", "ReduceSum", [(rows == n - 1).astype(np.float32), one])
        yield _case(f"argmax_ends_{n}", "ArgMax", [rows], axis=1)
        yield _case(f"cumsum_ends_{n}", "CumSum", [rising % 5, np.array(0, np.int64)])
        yield _case(f"transpose_ends_{n}", "Transpose", [np.stack([rising] * 3)], perm=[1, 0])
        yield _case(f"gather_ends_{n}", "Gather", [rising, np.array([n - 1, 0, -1], np.int64)])
        yield _case(f"concat_ends_{n}", "Concat", [rising, rising[-1:] + 7], axis=0)
        yield _case(
            f"matmul_ends_{n}", "MatMul", [np.stack([rising, rising == n - 1]) / n, np.ones((n, 3), np.float32)]
        )
        yield _case(f"softmax_ends_{n}", "Softmax", [rows / n], axis=1)
