"""The prim ``conv``: dense, grouped and depthwise, in strips, with epilogues."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from one_node import check, model, normal, whole
from onnx import helper, numpy_helper

import omniop
from omniop.backends.cpu import conv

GEOMETRIES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "plain": ((1, 3, 7, 9), (4, 3, 3, 3), {}),
    "padded": ((2, 3, 7, 9), (5, 3, 3, 3), {"pads": [1, 1, 1, 1]}),
    "uneven": ((1, 2, 8, 7), (3, 2, 2, 3), {"pads": [1, 0, 2, 3], "strides": [2, 3]}),
    "dilated": ((1, 2, 11, 12), (3, 2, 3, 2), {"dilations": [2, 3], "pads": [2, 1, 0, 2]}),
    "all of it": (
        (3, 4, 13, 11),
        (6, 2, 3, 3),
        {"pads": [2, 1, 1, 0], "strides": [2, 2], "dilations": [2, 1], "group": 2},
    ),
    "pointwise": ((2, 5, 4, 6), (7, 5, 1, 1), {}),
    "pointwise padded": ((1, 5, 4, 6), (7, 5, 1, 1), {"pads": [1, 0, 0, 1]}),
    "pointwise strided": ((1, 4, 5, 7), (6, 2, 1, 1), {"strides": [2, 3], "group": 2}),
    "one place": ((2, 3, 3, 3), (4, 3, 3, 3), {}),
    "depthwise": ((2, 6, 9, 21), (6, 1, 3, 3), {"group": 6, "pads": [1, 1, 1, 1]}),
    "depthwise bare": ((1, 6, 9, 21), (6, 1, 3, 2), {"group": 6}),
    "depthwise strided": ((1, 5, 9, 10), (5, 1, 5, 3), {"group": 5, "strides": [2, 2], "pads": [2, 1, 2, 1]}),
    "depthwise dilated": ((1, 5, 9, 10), (5, 1, 3, 3), {"group": 5, "dilations": [3, 2], "pads": [3, 2, 3, 2]}),
    "depthwise wide": ((1, 3, 12, 12), (3, 1, 9, 9), {"group": 3, "pads": [4, 4, 4, 4]}),
    "multiplier": ((1, 3, 6, 5), (6, 1, 3, 3), {"group": 3}),
    "1d": ((2, 4, 17), (6, 2, 5), {"group": 2, "pads": [2, 2], "strides": [3]}),
    "1d depthwise": ((2, 4, 17), (4, 1, 5), {"group": 4, "pads": [4, 0]}),
    "3d": ((1, 2, 5, 6, 7), (3, 2, 3, 2, 3), {"pads": [1, 0, 1, 1, 1, 1], "strides": [2, 1, 2]}),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_geometry(name: str) -> None:
    """With bias and ReLU fused; the second shape has other strides, and more of everything."""
    shape, weights, attributes = GEOMETRIES[name]
    x, larger = normal(*shape), normal(shape[0] + 1, shape[1], *(d + 4 for d in shape[2:]), seed=1)
    held = {"w": normal(*weights, seed=2), "b": normal(weights[0], seed=3)}
    relu = [helper.make_node("Relu", ["y0"], ["z"])]
    text = check(
        model("Conv", {"x": x}, held, then=relu, **attributes), {"x": x}, {"x": larger}, prim="conv", atol=1e-4
    )
    assert "1 steps" in text


@pytest.mark.parametrize("name", ["padded", "depthwise"])
def test_bare(name: str) -> None:
    """No epilogue, sizes that are constants."""
    shape, weights, attributes = GEOMETRIES[name]
    x = normal(*shape)
    check(model("Conv", {"x": x}, {"w": normal(*weights)}, fixed=True, **attributes), {"x": x}, prim="conv", atol=1e-4)


@pytest.mark.parametrize("name", ["padded", "depthwise"])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_dtype(name: str, dtype: Any) -> None:
    shape, weights, attributes = GEOMETRIES[name]
    held = {"w": normal(*weights, dtype=dtype), "b": normal(weights[0], dtype=dtype)}
    x = normal(*shape, dtype=dtype)
    ulp = {2: float(ml_dtypes.finfo(dtype).eps), 8: 1e-12}[np.dtype(dtype).itemsize]
    check(model("Conv", {"x": x}, held, **attributes), {"x": x}, prim="conv", rtol=ulp, atol=4 * ulp)


def test_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns of one output row at a time give what all of them give."""
    monkeypatch.setattr(conv, "STRIP_BYTES", 1)
    shape, weights, attributes = GEOMETRIES["all of it"]
    x, w = normal(*shape, dtype=np.float64), normal(*weights, dtype=np.float64)
    check(model("Conv", {"x": x}, {"w": w}, **attributes), {"x": x}, prim="conv", atol=1e-12)


