"""Tensors made from nothing but a shape or a few numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from omniop.opset import dtype as dtypes
from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.definitions import Tensor
from omniop.opset.dtype import FLOAT32, FLOAT64, INT64, DType
from omniop.opset.expr import Expr
from omniop.opset.host_arithmetic import constant_value
from omniop.opset.host_elements import range_count
from omniop.opset.lower.common import counts, real, require_rank, scalar_of
from omniop.opset.lowering import Node, Value, as_tensor, lowering
from omniop.opset.sym import Dim, as_expr


@lowering("Constant")
def constant(node: Node) -> Tensor:
    value = constant_value(node)
    if value.dtype is dtypes.STRING:
        raise node.unsupported("a constant of strings belongs on the host")
    return as_tensor(value)


@lowering("ConstantOfShape", host=(0,))
def constant_of_shape(node: Node, shape: Value) -> Tensor:
    dims = counts(node, node.ints(0) or [], "a shape of")
    given: np.ndarray | None = node.attr("value")
    if given is None:
        return p.full(dims, 0.0, FLOAT32)
    return p.full(dims, given.reshape(-1)[0].item(), dtypes.of_numpy(given.dtype))


@lowering("Range", host=(0, 1, 2))
def arange(node: Node, start: Value, limit: Value, delta: Value) -> Tensor:
    """``start + i * delta`` below ``limit``; narrow floats are computed in float32 and rounded once."""
    values = [node.host(k) for k in range(3)]
    first, last, step = (v.array.reshape(-1)[0] for v in values if v is not None)
    dtype: DType = start.dtype
    wide = p.accumulator(dtype)

    def scalar(v: Dim | float) -> Expr:
        return expr.const(v, wide) if isinstance(v, float) else expr.cast(as_expr(v), wide)

    count = range_count(node, first, last, step)
    return p.map_of([count], lambda i: expr.cast(scalar(first) + expr.cast(i, wide) * scalar(step), dtype))


@lowering("EyeLike")
def eye_like(node: Node, x: Tensor) -> Tensor:
    require_rank(node, x, 2)
    given, k = node.attr("dtype"), node.attr("k", 0)
    dtype = x.dtype if given is None else dtypes.of_onnx(given)
    return p.map_of(x.shape, lambda i, j: expr.cast(j.eq(i + k), dtype))


@lowering("Trilu")
def trilu(node: Node, x: Tensor, k: Tensor | None = None) -> Tensor:
    """The upper or lower triangle from diagonal ``k``; 0 elsewhere."""
    require_rank(node, x, 2, or_more=True)
    upper, diagonal = bool(node.attr("upper", 1)), p.scalar(0, INT64) if k is None else scalar_of(node, k, "k")

    def value(*i: Expr) -> Expr:
        above, least = i[-1] - i[-2], expr.index(diagonal.at())
        return expr.select(above >= least if upper else above <= least, x.at(*i), 0)

    return p.map_of(x.shape, value)


WINDOWS: dict[str, Callable[[Expr], Expr]] = {
    "HannWindow": lambda cosine: (1 - cosine) * 0.5,
    "HammingWindow": lambda cosine: cosine * (-21 / 46) + 25 / 46,
    "BlackmanWindow": lambda cosine: (1 - cosine) * (0.34 - cosine * 0.16),
}
"""By c = cos(2 * pi * n / N); Blackman's 0.42 - 0.5 c + 0.08 (2 c * c - 1) in factors, so that its ends are 0."""


def _window(of: Callable[[Expr], Expr]) -> Callable[[Node, Value], Tensor]:
    def lower(node: Node, size: Value) -> Tensor:
        (count,) = node.ints(0) or [0]
        dtype = dtypes.of_onnx(node.attr("output_datatype", FLOAT32.onnx))
        wide = FLOAT64 if dtype is FLOAT64 else real(FLOAT32)
        length = count if node.attr("periodic", 1) else count - 1
        counts(node, [count], "a size of")

        def value(i: Expr) -> Expr:
            place = expr.cast(i, wide) / expr.cast(expr.maximum(as_expr(length), 1), wide)
            return expr.cast(of(expr.alu("cos", place * (2 * math.pi))), dtype)

        return p.map_of([count], value)

    return lower


for _op, _of in WINDOWS.items():
    lowering(_op, host=(0,))(_window(_of))
