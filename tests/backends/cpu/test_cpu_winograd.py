"""Winograd's convolution: against float64 and a direct sum in float32, at every width of vectors."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.lib.stride_tricks import sliding_window_view
from onnx import helper, numpy_helper

import omniop
from omniop.backends.base import Caps, No, OpContext, TensorType
from omniop.backends.codegen.llvm_ir import Target
from omniop.backends.codegen.llvm_tiles import block_of
from omniop.backends.codegen.winograd import F2, F4, Matrix, Winograd
from omniop.backends.cpu import BACKEND, jit, recording
from omniop.backends.cpu.blocked import winograd_specs
from omniop.backends.cpu.blocked.winograd import WinogradConv, WinogradFilters, transformed_shape
from omniop.backends.cpu.memory import HostBuffer
from omniop.backends.cpu.program import Program, Recorded
from omniop.dispatcher.session import Session
from omniop.opset import expr
from omniop.opset.dtype import FLOAT32
from omniop.opset.kernel import Call, Param, View
from omniop.opset.layout import blocked as blocked_layout

WIDTHS = {128: Target(128, fma=False), 256: Target(256, frozenset((32, 64))), 512: Target(512, frozenset((32, 64)))}
ALGORITHMS = pytest.mark.parametrize("algorithm", [F2, F4], ids=lambda a: a.name)
WAYS = pytest.mark.parametrize(
    ("algorithm", "anew"),
    [(F2, False), (F4, False), *((a, True) for a in winograd_specs.ANEW)],
    ids=lambda v: v.name if isinstance(v, Winograd) else "anew" if v else "once",
)
"""Filters are transformed once, or in each run."""

Pads = tuple[int, int, int, int]
ONES: Pads = (1, 1, 1, 1)


@pytest.fixture(params=WIDTHS)
def width(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Vectors of so many bits; LLVM makes them of what this CPU has."""
    monkeypatch.setattr(jit, "host_target", lambda: WIDTHS[request.param])
    return int(request.param)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype("f")


