"""Products and convolutions of bytes and of bfloat16, on each kind of processor's instructions, against exact sums."""

from __future__ import annotations

import itertools
import platform
from collections.abc import Iterator, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from omniop.backends.codegen.llvm_dot import KINDS, Dot
from omniop.backends.codegen.llvm_ir import Target
from omniop.backends.cpu import BACKEND, jit, narrow, narrow_depthwise, products
from omniop.backends.cpu.host import host
from omniop.opset import dtype as dtypes
from omniop.opset import expr
from omniop.opset.dtype import FLOAT32, INT32, DType
from omniop.opset.expr import Expr
from omniop.opset.kernel import Call, Param, View

DEVICE = BACKEND.devices()[0]
BYTES = [k for k in KINDS if k.left.is_int]
TARGETS = {
    "host": jit.host_target(),
    "pairs": Target(256, frozenset((32, 64)), narrow=frozenset(("pmaddwd",))),
    "plain": Target(128),
}
if platform.machine() not in ("x86_64", "AMD64"):
    del TARGETS["pairs"]


@pytest.fixture(params=TARGETS, ids=str)
def target(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Target]:
    """Code is made for it, and runs here all the same."""
    chosen = TARGETS[request.param]
    monkeypatch.setattr(jit, "host_target", lambda: chosen)
    cached = (narrow.tile, narrow.function, narrow_depthwise.function, products.tile, products.gemm)
    for function in cached:
        function.cache_clear()
    yield chosen
    for function in cached:
        function.cache_clear()


def test_instructions_are_found() -> None:
    whole = jit.target_of(frozenset(("avx512f", "avx512bw", "avx512vnni", "avx512bf16", "avx2", "sse2")))
    assert whole.narrow == {"vpdpbusd", "pmaddwd", "vdpbf16ps", "packssdw"}
    assert jit.target_of(frozenset(("avx2", "avxvnni"))).narrow == {"vpdpbusd", "pmaddwd", "packssdw"}
    assert jit.target_of(frozenset(("sse2",))).narrow == {"pmaddwd", "packssdw"}
    assert not jit.target_of(frozenset(("neon",))).narrow
    assert jit.target_of(frozenset(host().features)) == jit.host_target()


def view(buffer: int, dtype: DType, shape: Sequence[int], strides: Sequence[int] = (), offset: int = 0) -> View:
    steps = strides or [int(np.prod(shape[k + 1 :])) for k in range(len(shape))]
    numbers: list[tuple[Expr, ...]] = [tuple(map(expr.index, part)) for part in (shape, steps)]
    return View(buffer, dtype, numbers[0], numbers[1], expr.index(offset))


def launch(prim: str, arrays: Sequence[np.ndarray], views: Sequence[View], result: View, **attrs: Any) -> np.ndarray:
    params = (*(Param(dtypes.of_numpy(a.dtype)) for a in arrays), Param(result.dtype, True))
    (run,) = DEVICE.build([Call(prim, params, tuple(views), (result,), tuple(sorted(attrs.items())))])
    buffers = [DEVICE.alloc(max(1, a.nbytes)) for a in arrays]
    for buffer, a in zip(buffers, arrays, strict=True):
        DEVICE.h2d(buffer, np.ascontiguousarray(a))
    shape = [n.attr for n in result.shape]
    y = np.empty(shape, result.dtype.numpy)
    buffers.append(DEVICE.alloc(y.nbytes))
    run(buffers, ())
    DEVICE.d2h(y, buffers[-1])
    return y


def numbers(dtype: DType, shape: Sequence[int], extreme: bool = False) -> np.ndarray:
    """Any of them, or of the ends of the range alone."""
    random = np.random.default_rng(sum(shape))
    ends = np.iinfo(dtype.numpy)
    if extreme:
        return random.choice(np.array([ends.min, ends.max], dtype.numpy), shape)
    return random.integers(ends.min, ends.max, shape, dtype.numpy, endpoint=True)