def test_transposed_input() -> None:
    """x is a view whose last axis does not lie in one run."""
    x, w = normal(2, 9, 8, 4), normal(4, 1, 3, 3)
    convolve = helper.make_node("Conv", ["y0", "w"], ["z"], group=4)
    proto = model("Transpose", {"x": x}, then=[convolve], perm=[0, 3, 1, 2])
    proto.graph.initializer.append(numpy_helper.from_array(w, "w"))
    text = check(proto, {"x": x}, prim="conv", atol=1e-4)
    assert "1 steps" in text


def test_fed_weights() -> None:
    """Weights that only a run knows."""
    feeds = {"x": normal(1, 3, 6, 7), "w": normal(4, 3, 3, 2)}
    larger = {"x": normal(2, 2, 9, 9), "w": normal(3, 2, 5, 1)}
    check(model("Conv", feeds), feeds, larger, prim="conv", atol=1e-4)


def test_integers() -> None:
    """Exact, where float32 would round."""
    x, w = whole(1, 40, 6, 6, low=0, high=256, dtype=np.uint8), whole(3, 40, 3, 3, low=0, high=256, dtype=np.uint8)
    check(model("ConvInteger", {"x": x}, {"w": w}, opset=10), {"x": x}, prim="conv")


# What panels make of it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["padded", "all of it", "pointwise", "depthwise", "depthwise strided", "3d"])
def test_epilogue_that_counts_lines(name: str) -> None:
    """A factor for each line and one for each column: pixels are no longer one run."""
    shape, weights, attributes = GEOMETRIES[name]
    x, held = normal(*shape), {"w": normal(*weights)}
    bare = model("Conv", {"x": x}, held, fixed=True, **attributes)
    extents = reference(bare, x).shape[-2:]
    factors = normal(extents[0], 1, seed=4), normal(extents[1], seed=5)
    then = [
        helper.make_node("Constant", [], ["down"], value=numpy_helper.from_array(factors[0])),
        helper.make_node("Constant", [], ["across"], value=numpy_helper.from_array(factors[1])),
        helper.make_node("Mul", ["y0", "down"], ["m"]),
        helper.make_node("Add", ["m", "across"], ["z"]),
    ]
    text = check(model("Conv", {"x": x}, held, fixed=True, then=then, **attributes), {"x": x}, prim="conv", atol=1e-4)
    assert "1 steps" in text


@pytest.mark.parametrize("name", ["padded", "pointwise", "depthwise", "1d"])
def test_image_with_channels_last(name: str) -> None:
    """Its lines are copied together first."""
    shape, weights, attributes = GEOMETRIES[name]
    rank = len(shape)
    x = normal(shape[0], *shape[2:], shape[1])
    move = helper.make_node("Transpose", ["x"], ["t"], perm=[0, rank - 1, *range(1, rank - 1)])
    proto = model("Conv", {"x": x}, {"w": normal(*weights)}, fixed=True, **attributes)
    proto.graph.node[0].input[0] = "t"
    proto.graph.node.insert(0, move)
    check(proto, {"x": x}, prim="conv", atol=1e-4)


@pytest.mark.parametrize("then", [[], [helper.make_node("Relu", ["y0"], ["z"])]], ids=["bare", "relu"])
def test_lines_of_one_pixel(then: list[Any]) -> None:
    x, w = normal(2, 5, 30, 1), normal(7, 5, 3, 1)
    check(model("Conv", {"x": x}, {"w": w}, fixed=True, then=then), {"x": x}, prim="conv", atol=1e-4)


@pytest.mark.parametrize("strides", [[1, 1], [2, 2], [3, 3]], ids=str)
def test_depthwise_in_several_blocks(strides: list[int]) -> None:
    """More lines, and more channels, than a block takes; some lines see nothing but padding."""
    x = normal(1, 40, 90, 130)
    held = {"w": normal(40, 1, 3, 3), "b": normal(40)}
    attributes = {"group": 40, "pads": [5, 1, 4, 1], "strides": strides}
    check(model("Conv", {"x": x}, held, **attributes), {"x": x}, prim="conv", atol=1e-4)


def test_depthwise_of_very_long_lines() -> None:
    """More than a thread's stack holds."""
    x = normal(1, 2, 300_000)
    check(model("Conv", {"x": x}, {"w": normal(2, 1, 5)}, group=2), {"x": x}, prim="conv", atol=1e-4)
    check(model("MaxPool", {"x": x}, kernel_shape=[5]), {"x": x}, prim="window_reduce")


def reference(proto: Any, x: np.ndarray) -> np.ndarray:
    result: np.ndarray = omniop.load(proto, device="reference").run({"x": x})["y0"]
    return result
