"""Convolutions in blocked layouts against the cpu's own row-major way and sums in float64."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from one_node import model, normal
from onnx import helper, numpy_helper

import omniop
from omniop.backends.codegen.llvm_ir import Target
from omniop.backends.codegen.llvm_tiles import block_of
from omniop.backends.cpu import BACKEND, jit
from omniop.backends.cpu.blocked import channelwise, direct
from omniop.backends.cpu.blocked import specs as blocked_specs
from omniop.backends.cpu.blocked.specs import specs
from omniop.dispatcher.session import Session

GEOMETRIES: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "pointwise": ((2, 24, 5, 9), (40, 24, 1, 1), {}),
    "pointwise strided": ((1, 37, 7, 9), (64, 37, 1, 1), {"strides": [2, 2]}),
    "padded": ((2, 20, 9, 11), (40, 20, 3, 3), {"pads": [1, 1, 1, 1]}),
    "one line a tile": ((1, 16, 3, 33), (16, 16, 3, 3), {"pads": [1, 1, 1, 1]}),
    "uneven": ((1, 17, 8, 7), (33, 17, 2, 3), {"pads": [1, 0, 2, 3], "strides": [2, 3]}),
    "dilated": ((1, 20, 11, 12), (19, 20, 3, 2), {"dilations": [2, 3], "pads": [2, 1, 0, 2]}),
    "rows": ((2, 3, 15, 17), (33, 3, 7, 7), {"pads": [3, 3, 3, 3], "strides": [2, 2]}),
    "rows, patches": ((1, 4, 12, 8), (48, 4, 4, 4), {"strides": [4, 4]}),
    "groups": ((1, 64, 7, 7), (64, 32, 3, 3), {"group": 2, "pads": [1, 1, 1, 1]}),
    "window as large as the image": ((2, 16, 3, 5), (32, 16, 3, 5), {"pads": [0, 0, 1, 0]}),
    "1d": ((2, 17, 33), (40, 17, 5), {"pads": [2, 2], "strides": [2], "dilations": [2]}),
    "depthwise": ((2, 20, 9, 11), (20, 1, 3, 3), {"group": 20, "pads": [1, 1, 1, 1]}),
    "depthwise strided": ((1, 32, 9, 31), (32, 1, 5, 5), {"group": 32, "pads": [2, 2, 2, 2], "strides": [2, 2]}),
    "depthwise, more padding than window": (
        (1, 17, 3, 4),
        (17, 1, 5, 3),
        {"group": 17, "pads": [4, 2, 9, 7], "strides": [2, 1], "dilations": [2, 3]},
    ),
    "depthwise 7x7 on less": ((1, 16, 3, 2), (16, 1, 7, 7), {"group": 16, "pads": [3, 3, 3, 3]}),
    "1d depthwise": ((2, 33, 31), (33, 1, 3), {"group": 33, "pads": [1, 0], "strides": [2]}),
    "1d, rows": ((1, 1, 50), (16, 1, 9), {"pads": [4, 4]}),
}
WIDTHS = {"avx2": Target(256, frozenset((32, 64))), "sse2": Target(128, fma=False)}


@pytest.fixture
def width(request: pytest.FixtureRequest) -> Iterator[None]:
    """The kernels of another CPU in place of this one's."""
    own = {s.name: s for s in specs(jit.host_target())}
    others = specs(WIDTHS[request.param])
    for spec in own.values():
        BACKEND.kernels.remove(spec.op, spec.name)
    for spec in others:
        BACKEND.kernels.add(spec)
    yield
    for spec in others:
        BACKEND.kernels.remove(spec.op, spec.name)
    for spec in own.values():
        BACKEND.kernels.add(spec)


