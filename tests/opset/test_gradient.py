"""Derivatives of traced prims, against differences of float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from evaluate import Interpreter

from omniop.opset import expr, trace
from omniop.opset import prims as p
from omniop.opset.alu import ALU
from omniop.opset.definitions import Tensor, TensorStore
from omniop.opset.derivatives import cotangents
from omniop.opset.dtype import BOOL, FLOAT32, FLOAT64, INT64
from omniop.opset.errors import UnsupportedError
from omniop.opset.expr import Expr
from omniop.opset.gradient import gradients
from omniop.opset.lower.fft import Complex, Signal, Sink, transform_real
from omniop.opset.lower.normalization import moments
from omniop.opset.lower.softmax import log_softmax, softmax

Function = Callable[..., Tensor]


def sources(tr: trace.Trace, arrays: list[np.ndarray], symbolic: bool) -> list[Tensor]:
    made = []
    for n, a in enumerate(arrays):
        dims = [tr.env.symbol(f"d{n}_{k}", d) if symbolic else d for k, d in enumerate(a.shape)]
        made.append(p.source(f"x{n}", dims, FLOAT64 if a.dtype == np.float64 else INT64))
    return made


def value(function: Function, arrays: list[np.ndarray]) -> np.ndarray:
    tr = trace.Trace()
    with trace.tracing(tr):
        y = function(*sources(tr, arrays, False))
        return Interpreter(tr, {f"x{n}": a for n, a in enumerate(arrays)}).value(y)


def found(function: Function, arrays: list[np.ndarray], symbolic: bool) -> list[np.ndarray]:
    tr = trace.Trace()
    with trace.tracing(tr):
        xs = sources(tr, arrays, symbolic)
        floats = [x for x in xs if x.dtype.is_float]
        results = gradients(function(*xs), floats)
        run = Interpreter(tr, {f"x{n}": a for n, a in enumerate(arrays)})
        return [run.value(t) for t in results]


def differences(function: Function, arrays: list[np.ndarray], step: float = 1e-6) -> list[np.ndarray]:
    result = []
    for n, a in enumerate(arrays):
        if a.dtype != np.float64:
            continue
        slopes = np.zeros_like(a)
        for place in np.ndindex(a.shape):
            ends = []
            for side in (step, -step):
                moved = [b.copy() for b in arrays]
                moved[n][place] += side
                ends.append(value(function, moved).sum())
            slopes[place] = (ends[0] - ends[1]) / (2 * step)
        result.append(slopes)
    return result


def check(function: Function, *arrays: np.ndarray) -> None:
    expected = differences(function, list(arrays))
    for symbolic in (False, True):
        for a, b in zip(found(function, list(arrays), symbolic), expected, strict=True):
            assert a.shape == b.shape
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


UNARY = [name for name, op in ALU.items() if op.arity == 1 and "f" in op.kinds and op.result != "bool"]
INSIDE = {"asin": 0.7, "acos": 0.7, "atanh": 0.7}
ABOVE = {"log": 0.5, "sqrt": 0.5, "acosh": 1.5}


@pytest.mark.parametrize("name", UNARY)
def test_unary(name: str) -> None:
    x = np.linspace(-1.9, 1.95, 8)
    x = np.abs(x) + ABOVE[name] if name in ABOVE else x * INSIDE[name] / 2 if name in INSIDE else x
    check(lambda t: p.alu(name, t), x)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "min", "max", "rem", "pow", "atan2"])
def test_binary_with_broadcasting(name: str) -> None:
    a, b = np.abs(normal(2, 3)) + 0.5, np.abs(normal(3, seed=1)) + 0.7
    check(lambda x, y: p.alu(name, x, y), a, b)
    check(lambda x, y: p.alu(name, x, y), a, normal(1, 1, seed=2) ** 2 + 0.3)


def test_every_operation_on_floats_is_known() -> None:
    for name, op in ALU.items():
        if "f" in op.kinds and op.result != "bool":
            operands = [expr.load(k, (expr.index(0),), FLOAT32) for k in range(op.arity)]
            given = cotangents(expr.alu(name, *operands), expr.const(1.0, FLOAT32))
            assert all(c.dtype is FLOAT32 for c in given)


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return p.contract(softmax(p.contract(q, p.transpose(k, (1, 0))), [-1]), v)


def normalised(x: Tensor) -> Tensor:
    _, deviation, variance = moments(x, [-1])
    y = p.div(deviation, p.elementwise(lambda v: expr.alu("sqrt", v + 1e-3), variance))
    return p.mul(y, p.iota(x.shape, 1, FLOAT64))


def gathered(x: Tensor, places: Tensor) -> Tensor:
    """Rows, one of them twice, weighted by where they go."""
    picked = p.map_of([places.shape[0], x.shape[1]], lambda i, j: x.at(places.at(i), j))
    return p.mul(picked, p.iota(picked.shape, 0, FLOAT64))


def scattered(x: Tensor, y: Tensor, combine: str | None) -> Tensor:
    """The elements of y stored, or added, at every other place of x."""
    stored = p.scatter_of(x, y.shape, lambda i: ((i * 2,), y.at(i) * y.at(i), None), combine)
    return p.mul(stored, p.mul(stored, p.iota(x.shape, 0, FLOAT64)))


def convolved(x: Tensor, w: Tensor) -> Tensor:
    shape = [1, w.shape[0], x.shape[2], x.shape[3]]
    attrs = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), "group": 1}
    y = p.structured("conv", [x, w], [(shape, x.dtype)], **attrs)[0]
    return p.mul(y, y)


def pooled(x: Tensor) -> Tensor:
    attrs = {"monoid": "max", "kernel": (2, 2), "strides": (2, 2), "pads": (0,) * 4, "dilations": (1, 1)}
    return p.structured("window_reduce", [x], [([1, 1, 2, 2], x.dtype)], **attrs)[0]


def selected(x: Tensor, y: Tensor) -> Tensor:
    return p.elementwise(lambda a, b: expr.select(a < b, a * b, a - b), x, y)


def spectrum(x: Tensor) -> Tensor:
    """The squares of what a real signal's transform is made of, of three passes and what takes pairs apart."""

    def squares(lead: Sequence[Expr], k: Expr, value: Complex) -> list[TensorStore]:
        return [TensorStore(0, (*lead, k), value.re * value.re + value.im * value.re * 0.5)]

    signal = Signal((), 20, lambda t: Complex(x.at(t), expr.const(0.0, x.dtype)), x.dtype)
    return transform_real(signal, -1, Sink(20, [([20], x.dtype)], squares))[0]


