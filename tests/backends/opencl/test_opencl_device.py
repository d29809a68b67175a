"""Memory, builds, errors and threads of a device, and what the backend lists."""

from __future__ import annotations

import threading
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from opencl_contracts import upload

from omniop.backends.base import KernelSpec
from omniop.backends.opencl import BACKEND, driver, programs
from omniop.backends.opencl.backend import OpenCLBackend
from omniop.backends.opencl.device import OpenCLDevice
from omniop.backends.opencl.launch import Launch
from omniop.backends.opencl.programs import Text
from omniop.opset import dtype as dtypes
from omniop.opset import expr
from omniop.opset.dtype import FLOAT32
from omniop.opset.errors import DeviceError
from omniop.opset.kernel import Call, Kernel, Param, Store


def download(device: OpenCLDevice, buffer: Any, like: np.ndarray) -> np.ndarray:
    result = np.empty_like(like)
    device.d2h(result, buffer)
    return result


def doubled(addend: float = 0.0) -> Kernel:
    """y[i] = x[i] * 2 + addend over s0 elements."""
    i = expr.axis(0, expr.size("s0"))
    value = expr.load(0, (i,), FLOAT32) * 2.0 + addend
    return Kernel((Param(FLOAT32), Param(FLOAT32, True)), (i,), (Store(1, i, value),), 1)


def function(name: str) -> Kernel:
    """y[i] = name(x[i]) over s0 elements."""
    i = expr.axis(0, expr.size("s0"))
    value = expr.alu(name, expr.load(0, (i,), FLOAT32))
    return Kernel((Param(FLOAT32), Param(FLOAT32, True)), (i,), (Store(1, i, value),), 1)


def rows(m: int, n: int, scale: float) -> Kernel:
    """y[i, j] = x[i, j] * scale + b[i], m x n of them."""
    i, j = expr.axis(0, m), expr.axis(1, n)
    value = expr.load(0, (i * n + j,), FLOAT32) * scale + expr.load(1, (i,), FLOAT32)
    params = (Param(FLOAT32), Param(FLOAT32), Param(FLOAT32, True))
    return Kernel(params, (i, j), (Store(2, i * n + j, value),))


# Memory ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.int8, np.bool_, np.float16, ml_dtypes.bfloat16, np.int64])
@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (1000, 33)])
def test_there_and_back(device: OpenCLDevice, dtype: type, shape: tuple[int, ...]) -> None:
    array = np.arange(int(np.prod(shape))).reshape(shape).astype(dtype)
    np.testing.assert_array_equal(download(device, upload(device, array), array), array)


def test_the_array_may_change_after_h2d(device: OpenCLDevice) -> None:
    array = np.ones(1 << 20, np.float32)
    buffer = upload(device, array)
    array[:] = 7
    assert (download(device, buffer, array) == 1).all()


def test_less_than_the_buffer(device: OpenCLDevice) -> None:
    buffer = upload(device, np.arange(8, dtype=np.int32))
    device.h2d(buffer, np.array([-1, -2], np.int32))
    np.testing.assert_array_equal(download(device, buffer, np.empty(4, np.int32)), [-1, -2, 2, 3])


def test_copy(device: OpenCLDevice) -> None:
    source, target = upload(device, np.arange(8, dtype=np.int32)), upload(device, np.zeros(8, np.int32))
    device.copy(target, source, 12)
    np.testing.assert_array_equal(download(device, target, np.empty(8, np.int32)), [0, 1, 2, 0, 0, 0, 0, 0])


def test_out_of_memory_names_the_bytes(device: OpenCLDevice) -> None:
    too_many = device.profile.max_alloc + 1
    with pytest.raises(DeviceError, match=f"opencl:0.* {too_many} bytes"):
        device.alloc(too_many)


# Work -----------------------------------------------------------------------------------------------------------------


def test_a_batch(device: OpenCLDevice) -> None:
    x = np.arange(1000, dtype=np.float32)
    source, target = upload(device, x), upload(device, x)
    for number, run in enumerate(device.build([doubled(), doubled(1.0), doubled(2.0)])):
        run([source, target], [1000])
        np.testing.assert_array_equal(download(device, target, x), x * 2 + number)


