"""com.microsoft: rotary position embedding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from omniop.opset import prims as p
from omniop.opset.contrib import DOMAIN
from omniop.opset.definitions import Tensor
from omniop.opset.expr import Expr
from omniop.opset.lower.common import require_equal
from omniop.opset.lower.dot_product_attention import merge_heads, split_heads
from omniop.opset.lower.rotary_embedding import rotary_embedding
from omniop.opset.lowering import Node, lowering

Position = Callable[[Expr, Expr], Expr]
"""(batch, token) gives the place in the sequence."""


def rotated(node: Node, x: Tensor, cosines: Tensor, sines: Tensor, position: Position, interleaved: bool) -> Tensor:
    """ONNX's RotaryEmbedding of x [batch, heads, token, size], of as many elements as cosines and sines [position,
    columns] are for."""
    attributes = {"rotary_embedding_dim": cosines.shape[1] * 2, "interleaved": interleaved}
    places = p.map_of([x.shape[0], x.shape[2]], position)
    return rotary_embedding(replace(node, attributes=attributes), x, cosines, sines, places)


def positions(node: Node, given: Tensor, x: Tensor) -> Position:
    """``position_ids``: [batch, token], or one number that the tokens count from. x is [batch, heads, token, size]."""
    if given.rank == 2:
        for axis, extent in enumerate((x.shape[0], x.shape[2])):
            require_equal(node, given.shape[axis], extent, f"axis {axis} of position_ids")
        return lambda b, s: given.at(b, s)
    first = p.reshape(given, ())
    return lambda b, s: first.at() + s


@lowering("RotaryEmbedding", domain=DOMAIN)
def rotary_embedding_contrib(node: Node, x: Tensor, position_ids: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """x [batch, token, heads * size] or [batch, heads, token, size]."""
    if node.attr("is_packed_batching", 0):
        raise node.unsupported("is_packed_batching; it works without")
    if node.attr("scale", 1.0) != 1:
        raise node.unsupported(f"scale {node.attr('scale')}; 1 would work")
    interleaved = bool(node.attr("interleaved", 0))
    if x.rank == 4:
        return rotated(node, x, cosines, sines, positions(node, position_ids, x), interleaved)
    if node.attr("rotary_embedding_dim", 0):
        heads = node.attr("num_heads", 0)
        require_equal(node, heads > 0, True, "num_heads above 0, which rotary_embedding_dim needs")
    else:
        require_equal(node, x.shape[2] % (cosines.shape[1] * 2), 0, "columns by twice those of cos_cache")
        heads = x.shape[2] // (cosines.shape[1] * 2)
    apart = split_heads(node, x, heads, "the input")
    return merge_heads(rotated(node, apart, cosines, sines, positions(node, position_ids, apart), interleaved))
