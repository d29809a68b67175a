"""Memory that is used again, and results that are lent instead of copied."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

import omniop
from omniop.backends.cpu import BACKEND, memory
from omniop.backends.cpu.memory import HostBuffer, Pool
from omniop.opset.dtype import FLOAT32
from tests.gate.case import model, normal

DEVICE = BACKEND.devices()[0]
LARGE = 1 << 20


def test_a_block_is_free_when_its_last_array_is_gone() -> None:
    pool = Pool()
    block = pool.take(LARGE)
    address, part = block.ctypes.data, block[100:200].view(np.float32)
    del block
    gc.collect()
    assert pool.free_bytes == 0
    del part
    assert pool.free_bytes == LARGE
    assert pool.take(LARGE - 9).ctypes.data == address
    assert pool.take(LARGE).ctypes.data == address


@pytest.mark.parametrize("nbytes", [1, 100, LARGE - 1, LARGE, LARGE + 1, 3 * LARGE // 2 + 5])
def test_sizes_are_rounded_up_by_an_eighth_at_most(nbytes: int) -> None:
    assert nbytes <= Pool().take(nbytes).nbytes <= nbytes * 9 / 8


def test_what_is_kept_is_limited() -> None:
    pool = Pool(limit=2 * LARGE)
    blocks = [pool.take(LARGE) for _ in range(3)]
    blocks.clear()
    assert pool.free_bytes == 2 * LARGE
    pool.clear()
    assert pool.free_bytes == 0


def test_threads_never_share_a_block() -> None:
    pool = Pool()
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(300):
            block = pool.take(4096)
            block[:] = number
            if (block != number).any():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_large_buffers_come_from_the_pool_aligned() -> None:
    buffer = HostBuffer(memory.POOLED + 5)
    assert len(buffer) == memory.POOLED + 5
    assert buffer.address % memory.ALIGNMENT == 0


def test_a_buffer_is_lent_as_an_array() -> None:
    buffer = DEVICE.alloc(24)
    DEVICE.h2d(buffer, np.arange(6, dtype=np.float32))
    array = DEVICE.lend(buffer, (2, 2), FLOAT32)
    assert array is not None
    assert array.ctypes.data == buffer.address
    assert array.tolist() == [[0, 1], [2, 3]]


def test_outputs_are_the_callers_own() -> None:
    """None is another one, a constant's memory, or what the next run writes."""
    text = """g (float[N, 64] x) => (float[N, 64] y, float[N, 64] z, float[64, 64] e, float[64, 64] w)
    { y = Mul (x, x) z = Identity (y) e = Exp (w) }"""
    weight = normal(64, 64)
    session = omniop.load(model(text, w=weight), device="cpu")
    x = normal(300, 64)
    first = session.run({"x": x})
    for value in first.values():
        value += 1
    second = session.run({"x": x})
    np.testing.assert_array_equal(second["y"], x * x)
    np.testing.assert_array_equal(second["z"], x * x)
    np.testing.assert_allclose(second["e"], np.exp(weight), rtol=1e-6)
    np.testing.assert_array_equal(second["w"], weight)
    np.testing.assert_array_equal(first["y"], x * x + 1)
    arrays = [*first.values(), *second.values()]
    assert not any(np.shares_memory(a, b) for k, a in enumerate(arrays) for b in arrays[:k])
