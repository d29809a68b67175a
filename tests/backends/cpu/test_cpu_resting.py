"""The compiler at rest: its pages leave the memory of the process, and come back when it works again."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
import pytest
from llvmlite.binding import ffi

from omniop.backends.cpu import BACKEND, jit, resting
from omniop.backends.cpu.device import MANY
from omniop.opset import expr
from omniop.opset.dtype import FLOAT32
from omniop.opset.kernel import Kernel, Param, Store

pytestmark = pytest.mark.skipif(not Path("/proc/self/pagemap").exists(), reason="it asks Linux")
_PRESENT = 63
"""The bit of a page that is in the process's memory."""


def resident() -> int:
    """Bytes of the compiler's code and tables."""
    pages = 0
    with open("/proc/self/pagemap", "rb") as file:
        for begin, end in resting.read_only(os.fsencode(ffi.lib._name)):
            file.seek(begin // mmap.PAGESIZE * 8)
            words = np.frombuffer(file.read((end - begin) // mmap.PAGESIZE * 8), np.uint64)
            pages += int((words >> np.uint64(_PRESENT)).sum())
    return pages * mmap.PAGESIZE


def shift(by: float) -> Kernel:
    i = expr.raw_axis(0, expr.index(64))
    store = Store(1, i, expr.load(0, (i,), FLOAT32) + by)
    return Kernel((Param(FLOAT32), Param(FLOAT32, written=True)), (i,), (store,))


def shifted(engine: jit._Engine, by: float) -> jit.CompiledKernel:
    (made,) = engine.compiled([shift(by)], jit.host_target())
    return made


def check(kernel: jit.CompiledKernel, by: float) -> None:
    x, y = np.arange(64, dtype=np.float32), np.zeros(64, np.float32)
    buffers = np.array([x.ctypes.data, y.ctypes.data])
    kernel(buffers.ctypes.data, 0, 0, 64)
    np.testing.assert_array_equal(y, x + np.float32(by))


def test_a_compiler_at_rest_is_out_of_memory_and_works_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIOP_CACHE", "0")
    engine = jit._Engine()
    first = shifted(engine, 11.5)
    working = resident()
    assert working > 8 << 20
    resting.rest()
    assert resident() < working / 16
    check(first, 11.5)
    check(shifted(engine, 12.5), 12.5)


def test_a_device_that_has_done_its_work_leaves_the_compiler_at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it has built much, and where its plan is kept."""
    monkeypatch.setenv("OMNIOP_CACHE", "0")
    monkeypatch.setattr(jit, "_engines", [])
    (device,) = BACKEND.devices()
    device.build([shift(13.5)])
    assert resident() > 8 << 20
    device.build([shift(20.5 + k) for k in range(MANY)])
    assert resident() < 1 << 20
    device.build([shift(14.5)])
    assert resident() > 8 << 20
    device.keep([])
    assert resident() < 1 << 20


def test_pages_that_the_loader_has_written_are_left_alone() -> None:
    """They would come back as the file has them, without the addresses that were put into them."""
    dirty = 0
    with open("/proc/self/smaps", encoding="ascii") as file:
        ranges = resting.read_only(os.fsencode(ffi.lib._name))
        assert ranges
        inside = False
        for line in file:
            first, _, last = line.split()[0].partition("-")
            if last:
                inside = any(int(first, 16) < end and begin < int(last, 16) for begin, end in ranges)
            elif inside and first in ("Private_Dirty:", "Anonymous:", "Swap:"):
                dirty += int(line.split()[1])
    assert dirty == 0


def test_a_library_that_is_not_loaded_has_no_pages() -> None:
    assert resting.read_only(b"/no/such/library.so") == []