FUNCTIONS: dict[str, tuple[Function, list[np.ndarray]]] = {
    "attention": (attention, [normal(3, 4), normal(5, 4, seed=1), normal(5, 2, seed=2)]),
    "batched product": (lambda a, b: p.alu("exp", p.contract(a, b)), [normal(2, 3, 4) / 3, normal(4, 2) / 3]),
    "normalised": (normalised, [normal(3, 5)]),
    "log-softmax": (lambda x: p.mul(log_softmax(x, [1]), p.iota(x.shape, 1, FLOAT64)), [normal(3, 4)]),
    "sum of a product": (lambda x: p.reduce("add", p.mul(x, x), [0]), [normal(3, 4)]),
    "greatest": (lambda x: p.mul(p.reduce("max", x, [1]), p.reduce("min", x, [1])), [normal(4, 5)]),
    "transpose": (lambda x: p.mul(p.transpose(x, (1, 0)), p.iota((4, 3), 0, FLOAT64)), [normal(3, 4)]),
    "reshape": (lambda x: p.mul(p.reshape(x, [6, 2]), p.iota((6, 2), 0, FLOAT64)), [normal(3, 4)]),
    "concat": (lambda a, b: p.alu("sin", p.concat([a, b, a], 0)), [normal(2, 3), normal(1, 3, seed=1)]),
    "pad": (lambda x: p.alu("cos", p.pad(x, [1, 0], [0, 2], 0.5)), [normal(2, 3)]),
    "slice": (lambda x: p.alu("exp", p.strided_slice(x, [1, 0], [1, 2], [2, 2])), [normal(3, 4)]),
    "gather": (gathered, [normal(3, 2), np.array([2, 0, 2, 2])]),
    "scatter": (lambda x, y: scattered(x, y, None), [normal(6), normal(3, seed=1)]),
    "scatter-add": (lambda x, y: scattered(x, y, "add"), [normal(6), normal(3, seed=1)]),
    "convolution": (convolved, [normal(1, 2, 4, 3), normal(3, 2, 3, 3, seed=1)]),
    "spectrum": (spectrum, [normal(20)]),
    "pool": (pooled, [normal(1, 1, 4, 4)]),
    "select": (selected, [normal(3, 4), normal(4, seed=1)]),
    "scalar": (lambda x: p.mul(x, x), [np.asarray(1.5)]),
    "ones": (lambda x: p.mul(x, x), [normal(1, 3, 1)]),
}


@pytest.mark.parametrize(("function", "arrays"), FUNCTIONS.values(), ids=FUNCTIONS)
def test_as_differences(function: Function, arrays: list[np.ndarray]) -> None:
    check(function, *arrays)


def test_of_gradients() -> None:
    """The gradient is made of prims, and has a gradient."""

    def slopes(x: Tensor) -> Tensor:
        return gradients(p.mul(softmax(x, [-1]), p.iota(x.shape, 1, FLOAT64)), [x])[0]

    def weighted(x: Tensor) -> Tensor:
        return p.mul(slopes(x), p.iota(x.shape, 1, FLOAT64))

    check(weighted, normal(2, 4))


def test_ties_share() -> None:
    (slopes,) = found(lambda x: p.reduce("max", x, [1]), [np.array([[1.0, 3.0, 3.0, 3.0]])], True)
    np.testing.assert_allclose(slopes, [[0, 1 / 3, 1 / 3, 1 / 3]])
    assert found(lambda x: p.elementwise(lambda e: expr.maximum(e, 0), x), [np.zeros(1)], True)[0] == [0.5]


def test_what_does_not_vary_gives_zeros() -> None:
    a, b = found(lambda x, y: p.cast(p.cast(x, INT64), FLOAT64), [normal(2, 3), normal(2)], True)
    assert (a.shape, b.shape) == ((2, 3), (2,))
    assert not a.any()
    assert not b.any()


def test_what_has_no_derivative() -> None:
    def product(x: Tensor) -> Tensor:
        return p.reduce("mul", x, [0])

    def recurrence(x: Tensor) -> Tensor:
        return p.repeat(3, [x], lambda step, t: ([p.mul(t, t)], []))[0][0]

    def compared(x: Tensor) -> Tensor:
        return p.scatter_of(x, [2], lambda i: ((i,), x.at(i), expr.const(True, BOOL)), "max")

    for function, words in ((product, "reduce by 'mul'"), (recurrence, "recurrence"), (compared, "compares")):
        with pytest.raises(UnsupportedError, match=words):
            found(function, [normal(4)], False)
