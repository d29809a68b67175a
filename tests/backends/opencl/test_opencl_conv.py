"""Convolutions against sums of shifted products in float64."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import ml_dtypes
import numpy as np
import pytest
from opencl_contracts import Sizes, normal, upload, view

from omniop.backends.base import OpContext, TensorType
from omniop.backends.opencl.device import OpenCLDevice
from omniop.backends.opencl.pointwise import as_contract
from omniop.opset import dtype as dtypes
from omniop.opset import expr
from omniop.opset.expr import Expr
from omniop.opset.kernel import Call, Param
from omniop.opset.legalise import legalise_expr


@pytest.fixture
def cpu(device: OpenCLDevice) -> OpenCLDevice:
    if not device.profile.cpu:
        pytest.skip("tuned for CPU devices")
    return device


class Conv:
    """A convolution of arrays that may be views of larger ones."""

    def __init__(
        self,
        x: np.ndarray,
        w: np.ndarray,
        strides: Sequence[int] = (),
        pads: Sequence[int] = (),
        dilations: Sequence[int] = (),
        group: int = 1,
    ) -> None:
        rank = x.ndim - 2
        self.x, self.w, self.group = x, w, group
        self.strides, self.dilations = tuple(strides) or (1,) * rank, tuple(dilations) or (1,) * rank
        self.pads = tuple(pads) or (0,) * (2 * rank)
        spans = [(k - 1) * d + 1 for k, d in zip(w.shape[2:], self.dilations, strict=True)]
        total = [n + a + b for n, a, b in zip(x.shape[2:], self.pads[:rank], self.pads[rank:], strict=True)]
        places = tuple((t - s) // step + 1 for t, s, step in zip(total, spans, self.strides, strict=True))
        self.shape = (len(x), len(w), *places)

    def expected(self) -> np.ndarray:
        rank, wide = self.x.ndim - 2, self.x.astype(np.float64)
        around = list(zip(self.pads[:rank], self.pads[rank:], strict=True))
        wide = np.pad(wide, [(0, 0), (0, 0), *((max(a, 0), max(b, 0)) for a, b in around)])
        cut = tuple(slice(max(-a, 0), d - max(-b, 0)) for (a, b), d in zip(around, wide.shape[2:], strict=True))
        wide = wide[:, :, *cut].reshape(len(wide), self.group, self.w.shape[1], *wide[0, 0][cut].shape)
        weights = self.w.astype(np.float64).reshape(self.group, -1, *self.w.shape[1:])
        result = np.zeros((len(wide), self.group, weights.shape[1], *self.shape[2:]))
        for tap in product(*map(range, self.w.shape[2:])):
            starts = [t * d for t, d in zip(tap, self.dilations, strict=True)]
            ends = [a + s * (n - 1) + 1 for a, s, n in zip(starts, self.strides, self.shape[2:], strict=True)]
            window = tuple(slice(a, b, s) for a, b, s in zip(starts, ends, self.strides, strict=True))
            result += np.einsum("gmc,ngc...->ngm...", weights[:, :, :, *tap], wide[:, :, :, *window])
        return result.reshape(self.shape)

    def run(
        self,
        device: OpenCLDevice,
        epilogue: Expr | None = None,
        extra: Sequence[np.ndarray] = (),
        symbolic: bool = True,
    ) -> np.ndarray:
        sizes, x, w = Sizes(symbolic=symbolic), _base(self.x), _base(self.w)
        y = np.zeros(self.shape, self.x.dtype)
        arrays = (x, w, y, *extra)
        (run,) = device.build([self.call(sizes, epilogue, extra)])
        buffers = [upload(device, a) for a in arrays]
        run(buffers, sizes.values)
        device.d2h(y, buffers[2])
        return y

    def call(self, sizes: Sizes, epilogue: Expr | None = None, extra: Sequence[np.ndarray] = ()) -> Call:
        y = np.zeros(self.shape, self.x.dtype)
        places = ((self.x, _base(self.x)), (self.w, _base(self.w)), (y, y))
        x, w, out = (view(k, dtypes.of_numpy(a.dtype), a, b, sizes) for k, (a, b) in enumerate(places))
        attrs = {"dilations": self.dilations, "group": self.group, "pads": self.pads, "strides": self.strides}
        params = tuple(Param(dtypes.of_numpy(a.dtype), a is y) for a in (self.x, self.w, y, *extra))
        return Call("conv", params, (x, w), (out,), tuple(attrs.items()), len(sizes.values), epilogue)

    def check(self, device: OpenCLDevice, rtol: float = 1e-5) -> None:
        np.testing.assert_allclose(self.run(device).astype(np.float64), self.expected(), rtol=rtol, atol=10 * rtol)


def _base(array: np.ndarray) -> np.ndarray:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


GEOMETRIES = {
    "plain": ((1, 3, 7, 9), (4, 3, 3, 3), {}),
    "padded": ((2, 3, 20, 33), (13, 3, 3, 3), {"pads": (1, 1, 1, 1)}),
    "uneven": ((1, 2, 8, 7), (3, 2, 2, 3), {"pads": (1, 0, 2, 3), "strides": (2, 3)}),
    "dilated": ((1, 2, 11, 12), (3, 2, 3, 2), {"dilations": (2, 3), "pads": (2, 1, 0, 2)}),
    "cropped": ((1, 2, 11, 12), (3, 2, 3, 3), {"pads": (-2, 1, -1, -3)}),
    "all of it": (
        (3, 4, 13, 11),
        (10, 2, 3, 3),
        {"pads": (2, 1, 1, 0), "strides": (2, 2), "dilations": (2, 1), "group": 2},
    ),
    "pointwise": ((2, 5, 4, 6), (7, 5, 1, 1), {}),
    "pointwise strided": ((1, 4, 5, 7), (12, 2, 1, 1), {"strides": (2, 3), "group": 2}),
    "pointwise padded": ((1, 5, 4, 6), (7, 5, 1, 1), {"pads": (1, 0, 0, 1)}),
    "one place": ((2, 3, 3, 3), (4, 3, 3, 3), {}),
    "strides above the window": ((1, 3, 17, 19), (4, 3, 2, 2), {"strides": (5, 3)}),
    "one axis": ((2, 4, 50), (6, 4, 5), {"pads": (2, 3), "strides": (2,)}),
    "three axes": ((1, 2, 5, 6, 7), (4, 2, 2, 3, 2), {"pads": (1, 0, 1, 0, 2, 1), "strides": (2, 1, 2)}),
    "large": ((1, 8, 40, 40), (70, 8, 3, 3), {"pads": (1, 1, 1, 1)}),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_geometry(cpu: OpenCLDevice, name: str) -> None:
    x, w, attrs = GEOMETRIES[name]
    Conv(normal(*x), normal(*w), **attrs).check(cpu)


@pytest.mark.parametrize("name", ["padded", "pointwise", "pointwise strided", "pointwise padded"])
def test_static(cpu: OpenCLDevice, name: str) -> None:
    """What is known when kernels are made: a window of one place makes a matrix product."""
    x, w, attrs = GEOMETRIES[name]
    conv = Conv(normal(*x), normal(*w), **attrs)
    assert (as_contract(conv.call(Sizes(symbolic=False))) is not None) == (name == "pointwise")
    np.testing.assert_allclose(conv.run(cpu, symbolic=False), conv.expected(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("group", [1, 2])
def test_pointwise_epilogue(cpu: OpenCLDevice, group: int) -> None:
    conv = Conv(normal(2, 6, 5, 7), normal(8, 6 // group, 1, 1), group=group)
    bias, residual = normal(8), normal(*conv.shape)
    result = conv.run(cpu, _bias_residual(conv.shape), (bias, residual), symbolic=False)
    wanted = np.maximum(conv.expected() + bias[:, None, None] + residual, 0)
    np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=1e-4)


def test_views(cpu: OpenCLDevice) -> None:
    """Channels last, and weights that are not one row after the other."""
    x = normal(2, 9, 11, 4).transpose(0, 3, 1, 2)
    w = normal(3, 3, 4, 6).transpose(3, 2, 0, 1)
    Conv(x, w, pads=(1, 1, 1, 1)).check(cpu)
    Conv(x[:, ::2, ::-1], w[:, 1:3], strides=(2, 1)).check(cpu)


DTYPES = [(np.float64, 1e-12), (np.float16, 2e-3), (ml_dtypes.bfloat16, 1e-2), (np.int32, 0)]


@pytest.mark.parametrize(("dtype", "rtol"), DTYPES)
def test_dtypes(cpu: OpenCLDevice, dtype: type, rtol: float) -> None:
    if np.dtype(dtype) == np.float64 and not cpu.caps.fp64:
        pytest.skip("no float64")
    Conv(normal(1, 3, 8, 20, dtype=dtype), normal(7, 3, 3, 3, dtype=dtype), pads=(1, 1, 1, 1)).check(cpu, rtol)


def _bias_residual(shape: tuple[int, ...]) -> Expr:
    """max(sum + b3[channel] + b4[place], 0)."""
    n, m, y, x = (expr.axis(k, extent) for k, extent in enumerate(shape))
    place = ((n * shape[1] + m) * shape[2] + y) * shape[3] + x
    total = expr.hole(dtypes.FLOAT32) + expr.load(3, (m,), dtypes.FLOAT32) + expr.load(4, (place,), dtypes.FLOAT32)
    return expr.maximum(total, 0.0)


def test_epilogue(cpu: OpenCLDevice) -> None:
    """A bias for each channel, a residual, and a rectifier."""
    conv = Conv(normal(2, 3, 9, 10), normal(8, 3, 3, 3), pads=(1, 1, 1, 1))
    bias, residual = normal(8), normal(*conv.shape)
    result = conv.run(cpu, _bias_residual(conv.shape), (bias, residual))
    wanted = np.maximum(conv.expected() + bias[:, None, None] + residual, 0)
    np.testing.assert_allclose(result, wanted, rtol=1e-5, atol=1e-4)


def test_epilogue_of_halves(cpu: OpenCLDevice) -> None:
    """Sums are kept in float32, rounded, and then doubled."""
    conv = Conv(normal(1, 3, 8, 20, dtype=np.float16), normal(7, 3, 3, 3, dtype=np.float16), pads=(1, 1, 1, 1))
    result = conv.run(cpu, legal(cpu, expr.hole(dtypes.FLOAT16) * 2.0))
    np.testing.assert_allclose(result, conv.run(cpu) * np.float16(2), rtol=1e-6)


def legal(device: OpenCLDevice, epilogue: Expr) -> Expr:
    """As the dispatcher hands it over."""
    made = legalise_expr(epilogue, device.caps)
    assert isinstance(made, Expr)
    return made


def test_geometries_share_kernels(cpu: OpenCLDevice) -> None:
    """What a convolution looks like is in its arguments: those of one dtype are compiled once."""
    made = []
    for name in ("padded", "dilated", "three axes", "all of it"):
        x, w, attrs = GEOMETRIES[name]
        Conv(normal(*x), normal(*w), **attrs).run(cpu, symbolic=False)
        made.append(len(cpu._kernels))
    assert len(set(made)) == 1


def test_images_in_parts(cpu: OpenCLDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """Padded images are bounded: a batch is taken a part at a time."""
    monkeypatch.setattr("omniop.backends.opencl.conv._SCRATCH_BYTES", 1 << 12)
    Conv(normal(5, 3, 9, 10), normal(8, 3, 3, 3), pads=(1, 1, 1, 1)).check(cpu)


def _accepts(
    device: OpenCLDevice, w: tuple[int | None, ...], group: int, pads: tuple[object, ...] = (0, 0, 0, 0)
) -> bool:
    types = TensorType(dtypes.FLOAT32, (1, 8, 9, 9)), TensorType(dtypes.FLOAT32, w)
    attrs = {"strides": (1, 1), "pads": pads, "dilations": (1, 1), "group": group}
    return bool(device.accepts(OpContext("conv", types, (types[0],), attrs, device.caps)))


def test_what_is_accepted(cpu: OpenCLDevice, lanes_device: OpenCLDevice) -> None:
    assert _accepts(cpu, (8, 8, 3, 3), 1)
    assert _accepts(cpu, (None, 8, 3, 3), 1)
    assert not _accepts(cpu, (8, 1, 3, 3), 8)
    assert not _accepts(cpu, (8, 8, 3, 3), 1, (0, 0, expr.size("s0"), 0))
    assert not _accepts(lanes_device, (8, 8, 3, 3), 1)
    assert cpu.accepts_epilogue("conv")
