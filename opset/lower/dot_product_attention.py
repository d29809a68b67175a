"""Scaled dot-product attention (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762) with past keys and values.

Grouped query heads (https://arxiv.org/abs/2305.13245) are folded into the rows of one product for each key head: keys
and values are never copied for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from omniop.opset import dtype as dtypes
from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.definitions import Tensor
from omniop.opset.dtype import FLOAT64, DType
from omniop.opset.errors import ModelError
from omniop.opset.expr import Expr
from omniop.opset.lower.common import require_equal, require_rank
from omniop.opset.lower.softmax import softmax
from omniop.opset.lowering import Node, lowering
from omniop.opset.sym import Dim, as_expr, known_equal

Test = Callable[[Expr, Expr, Expr, Expr], Expr]
"""Of (batch, head, query, key): whether the query may attend to the key."""


@lowering("Attention", since=23)
def attention(
    node: Node,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    past_key: Tensor | None = None,
    past_value: Tensor | None = None,
    lengths: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """softmax(Q K^T scale + mask) V, on [batch, head, token, size], or with the heads packed as [batch, token, size].

    Outputs: the result, shaped as the query came; past and new keys, and values, joined; the scores at the stage that
    ``qk_matmul_output_mode`` names. A query that may attend to nothing gives 0.
    """
    packed = query.rank == 3
    groups = node.attr("kv_num_heads")
    query = split_heads(node, query, node.attr("q_num_heads"), "the query")
    key, value = (split_heads(node, t, groups, n) for t, n in ((key, "the key"), (value, "the value")))
    if (past_key is None) is not (past_value is None):
        raise ModelError(f"{node.label}: past_key and past_value go together")
    offset: Dim | None = 0
    if past_key is not None and past_value is not None:
        offset = past_key.shape[2]
        key, value = p.concat([past_key, key], 2), p.concat([past_value, value], 2)
    elif lengths is not None:
        offset = None
    raw = scores(node, query, key)
    capped = _capped(raw, node.attr("softcap", 0.0))
    biased = _biased(capped, mask, _tests(node, query.shape[2], offset, lengths))
    precision = node.attr("softmax_precision")
    weights = p.cast(_weights(biased, biased.dtype if precision is None else dtypes.of_onnx(precision)), query.dtype)
    y = grouped_product(weights, p.cast(value, query.dtype))
    stages = (raw, capped, biased, weights)
    mode = node.attr("qk_matmul_output_mode", 0)
    if not 0 <= mode < len(stages):
        raise ModelError(f"{node.label}: qk_matmul_output_mode is {mode}; it is 0 to {len(stages) - 1}")
    return (merge_heads(y) if packed else y, key, value, stages[mode])[: len(node.outputs)]


def split_heads(node: Node, t: Tensor, heads: int | None, what: str) -> Tensor:
    """[batch, token, heads * size] as [batch, head, token, size], which it may be already."""
    if t.rank != 3:
        require_rank(node, t, 4)
        return t
    if not heads:
        raise ModelError(f"{node.label}: {what} has rank 3, which needs the attributes q_num_heads and kv_num_heads")
    batch, tokens, width = t.shape
    require_equal(node, width % heads, 0, f"columns of {what} by {heads} heads")
    return p.transpose(p.reshape(t, [batch, tokens, heads, width // heads]), (0, 2, 1, 3))


def merge_heads(t: Tensor) -> Tensor:
    """The inverse of `split_heads`."""
    batch, heads, tokens, size = t.shape
    return p.reshape(p.transpose(t, (0, 2, 1, 3)), [batch, tokens, heads * size])


def scores(node: Node, query: Tensor, key: Tensor) -> Tensor:
    """Q K^T scale [batch, head, query, key]."""
    require_equal(node, query.shape[1] % key.shape[1], 0, f"query heads by {key.shape[1]} key heads")
    factor = _scale(node, query)
    if p.accumulator(query.dtype) is query.dtype:
        query = p.elementwise(lambda e: e * expr.cast(factor, e.dtype), query)
    else:
        # a narrow product may overflow: ONNX scales both sides
        root = expr.cast(expr.alu("sqrt", factor), query.dtype)
        query, key = (p.elementwise(lambda e: e * root, t) for t in (query, key))
    return grouped_product(query, p.transpose(key, (0, 1, 3, 2)))


def _scale(node: Node, query: Tensor) -> Expr:
    given, size = node.attr("scale"), query.shape[3]
    if given is None and not isinstance(size, int):
        return 1 / expr.alu("sqrt", expr.cast(as_expr(size), FLOAT64))
    return expr.const(1 / math.sqrt(int(size)) if given is None else given, FLOAT64)


def grouped_product(a: Tensor, b: Tensor, dtype: DType | None = None) -> Tensor:
    """a[batch, heads, M, K] x b[batch, groups, K, N] into ``dtype``, a's own by default: neighbouring heads of a group
    share one matrix."""
    batch, heads, m, k = a.shape
    groups, n = b.shape[1], b.shape[3]
    if known_equal(heads, groups):
        return p.contract(a, b, dtype)
    share = heads // groups
    folded = p.contract(p.reshape(a, [batch, groups, share * m, k]), b, dtype)

    def element(i: Expr, h: Expr, row: Expr, column: Expr) -> Expr:
        return folded.at(i, h // as_expr(share), h % as_expr(share) * as_expr(m) + row, column)

    return p.map_of([batch, heads, m, n], element)


def _capped(x: Tensor, cap: float) -> Tensor:
    return p.elementwise(lambda e: expr.alu("tanh", e / cap) * cap, x) if cap > 0 else x


def _tests(node: Node, queries: Dim, offset: Dim | None, lengths: Tensor | None) -> list[Test]:
    """``offset``: keys before the first query; None where ``lengths``, the valid keys of each image, say it."""

    def position(b: Expr, i: Expr) -> Expr:
        if offset is not None:
            return i + as_expr(offset)
        assert lengths is not None
        return i + lengths.at(b) - as_expr(queries)

    tests: list[Test] = []
    if node.attr("is_causal", 0):
        tests.append(lambda b, _, i, j: j <= position(b, i))
    left, right = node.attr("left_window_size", -1), node.attr("right_window_size", -1)
    if min(left, right) < -1:
        raise ModelError(f"{node.label}: window sizes are -1 (none) or more, not {left} and {right}")
    if left >= 0:
        tests.append(lambda b, _, i, j: position(b, i) <= j + left)
    if right >= 0:
        tests.append(lambda b, _, i, j: j <= position(b, i) + right)
    if lengths is not None:
        tests.append(lambda b, _, __, j: j < lengths.at(b))
    return tests


def _biased(x: Tensor, mask: Tensor | None, tests: list[Test]) -> Tensor:
    """Scores plus a float mask, and -inf where a test, a bool mask or a float mask forbids."""
    if mask is None and not tests:
        return x
    never = expr.const(float("-inf"), x.dtype)

    def element(*at: Expr) -> Expr:
        e, allowed = x.at(*at), [test(*at) for test in tests]
        if mask is not None:
            m = _mask_element(mask, at, x.shape)
            if m.dtype.kind == "b":
                allowed.append(m)
            else:
                m = expr.cast(m, x.dtype)
                e = e + m
                allowed.append(m.ne(never))  # a NaN or inf that is masked does not count
        test = expr.all_of(allowed)
        return e if test is None else expr.select(test, e, never)

    return p.map_of(x.shape, element)


def _mask_element(mask: Tensor, at: tuple[Expr, ...], shape: tuple[Dim, ...]) -> Expr:
    """What broadcasts is aligned at the right; a last dim that is too short goes on with what forbids."""
    keys = mask.shape[-1]
    *outer, _ = p.broadcast_index(mask, at, shape)
    if p.dims_equal(keys, shape[-1]):
        return mask.at(*outer, at[-1])
    forbids = False if mask.dtype.kind == "b" else float("-inf")
    return mask.at(*outer, at[-1], guard=at[-1] < as_expr(keys), other=forbids)


def _weights(x: Tensor, precision: DType) -> Tensor:
    """Softmax over the keys; 0 for a query whose scores are all -inf."""
    x = p.cast(x, precision)
    greatest = p.reduce("max", x, [-1], keepdims=True)
    return p.elementwise(
        lambda w, m: expr.select(m.eq(float("-inf")), expr.const(0, precision), w), softmax(x, [-1]), greatest
    )
