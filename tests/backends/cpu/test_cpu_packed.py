"""Products with a constant matrix, which is packed once: against the same products of a fed one, and float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from one_node import check, model, normal, same
from onnx import helper, numpy_helper
from test_cpu_panels import ORDERS, close, run, width, window

import omniop
from omniop.backends.cpu import products

__all__ = ["width"]

SHAPES = [(1, 1, 1), (1, 300, 40), (5, 9, 16), (7, 5, 33), (13, 333, 150), (40, 1100, 65), (270, 3, 90)]


def in_panels(b: np.ndarray) -> np.ndarray:
    """``b[K, N]`` as `packed.layout` has it; what does not count is NaN."""
    panel = products.tile().width
    count = -(-b.shape[1] // panel)
    wide = np.full((b.shape[0], count * panel), np.nan, "f")
    wide[:, : b.shape[1]] = b
    return np.ascontiguousarray(wide.reshape(-1, count, panel).swapaxes(0, 1))


def product(a: np.ndarray, b: np.ndarray, pieces: int = 1) -> np.ndarray:
    c = np.full((*a.shape[:-1], b.shape[-1]), np.nan, "f")
    run(products.packed_product(window(a, 0), window(b, 1), window(c, 2)), [a, in_panels(b), c], pieces)
    return c


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_panels(shape: tuple[int, int, int], order: str, width: int) -> None:
    m, k, n = shape
    a, b = ORDERS[order](m, k), normal(k, n, seed=1)
    close(product(a, b), a.astype("d") @ b.astype("d"), abs(a) @ abs(b))


@pytest.mark.parametrize("rows", [1, 4, 15, 140])
@pytest.mark.parametrize("k", [512, 1536])
def test_rows_that_share_places_of_the_cache(rows: int, k: int) -> None:
    """A multiple of 2048 bytes apart: they are copied."""
    x, w = normal(rows, k), normal(k, 70, seed=1)
    found = omniop.load(model("MatMul", {"x": x}, {"w": w}), device="cpu").run({"x": x})["y0"]
    close(found, x.astype("d") @ w.astype("d"), abs(x) @ abs(w))


def test_a_split_changes_nothing() -> None:
    a, b = normal(300, 1024), normal(1024, 700)
    np.testing.assert_array_equal(product(a, b), product(a, b, pieces=5))


@pytest.mark.parametrize("n", [16, 21])
@pytest.mark.parametrize("m", [1, 3, 30])
def test_special_values_stay_where_they_are(m: int, n: int) -> None:
    a, b = normal(m, 40), normal(40, n)
    a[0, 7], b[5, n - 1], b[9, 0], b[3, 3], a[0, 8] = np.inf, np.nan, -np.inf, 1e-42, -0.0
    with np.errstate(invalid="ignore"):
        expected = a.astype("d") @ b.astype("d")
    np.testing.assert_allclose(product(a, b), expected, rtol=1e-4, atol=1e-5)


TAIL = [helper.make_node("Add", ["y0", "bias"], ["s"]), helper.make_node("Gelu", ["s"], ["z"])]


@pytest.mark.parametrize(
    ("op", "x", "weight", "attributes"),
    [
        ("MatMul", (1, 70), (70, 45), {}),
        ("MatMul", (2, 3, 70), (70, 45), {}),
        ("MatMul", (2, 3, 70), (1, 70, 45), {}),
        ("MatMul", (33, 512), (512, 45), {}),
        ("Gemm", (5, 70), (45, 70), {"transB": 1}),
        ("Gemm", (70, 5), (70, 45), {"transA": 1, "alpha": 0.5}),
    ],
)
def test_a_constant_and_a_fed_matrix_agree(
    op: str, x: tuple[int, ...], weight: tuple[int, ...], attributes: dict[str, Any]
) -> None:
    feeds, w, bias = {"x": normal(*x)}, normal(*weight, seed=1), numpy_helper.from_array(normal(45, seed=2), "bias")
    constant, fed = (
        model(op, feeds, {"w": w}, then=TAIL, **attributes),
        model(op, {**feeds, "w": w}, then=TAIL, **attributes),
    )
    for proto in (constant, fed):
        proto.graph.initializer.append(bias)
    text = check(constant, feeds, prim="contract", rtol=1e-4, atol=1e-5)
    assert "1 computed at load" in text
    session = omniop.load(fed, device="cpu")
    same(omniop.load(constant, device="cpu").run(feeds)["z"], session.run({**feeds, "w": w})["z"], 1e-4, 1e-5)


def test_a_computed_constant_is_packed_as_it_is_computed() -> None:
    """A transposed and scaled weight; the transposed one is an output, too, in its own order."""
    w = normal(45, 70)
    nodes = [
        helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
        helper.make_node("Mul", ["t", "t"], ["u"]),
        helper.make_node("MatMul", ["x", "u"], ["p"]),
        helper.make_node("MatMul", ["x", "t"], ["q"]),
        helper.make_node("MatMul", ["u", "w"], ["r"]),
    ]
    outputs = [helper.make_tensor_value_info(n, 1, None) for n in ("p", "q", "r", "u", "t")]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", 1, ["N", 70])], outputs, [numpy_helper.from_array(w, "w")]
    )
    x = normal(6, 70)
    session = omniop.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)]), device="cpu")
    found, square = session.run({"x": x}), (w * w).T.astype("d")
    expected = {"p": x @ square, "q": x @ w.T.astype("d"), "r": square @ w, "u": square, "t": w.T}
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-4)
