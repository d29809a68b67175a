"""Memory: what goes to a device comes back, whatever its size, and nothing else changes."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np

from omniop.conformance.prim.bench import Bench
from omniop.conformance.prim.table import Check, checks
from omniop.opset import dtype as dtypes

SIZES = (1, 2, 3, 4, 7, 63, 64, 65, 255, 257, 4095, 4097, 65537, (1 << 20) + 3)
"""Bytes."""


@checks
def memory() -> Iterator[Check]:
    for size in SIZES:
        yield Check(f"memory_there_and_back_{size}", "memory", ("uint8",), partial(_round_trip, size), "memory")
        yield Check(f"memory_copy_{size}", "memory", ("uint8",), partial(_copy, size), "memory")
    for about in (_start_only, _many, _threads, _overwritten, _source_may_change, _lent, _borrowed):
        yield Check(f"memory{about.__name__}", "memory", ("uint8",), about, "memory")


def _bytes(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([size, seed]).integers(0, 256, size).astype(np.uint8)


def _round_trip(size: int, bench: Bench) -> None:
    data = _bytes(size)
    bench.expect(bench.download(bench.upload(data), data), data)
    bench.settle()


def _copy(size: int, bench: Bench) -> None:
    """On the device, into the start of a buffer that is larger."""
    data, other = _bytes(size), _bytes(size + 5, 1)
    source, target = bench.upload(data), bench.upload(other)
    bench.device.copy(target, source, size)
    bench.expect(bench.download(target, other), np.concatenate([data, other[size:]]))
    bench.expect(bench.download(source, data), data, what="the source")
    bench.settle()


def _start_only(bench: Bench) -> None:
    """Writing the start of a buffer leaves its rest; reading the start reads no more."""
    data, start = _bytes(1000), _bytes(13, 1)
    buffer = bench.upload(data)
    bench.device.h2d(buffer, start)
    bench.expect(bench.download(buffer, data), np.concatenate([start, data[13:]]))
    bench.expect(bench.download(buffer, start), start)
    bench.settle()


def _many(bench: Bench) -> None:
    """Three hundred buffers at once, none on top of another."""
    arrays = [_bytes(1 + 7 * k % 300, k) for k in range(300)]
    buffers = [bench.upload(array) for array in arrays]
    for buffer, array in zip(buffers, arrays, strict=True):
        bench.expect(bench.download(buffer, array), array)
    bench.settle()


def _threads(bench: Bench) -> None:
    """Four threads, each with memory of its own."""

    def trip(seed: int) -> bool:
        return all(np.array_equal(bench.download(bench.upload(d := _bytes(5000 + k, seed)), d), d) for k in range(20))

    with ThreadPoolExecutor(4) as pool:
        bench.expect(np.array(list(pool.map(trip, range(4)))), np.ones(4, bool))
    bench.settle()


def _overwritten(bench: Bench) -> None:
    """The last of several writes is what is read."""
    buffer = bench.upload(_bytes(4097))
    for seed in range(1, 6):
        bench.device.h2d(buffer, _bytes(4097, seed))
    bench.expect(bench.download(buffer, _bytes(4097)), _bytes(4097, 5))
    bench.settle()


def _source_may_change(bench: Bench) -> None:
    """An array may be written once h2d has returned."""
    data = _bytes(1 << 20)
    kept = data.copy()
    buffer = bench.upload(data)
    data[:] = 0
    bench.expect(bench.download(buffer, kept), kept)
    bench.settle()


def _lent(bench: Bench) -> None:
    """Memory that the device lends holds what the buffer holds, and outlives it."""
    data = np.arange(60, dtype=np.float32).reshape(3, 20)
    device = bench.unguarded
    buffer = device.alloc(data.nbytes)
    device.h2d(buffer, data)
    lent = device.lend(buffer, data.shape, dtypes.FLOAT32)
    del buffer
    bench.expect(data if lent is None else np.array(lent), data)


def _borrowed(bench: Bench) -> None:
    """The host's memory as a buffer: read as it is, at any alignment."""
    store = _bytes(4096 + 64)
    device = bench.unguarded
    for start in (0, 1, 4, 16, 63):
        data = store[start : start + 4096]
        buffer = device.borrow(data)
        if buffer is not None:
            found = np.empty_like(data)
            device.d2h(found, buffer)
            bench.expect(found, data, what=f"from byte {start}")
