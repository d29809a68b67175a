"""com.microsoft: activations, products and convolutions with an activation, and ops that ONNX took over later."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.contrib import DOMAIN
from omniop.opset.definitions import Tensor
from omniop.opset.errors import ModelError
from omniop.opset.expr import Expr
from omniop.opset.lower.activation import gelu, sigmoid
from omniop.opset.lower.common import axis_of, choice, formula, require_equal, require_rank
from omniop.opset.lower.convolution import convolve, with_bias
from omniop.opset.lower.creation import arange, trilu
from omniop.opset.lower.indexing import gather_nd
from omniop.opset.lower.linalg import gemm, matmul
from omniop.opset.lower.recurrent_activation import FUNCTIONS
from omniop.opset.lower.slicing import pad
from omniop.opset.lowering import HostValue, Node, Value, lowering
from omniop.opset.sym import Dim, as_expr

lowering("GatherND", domain=DOMAIN)(gather_nd)
lowering("Pad", domain=DOMAIN, host=(1,))(pad)
lowering("Trilu", domain=DOMAIN)(trilu)

# Activations ----------------------------------------------------------------------------------------------------------


@lowering("Gelu", domain=DOMAIN)
def exact_gelu(node: Node, x: Tensor) -> Tensor:
    return formula(lambda e: gelu(e, "none"), x)


@lowering("BiasGelu", domain=DOMAIN)
def bias_gelu(node: Node, x: Tensor, bias: Tensor) -> Tensor:
    return formula(lambda e, b: gelu(e + b, "none"), x, bias)


@lowering("FastGelu", domain=DOMAIN)
def fast_gelu(node: Node, x: Tensor, bias: Tensor | None = None) -> Tensor:
    if bias is None:
        return formula(lambda e: gelu(e, "tanh"), x)
    return formula(lambda e, b: gelu(e + b, "tanh"), x, bias)


@lowering("QuickGelu", domain=DOMAIN)
def quick_gelu(node: Node, x: Tensor) -> Tensor:
    alpha = node.attr("alpha")
    return formula(lambda e: e * sigmoid(alpha * e), x)


@lowering("BiasSplitGelu", domain=DOMAIN)
def bias_split_gelu(node: Node, x: Tensor, bias: Tensor) -> Tensor:
    """x [..., 2 D], bias [2 D]: the first half, times Gelu of the second."""
    require_equal(node, x.shape[-1] % 2, 0, "the last axis by two halves")
    half = x.shape[-1] // 2
    halves = [p.narrow(t, -1, start, half) for start in (0, half) for t in (x, bias)]
    return formula(lambda a, b, c, d: (a + b) * gelu(c + d, "none"), *halves)


# Products -------------------------------------------------------------------------------------------------------------


@lowering("TransposeMatMul", domain=DOMAIN)
@lowering("FusedMatMul", domain=DOMAIN)
def fused_matmul(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """alpha * A B, rounded once; see `_turned`."""
    alpha, dtype = node.attr("alpha", 1.0), a.dtype
    a, b = _turned(node, a, "A"), _turned(node, b, "B")
    if alpha == 1:
        return matmul(a, b)
    return p.elementwise(lambda e: expr.cast(e * alpha, dtype), matmul(a, b, p.accumulator(dtype)))


def _turned(node: Node, t: Tensor, which: str) -> Tensor:
    """An operand with its first axis made the last but one, and then its last two swapped, as attributes say."""
    if t.rank < 2:
        return t
    order = list(range(t.rank))
    if node.attr(f"transBatch{which}", 0):
        order = [*order[1:-1], order[0], order[-1]]
    if node.attr(f"trans{which}", 0):
        order = [*order[:-2], order[-1], order[-2]]
    return p.transpose(t, order)


@lowering("FusedGemm", domain=DOMAIN)
def fused_gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    parameters = [v for v in (node.attr("activation_alpha"), node.attr("activation_beta")) if v is not None]
    activate = _activation(node, parameters)
    return formula(activate, gemm(node, a, b, c))


@lowering("FusedConv", domain=DOMAIN)
def fused_conv(node: Node, x: Tensor, w: Tensor, b: Tensor | None = None, z: Tensor | None = None) -> Tensor:
    """activation(Conv(x, w, b) + z), rounded once."""
    activate = _activation(node, node.attr("activation_params") or ())
    wide = p.accumulator(x.dtype)
    y = with_bias(convolve(node, x, w, wide), b, wide)
    y = y if z is None else p.elementwise(lambda e, r: e + expr.cast(r, wide), y, z)
    return p.elementwise(lambda e: expr.cast(activate(e), x.dtype), y)


def _activation(node: Node, parameters: Sequence[float]) -> Callable[[Expr], Expr]:
    """What ``activation`` names, with parameters in order; those that are left out have the function's defaults."""
    name = (node.attr("activation") or "").lower()
    if not name:
        return lambda x: x
    if name == "clip":
        if len(parameters) != 2:
            raise ModelError(f"{node.label}: Clip with {len(parameters)} activation_params, where 2 are needed")
        low, high = parameters
        return lambda x: expr.minimum(expr.maximum(x, low), high)
    if name not in FUNCTIONS:
        raise node.unsupported(f"activation {name!r}; known: clip, {', '.join(FUNCTIONS)}")
    function = FUNCTIONS[name]
    rest = iter(parameters)
    alpha, beta = (0.0 if default is None else next(rest, default) for default in (function.alpha, function.beta))
    return lambda x: function.apply(x, alpha, beta)


