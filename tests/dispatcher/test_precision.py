"""``precision="bf16"``: products of rounded operands, in float32, and only where it was asked for."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import omniop
from omniop.backends.cpu import BACKEND, jit
from omniop.backends.cpu.device import CpuDevice

RANDOM = np.random.default_rng(1)
pytestmark = pytest.mark.usefixtures("has_bfloat16")


@pytest.fixture
def has_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the processor has no instruction for it, code does the same in several."""
    monkeypatch.setattr(CpuDevice, "precisions", frozenset(("bf16",)))


def model(nodes: list[onnx.NodeProto], shape: tuple[int | str, ...], **weights: np.ndarray) -> bytes:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(w, name) for name, w in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return proto.SerializeToString()


def normal(*shape: int) -> np.ndarray:
    return RANDOM.standard_normal(shape).astype("f")


def rounded(x: np.ndarray) -> np.ndarray:
    return x.astype(ml_dtypes.bfloat16).astype(float)


def run(source: bytes, x: np.ndarray, precision: str | None = "bf16") -> tuple[np.ndarray, str]:
    session = omniop.load(source, precision=precision)  # type: ignore[arg-type]  # one of them is wrong
    (y,) = session.run({"x": x}).values()
    return y, str(session.explain())


def assert_near(y: np.ndarray, exact: np.ndarray, terms: int) -> None:
    """As near as sums in float32 are."""
    np.testing.assert_allclose(y, exact, rtol=1e-5, atol=2e-6 * np.sqrt(terms))


@pytest.mark.parametrize("size", [(1, 64, 48), (33, 70, 40), (7, 5, 3)], ids=str)
def test_products(size: tuple[int, int, int]) -> None:
    rows, k, columns = size
    x, w, bias = normal(rows, k), normal(k, columns), normal(columns)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"]), helper.make_node("Add", ["p", "b"], ["y"])]
    source = model(nodes, x.shape, w=w, b=bias)
    y, explained = run(source, x)
    assert "of operands rounded to bfloat16" in explained
    assert_near(y, rounded(x) @ rounded(w) + bias, k)
    plain, explained = run(source, x, None)
    assert "rounded to bfloat16" not in explained
    assert np.abs(plain - x.astype(float) @ w - bias).max() < np.abs(y - x.astype(float) @ w - bias).max()


def test_both_operands_computed_and_seen_through_views() -> None:
    x = normal(2, 9, 3, 8)
    nodes = [
        helper.make_node("Transpose", ["x"], ["heads"], perm=[0, 2, 1, 3]),
        helper.make_node("Transpose", ["x"], ["turned"], perm=[0, 2, 3, 1]),
        helper.make_node("MatMul", ["heads", "turned"], ["y"]),
    ]
    y, _ = run(model(nodes, x.shape), x)
    heads = rounded(x).transpose(0, 2, 1, 3)
    assert_near(y, heads @ heads.swapaxes(2, 3), 8)


@pytest.mark.parametrize("rows", [1, 4, 5])
def test_a_matrix_that_few_rows_read_is_rounded_if_it_is_constant(rows: int) -> None:
    x, w = normal(1, 1, rows, 64), normal(64, 48)
    turned = helper.make_node("Transpose", ["x"], ["turned"], perm=[0, 1, 3, 2])
    computed = [turned, helper.make_node("MatMul", ["x", "turned"], ["y"])]
    y, explained = run(model(computed, x.shape), x)
    assert ("rounded to bfloat16" in explained) == (rows > 4)
    operand = x.astype(float) if rows <= 4 else rounded(x)
    assert_near(y, operand @ operand.swapaxes(2, 3), 64)
    _, explained = run(model([helper.make_node("MatMul", ["x", "w"], ["y"])], x.shape, w=w), x)
    assert "rounded to bfloat16" in explained


