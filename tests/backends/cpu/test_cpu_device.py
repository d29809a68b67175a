"""The device around the prims: memory, launches by LLVM or by numpy, threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from one_node import model, normal

import omniop
from omniop.backends.base import No, OpContext, TensorType
from omniop.backends.cpu import BACKEND, jit
from omniop.backends.cpu.device import fingerprint
from omniop.backends.cpu.memory import ALIGNMENT, Scratch
from omniop.opset import dtype as dtypes
from omniop.opset import expr
from omniop.opset.kernel import Kernel, Param, Store

DEVICE = BACKEND.devices()[0]
POOL = {"monoid": "max", "kernel": (2,), "pads": (0, 0), "strides": (1,), "dilations": (1,)}


def triple(n: int | None) -> Kernel:
    """y = 3 * x over ``n`` elements, or over as many as its size argument says."""
    axis = expr.raw_axis(0, expr.size("s0") if n is None else expr.index(n))
    store = Store(1, axis, expr.load(0, (axis,), dtypes.FLOAT32) * 3.0)
    return Kernel((Param(dtypes.FLOAT32), Param(dtypes.FLOAT32, True)), (axis,), (store,), 1 if n is None else 0)


def run(kernel: Kernel, x: np.ndarray, *sizes: int) -> np.ndarray:
    source, target = DEVICE.alloc(x.nbytes), DEVICE.alloc(x.nbytes)
    DEVICE.h2d(source, x)
    DEVICE.build([kernel])[0]([source, target], sizes)
    y = np.empty_like(x)
    DEVICE.d2h(y, target)
    return y


def test_memory_is_aligned() -> None:
    for nbytes in (1, 3, 64, 1000):
        buffer = DEVICE.alloc(nbytes)
        assert buffer.address % ALIGNMENT == 0
        assert len(buffer) == nbytes
        assert len(buffer.typed(dtypes.INT16)) == nbytes // 2


def test_copy() -> None:
    x = np.arange(10, dtype=np.uint8)
    source, target = DEVICE.alloc(10), DEVICE.alloc(12)
    DEVICE.h2d(source, x)
    DEVICE.copy(target, source, 10)
    y = np.zeros(10, np.uint8)
    DEVICE.d2h(y, target)
    assert (x == y).all()


def test_no_memory() -> None:
    with pytest.raises(omniop.DeviceError, match="cpu has no memory left for"):
        DEVICE.alloc(1 << 60)


def test_scratch_is_each_threads_own() -> None:
    scratch = Scratch()
    mine = scratch.buffer("a", 100)
    assert scratch.buffer("a", 50) is mine
    assert scratch.buffer("b", 50) is not mine
    assert len(scratch.buffer("a", 200)) == 200
    with ThreadPoolExecutor(1) as pool:
        theirs = pool.submit(scratch.buffer, "b", 50).result()
    assert theirs is not scratch.buffer("b", 50)


def test_kernels_are_compiled() -> None:
    x = normal(1000)
    assert jit.reach(triple(None))
    for n in (1000, 1, 17):
        assert (run(triple(None), x[:n], n) == x[:n] * np.float32(3)).all()


def test_what_llvm_does_not_take_runs_in_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two kernels of a batch."""
    monkeypatch.setattr(jit, "reach", lambda kernel: kernel == triple(100))
    x = normal(100)
    for kernel, sizes in ((triple(None), (100,)), (triple(100), ())):
        assert (run(kernel, x, *sizes) == x * np.float32(3)).all()
    both = DEVICE.build([triple(None), triple(100)])
    assert type(both[0]) is not type(both[1])


def test_prims_that_are_not_taken_say_why() -> None:
    tensor = TensorType(dtypes.FLOAT32, (None, 4))
    pool = OpContext("window_reduce", (tensor,), (tensor,), POOL, DEVICE.caps)
    assert DEVICE.accepts(pool)
    narrow = replace(tensor, dtype=dtypes.FLOAT8E4M3FN)
    for context, code, words in (
        (replace(pool, op="fft"), "expands", "fft"),
        (replace(pool, inputs=(narrow,)), "dtype", "float8_e4m3fn"),
        (replace(pool, attrs=POOL | {"monoid": "argmax"}), "monoid", "argmax"),
        (replace(pool, attrs=POOL | {"pads": (object(), 0)}), "dynamic-window", "padding"),
        (replace(pool, attrs=POOL | {"kernel": (object(),)}), "dynamic-window", "window"),
    ):
        answer = DEVICE.accepts(context)
        assert isinstance(answer, No)
        assert answer.code == code
        assert words in answer.detail


def test_padding_that_depends_on_the_shape() -> None:
    """SAME padding of a symbolic extent is left to the expansion."""
    x, larger = normal(1, 2, 9, 10), normal(1, 2, 12, 7, seed=1)
    proto = model("Conv", {"x": x}, {"w": normal(3, 2, 3, 3)}, auto_pad="SAME_UPPER", strides=[2, 3])
    tested, expected = (omniop.load(proto, device=d, fallback="error") for d in ("cpu", "reference"))
    for feed in (x, larger):
        np.testing.assert_allclose(tested.run({"x": feed})["y0"], expected.run({"x": feed})["y0"], rtol=1e-4, atol=1e-4)
    assert "padding depends on the shapes" in str(tested.explain())


def test_runs_in_several_threads() -> None:
    """Scratch memory is not shared between runs in flight."""
    inputs = [normal(2, 4, 20, 20, seed=k) for k in range(8)]
    session = omniop.load(
        model("Conv", {"x": inputs[0]}, {"w": normal(6, 4, 3, 3)}, pads=[1, 1, 1, 1]), device="cpu", fallback="error"
    )
    alone = [session.run({"x": x})["y0"] for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda x: session.run({"x": x})["y0"], inputs * 4))
    for k, y in enumerate(together):
        np.testing.assert_array_equal(y, alone[k % 8])


def test_fingerprint() -> None:
    found = fingerprint()
    assert found == DEVICE.fingerprint
    assert found.arch
    assert f"numpy {np.__version__}" in found.driver