def in_float64(x: np.ndarray, w: np.ndarray, attributes: Mapping[str, Any]) -> np.ndarray:
    """The convolution by its definition."""
    rank = x.ndim - 2
    pads = attributes.get("pads", [0] * 2 * rank)
    steps, apart = attributes.get("strides", [1] * rank), attributes.get("dilations", [1] * rank)
    group = attributes.get("group", 1)
    padded = np.pad(x.astype(float), [(0, 0), (0, 0), *zip(pads[:rank], pads[rank:], strict=True)])
    outs = [
        (d - (k - 1) * a - 1) // s + 1 for d, k, a, s in zip(padded.shape[2:], w.shape[2:], apart, steps, strict=True)
    ]
    result = np.zeros((x.shape[0], w.shape[0], *outs))
    images = padded.reshape(x.shape[0], group, -1, *padded.shape[2:])
    filters = w.astype(float).reshape(group, -1, *w.shape[1:])
    for tap in itertools.product(*map(range, w.shape[2:])):
        places = [slice(t * a, t * a + (o - 1) * s + 1, s) for t, a, o, s in zip(tap, apart, outs, steps, strict=True)]
        part = images[(slice(None), slice(None), slice(None), *places)]
        result += np.einsum("ngc...,gmc->ngm...", part, filters[(..., *tap)]).reshape(result.shape)
    return result


def conv_relu(name: str, fixed: bool) -> tuple[onnx.ModelProto, dict[str, np.ndarray], np.ndarray]:
    """The model, a feed, and what it should give."""
    shape, weights, attributes = GEOMETRIES[name]
    x, w, b = normal(*shape), normal(*weights, seed=2), normal(weights[0], seed=3)
    proto = model(
        "Conv", {"x": x}, {"w": w, "b": b}, then=[helper.make_node("Relu", ["y0"], ["z"])], fixed=fixed, **attributes
    )
    if not fixed:
        proto.graph.input[0].type.tensor_type.shape.dim[1].dim_value = shape[1]
    bias = b.reshape(-1, *[1] * (len(shape) - 2))
    return proto, {"x": x}, np.maximum(in_float64(x, w, attributes) + bias, 0)


def tuned(session: Session) -> list[str]:
    return [n.route for n in session.explain().nodes if n.route.startswith("tuned kernel")]