CHANNELS = {"few": (6, 8, 1), "few in groups": (6, 8, 2), "blocks": (32, 48, 1), "groups of blocks": (64, 64, 2)}
CHANNELS |= {"part of a block": (38, 40, 1), "one too many": (33, 48, 1), "a picture": (3, 48, 1), "two": (2, 16, 1)}


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("strides", [[1, 1], [2, 1]])
def test_convolutions(channels: str, strides: list[int]) -> None:
    """Of some channels into blocks of others; an odd number of them gets one of zeros."""
    depth, filters, group = CHANNELS[channels]
    x, w = normal(2, depth, 11, 13), normal(filters, depth // group, 3, 4)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 0, 2, 1], strides=strides, group=group),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    y, explained = run(model(nodes, x.shape, w=w), x)
    assert "of operands rounded to bfloat16" in explained
    x, w = (rounded(t).astype("f") for t in (x, w))
    given, _ = run(model(nodes, x.shape, w=w), x, None)
    assert_near(y, given, w[0].size)


def test_channels_that_only_the_feed_tells() -> None:
    x, w = rounded(normal(2, 3, 9, 9)).astype("f"), rounded(normal(16, 3, 3, 3)).astype("f")
    source = model([helper.make_node("Conv", ["x", "w"], ["y"])], ("n", "c", "h", "w"), w=w)
    y, explained = run(source, x)
    assert "of operands rounded to bfloat16" in explained
    assert_near(y, run(source, x, None)[0], 27)


def test_convolutions_of_signals_whose_result_is_rounded_for_the_next() -> None:
    x, w = rounded(normal(2, 32, 50)).astype("f"), rounded(normal(32, 32, 5)).astype("f")
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[2, 2]), helper.make_node("Conv", ["c", "w"], ["y"])]
    y, explained = run(model(nodes, x.shape, w=w), x)
    assert explained.count("of operands rounded to bfloat16") == 2
    middle, _ = run(model([helper.make_node("Conv", ["x", "w"], ["y"], pads=[2, 2])], x.shape, w=w), x, None)
    last = model([helper.make_node("Conv", ["x", "w"], ["y"])], middle.shape, w=w)
    exact, _ = run(last, rounded(middle).astype("f"), None)
    assert np.abs(y - exact).max() < 2.0**-8 * np.abs(exact).max()  # a sum in another order may round to the next one


def test_convolutions_that_float32_does_sooner() -> None:
    """By Winograd's algorithm."""
    x, w = normal(1, 64, 56, 56), normal(64, 64, 3, 3)
    source = model([helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])], x.shape, w=w)
    y, explained = run(source, x)
    assert "rounded to bfloat16" not in explained
    np.testing.assert_array_equal(y, run(source, x, None)[0])


@pytest.mark.parametrize("channels", [32, 1])
def test_windows_of_one_channel_stay_as_they_are(channels: int) -> None:
    x, w = normal(1, channels, 9, 9), normal(32, 1, 3, 3)
    source = model([helper.make_node("Conv", ["x", "w"], ["y"], group=channels)], x.shape, w=w)
    y, explained = run(source, x)
    assert "rounded to bfloat16" not in explained
    np.testing.assert_array_equal(y, run(source, x, None)[0])


def test_no_number_stays_none() -> None:
    x, w = normal(3, 16), normal(16, 16)
    x[0, 3], x[1, 15] = np.nan, np.inf
    y, _ = run(model([helper.make_node("MatMul", ["x", "w"], ["y"])], x.shape, w=w), x)
    assert np.isnan(y[0]).all()
    assert np.isinf(y[1]).all()
    assert np.isfinite(y[2]).all()


def test_plans_of_both_are_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIOP_CACHE_DIR", str(tmp_path))
    x, w = normal(20, 64), normal(64, 64)
    source = model([helper.make_node("MatMul", ["x", "w"], ["y"])], x.shape, w=w)
    first, second = run(source, x)[0], run(source, x, None)[0]
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_array_equal(run(source, x)[0], first)
    np.testing.assert_array_equal(run(source, x, None)[0], second)


def test_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    source = model([helper.make_node("Relu", ["x"], ["y"])], (2,))
    with pytest.raises(omniop.DeviceError, match="precision is 'bf16', or left out, not 'f8'"):
        run(source, normal(2), "f8")
    with pytest.raises(omniop.DeviceError, match="reference has no products of that"):
        omniop.load(source, device="reference", precision="bf16")
    monkeypatch.undo()
    monkeypatch.setattr(jit, "host_target", lambda: jit.target_of(frozenset(("avx2", "fma"))))
    assert not BACKEND.devices()[0].precisions


@pytest.mark.parametrize("shape", [(4, 6), (1, 64)], ids=str)
def test_bfloat16_of_its_own_needs_no_word(shape: tuple[int, int]) -> None:
    """A model in bfloat16: sums in float32, rounded once."""
    x, w = normal(*shape).astype(ml_dtypes.bfloat16), normal(shape[1], 32).astype(ml_dtypes.bfloat16)
    tensor = helper.make_tensor("w", TensorProto.BFLOAT16, w.shape, w.tobytes(), raw=True)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.BFLOAT16, shape)],
        [helper.make_tensor_value_info("y", TensorProto.BFLOAT16, None)],
        [tensor],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    (y,) = omniop.load(proto).run({"x": x}).values()
    exact = x.astype(float) @ w.astype(float)
    np.testing.assert_allclose(y.astype(float), exact, rtol=2.0**-8, atol=1e-4)
