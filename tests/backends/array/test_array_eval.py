"""`KernelEvaluator` against a scalar interpreter that runs a kernel point by point, as its docstring says."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from omniop.backends.array_eval import KernelEvaluator
from omniop.backends.reference.numpy_ops import NUMPY
from omniop.opset import expr
from omniop.opset.dtype import BOOL, FLOAT32, FLOAT64, INT32, INT64
from omniop.opset.expr import Expr
from omniop.opset.kernel import Carry, Kernel, Param, Store

SCALAR: dict[str, Any] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "min": min,
    "max": max,
    "floordiv": lambda a, b: a // b,
    "floormod": lambda a, b: a % b,
    "and": lambda a, b: a and b,
    "eq": lambda a, b: a == b,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "exp": math.exp,
}


class Interpreter:
    """One point at a time, in plain numbers."""

    def __init__(self, kernel: Kernel, arrays: Sequence[np.ndarray], sizes: Sequence[int]) -> None:
        self.kernel, self.arrays = kernel, arrays
        self.sizes = {f"s{k}": v for k, v in enumerate(sizes)}

    def run(self) -> None:
        kernel = self.kernel
        for point in self.points(kernel.axes, {}):
            steps = 1 if kernel.seq is None else self.extent(kernel.seq)
            carries = [self.value(c.init, point, []) for c in kernel.carries]
            for step in range(steps):
                at = point if kernel.seq is None else point | {kernel.seq: step}
                for store in kernel.stores if kernel.until is None else ():
                    self.store(store, at, carries)
                carries = [self.value(c.update, at, carries) for c in kernel.carries]
            for store in () if kernel.until is None else kernel.stores:
                self.store(store, point, carries)

    def extent(self, axis: Expr) -> int:
        return expr.evaluate(axis.args[0], self.sizes)

    def points(self, axes: Sequence[Expr], outer: dict[Expr, int]) -> list[dict[Expr, int]]:
        ranges = [range(self.extent(a)) for a in axes]
        return [outer | dict(zip(axes, p, strict=True)) for p in itertools.product(*ranges)]

    def store(self, store: Store, at: dict[Expr, int], carries: Sequence[Any]) -> None:
        if store.guard is not None and not self.value(store.guard, at, carries):
            if store.fault:
                self.fault(store.fault)
            return
        place, value = self.value(store.offset, at, carries), self.value(store.value, at, carries)
        target = self.arrays[store.buffer]
        target[place] = value if store.combine is None else SCALAR[store.combine](target[place], value)

    def fault(self, code: int) -> None:
        assert self.kernel.error is not None
        self.arrays[self.kernel.error][0] = code

    def value(self, node: Expr, at: dict[Expr, int], carries: Sequence[Any]) -> Any:
        if node.op == "load":
            (offset,), guard, other = expr.load_parts(node)
            if guard is not None and not self.value(guard, at, carries):
                if node.attr.fault:
                    self.fault(node.attr.fault)
                assert other is not None
                return self.value(other, at, carries)
            return self.arrays[node.attr.source][self.value(offset, at, carries)].item()
        if node.op == "reduce":
            return self.reduce(node, at, carries)
        if node.op in ("axis", "carry"):
            return at[node] if node.op == "axis" else carries[node.attr]
        if node.op in ("const", "size"):
            return node.attr if node.op == "const" else self.sizes[node.attr]
        args = [self.value(a, at, carries) for a in node.args]
        if node.op == "select":
            return args[1] if args[0] else args[2]
        return node.dtype.numpy.type(args[0]).item() if node.op == "cast" else SCALAR[node.attr](*args)

    def reduce(self, node: Expr, at: dict[Expr, int], carries: Sequence[Any]) -> Any:
        axes, values = node.args[: node.attr.axes], node.args[node.attr.axes :]
        rows = [[self.value(v, p, carries) for v in values] for p in self.points(axes, at)]
        if node.attr.monoid in ("argmin", "argmax"):
            sign = -1 if node.attr.monoid == "argmax" else 1
            return min(rows, key=lambda row: (not math.isnan(row[0]), sign * row[0], row[1]))[1]
        result = rows[0][0]
        for (value,) in rows[1:]:
            result = SCALAR[node.attr.monoid](result, value)
        return result


def load(buffer: int, offset: Expr, **options: Any) -> Expr:
    return expr.load(buffer, (offset,), FLOAT64, **options)


IN, OUT, WHOLE = Param(FLOAT64), Param(FLOAT64, True), Param(INT64, True)
i, j, k = (expr.raw_axis(n, expr.index(e)) for n, e in enumerate((3, 4, 5)))
n = expr.raw_axis(0, expr.size("s0"))
seq = expr.raw_axis(1, expr.index(6))

SOFTMAX = expr.alu("exp", load(0, i * 4 + j) - expr.reduce("max", (k,), (load(0, i * 4 + k % 4),)))

KERNELS: dict[str, Kernel] = {
    "strides": Kernel((IN, OUT), (i, j), (Store(1, j * 3 + i, load(0, 20 - i * 4 - j * 2)),)),
    "broadcast": Kernel((IN, OUT), (i, j), (Store(1, i * 4 + j, load(0, j) + 1.0),)),
    "sizes": Kernel((IN, OUT), (n,), (Store(1, n * expr.size("s1"), load(0, n + expr.size("s1"))),), 2),
    "gather": Kernel((IN, OUT), (i, j), (Store(1, i * 4 + j, load(0, (i * j) % 5)),)),
    "guarded load": Kernel((IN, OUT), (i, j), (Store(1, i * 4 + j, load(0, j - 1, guard=j >= 1, other=9.0)),)),
    "guarded store": Kernel((IN, OUT), (i, j), (Store(1, i * 4 + j, load(0, i), guard=i < j),)),
    "add duplicates": Kernel((IN, OUT), (i, j), (Store(1, j % 2, load(0, i * 4 + j), combine="add"),)),
    "max duplicates": Kernel((IN, OUT), (i, j), (Store(1, i % 2, load(0, i * 4 + j), guard=j < 3, combine="max"),)),
    "two stores": Kernel((IN, OUT, OUT), (i,), (Store(1, i, load(0, i)), Store(2, 2 - i, load(0, i) * 2.0))),
    "sum": Kernel((IN, OUT), (i,), (Store(1, i, expr.reduce("add", (j,), (load(0, i * 4 + j),))),)),
    "sum of what does not vary": Kernel((IN, OUT), (i,), (Store(1, i, expr.reduce("add", (j,), (load(0, i),))),)),
    "softmax": Kernel((IN, OUT), (i, j), (Store(1, i * 4 + j, SOFTMAX),)),
    "nested reduce": Kernel(
        (IN, OUT),
        (i,),
        (Store(1, i, expr.reduce("max", (j,), (expr.reduce("add", (k,), (load(0, i * 4 + (j + k) % 4),)),))),),
    ),
    "argmax": Kernel((IN, WHOLE), (i,), (Store(1, i, expr.reduce("argmax", (j,), (load(0, i * 4 + j), j))),)),
    "argmin, last": Kernel((IN, WHOLE), (i,), (Store(1, i, expr.reduce("argmin", (j,), (load(0, i * 4 + j), 3 - j))),)),
    "running sum": Kernel(
        (IN, OUT),
        (i,),
        (Store(1, i * 6 + seq, expr.carry(0, FLOAT64)),),
        seq=seq,
        carries=(Carry(FLOAT64, expr.const(0.0, FLOAT64), expr.carry(0, FLOAT64) + load(0, i + seq)),),
    ),
    "carries at once": Kernel(
        (IN, OUT),
        (),
        (Store(1, seq, expr.carry(0, FLOAT64)),),
        seq=seq,
        carries=(
            Carry(FLOAT64, expr.const(1.0, FLOAT64), expr.carry(1, FLOAT64)),
            Carry(FLOAT64, expr.const(2.0, FLOAT64), expr.carry(0, FLOAT64) + expr.carry(1, FLOAT64)),
        ),
    ),
    "fold": Kernel(
        (IN, OUT),
        (i,),
        (Store(1, i, expr.carry(0, FLOAT64)),),
        seq=seq,
        carries=(Carry(FLOAT64, load(0, i), expr.maximum(expr.carry(0, FLOAT64) - 1.5, -5.0)),),
        until=expr.carry(0, FLOAT64) <= -5.0,
    ),
    "steps see what was stored": Kernel((IN, OUT), (), (Store(1, seq + 1, load(1, seq) + load(0, seq)),), seq=seq),
    "fault": Kernel((IN, OUT, Param(INT32, True)), (i,), (Store(1, i, load(0, i, guard=i < 2, fault=7)),), error=2),
    "store fault": Kernel(
        (IN, OUT, Param(INT32, True)), (i,), (Store(1, i, load(0, i), guard=i < 2, fault=5),), error=2
    ),
    "no fault": Kernel((IN, OUT, Param(INT32, True)), (i,), (Store(1, i, load(0, i, guard=i < 3, fault=7)),), error=2),
    "cast and select": Kernel(
        (IN, OUT),
        (i, j),
        (Store(1, i * 4 + j, expr.select(load(0, i * 4 + j) < 0.0, 0.0, expr.cast(expr.cast(i + j, INT32), FLOAT64))),),
    ),
}


def arrays_of(kernel: Kernel) -> list[np.ndarray]:
    """Inputs with ties among them; outputs that start as something else; an error word of 0."""
    values = np.random.default_rng(0).integers(-4, 5, 40)
    return [
        np.zeros(1, np.int32) if p.dtype is INT32 else (values - 50 * p.written).astype(p.dtype.numpy)
        for p in kernel.params
    ]


@pytest.mark.parametrize("name", KERNELS)
def test_kernel(name: str) -> None:
    kernel = KERNELS[name]
    actual, expected = arrays_of(kernel), arrays_of(kernel)
    sizes = (7, 3)[: kernel.sizes]
    KernelEvaluator(kernel, NUMPY)(actual, sizes)
    Interpreter(kernel, expected, sizes).run()
    for x, y in zip(actual, expected, strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-12)
    assert any((x != y).any() for x, y in zip(actual, arrays_of(kernel), strict=True))


def test_nan_wins_an_arg_reduce() -> None:
    kernel = KERNELS["argmax"]
    values = np.array([1, np.nan, 3, np.nan, 1, 2, 2, 0, np.inf, np.inf, -np.inf, 0])
    found = np.zeros(3, np.int64)
    KernelEvaluator(kernel, NUMPY)([values, found], ())
    assert found.tolist() == [1, 1, 0]


def test_an_evaluator_serves_all_sizes() -> None:
    evaluator = KernelEvaluator(KERNELS["sizes"], NUMPY)
    source = np.arange(20.0)
    for count, step in ((4, 2), (1, 5), (6, 3)):
        target = np.zeros(20)
        evaluator([source, target], (count, step))
        expected = np.zeros(20)
        expected[: count * step : step] = source[step : step + count]
        np.testing.assert_array_equal(target, expected)


def test_values_shared_by_stores_are_computed_before_any_of_them() -> None:
    """Both stores read the input as it was, and bool buffers hold truth values."""
    axis = expr.raw_axis(0, expr.index(4))
    value = expr.load(0, (axis,), FLOAT32)
    kernel = Kernel(
        (Param(FLOAT32), Param(BOOL, True), Param(FLOAT32, True)),
        (axis,),
        (Store(1, axis, value < 2.0), Store(2, axis, value * value)),
    )
    x, test, square = np.arange(4, dtype=np.float32), np.zeros(4, bool), np.zeros(4, np.float32)
    KernelEvaluator(kernel, NUMPY)([x, test, square], ())
    assert test.tolist() == [True, True, False, False]
    assert square.tolist() == [0, 1, 4, 9]