def test_launches_run_in_order(device: OpenCLDevice) -> None:
    (run,) = device.build([doubled()])
    x = np.ones(10, np.float32)
    a, b = upload(device, x), upload(device, x)
    for _ in range(5):
        run([a, b], [10])
        run([b, a], [10])
    device.sync()
    assert (download(device, a, x) == 2**10).all()


def test_threads_share_a_runnable(device: OpenCLDevice) -> None:
    """Each with its own buffers and sizes: arguments of one never reach another's launch."""
    (run,) = device.build([doubled()])
    wrong: list[int] = []

    def work(number: int) -> None:
        size = 100 + number
        x = np.full(size, number, np.float32)
        source, target = upload(device, x), upload(device, np.zeros_like(x))
        for _ in range(50):
            run([source, target], [size])
            if not (download(device, target, x) == 2 * number).all():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_work_that_does_not_compile_is_named(device: OpenCLDevice) -> None:
    good = Text("good", "the good one", "kernel void good(global int *p) { p[0] = 1; }")
    bad = Text("bad", "the bad one", "kernel void bad(global int *p) { p[0] = nonsense; }")
    with pytest.raises(DeviceError, match=r"(?s)the bad one does not compile.*nonsense") as caught:
        device._compile(good, bad)
    assert "the good one" not in str(caught.value)


def test_a_launch_that_the_driver_refuses_names_the_work(device: OpenCLDevice) -> None:
    kernel = device._compile(Text("one", "the work", "kernel void one(global int *p) { p[0] = 1; }"))["one"]
    too_many = device.handle.max_work_group_size * 2
    with pytest.raises(DeviceError, match="opencl:0: the work could not be launched"):
        kernel.launch([upload(device, np.zeros(1, np.int32))], Launch(kernel, (), (too_many,), (too_many,)))


def test_two_kernels_of_one_name(device: OpenCLDevice) -> None:
    text = Text("twice", "it", "kernel void twice(global int *p) { p[0] = 1; }")
    with pytest.raises(DeviceError, match="one by one, but not together"):
        device._compile(text, replace(text, label="again"))


