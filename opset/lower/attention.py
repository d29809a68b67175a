"""Attention with a recurrent state; `dot_product_attention` has the other one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.definitions import Tensor
from omniop.opset.dtype import FLOAT32
from omniop.opset.errors import ModelError
from omniop.opset.expr import Expr
from omniop.opset.lower.common import require_equal
from omniop.opset.lowering import Node, lowering
from omniop.opset.sym import Dim, as_expr

_RULES = {"linear": (False, False), "gated": (True, False), "delta": (False, True), "gated_delta": (True, True)}
"""Whether a rule decays the state, and whether it writes only what the state does not hold already."""


@lowering("LinearAttention", since=27)
def linear_attention(
    node: Node,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    past: Tensor | None = None,
    decay: Tensor | None = None,
    beta: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """A state [batch, head, key, value], walked token by token in float32: decayed, corrected, written, read.

    Heads are packed into the last axis of the inputs [batch, token, ...]; several query heads may read one state.
    """
    gated, corrected = _rule(node, decay, beta)
    heads, groups = node.attr("q_num_heads"), node.attr("kv_num_heads")
    require_equal(node, heads % groups, 0, f"query heads by {groups} key and value heads")
    wide = p.accumulator(query.dtype)
    batch, tokens = query.shape[:2]
    keys, values = query.shape[2] // heads, value.shape[2] // groups
    shape: list[Dim] = [batch, groups, keys, values]
    scale = node.attr("scale", 0.0) or _default_scale(keys)

    def read(t: Tensor, step: Dim, b: Expr, h: Expr, width: Dim, j: Expr) -> Expr:
        return expr.cast(t.at(b, as_expr(step), h * as_expr(width) + j), wide)

    def decayed(step: Dim, state: Tensor, at: Sequence[Expr]) -> Expr:
        b, h, d, _ = at
        if decay is None or not gated:
            return state.at(*at)
        by_key = not p.dims_equal(decay.shape[2], groups)
        rate = read(decay, step, b, h, keys, d) if by_key else read(decay, step, b, h, 1, expr.index(0))
        return state.at(*at) * expr.alu("exp", rate)

    def walk(step: Dim, state: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        def held(b: Expr, h: Expr, m: Expr, d: Expr) -> Expr:
            return decayed(step, state, (b, h, d, m)) * read(key, step, b, h, keys, d)

        known = p.reduce_of([batch, groups, values], [keys], "add", held) if corrected else None

        def update(*at: Expr) -> Expr:
            b, h, d, m = at
            written = read(value, step, b, h, values, m)
            if known is not None and beta is not None:
                head = expr.index(0) if p.dims_equal(beta.shape[2], 1) else h
                written = (written - known.at(b, h, m)) * read(beta, step, b, head, 1, expr.index(0))
            return decayed(step, state, at) + read(key, step, b, h, keys, d) * written

        new = p.map_of(shape, update)

        def seen(b: Expr, h: Expr, m: Expr, d: Expr) -> Expr:
            return read(query, step, b, h, keys, d) * new.at(b, h // (heads // groups), d, m)

        return [new], [p.reduce_of([batch, heads, values], [keys], "add", seen)]

    start = p.full(shape, 0, wide) if past is None else p.cast(past, wide)
    (last,), (read_out,) = p.repeat(tokens, [start], walk)

    def output(b: Expr, t: Expr, column: Expr) -> Expr:
        place = read_out.at(t, b, column // as_expr(values), column % as_expr(values))
        factor = scale if isinstance(scale, float) else expr.cast(scale, wide)
        return expr.cast(place * factor, query.dtype)

    y = p.map_of([batch, tokens, values * heads], output)
    return y, p.cast(last, query.dtype if past is None else past.dtype)


def _rule(node: Node, decay: Tensor | None, beta: Tensor | None) -> tuple[bool, bool]:
    name = node.attr("update_rule", "gated_delta")
    if name not in _RULES:
        raise node.unsupported(f"update_rule {name!r}; known: {', '.join(_RULES)}")
    for wanted, given, what in zip(_RULES[name], (decay, beta), ("decay", "beta"), strict=True):
        if wanted is not (given is not None):
            raise ModelError(f"{node.label}: update_rule {name!r} {'needs' if wanted else 'takes no'} input {what!r}")
    return _RULES[name]


def _default_scale(keys: Dim) -> float | Expr:
    """1 / sqrt(keys)."""
    if isinstance(keys, int):
        return 1.0 / math.sqrt(keys)
    return 1 / expr.alu("sqrt", expr.cast(as_expr(keys), FLOAT32))