def product(kind: Dot, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    views = [view(0, kind.left, a.shape), view(1, kind.right, b.shape)]
    result = view(2, kind.sums, (a.shape[0], b.shape[1]))
    return launch("contract", [a, b], views, result, accumulate=kind.sums)


SIZES = [(1, 1, 1), (1, 4, 300), (5, 7, 9), (12, 64, 32), (13, 67, 33), (30, 130, 200), (300, 100, 20), (2, 5000, 40)]


@pytest.mark.parametrize("kind", BYTES, ids=lambda k: k.name)
@pytest.mark.parametrize("extreme", [False, True])
def test_sums_of_bytes_are_exact(target: Target, kind: Dot, extreme: bool) -> None:
    for rows, k, columns in SIZES:
        a, b = numbers(kind.left, (rows, k), extreme), numbers(kind.right, (k, columns), extreme)
        np.testing.assert_array_equal(product(kind, a, b), a.astype(np.int64) @ b.astype(np.int64), str((rows, k)))


@pytest.mark.parametrize("kind", BYTES, ids=lambda k: k.name)
def test_all_of_the_least_and_of_the_greatest(target: Target, kind: Dot) -> None:
    """Where a processor that saturates sums of two products would be found out."""
    ends = [(i.min, i.max) for i in (np.iinfo(kind.left.numpy), np.iinfo(kind.right.numpy))]
    for p, q in itertools.product(*ends):
        a, b = np.full((14, 70), p, kind.left.numpy), np.full((70, 35), q, kind.right.numpy)
        np.testing.assert_array_equal(product(kind, a, b), np.full((14, 35), 70 * p * q))


@pytest.mark.parametrize("strides", [(1, 40), (40, 1), (80, 2), (-40, 1), (0, 1), (40, 0)], ids=str)
def test_operands_as_they_lie(target: Target, strides: tuple[int, int]) -> None:
    """By rows, by columns, backwards, every second one, broadcast: on either side."""
    for kind in BYTES[:2]:
        data = numbers(kind.left, (4000,))
        start = 2000 if min(strides) < 0 else 3
        x = np.lib.stride_tricks.as_strided(data[start:], (19, 21), strides)
        square = numbers(kind.right, (21, 21))
        result = view(2, INT32, (19, 21))
        views = [view(0, kind.left, (19, 21), strides, start), view(1, kind.right, (21, 21))]
        y = launch("contract", [data, square], views, result, accumulate=INT32)
        np.testing.assert_array_equal(y, x.astype(int) @ square.astype(int))
        own = numbers(kind.right, (4000,))
        right = np.lib.stride_tricks.as_strided(own[start:], (19, 21), strides)
        left = numbers(kind.left, (23, 19))
        views = [view(0, kind.left, (23, 19)), view(1, kind.right, (19, 21), strides, start)]
        y = launch("contract", [left, own], views, view(2, INT32, (23, 21)), accumulate=INT32)
        np.testing.assert_array_equal(y, left.astype(int) @ right.astype(int))


def test_batches(target: Target) -> None:
    kind = BYTES[1]
    a, b = numbers(kind.left, (3, 5, 18)), numbers(kind.right, (3, 18, 7))
    views = [view(0, kind.left, a.shape), view(1, kind.right, b.shape)]
    y = launch("contract", [a, b], views, view(2, INT32, (3, 5, 7)), accumulate=INT32)
    np.testing.assert_array_equal(y, a.astype(int) @ b.astype(int))


# Convolutions ---------------------------------------------------------------------------------------------------------


def convolved(x: np.ndarray, w: np.ndarray, zero: int, strides: Any, pads: Any, dilations: Any, group: int) -> Any:
    """Sums of the products of what x is more than zero, over the places of windows."""
    x, w, rank = x.astype(int) - zero, w.astype(int), x.ndim - 2
    x = np.pad(x, [(0, 0), (0, 0), *((pads[k], pads[rank + k]) for k in range(rank))])
    depth = w.shape[1]
    outs = [(x.shape[2 + k] - (w.shape[2 + k] - 1) * dilations[k] - 1) // strides[k] + 1 for k in range(rank)]
    y = np.zeros((x.shape[0], w.shape[0], *outs), int)
    for m in range(w.shape[0]):
        g = m // (w.shape[0] // group)
        for tap in np.ndindex(*w.shape[2:]):
            cut = [
                slice(t * d, t * d + (o - 1) * s + 1, s)
                for t, d, o, s in zip(tap, dilations, outs, strides, strict=True)
            ]
            part = x[(slice(None), slice(g * depth, (g + 1) * depth), *cut)]
            y[:, m] += (part * w[m][(slice(None), *tap)].reshape(-1, *[1] * rank)).sum(axis=1)
    return y


CONVOLUTIONS = [
    ((2, 8, 9, 11), (5, 8, 1, 1), 1, (1, 1), (0, 0, 0, 0), (1, 1)),
    ((1, 3, 20, 70), (6, 3, 3, 3), 1, (2, 2), (1, 1, 1, 1), (1, 1)),
    ((1, 6, 15, 140), (4, 3, 3, 5), 2, (1, 1), (1, 2, 1, 2), (1, 1)),
    ((1, 4, 7, 7), (4, 1, 3, 3), 4, (1, 1), (1, 1, 1, 1), (1, 1)),
    ((1, 4, 30, 31), (8, 1, 5, 5), 4, (2, 2), (2, 1, 2, 2), (1, 1)),
    ((2, 3, 130, 41), (3, 1, 3, 7), 3, (1, 2), (0, 3, 1, 3), (2, 3)),
    ((1, 3, 9, 100), (6, 1, 2, 4), 3, (2, 3), (1, 2, 0, 0), (1, 1)),
    ((1, 3, 40), (3, 1, 5), 3, (1,), (2, 2), (1,)),
    ((1, 2, 9, 2100), (2, 1, 3, 3), 2, (1, 1), (1, 1, 1, 1), (1, 1)),
    ((1, 5, 20, 20), (3, 5, 3, 3), 1, (3, 1), (0, 3, 2, 0), (2, 3)),
    ((2, 5, 33), (3, 5, 4), 1, (2,), (3, 0), (1,)),
    ((1, 2, 5, 6, 7), (3, 2, 3, 3, 3), 1, (1, 2, 1), (1, 1, 1, 0, 1, 1), (1, 1, 1)),
]


@pytest.mark.parametrize("number", range(len(CONVOLUTIONS)))
@pytest.mark.parametrize("kind", BYTES, ids=lambda k: k.name)
def test_convolutions_count_from_a_zero_point(target: Target, kind: Dot, number: int) -> None:
    """Padding stands for it, at the ends of the range too."""
    shape, window, group, strides, pads, dilations = CONVOLUTIONS[number]
    x, w = numbers(kind.right, shape), numbers(kind.left, window)
    ends = np.iinfo(kind.right.numpy)
    for zero in (ends.min, ends.max, 0, 77):
        expected = convolved(x, w, zero, strides, pads, dilations, group)
        point = np.array(zero, kind.right.numpy)
        views = [view(0, kind.right, shape), view(1, kind.left, window), view(2, kind.right, ())]
        geometry = {"strides": strides, "pads": pads, "dilations": dilations}
        y = launch("integer_conv", [x, w, point], views, view(3, INT32, expected.shape), group=group, **geometry)
        np.testing.assert_array_equal(y, expected, str(zero))


def test_windows_of_each_channel_that_lie_side_by_side(target: Target) -> None:
    kind = BYTES[1]
    x, w, point = numbers(kind.right, (1, 6, 8, 9)), numbers(kind.left, (3, 3, 6)), np.array(9, kind.right.numpy)
    views = [view(0, kind.right, x.shape), view(1, kind.left, (6, 1, 3, 3), (1, 54, 18, 6)), view(2, kind.right, ())]
    geometry = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1)}
    y = launch("integer_conv", [x, w, point], views, view(3, INT32, x.shape), group=6, **geometry)
    windows = np.moveaxis(w, -1, 0)[:, None]
    np.testing.assert_array_equal(y, convolved(x, windows, 9, (1, 1), (1, 1, 1, 1), (1, 1), 6))


# bfloat16 -------------------------------------------------------------------------------------------------------------


def test_products_of_bfloat16(target: Target) -> None:
    """In float32: as near as the order of the sums allows."""
    kind = KINDS[-1]
    for rows, k, columns in SIZES:
        random = np.random.default_rng(k)
        a, b = (random.standard_normal(s).astype(ml_dtypes.bfloat16) for s in ((rows, k), (k, columns)))
        exact = a.astype(float) @ b.astype(float)
        room = (np.abs(a).astype(float) @ np.abs(b).astype(float)) * 2**-22 * np.sqrt(k)
        assert (np.abs(product(kind, a, b) - exact) <= room).all()
    assert kind.sums is FLOAT32


def test_bfloat16_that_is_no_number(target: Target) -> None:
    kind = KINDS[-1]
    a = np.ones((3, 5), ml_dtypes.bfloat16)
    b = np.ones((5, 4), ml_dtypes.bfloat16)
    a[0, 4], a[1, 0], b[2, 1] = np.inf, np.nan, -np.inf
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(product(kind, a, b), a.astype("f") @ b.astype("f"))