def test_binaries_are_kept(device: OpenCLDevice, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIOP_CACHE_DIR", str(tmp_path))
    OpenCLDevice(device.name, device.handle, device.kernels).build([doubled(3.0)])

    def refuse(*_: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr("omniop.backends.opencl.programs.compile_source", refuse)
    again = OpenCLDevice(device.name, device.handle, device.kernels)
    (run,) = again.build([doubled(3.0)])
    x = np.arange(4, dtype=np.float32)
    buffer = upload(again, x)
    run([buffer, buffer], [4])
    np.testing.assert_array_equal(download(again, buffer, x), x * 2 + 3)


def test_kernels_of_a_batch_are_kept_one_by_one(
    device: OpenCLDevice, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was compiled with others is found without them, or with others again."""
    monkeypatch.setenv("OMNIOP_CACHE_DIR", str(tmp_path))

    def fresh() -> OpenCLDevice:
        return OpenCLDevice(device.name, device.handle, device.kernels)

    compiled: list[str] = []
    compile_source = programs.compile_source

    def counted(context: Any, source: str, options: str) -> Any:
        compiled.append(source)
        return compile_source(context, source, options)

    monkeypatch.setattr(programs, "compile_source", counted)
    fresh().build([doubled(), function("tan")])
    fresh().build([function("tan")])
    assert len(compiled) == 1
    fresh().build([function("sin"), doubled()])
    assert len(compiled) == 2
    assert "sin(" in compiled[1]
    assert compiled[1].count("__kernel") == 1


def test_layers_share_kernels(device: OpenCLDevice) -> None:
    """Constants and fixed shapes are arguments where nothing is gained by knowing them."""
    if not device.profile.cpu:
        pytest.skip("of CPU devices")
    fresh = OpenCLDevice(device.name, device.handle, device.kernels)
    layers = [(17, 33, 2.5), (9, 1000, -7.25), (70, 11, 1e30)]
    runs = fresh.build([rows(*layer) for layer in layers])
    assert len(fresh._kernels) == 1
    for run, (m, n, scale) in zip(runs, layers, strict=True):
        x, b = np.arange(m * n, dtype=np.float32), np.arange(m, dtype=np.float32)
        y = np.zeros_like(x)
        buffers = [upload(fresh, array) for array in (x, b, y)]
        run(buffers, [])
        wanted = x.reshape(m, n) * np.float32(scale) + b[:, None]
        np.testing.assert_array_equal(download(fresh, buffers[2], y).reshape(m, n), wanted)


def test_a_binary_that_the_driver_refuses_is_compiled_again(
    device: OpenCLDevice, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNIOP_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("omniop.backends.opencl.programs.binary_of", lambda _: b"nothing that was ever compiled")
    OpenCLDevice(device.name, device.handle, device.kernels).build([doubled(4.0)])
    assert OpenCLDevice(device.name, device.handle, device.kernels).build([doubled(4.0)])


def test_a_tuned_kernel_makes_its_own_runnable(device: OpenCLDevice) -> None:
    calls: list[Call] = []

    def make(_: OpenCLDevice, call: Call) -> Any:
        calls.append(call)
        return lambda buffers, sizes: None

    device.kernels.add(KernelSpec("Sin", "mine", make))
    call = Call("kernel:mine", (), (), ())
    try:
        (run,) = device.build([call])
        run([], [])
    finally:
        device.kernels.remove("Sin", "mine")
    assert calls == [call]


# What there is --------------------------------------------------------------------------------------------------------


def test_what_a_device_can(device: OpenCLDevice) -> None:
    assert device.caps.loops
    assert {dtypes.FLOAT16, dtypes.INT64, dtypes.BOOL} <= device.caps.storage
    assert dtypes.FLOAT16 not in device.caps.compute
    assert dtypes.BFLOAT16 not in device.caps.storage
    assert device.caps.fp64 == bool(device.handle.double_fp_config)
    assert 16 <= device.caps.max_buffers <= 64
    assert all(vars(device.fingerprint).values())


def test_devices_are_listed_once(device: OpenCLDevice) -> None:
    names = [d.name for d in BACKEND.devices()]
    assert names == [f"opencl:{k}" for k in range(len(names))]
    assert BACKEND.devices()[0] is device


def test_a_device_that_fails_is_left_out(device: OpenCLDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    """As pocl 3.0 on a CPU that its compiler does not know."""

    def fail(self: OpenCLDevice, *_: object) -> None:
        if self.name == "opencl:0" and not backend.problems:
            raise DeviceError("the compiler does not know this CPU")

    backend = OpenCLBackend()
    monkeypatch.setattr(backend, "_handles", lambda: [device.handle, device.handle])
    monkeypatch.setattr(OpenCLDevice, "run_text", fail)
    monkeypatch.setattr(OpenCLDevice, "d2h", lambda self, array, buffer: array.__setitem__(..., np.arange(64) * 3 + 1))
    (found,) = backend.devices()
    assert found.name == "opencl:0"
    (problem,) = backend.problems
    assert "is left out: the compiler does not know this CPU" in problem


def test_wrong_numbers_are_a_reason_too(device: OpenCLDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = OpenCLBackend()
    monkeypatch.setattr(backend, "_handles", lambda: [device.handle])
    monkeypatch.setattr(OpenCLDevice, "d2h", lambda self, array, buffer: array.__setitem__(..., 0))
    with pytest.raises(DeviceError, match="wrong numbers"):
        backend.devices()


def test_no_platform(device: OpenCLDevice, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoDriverError(Exception):
        pass

    def none() -> list[object]:
        raise NoDriverError("PLATFORM_NOT_FOUND_KHR")

    monkeypatch.setattr(
        "omniop.backends.opencl.backend.opencl", lambda: SimpleNamespace(get_platforms=none, Error=NoDriverError)
    )
    with pytest.raises(DeviceError, match=r"no OpenCL driver.*opencl-cpu"):
        OpenCLBackend().devices()


def test_no_pyopencl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyopencl", None)
    with pytest.raises(DeviceError, match=r"needs pyopencl.*omniop\[opencl"):
        driver.opencl.__wrapped__()
