"""Rotary position embedding (Su et al. 2021, https://arxiv.org/abs/2104.09864)."""

from __future__ import annotations

from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.definitions import Tensor
from omniop.opset.errors import ModelError
from omniop.opset.expr import Expr
from omniop.opset.lower.common import require_equal, require_rank, require_shape
from omniop.opset.lowering import Node, lowering
from omniop.opset.sym import Dim, as_expr


@lowering("RotaryEmbedding", since=23)
def rotary_embedding_op(node: Node, x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None = None) -> Tensor:
    """[batch, head, token, size], or [batch, token, heads * size] with ``num_heads``."""
    if x.rank == 3:
        heads = node.attr("num_heads", 0)
        if not heads:
            raise ModelError(f"{node.label}: an input of rank 3 needs the attribute num_heads")
        batch, tokens, width = x.shape
        require_equal(node, width % heads, 0, f"columns by {heads} heads")
        split = p.reshape(x, [batch, tokens, heads, width // heads])
        turned = rotary_embedding(node, p.transpose(split, (0, 2, 1, 3)), cos, sin, positions)
        return p.reshape(p.transpose(turned, (0, 2, 1, 3)), x.shape)
    require_rank(node, x, 4)
    return rotary_embedding(node, x, cos, sin, positions)


def rotary_embedding(node: Node, x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor | None) -> Tensor:
    """Pairs of elements of x [batch, head, token, size] turned by the angle of their token.

    A pair is elements k and k + half of the first ``rotary_embedding_dim`` (default: all), or 2k and 2k + 1 when
    ``interleaved``. ``cos`` and ``sin``: [position, half], read at ``positions`` [batch, token]; or without them
    [batch, token, half].
    """
    batch, heads, tokens, size = x.shape
    turning: Dim = node.attr("rotary_embedding_dim", 0) or size
    half = turning // 2
    require_equal(node, turning % 2, 0, "elements to turn, in pairs")
    for name, cache in (("cos_cache", cos), ("sin_cache", sin)):
        require_shape(node, cache, [batch, tokens, half] if positions is None else [cache.shape[0], half], name)
    if positions is not None:
        require_shape(node, positions, [batch, tokens], "position_ids")

    def factor(cache: Tensor, b: Expr, t: Expr, k: Expr) -> Expr:
        if positions is None:
            return cache.at(b, t, k)
        place, guard, fault = p.checked_index(positions.at(b, t), cache.shape[0], "a position")
        return cache.at(place, k, guard=guard, fault=fault)

    def turned(b: Expr, h: Expr, t: Expr, k: Expr, side: Expr, steps: tuple[Expr, Expr]) -> Expr:
        """Element ``side`` of pair ``k``; ``steps``: from pair to pair, and from side to side."""
        own, other = (x.at(b, h, t, k * steps[0] + i * steps[1]) for i in (side, 1 - side))
        other = other * factor(sin, b, t, k)
        return own * factor(cos, b, t, k) + expr.select(side.eq(0), -other, other)

    if node.attr("interleaved", 0):
        steps = expr.index(2), expr.index(1)
        pairs = p.map_of([batch, heads, tokens, half, 2], lambda b, h, t, k, side: turned(b, h, t, k, side, steps))
    else:
        steps = expr.index(1), as_expr(half)
        pairs = p.map_of([batch, heads, tokens, 2, half], lambda b, h, t, side, k: turned(b, h, t, k, side, steps))
    result = p.reshape(pairs, [batch, heads, tokens, turning])
    return p.concat([result, p.narrow(x, 3, turning, size - turning)], 3)