def blocked(x: np.ndarray) -> np.ndarray:
    """``[N, C / block, H, W, block]``, of which what is no channel is NaN."""
    n, c, h, w = x.shape
    block = block_of(jit.host_target())
    wide = np.full((n, -(-c // block) * block, h, w), np.nan, "f")
    wide[:, :c] = x
    return np.ascontiguousarray(wide.reshape(n, -1, block, h, w).transpose(0, 1, 3, 4, 2))


def plain(y: np.ndarray, channels: int) -> np.ndarray:
    n, blocks, h, w, block = y.shape
    return y.transpose(0, 1, 4, 2, 3).reshape(n, blocks * block, h, w)[:, :channels]


def call_of(prim: str, *shapes: tuple[int, ...], **attributes: Any) -> Call:
    """Operands and a result, each in a buffer of its own."""
    views = [
        View(k, FLOAT32, *(tuple(map(expr.index, v)) for v in (shape, [0] * len(shape))), expr.index(0))
        for k, shape in enumerate(shapes)
    ]
    params = tuple(Param(FLOAT32, k == len(shapes) - 1) for k in range(len(shapes)))
    return Call(prim, params, tuple(views[:-1]), tuple(views[-1:]), tuple(attributes.items()))


def transformed(w: np.ndarray, algorithm: Winograd) -> np.ndarray:
    target = jit.host_target()
    u = np.full(transformed_shape(target, algorithm, w.shape), np.nan, "f")
    work = WinogradFilters(call_of("filters", w.shape, u.shape), target, algorithm)
    work([HostBuffer.over(a) for a in (w, u)], ())
    return u


def convolved(x: np.ndarray, w: np.ndarray, pads: Pads, dtype: str = "d") -> np.ndarray:
    """From the definition; what is negative of ``pads`` is cut off."""
    more, less = np.maximum(pads, 0), np.maximum(np.negative(pads), 0)
    x = np.pad(x.astype(dtype), ((0, 0), (0, 0), more[::2], more[1::2]))
    x = x[..., less[0] : x.shape[2] - less[2], less[1] : x.shape[3] - less[3]]
    result: np.ndarray = np.einsum("nchwij,ocij->nohw", sliding_window_view(x, (3, 3), axis=(2, 3)), w.astype(dtype))
    return result


def paneled(w: np.ndarray) -> np.ndarray:
    """``[M / width, C, 3, 3, width]``, of which what is no filter is NaN."""
    width = transformed_shape(jit.host_target(), F4, w.shape)[-1]
    wide = np.full((-(-len(w) // width) * width, *w.shape[1:]), np.nan, "f")
    wide[: len(w)] = w
    return np.ascontiguousarray(wide.reshape(-1, width, *w.shape[1:]).transpose(0, 2, 3, 4, 1))


def run(
    algorithm: Winograd, x: np.ndarray, w: np.ndarray, pads: Pads, threads: int = 1, *, anew: bool = False
) -> np.ndarray:
    """Nothing is written outside of the result."""
    target = jit.host_target()
    shape = (len(x), len(w), x.shape[2] + pads[0] + pads[2] - 2, x.shape[3] + pads[1] + pads[3] - 2)
    held = (shape[0], -(-shape[1] // block_of(target)), *shape[2:], block_of(target))
    around = np.full(int(np.prod(held)) + 32, 7, "f")
    u = paneled(w) if anew else transformed(w, algorithm)
    call = call_of("conv", x.shape, w.shape if anew else u.shape, shape, pads=pads)
    work = WinogradConv(call, target, blocked_layout(4, 1, block_of(target)), algorithm, anew=anew)
    program = Program([Recorded((0, 1, 2), work.record(()))], threads)
    program([HostBuffer.over(a) for a in (blocked(x), u, around[16:])])
    assert (around[:16] == 7).all()
    assert (around[-16:] == 7).all()
    return plain(around[16:-16].reshape(held), len(w))


def close(actual: np.ndarray, x: np.ndarray, w: np.ndarray, pads: Pads) -> None:
    """Within some roundings of the largest sum of magnitudes, since a tile shares its errors."""
    magnitude = convolved(abs(x), abs(w), pads).max()
    assert np.abs(actual - convolved(x, w, pads)).max() <= 2.0**-20 * magnitude


SHAPES: dict[str, tuple[tuple[int, int, int, int], int, Pads]] = {
    "one pixel": ((1, 16, 1, 1), 16, ONES),
    "one tile": ((1, 16, 4, 4), 16, ONES),
    "line": ((1, 5, 1, 37), 20, ONES),
    "three channels": ((1, 3, 9, 10), 7, ONES),
    "odd": ((2, 17, 13, 11), 33, ONES),
    "bare": ((2, 16, 9, 14), 32, (0, 0, 0, 0)),
    "uneven": ((1, 20, 10, 7), 16, (0, 1, 2, 0)),
    "wide padding": ((1, 16, 3, 2), 16, (7, 9, 5, 8)),
    "cropped": ((1, 16, 12, 12), 16, (-1, -2, 0, -3)),
    "many tiles": ((1, 48, 70, 66), 40, ONES),
    "many images": ((9, 33, 5, 6), 16, ONES),
    "many channels": ((1, 300, 14, 14), 130, ONES),
}


@pytest.mark.parametrize("name", SHAPES)
@WAYS
def test_shapes(algorithm: Winograd, anew: bool, name: str, width: int) -> None:
    shape, filters, pads = SHAPES[name]
    x, w = normal(*shape), normal(filters, shape[1], 3, 3, seed=1)
    close(run(algorithm, x, w, pads, anew=anew), x, w, pads)


@pytest.mark.parametrize("size", [20, 200], ids=["two steps", "one step"])
@WAYS
def test_threads_change_nothing(algorithm: Winograd, anew: bool, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "TASK", 0.0)
    x, w = normal(2, 20, size, size), normal(70, 20, 3, 3, seed=1)
    alone, together = (run(algorithm, x, w, ONES, threads, anew=anew) for threads in (1, 3))
    np.testing.assert_array_equal(alone, together)


def roughly(actual: np.ndarray, expected: np.ndarray) -> float:
    """The root of the mean square of what is between them."""
    return float(np.sqrt(np.mean((actual - expected) ** 2)))


@pytest.mark.parametrize("channels", [16, 64, 256])
@WAYS
def test_error_is_what_its_matrices_say(algorithm: Winograd, anew: bool, channels: int) -> None:
    """Against a sum in float32 that adds a product at a time."""
    x, w = normal(1, channels, 16, 16), normal(32, channels, 3, 3, seed=1)
    expected = convolved(x, w, ONES)
    direct = np.zeros(expected.shape, "f")
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    for c, i, j in np.ndindex(channels, 3, 3):
        term = padded[:, c : c + 1, i : i + 16, j : j + 16].astype("d") * w[None, :, c, i, j, None, None]
        direct = (direct + term).astype("f")  # rounded once, as a fused multiply-add is
    growth = roughly(run(algorithm, x, w, ONES, anew=anew), expected) / roughly(direct, expected)
    assert 0.5 * algorithm.error_growth < growth < 1.5 * algorithm.error_growth


def test_the_textbook_points_lose_more() -> None:
    textbook = Winograd(4, (Fraction(1), Fraction(2)))
    assert F2.error_growth < 1 < F4.error_growth < 2 < textbook.error_growth


@ALGORITHMS
def test_matrices_are_exact(algorithm: Winograd) -> None:
    """In rational numbers a line of pixels is what filtering makes; those that run in float32 fit in it."""
    d = [Fraction(n) for n in (3, -1, 4, 1, -5, 9)[: algorithm.size]]
    g = [Fraction(n) for n in (2, 7, -1)]

    def times(matrix: Matrix, x: list[Fraction]) -> list[Fraction]:
        return [sum((c * v for c, v in zip(row, x, strict=True)), Fraction(0)) for row in matrix]

    products = [a * b for a, b in zip(times(algorithm.filter, g), times(algorithm.image, d), strict=True)]
    filtered = [sum(d[k + j] * g[j] for j in range(3)) for k in range(algorithm.outputs)]
    assert times(algorithm.pixels, products) == filtered
    for matrix in (algorithm.image, algorithm.pixels):
        assert all(Fraction(float(np.float32(c))) == c for row in matrix for c in row)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@WAYS
def test_what_is_not_finite_stays_in_its_tiles(algorithm: Winograd, anew: bool, value: float) -> None:
    """Pixels whose windows see it are not finite; of others only those in a tile with one may be."""
    x, w = normal(1, 16, 21, 21), normal(16, 16, 3, 3, seed=1)
    x[0, 5, 9, 12] = value
    y = run(algorithm, x, w, ONES, anew=anew)
    seen = np.zeros((21, 21), bool)
    seen[8:11, 11:14] = True
    assert not np.isfinite(y[0][:, seen]).any()
    step = algorithm.outputs
    rows, columns = ({k // step for k in range(first, first + 3)} for first in (8, 11))
    spoilt = np.array([[r // step in rows and c // step in columns for c in range(21)] for r in range(21)])
    x[0, 5, 9, 12] = 0
    np.testing.assert_allclose(y[0][:, ~spoilt], convolved(x, w, ONES)[0][:, ~spoilt], atol=1e-4)


@WAYS
def test_extreme_values(algorithm: Winograd, anew: bool) -> None:
    """Large numbers do not overflow in a transform, small ones are not lost but for what a device flushes."""
    for scale in (2.0**110, 2.0**-100):
        x, w = normal(1, 16, 9, 9) * np.float32(scale), normal(16, 16, 3, 3, seed=1)
        close(run(algorithm, x, w, ONES, anew=anew), x, w, ONES)
    zeros = np.zeros((1, 16, 5, 5), "f")
    np.testing.assert_array_equal(run(algorithm, -zeros, normal(16, 16, 3, 3), ONES, anew=anew), zeros)


@ALGORITHMS
def test_filters_are_rounded_once(algorithm: Winograd) -> None:
    w = normal(40, 5, 3, 3)
    g = np.array([[float(c) for c in row] for row in algorithm.filter])
    expected = np.einsum("ai,ocij,bj->aboc", g, w.astype("d"), g).reshape(algorithm.products, *w.shape[:2])
    actual = transformed(w, algorithm).transpose(1, 0, 3, 2).reshape(algorithm.products, -1, 5)
    np.testing.assert_allclose(actual[:, :40], expected, rtol=2.0**-23)
    np.testing.assert_array_equal(actual[:, 40:], 0)


# In sessions ----------------------------------------------------------------------------------------------------------


def routes(session: Session) -> list[str]:
    return [n.route for n in session.explain().nodes if n.op == "Conv"]


def network(filters: int, *shape: int | str) -> onnx.ModelProto:
    """Convolution, bias and Relu; again with the image added; and once more, bare."""
    channels = shape[1]
    nodes = [
        helper.make_node("Conv", ["x", "w0", "b"], ["c"], pads=ONES),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Conv", ["r", "w1"], ["d"], pads=ONES),
        helper.make_node("Add", ["d", "x"], ["s"]),
        helper.make_node("Gelu", ["s"], ["g"]),
        helper.make_node("Conv", ["g", "w0"], ["y"]),
    ]
    held = {"w0": normal(filters, channels, 3, 3), "b": normal(filters), "w1": normal(channels, filters, 3, 3, seed=1)}
    held = {name: w / np.float32(np.sqrt(9 * filters)) for name, w in held.items()}
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.float32(w), name) for name, w in held.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize("fixed", [True, False])
def test_network(fixed: bool) -> None:
    """With what follows in the pixels' transform, and no other step between; for other sizes by the same plan."""
    shapes = [(1, 24, 13, 22)] if fixed else [(1, 24, 13, 22), (3, 24, 31, 5), (2, 24, 64, 64)]
    proto = network(40, *(shapes[0] if fixed else ("n", 24, "h", "w")))
    session, expected = (omniop.load(proto, device=d, fallback="error") for d in ("cpu", "reference"))
    for k, shape in enumerate(shapes):
        x = normal(*shape, seed=k)
        np.testing.assert_allclose(session.run({"x": x})["y"], expected.run({"x": x})["y"], rtol=1e-4, atol=1e-5)
    assert all("winograd" in route for route in routes(session))
    assert [s.kind for s in session.explain().kernels()] == ["relayout", "call", "call", "call", "relayout"]


def test_against_the_direct_way() -> None:
    """Of the same device."""
    proto, x = network(48, 1, 32, 17, 19), normal(1, 32, 17, 19)
    y = omniop.load(proto, device="cpu").run({"x": x})["y"]
    taken = [s for s in BACKEND.kernels.of("conv") if "winograd" in s.name]
    for spec in taken:
        BACKEND.kernels.remove("conv", spec.name)
    try:
        session = omniop.load(proto, device="cpu")
        direct = session.run({"x": x})["y"]
    finally:
        for spec in taken:
            BACKEND.kernels.add(spec)
    assert not any("winograd" in route for route in routes(session))
    np.testing.assert_allclose(y, direct, rtol=1e-4, atol=1e-5)


def test_filters_are_transformed_once() -> None:
    """At load, and once for both nodes that have them."""
    proto, x = network(40, 1, 24, 29, 30), normal(1, 24, 29, 30)
    session = omniop.load(proto, device="cpu")
    session.run({"x": x})
    assert "2 computed at load" in str(session.explain())


def test_many_filters_are_held_as_they_are() -> None:
    """Transformed, they would take four times the memory. The plan serves more tiles, too."""
    proto = network(336, "n", 272, "h", "w")
    session, expected = (omniop.load(proto, device=d, fallback="error") for d in ("cpu", "reference"))
    for k, shape in enumerate([(1, 272, 20, 19), (9, 272, 34, 21), (1, 272, 20, 19)]):
        x = normal(*shape, seed=k)
        np.testing.assert_allclose(session.run({"x": x})["y"], expected.run({"x": x})["y"], rtol=1e-4, atol=1e-5)
    assert all("_anew" in route for route in routes(session))
    (template,) = (t for made in session.runner.templates.values() for t in made)
    width = transformed_shape(jit.host_target(), F4, (1, 1, 3, 3))[-1]
    most = sum(4 * 9 * -(-m // width) * width * c for m, c in ((336, 272), (272, 336)))
    assert sum(constant.nbytes for _, constant in template.constants) < 1.01 * most


def context(x: tuple[int, ...], w: tuple[int, ...], constant: bool = True, **attributes: Any) -> OpContext:
    out = (x[0], w[0], *x[2:])
    attrs = {"pads": ONES, "strides": (1, 1), "dilations": (1, 1), "group": 1, **attributes}
    tensors = [TensorType(FLOAT32, shape, shape, c) for shape, c in ((x, False), (w, constant), (out, False))]
    return OpContext("conv", tuple(tensors[:2]), (tensors[2],), attrs, Caps())


REFUSED: dict[str, OpContext] = {
    "window": context((1, 64, 20, 20), (64, 64, 5, 5)),
    "steps": context((1, 64, 20, 20), (64, 64, 3, 3), strides=(2, 2)),
    "pixels": context((1, 64, 1, 1), (64, 64, 3, 3)),
    "channels": context((1, 8, 20, 20), (64, 8, 3, 3)),
    "weights": context((1, 64, 20, 20), (64, 64, 3, 3), constant=False),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name: str) -> None:
    for spec in BACKEND.kernels.of("conv"):
        if "winograd" in spec.name:
            answer = spec.when(REFUSED[name])
            assert isinstance(answer, No)
            assert answer.code == name


def test_points_that_lose_too_much_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    textbook = Winograd(4, (Fraction(1), Fraction(2)))
    monkeypatch.setattr(winograd_specs, "ALGORITHMS", (textbook,))
    target = jit.host_target()
    _, spec = winograd_specs.winograd_specs(target, blocked_layout(4, 1, block_of(target)))
    answer = spec.when(context((1, 64, 20, 20), (64, 64, 3, 3)))
    assert isinstance(answer, No)
    assert answer.code == "accuracy"


@pytest.mark.parametrize(
    ("size", "channels", "expected"),
    [
        *((56, 64, "winograd_f4_NCHW"), (14, 256, "winograd_f4_NCHW"), (7, 512, "winograd_f2_NCHW")),
        *((2, 512, "conv2d_NCHW"), (16, 512, "winograd_f4_NCHW_anew"), (32, 320, "winograd_f4_NCHW_anew")),
        (112, 320, "winograd_f4_NCHW"),
    ],
)
def test_choice(size: int, channels: int, expected: str) -> None:
    """Few tiles are not worth many transformed filters, or not worth to hold them."""
    op = context((1, channels, size, size), (channels, channels, 3, 3))
    costs = {s.name: s.cost(op) for s in BACKEND.kernels.of("conv") if FLOAT32 in s.dtypes and s.when(op)}
    assert re.sub(r"\d+c", "", min(costs, key=costs.__getitem__)) == expected


def test_many_tiles_have_filters_that_are_transformed_once() -> None:
    op = context((1, 512, 100, 100), (512, 512, 3, 3))
    answers = {s.name.endswith("anew"): s.when(op) for s in BACKEND.kernels.of("conv") if "winograd_f4" in s.name}
    assert answers[False]
    assert isinstance(answers[True], No)
    assert answers[True].code == "tiles"