@lowering("Inverse", domain=DOMAIN)
def inverse(node: Node, x: Tensor) -> Tensor:
    """Gauss-Jordan elimination with partial pivoting, one column a step; not finite where a matrix is singular."""
    require_rank(node, x, 2, or_more=True)
    n = x.shape[-1]
    require_equal(node, x.shape[-2], n, "an inverse is of square matrices")
    wide, batch = p.accumulator(x.dtype), x.shape[:-2]
    size = as_expr(n)

    def start(*i: Expr) -> Expr:
        *lead, row, column = i
        own = x.at(*lead, row, column, guard=column < size)
        return expr.select(column < size, expr.cast(own, wide), expr.cast((column - size).eq(row), wide))

    def eliminate(step: Dim, matrix: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        k = as_expr(step)

        def candidate(*i: Expr) -> tuple[Expr, Expr]:
            *lead, row = i
            magnitude = expr.alu("abs", matrix.at(*lead, row, k))
            return expr.select(row < k, -1.0, magnitude), row

        pivot = p.reduce_of(batch, [n], "argmax", candidate)

        def update(*i: Expr) -> Expr:
            *lead, row, column = i
            chosen = pivot.at(*lead)
            source = expr.select(row.eq(chosen), k, row)
            top = matrix.at(*lead, chosen, column) / matrix.at(*lead, chosen, k)
            below = matrix.at(*lead, source, column) - matrix.at(*lead, source, k) * top
            return expr.select(row.eq(k), top, below)

        return [p.map_of(matrix.shape, update)], []

    reduced = p.repeat(n, [p.map_of([*batch, n, n * 2], start)], eliminate)[0][0]
    return p.cast(p.narrow(reduced, -1, n, n), x.dtype)


_METRICS: dict[str, Callable[[Expr], Expr]] = {"sqeuclidean": lambda e: e, "euclidean": lambda e: expr.alu("sqrt", e)}


@lowering("CDist", domain=DOMAIN)
def cdist(node: Node, a: Tensor, b: Tensor) -> Tensor:
    """A [M, N], B [K, N]."""
    for t in (a, b):
        require_rank(node, t, 2)
    require_equal(node, a.shape[1], b.shape[1], "the columns of A and B")
    metric = choice(node, "metric", _METRICS)

    def square(i: Expr, j: Expr, k: Expr) -> Expr:
        difference = a.at(i, k) - b.at(j, k)
        return difference * difference

    return p.elementwise(metric, p.reduce_of([a.shape[0], b.shape[0]], [a.shape[1]], "add", square))


# Shapes ---------------------------------------------------------------------------------------------------------------


@lowering("ExpandDims", domain=DOMAIN, host=(1,))
def expand_dims(node: Node, x: Tensor, axis: Value) -> Tensor:
    places = node.static_ints(1) or []
    return p.unsqueeze(x, [axis_of(node, a, x.rank + 1) for a in places])


@lowering("Range", domain=DOMAIN, host=(0, 1, 2))
def range_with_default(node: Node, start: Value, limit: Value, delta: Value = None) -> Tensor:
    step = HostValue(np.array(1, dtype=object), start.dtype) if delta is None else delta
    return arange(replace(node, inputs=[start, limit, step]), start, limit, step)
