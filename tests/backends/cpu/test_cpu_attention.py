"""Attention as one call of the cpu: in the spellings that it comes in, against float64 and against its parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from ml_dtypes import bfloat16
from one_node import normal, same
from onnx import helper, numpy_helper
from vector_widths import each_width

import omniop
from omniop.backends.cpu import BACKEND, attention, narrow, products
from omniop.backends.cpu.attention import AttentionCall
from omniop.backends.cpu.device import CpuDevice
from omniop.backends.cpu.memory import HostBuffer
from omniop.opset import expr
from omniop.opset.dtype import FLOAT32, DType, of_numpy
from omniop.opset.expr import Expr
from omniop.opset.kernel import Call, Param, View

DEVICE = BACKEND.devices()[0]
Feeds = dict[str, np.ndarray]


def attended(q: np.ndarray, k: np.ndarray, v: np.ndarray, scale: float, mask: Any = 0.0) -> np.ndarray:
    """In float64; q [..., M, d], k and v [..., N, d]."""
    scores = np.einsum("...md,...nd->...mn", q.astype("d"), k.astype("d")) * scale + mask
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True) @ v.astype("d"))


# The call -------------------------------------------------------------------------------------------------------------


width = each_width(products.tile, narrow.tile, attention._attention, attention._pack)


def heads(buffer: int, dtype: DType, shape: tuple[int, ...], strides: tuple[int, ...], group: int = 1) -> View:
    """A head's matrix, that of ``group`` heads where they share it."""
    head = expr.axis(0, shape[0])
    offset = (head if group == 1 else head // group) * strides[0]
    numbers = [tuple(map(expr.index, n)) for n in (shape, (0, *strides[1:]))]
    return View(buffer, dtype, numbers[0], numbers[1], offset)


def call(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, scores: Callable[..., Expr] | None, mask: np.ndarray, blank: bool
) -> np.ndarray:
    """q [M, heads, d], k and v [N, groups, d], of float32 or of bfloat16; gives [heads, M, d]."""
    dtype = of_numpy(q.dtype)
    (m, count, d), (n, groups, _) = q.shape, k.shape
    group = count // groups
    views = (
        heads(0, dtype, (count, m, d), (d, count * d, 1)),
        heads(1, dtype, (count, d, n), (d, 1, groups * d), group),
        heads(2, dtype, (count, n, d), (d, groups * d, 1), group),
    )
    numbers = [tuple(map(expr.index, x)) for x in ((count, m, d), (m * d, d, 1))]
    result = View(3, FLOAT32, numbers[0], numbers[1], expr.index(0))
    params = (*[Param(dtype)] * 3, Param(FLOAT32, True), Param(FLOAT32))
    axes = [expr.axis(i, e) for i, e in enumerate((count, m, n))]
    value = None if scores is None else scores(expr.hole(FLOAT32), *axes)
    work = AttentionCall(Call("attention", params, views, (result,), (("blank", blank),), 0, None, value), DEVICE.caps)
    out = np.full((count, m, d), np.nan, "f")
    work([HostBuffer.over(np.ascontiguousarray(x)) for x in (q, k, v, out, mask)], ())
    return out


SHAPES = [
    *(
        (1, 1, 1, 1, 1),
        (4, 2, 1, 33, 8),
        (3, 3, 5, 7, 20),
        (2, 1, 40, 129, 64),
        (1, 1, 13, 1100, 5),
        (2, 2, 100, 3, 17),
    ),
    *((3, 3, 4, 45, 48), (6, 2, 1, 50, 16), (1, 1, 2, 1030, 32)),  # few queries, whole vectors: nothing is packed
]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sizes(shape: tuple[int, ...], masked: bool, width: int) -> None:
    count, groups, m, n, d = shape
    q, k, v = (normal(*s, seed=i) for i, s in enumerate(((m, count, d), (n, groups, d), (n, groups, d))))
    q, mask = q / np.float32(d**0.5), normal(m, n, seed=3)

    def scores(hole: Expr, _: Expr, row: Expr, column: Expr) -> Expr:
        return hole * 0.3 + expr.load(4, (row * n + column,), FLOAT32)

    found = call(q, k, v, scores if masked else None, mask, False)
    share = [x.repeat(count // groups, axis=1).swapaxes(0, 1) for x in (k, v)]
    expected = attended(q.swapaxes(0, 1), *share, *((0.3, mask) if masked else (1.0,)))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_sizes_of_bfloat16(shape: tuple[int, ...], masked: bool, width: int) -> None:
    """Each weight is off by half a unit in its last place at most."""
    count, groups, m, n, d = shape
    sizes = ((m, count, d), (n, groups, d), (n, groups, d))
    q, k, v = (normal(*s, seed=i).astype(bfloat16) for i, s in enumerate(sizes))
    mask = normal(m, n, seed=3)

    def scores(hole: Expr, _: Expr, row: Expr, column: Expr) -> Expr:
        return hole * 0.3 + expr.load(4, (row * n + column,), FLOAT32)

    found = call(q, k, v, scores if masked else None, mask, False)
    queries, keys, values = (x.astype("d").swapaxes(0, 1) for x in (q, k, v))
    keys, values = (x.repeat(count // groups, axis=0) for x in (keys, values))
    given = (0.3, mask) if masked else (1.0,)
    allowed = attended(queries, keys, np.abs(values), *given) * 2**-8 + 2e-6
    assert (np.abs(found - attended(queries, keys, values, *given)) <= allowed).all()


@pytest.mark.parametrize("dtype", ["f", bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("blank", [False, True])
def test_special_values(blank: bool, dtype: Any) -> None:
    """Rows of -inf, of one inf, of NaN, and of what is far apart."""
    ones = (np.ones((count, 1, 1), dtype) for count in (5, 20))
    q, k, v = *ones, normal(20, 1, 1).astype(dtype)
    mask = np.zeros((5, 20), "f")
    mask[0], mask[1, 3], mask[2, 4], mask[3, ::2], mask[4, 7] = -np.inf, np.inf, np.nan, -np.inf, 3e38
    found = call(q, k, v, lambda hole, _, r, c: hole + expr.load(4, (r * 20 + c,), FLOAT32), mask, blank)[0, :, 0]
    with np.errstate(invalid="ignore"):
        expected = attended(q[:, 0], k[:, 0], v[:, 0], 1.0, mask)[:, 0]
    if blank:
        expected[0] = 0
    np.testing.assert_allclose(found, expected, rtol=1e-5)


# Models ---------------------------------------------------------------------------------------------------------------


def model(
    nodes: list[onnx.NodeProto], feeds: Feeds, constants: Feeds, outputs: list[str], sized: bool
) -> onnx.ModelProto:
    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(x.dtype), [f"{name}{i}" for i in range(x.ndim)] if sized else x.shape
        )
        for name, x in feeds.items()
    ]
    held = [numpy_helper.from_array(x, name) for name, x in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs, [helper.make_tensor_value_info(n, 1, None) for n in outputs], held)
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def check(
    nodes: list[onnx.NodeProto], feeds: Feeds, constants: Feeds, expected: np.ndarray, sized: bool = False
) -> None:
    """As one call; and as its parts, where something else reads its weights."""
    session = omniop.load(model(nodes, feeds, constants, ["y"], sized), device="cpu")
    found = session.run(feeds)["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert "attention(" in str(session.explain())
    weights = next((n.output[0] for n in nodes if n.op_type == "Softmax"), None)
    if weights is not None:
        parts = omniop.load(model(nodes, feeds, constants, ["y", weights], sized), device="cpu")
        same(found, parts.run(feeds)["y"], 1e-4, 1e-6)
        assert "attention(" not in str(parts.explain())


def qkv(batch: int, count: int, groups: int, m: int, n: int, d: int) -> Feeds:
    shapes = {"q": (batch, count, m, d), "k": (batch, groups, n, d), "v": (batch, groups, n, d)}
    return {name: normal(*shape, seed=seed) for seed, (name, shape) in enumerate(shapes.items())}


TAIL = [
    helper.make_node("Softmax", ["masked"], ["weights"], axis=-1),
    helper.make_node("MatMul", ["weights", "v"], ["y"]),
]
HEAD = [
    helper.make_node("Transpose", ["k"], ["kt"], perm=[0, 1, 3, 2]),
    helper.make_node("MatMul", ["q", "kt"], ["raw"]),
    helper.make_node("Div", ["raw", "root"], ["scaled"]),
]


@pytest.mark.parametrize("sized", [False, True])
@pytest.mark.parametrize("m", [1, 30])
def test_added_mask(m: int, sized: bool) -> None:
    feeds = {**qkv(2, 3, 3, m, 70, 16), "mask": normal(2, 1, 1, 70, seed=5)}
    nodes = [*HEAD, helper.make_node("Add", ["scaled", "mask"], ["masked"]), *TAIL]
    expected = attended(feeds["q"], feeds["k"], feeds["v"], 0.25, feeds["mask"])
    check(nodes, feeds, {"root": np.array(4, "f")}, expected, sized)


def test_mask_of_where_and_heads_in_one_buffer() -> None:
    """Heads taken apart by reshapes and transposes, joined again; a mask by Where."""
    feeds = {"x": normal(1, 40, 3 * 24), "seen": np.arange(40)[None, None, None] < 33}
    constants = {"parts": np.array([24] * 3), "apart": np.array([1, 40, 3, 8]), "root": np.array(8**0.5, "f")}
    constants |= {"least": np.array(np.finfo("f").min), "joined": np.array([1, 40, 24])}
    nodes = [helper.make_node("Split", ["x", "parts"], ["q3", "k3", "v3"], axis=2)]
    for name, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        nodes.append(helper.make_node("Reshape", [f"{name}3", "apart"], [f"{name}4"]))
        nodes.append(helper.make_node("Transpose", [f"{name}4"], ["kt" if name == "k" else name], perm=perm))
    nodes += [*HEAD[1:], helper.make_node("Where", ["seen", "scaled", "least"], ["masked"]), TAIL[0]]
    nodes.append(helper.make_node("MatMul", ["weights", "v"], ["z"]))
    nodes.append(helper.make_node("Transpose", ["z"], ["t"], perm=[0, 2, 1, 3]))
    nodes.append(helper.make_node("Reshape", ["t", "joined"], ["y"]))
    q, k, v = (p.reshape(1, 40, 3, 8).swapaxes(1, 2) for p in np.split(feeds["x"], 3, axis=2))
    expected = attended(q, k, v, 8**-0.5, np.where(feeds["seen"], 0, -np.inf)).swapaxes(1, 2).reshape(1, 40, 24)
    check(nodes, feeds, constants, expected)


@pytest.mark.parametrize("m", [1, 20])
def test_shared_heads_copied_out(m: int) -> None:
    """Keys and values expanded for each query head, as exporters write it: they are read where they were."""
    feeds = qkv(1, 6, 2, m, 50, 16)
    constants = {"two": np.array([2]), "wide": np.array([1, 2, 3, 50, 16]), "six": np.array([1, 6, 50, 16])}
    constants["root"] = np.array(4, "f")
    nodes = []
    for name in ("k", "v"):
        nodes.append(helper.make_node("Unsqueeze", [name, "two"], [f"{name}5"]))
        nodes.append(helper.make_node("Expand", [f"{name}5", "wide"], [f"{name}6"]))
        nodes.append(helper.make_node("Reshape", [f"{name}6", "six"], [f"{name}7"]))
    nodes += [helper.make_node("Transpose", ["k7"], ["kt"], perm=[0, 1, 3, 2]), *HEAD[1:]]
    nodes += [helper.make_node("Identity", ["scaled"], ["masked"]), TAIL[0]]
    nodes.append(helper.make_node("MatMul", ["weights", "v7"], ["y"]))
    k, v = (feeds[name].repeat(3, axis=1) for name in ("k", "v"))
    check(nodes, feeds, constants, attended(feeds["q"], k, v, 0.25))


@pytest.mark.parametrize("groups", [6, 2])
@pytest.mark.parametrize("causal", [0, 1])
def test_the_operator(causal: int, groups: int) -> None:
    feeds = qkv(2, 6, groups, 20, 31, 8)
    nodes = [helper.make_node("Attention", ["q", "k", "v"], ["y"], is_causal=causal)]
    k, v = (feeds[name].repeat(6 // groups, axis=1) for name in ("k", "v"))
    mask = np.where(np.tri(20, 31, dtype=bool), 0, -np.inf) if causal else 0.0
    check(nodes, feeds, {}, attended(feeds["q"], k, v, 8**-0.5, mask))


def test_the_operator_of_onnxruntime() -> None:
    feeds = {name: normal(2, 12, 24, seed=seed) for seed, name in enumerate("qkv")}
    nodes = [helper.make_node("MultiHeadAttention", ["q", "k", "v"], ["y"], domain="com.microsoft", num_heads=3)]
    q, k, v = (x.reshape(2, 12, 3, 8).swapaxes(1, 2) for x in feeds.values())
    check(nodes, feeds, {}, attended(q, k, v, 8**-0.5).swapaxes(1, 2).reshape(2, 12, 24))


def test_operands_are_rounded_where_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the weights with them: it stays one call."""
    monkeypatch.setattr(CpuDevice, "precisions", frozenset(("bf16",)))
    feeds = qkv(1, 2, 2, 40, 70, 16)
    nodes = [*HEAD, helper.make_node("Identity", ["scaled"], ["masked"]), *TAIL]
    session = omniop.load(model(nodes, feeds, {"root": np.array(4, "f")}, ["y"], False), device="cpu", precision="bf16")
    found = session.run(feeds)["y"]
    assert "attention(" in str(session.explain())
    q, k, v = (x.astype(bfloat16).astype("d") for x in feeds.values())
    allowed = attended(q, k, np.abs(v), 0.25) * 2**-8 + 2e-6
    assert (np.abs(found - attended(q, k, v, 0.25)) <= allowed).all()


def test_a_softmax_over_another_axis_is_none() -> None:
    feeds = qkv(1, 2, 2, 9, 9, 8)
    nodes = [*HEAD, helper.make_node("Softmax", ["scaled"], ["weights"], axis=-2), TAIL[1]]
    session = omniop.load(model(nodes, feeds, {"root": np.array(4, "f")}, ["y"], False), device="cpu")
    scores = feeds["q"].astype("d") @ feeds["k"].swapaxes(-1, -2) / 4
    weights = np.exp(scores) / np.exp(scores).sum(axis=-2, keepdims=True)
    np.testing.assert_allclose(session.run(feeds)["y"], weights @ feeds["v"], rtol=1e-4, atol=1e-5)
    assert "attention(" not in str(session.explain())