def row_major(proto: onnx.ModelProto) -> Session:
    """A session on a cpu without tuned kernels."""
    taken = {op: BACKEND.kernels.of(op) for op in blocked_specs.PRIMS}
    for op, found in taken.items():
        for spec in found:
            BACKEND.kernels.remove(op, spec.name)
    try:
        return omniop.load(proto, device="cpu", fallback="error")
    finally:
        for found in taken.values():
            for spec in found:
                BACKEND.kernels.add(spec)


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_geometry(name: str, fixed: bool) -> None:
    """Dims of batch and space that the model fixes, and that a run gives."""
    proto, feeds, expected = conv_relu(name, fixed)
    session = omniop.load(proto, device="cpu", fallback="error")
    np.testing.assert_allclose(session.run(feeds)["z"], expected, rtol=1e-4, atol=1e-4)
    assert len(tuned(session)) == 1
    np.testing.assert_allclose(row_major(proto).run(feeds)["z"], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("width", WIDTHS, indirect=True)
@pytest.mark.parametrize("name", ["padded", "uneven", "rows", "groups", "1d", "depthwise strided"])
def test_narrower_vectors(width: None, name: str) -> None:
    proto, feeds, expected = conv_relu(name, False)
    session = omniop.load(proto, device="cpu", fallback="error")
    np.testing.assert_allclose(session.run(feeds)["z"], expected, rtol=1e-4, atol=1e-4)
    assert "8c" in tuned(session)[0]


def test_other_sizes_of_one_plan() -> None:
    """Tiles are cut anew for each size."""
    proto, _, _ = conv_relu("padded", False)
    w, b = (numpy_helper.to_array(i) for i in proto.graph.initializer)
    session = omniop.load(proto, device="cpu", fallback="error")
    for shape in ((1, 20, 3, 3), (3, 20, 16, 5), (1, 20, 40, 64), (2, 20, 1, 15), (1, 20, 7, 2)):
        x = normal(*shape)
        expected = np.maximum(in_float64(x, w, {"pads": [1] * 4}) + b.reshape(-1, 1, 1), 0)
        np.testing.assert_allclose(session.run({"x": x})["z"], expected, rtol=1e-4, atol=1e-4)
    assert session.run({"x": normal(0, 20, 7, 9)})["z"].shape == (0, 40, 7, 9)


EPILOGUES: dict[str, Sequence[tuple[str, dict[str, Any]]]] = {
    "clip": [("Clip", {})],
    "sigmoid": [("Sigmoid", {})],
    "hardswish": [("HardSwish", {})],
    "gelu": [("Gelu", {})],
}


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("name", EPILOGUES)
def test_epilogue(name: str, kernel: int) -> None:
    """Between two convolutions, with a residual: the whole network is two calls and the relayouts at its ends."""
    x = normal(1, 40, 7, 7)
    nodes = [helper.make_node("Conv", ["x", "w0", "b"], ["c"], pads=[kernel // 2] * 4)]
    nodes += [helper.make_node(op, ["c"], ["a"], **more) for op, more in EPILOGUES[name]]
    nodes += [
        helper.make_node("Conv", ["a", "w1"], ["d"]),
        helper.make_node("Add", ["d", "a"], ["s"]),
        helper.make_node("Conv", ["s", "w1"], ["z"]),
    ]
    held = {"w0": normal(40, 40, kernel, kernel) / 10, "b": normal(40), "w1": normal(40, 40, 1, 1) / 6}
    proto = model_of(nodes, {"x": x}, held)
    session = omniop.load(proto, device="cpu", fallback="error")
    actual = session.run({"x": x})["z"]
    expected = omniop.load(proto, device="reference").run({"x": x})["z"]
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(row_major(proto).run({"x": x})["z"], expected, rtol=1e-4, atol=1e-4)
    assert [s.kind for s in session.explain().kernels()] == ["relayout", "call", "call", "call", "relayout"]


def model_of(
    nodes: Sequence[onnx.NodeProto], feeds: Mapping[str, np.ndarray], held: Mapping[str, np.ndarray], result: str = "z"
) -> onnx.ModelProto:
    fed = [
        helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for k, v in feeds.items()
    ]
    made = [helper.make_tensor_value_info(result, onnx.TensorProto.UNDEFINED, None)]
    weights = [numpy_helper.from_array(np.float32(v), k) for k, v in held.items()]
    graph = helper.make_graph(nodes, "blocked", fed, made, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 22)], ir_version=10)


@pytest.mark.parametrize(("grouped", "columns"), [(False, (12, 24, 36)), (True, (48, 96, 144))])
def test_layers_share_tiles(grouped: bool, columns: Sequence[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of images and channels of other sizes, with a residual; the last block of channels is not full."""
    made: set[jit.MachineCode] = set()
    build = jit.build_printed

    def built(name: str, *arguments: Any, **options: Any) -> jit.MachineCode:
        code = build(name, *arguments, **options)
        if name.endswith("_tile"):
            made.add(code)
        return code

    monkeypatch.setattr(jit, "build_printed", built)
    for module in (direct, channelwise):
        module._tile_function.cache_clear()
    found: list[int] = []
    for channels, lines, width in zip((35, 67, 70), (4, 9, 3), columns, strict=True):
        x, attributes = normal(1, channels, lines, width), {"pads": [1, 0, 1, 0], "group": channels if grouped else 1}
        w = normal(channels, 1 if grouped else channels, 3, 1, seed=2) / 10
        nodes = [helper.make_node("Conv", [a, "w"], [b], **attributes) for a, b in ("xc", "cd")]
        nodes += [helper.make_node("Add", ["d", "c"], ["s"]), helper.make_node("Relu", ["s"], ["z"])]
        session = omniop.load(model_of(nodes, {"x": x}, {"w": w}), device="cpu", fallback="error")
        first = in_float64(x, w, attributes)
        expected = np.maximum(in_float64(first, w, attributes) + first, 0)
        np.testing.assert_allclose(session.run({"x": x})["z"], expected, rtol=1e-4, atol=1e-4)
        assert len(tuned(session)) == 2
        found.append(len(made))
    assert found[0] == found[1] == found[2] > 0


POOLS: dict[str, tuple[str, dict[str, Any]]] = {
    "max": ("MaxPool", {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    "max, up": ("MaxPool", {"kernel_shape": [2, 3], "strides": [2, 2], "ceil_mode": 1}),
    "average": ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    "average, all": ("AveragePool", {"kernel_shape": [3, 2], "pads": [1, 0, 1, 1], "count_include_pad": 1}),
    "average, up": ("AveragePool", {"kernel_shape": [2, 2], "strides": [3, 2], "ceil_mode": 1}),
}


@pytest.mark.parametrize("name", POOLS)
def test_pool(name: str) -> None:
    """After a convolution, in its layout; with NaN and infinity."""
    op, attributes = POOLS[name]
    x = normal(2, 20, 8, 9)
    x[0, 3, 4, 4], x[1, 7, 2, 2] = np.nan, -np.inf
    w = np.zeros((20, 20, 1, 1), np.float32)
    w[range(20), range(20)] = 1
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], group=1), helper.make_node(op, ["c"], ["z"], **attributes)]
    proto = model_of(nodes, {"x": x}, {"w": w[:, :, :, :]})
    session = omniop.load(proto, device="cpu", fallback="error")
    actual, expected = session.run({"x": x})["z"], row_major(proto).run({"x": x})["z"]
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)
    assert any("pool2d" in route for route in tuned(session))
    plain = omniop.load(proto, device="reference").run({"x": x})["z"]
    np.testing.assert_allclose(actual, plain, rtol=1e-5, atol=1e-6)


FOLLOWERS: dict[str, list[onnx.NodeProto]] = {
    "concat": [helper.make_node("Concat", ["a", "b"], ["m"], axis=1)],
    "concat of parts of blocks": [helper.make_node("Concat", ["b", "a"], ["m"], axis=1)],
    "resize": [
        helper.make_node(
            "Resize", ["a", "", "scales"], ["m"], mode="nearest", coordinate_transformation_mode="asymmetric"
        )
    ],
    "pad": [helper.make_node("Pad", ["a", "around"], ["m"])],
    "scale": [
        helper.make_node("GlobalAveragePool", ["a"], ["g"]),
        helper.make_node("Sigmoid", ["g"], ["s"]),
        helper.make_node("Mul", ["a", "s"], ["m"]),
    ],
    "transposed": [helper.make_node("ConvTranspose", ["a", "wt", "bt"], ["m"], strides=[2, 2])],
    "transposed, overlapping": [
        helper.make_node("ConvTranspose", ["a", "wt3"], ["m"], strides=[2, 1], pads=[1, 1, 0, 1], output_padding=[1, 0])
    ],
    "shuffle": [
        helper.make_node("Reshape", ["a", "split"], ["r"]),
        helper.make_node("Transpose", ["r"], ["t"], perm=[0, 2, 1, 3, 4]),
        helper.make_node("Reshape", ["t", "joined"], ["m"]),
    ],
}


@pytest.mark.parametrize("name", FOLLOWERS)
def test_between_convolutions(name: str) -> None:
    """What stands between two convolutions, at 32 and 20 channels."""
    x = normal(2, 18, 5, 6)
    held = {"wa": normal(32, 18, 3, 3) / 5, "wb": normal(20, 18, 1, 1), "wt": normal(32, 24, 2, 2), "bt": normal(24)}
    held |= {"wt3": normal(32, 17, 3, 3)}
    used = {n for node in FOLLOWERS[name] for n in node.input}
    nodes = [helper.make_node("Conv", ["x", "wa"], ["a"], pads=[1] * 4)]
    if "b" in used:
        nodes.append(helper.make_node("Conv", ["x", "wb"], ["b"]))
    channels = {"concat": 52, "concat of parts of blocks": 52, "transposed": 24, "transposed, overlapping": 17}
    held["wz"] = normal(16, channels.get(name, 32), 1, 1)
    nodes += [*FOLLOWERS[name], helper.make_node("Conv", ["m", "wz"], ["z"])]
    numbers: dict[str, np.ndarray] = {
        "scales": np.float32([1, 1, 2, 2]),
        "around": np.int64([0, 0, 1, 2, 0, 0, 3, 0]),
        "split": np.int64([2, 4, 8, 5, 6]),
        "joined": np.int64([2, 32, 5, 6]),
    }
    read = used | {"wa", "wz"} | ({"wb"} if "b" in used else set())
    proto = model_of(nodes, {"x": x}, {k: v for k, v in held.items() if k in read})
    proto.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in numbers.items() if k in used)
    session = omniop.load(proto, device="cpu", fallback="error")
    actual = session.run({"x": x})["z"]
    expected = omniop.load(proto, device="reference").run({"x": x})["z"]
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(row_major(proto).run({"x": x})["z"], expected, rtol=1e-4, atol=1e-4)
    if name != "shuffle":
        kinds = [s.kind for s in session.explain().kernels()]
        assert kinds.count("relayout") == 2, str(session.explain())


def test_special_values() -> None:
    """NaN and infinities stay in their windows; what pads a block of channels touches nothing."""
    w = normal(19, 19, 3, 5)  # Winograd's tiles, of 3 x 3 windows, share them
    x = normal(1, 19, 9, 9)
    x[0, 18, 2, 3], x[0, 5, 7, 7], x[0, 7, 0, 0] = np.nan, np.inf, 1e-42
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 2, 1, 2]),
        helper.make_node("Conv", ["c", "w"], ["z"], pads=[1, 2, 1, 2]),
    ]
    proto = model_of(nodes, {"x": x}, {"w": w})
    with np.errstate(all="ignore"):
        expected = in_float64(in_float64(x, w, {"pads": [1, 2, 1, 2]}), w, {"pads": [1, 2, 1, 2]})
    actual = omniop.load(proto, device="cpu", fallback="error").run({"x": x})["z"]
    np.testing.assert_array_equal(np.isfinite(actual), np.isfinite(expected))
    finite = np.isfinite(expected)
    np.testing.assert_allclose(actual[finite], expected[finite], rtol=1e-3, atol=1e-3)


def test_refusals() -> None:
    """Each says why, and the row-major way runs it."""
    reasons = {
        "weights": ({"x": normal(1, 32, 5, 5), "w": normal(32, 32, 1, 1)}, {}, {}),
        "channels": ({"x": normal(1, 32, 5, 5)}, {"w": normal(5, 32, 1, 1)}, {}),
        "group": ({"x": normal(1, 32, 5, 5)}, {"w": normal(32, 8, 1, 1)}, {"group": 4}),
        "pixels": ({"x": normal(1, 32, 1, 1)}, {"w": normal(32, 32, 1, 1)}, {}),
        "window": ({"x": normal(1, 512, 32, 32)}, {"w": normal(16, 512, 31, 31)}, {}),
    }
    for code, (feeds, held, attributes) in reasons.items():
        session = omniop.load(model("Conv", feeds, held, fixed=True, **attributes), device="cpu", fallback="error")
        session.run(feeds)
        (node,) = session.explain().nodes
        assert node.route == "conv taken whole"
        assert code in {r["code"] for r in node.rejected}


@pytest.mark.parametrize("group", [1, 20])
def test_batch_normalization(group: int) -> None:
    """It goes into the weights and the bias: what is left of it is one addition."""
    x = normal(2, 20, 7, 6)
    held = {"w": normal(20, 20 // group, 3, 3) / 5, "b": normal(20), "s": normal(20, seed=1), "h": normal(20, seed=2)}
    held |= {"m": normal(20, seed=3), "v": np.abs(normal(20, seed=4)) + 0.1}
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4, group=group),
        helper.make_node("BatchNormalization", ["c", "s", "h", "m", "v"], ["n"], epsilon=1e-3),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("Conv", ["r", "w", "b"], ["z"], group=group),
    ]
    proto = model_of(nodes, {"x": x}, held)
    session = omniop.load(proto, device="cpu", fallback="error")
    factor, across = (held["s"] / np.sqrt(held["v"] + 1e-3)), (1, 20, 1, 1)
    y = in_float64(x, held["w"], {"pads": [1] * 4, "group": group}) + held["b"].reshape(across)
    y = (y - held["m"].reshape(across)) * factor.reshape(across) + held["h"].reshape(across)
    expected = in_float64(np.maximum(y, 0), held["w"], {"group": group}) + held["b"].reshape(across)
    np.testing.assert_allclose(session.run({"x": x})["z"], expected, rtol=1e-4, atol=1e-4)
    texts = [s.what for s in session.explain().kernels() if s.kind == "call"]
    assert texts[0].endswith("then max((hole + 2[i1]), 0.0) -> NCHW16c".replace("16", str(block_of(jit.host_target()))))
