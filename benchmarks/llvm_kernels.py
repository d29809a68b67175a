"""Median time of a few kernels compiled through LLVM on one thread, against numpy doing the same.

python benchmarks/llvm_kernels.py [--runs N]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator

import numpy as np

from omniop.backends.cpu import jit
from omniop.opset import expr
from omniop.opset.dtype import FLOAT32
from omniop.opset.expr import Expr
from omniop.opset.kernel import Kernel, Param, Store

READ, WRITTEN = Param(FLOAT32), Param(FLOAT32, written=True)
Case = tuple[str, Kernel, list[np.ndarray], Callable[[], np.ndarray]]


def element(buffer: int, offset: Expr) -> Expr:
    return expr.load(buffer, (offset,), FLOAT32)


def matrix(rows: int, columns: int) -> tuple[Expr, Expr, Expr, Expr]:
    """Row, column, the offset there, and the offset along the row for a reduce."""
    i, j, k = expr.axis(0, rows), expr.axis(1, columns), expr.axis(2, columns)
    return i, j, i * columns + j, i * columns + k


def add(rng: np.random.Generator) -> Case:
    n = 128 * 768
    i = expr.axis(0, n)
    x, y, out = rng.normal(size=n).astype("f"), rng.normal(size=n).astype("f"), np.empty(n, "f")
    kernel = Kernel((READ, READ, WRITTEN), (i,), (Store(2, i, element(0, i) + element(1, i)),))
    return "add 128x768", kernel, [x, y, out], lambda: np.add(x, y)


def gelu(rng: np.random.Generator) -> Case:
    i, j, at, _ = matrix(128, 3072)
    x, b, out = rng.normal(size=(128, 3072)).astype("f"), rng.normal(size=3072).astype("f"), np.empty((128, 3072), "f")
    z = element(0, at) + element(1, j)
    value = z * 0.5 * (expr.alu("erf", z * 0.7071067811865476) + 1.0)
    kernel = Kernel((READ, READ, WRITTEN), (i, j), (Store(2, at, value),))

    def numpy() -> np.ndarray:  # numpy has no erf: the tanh form, for the time it takes
        z = x + b
        return 0.5 * z * (1 + np.tanh(0.7978845608 * (z + 0.044715 * z * z * z)))

    return "bias+gelu 128x3072", kernel, [x, b, out], numpy


def softmax(rng: np.random.Generator) -> Case:
    i, j, at, along = matrix(12 * 128, 128)
    _, _, k = i, j, expr.axis(2, 128)
    x, out = rng.normal(size=(12 * 128, 128)).astype("f"), np.empty((12 * 128, 128), "f")
    highest = expr.reduce("max", (k,), (element(0, along),))
    total = expr.reduce("add", (k,), (expr.alu("exp", element(0, along) - highest),))
    kernel = Kernel((READ, WRITTEN), (i, j), (Store(1, at, expr.alu("exp", element(0, at) - highest) / total),))

    def numpy() -> np.ndarray:
        e = np.exp(x - x.max(axis=-1, keepdims=True))
        return e / e.sum(axis=-1, keepdims=True)

    return "softmax 12x128x128", kernel, [x, out], numpy


def layernorm(rng: np.random.Generator) -> Case:
    i, j, at, along = matrix(128, 768)
    k = expr.axis(2, 768)
    x, out = rng.normal(size=(128, 768)).astype("f"), np.empty((128, 768), "f")
    scale, bias = rng.normal(size=768).astype("f"), rng.normal(size=768).astype("f")
    mean = expr.reduce("add", (k,), (element(0, along),)) / 768.0
    centred = element(0, along) - mean
    deviation = expr.alu("sqrt", expr.reduce("add", (k,), (centred * centred,)) / 768.0 + 1e-5)
    value = (element(0, at) - mean) / deviation * element(1, j) + element(2, j)
    kernel = Kernel((READ, READ, READ, WRITTEN), (i, j), (Store(3, at, value),))

    def numpy() -> np.ndarray:
        c = x - x.mean(axis=-1, keepdims=True)
        return c / np.sqrt((c * c).mean(axis=-1, keepdims=True) + np.float32(1e-5)) * scale + bias

    return "layernorm 128x768", kernel, [x, scale, bias, out], numpy


def transpose(rng: np.random.Generator) -> Case:
    i, j = expr.axis(0, 768), expr.axis(1, 768)
    x, out = rng.normal(size=(768, 768)).astype("f"), np.empty((768, 768), "f")
    kernel = Kernel((READ, WRITTEN), (i, j), (Store(1, i * 768 + j, element(0, j * 768 + i)),))
    return "transpose 768x768", kernel, [x, out], lambda: np.ascontiguousarray(x.T)


def column_sums(rng: np.random.Generator) -> Case:
    j, k = expr.axis(0, 768), expr.axis(1, 768)
    x, out = rng.normal(size=(768, 768)).astype("f"), np.empty(768, "f")
    kernel = Kernel((READ, WRITTEN), (j,), (Store(1, j, expr.reduce("add", (k,), (element(0, k * 768 + j),))),))
    return "column sums 768x768", kernel, [x, out], lambda: x.sum(axis=0)


def cases() -> Iterator[Case]:
    rng = np.random.default_rng(0)
    for make in (add, gelu, softmax, layernorm, transpose, column_sums):
        yield make(rng)


def median(function: Callable[[], object], runs: int) -> float:
    """Median seconds of a call, after a first one that is not counted."""
    function()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=200)
    runs = parser.parse_args().runs
    print(f"{'kernel':22} {'build ms':>9} {'LLVM us':>9} {'numpy us':>9} {'times':>6}  largest difference")
    for name, kernel, arrays, numpy in cases():
        start = time.perf_counter()
        (compiled,) = jit.build([kernel])
        build = time.perf_counter() - start
        table = np.array([a.ctypes.data for a in arrays], np.int64)
        buffers, end = table.ctypes.data, compiled.points(0)
        ours = median(lambda c=compiled, b=buffers, e=end: c(b, 0, 0, e), runs)
        theirs = median(numpy, runs)
        difference = np.abs(arrays[-1].ravel() - numpy().ravel()).max()
        times = f"{build * 1e3:9.1f} {ours * 1e6:9.1f} {theirs * 1e6:9.1f} {theirs / ours:6.2f}"
        print(f"{name:22} {times}  {difference:.1e}")


if __name__ == "__main__":
    main()
