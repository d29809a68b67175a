"""Operators that move elements, or make them from an index: no arithmetic on values."""

from __future__ import annotations

from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.definitions import Tensor
from omniop.opset.errors import ModelError
from omniop.opset.expr import Expr
from omniop.opset.host_arithmetic import HOST_ARITHMETIC
from omniop.opset.lower.common import (
    at_most,
    axes_of,
    axes_operand,
    axis_of,
    counts,
    is_number,
    require_equal,
    require_rank,
    require_shape,
)
from omniop.opset.lowering import Node, Value, as_tensor, lowering
from omniop.opset.sym import Dim, as_expr, known_equal, product


@lowering("Shape")
@lowering("Size")
def shape_of(node: Node, x: Tensor) -> Tensor:
    """The dims, or their product, as elements on the device."""
    return as_tensor(HOST_ARITHMETIC[node.op_type](node, [x]))


def reshaped(node: Node, dims: tuple[Dim, ...], target: list[Dim], keep_zero: bool) -> list[Dim]:
    """The shape that Reshape gives: 0 copies a dim unless ``keep_zero``, and one -1 is what is left over."""
    shape, copied, unknown = list(target), set(), None
    for k, d in enumerate(target):
        if is_number(d, -1):
            if unknown is not None:
                raise ModelError(f"{node.label}: shape {target} has more than one -1")
            unknown = k
        elif not keep_zero and is_number(d, 0):
            if k >= len(dims):
                raise ModelError(f"{node.label}: shape {target} copies axis {k} of {list(dims)}, which has none")
            shape[k] = dims[k]
            copied.add(k)
    if unknown is not None:
        # dims that are copied stand on both sides: leaving them out keeps an empty one from hiding the rest
        rest = product(tuple(d for k, d in enumerate(shape) if k != unknown and k not in copied))
        if is_number(rest, 0):
            raise ModelError(f"{node.label}: the -1 of shape {target} is undetermined beside a dim of 0")
        shape[unknown] = product(tuple(d for k, d in enumerate(dims) if k not in copied)) // rest
    counts(node, shape, "a shape of")
    require_equal(node, product(tuple(shape)), product(dims), f"{list(dims)} does not reshape to {target}")
    return shape


@lowering("Reshape")
def reshape_attribute(node: Node, x: Tensor) -> Tensor:
    return p.reshape(x, reshaped(node, x.shape, list(node.attr("shape", [])), False))


@lowering("Reshape", since=5, host=(1,))
def reshape(node: Node, x: Tensor, shape: Value) -> Tensor:
    return p.reshape(x, reshaped(node, x.shape, node.ints(1) or [], bool(node.attr("allowzero"))))


@lowering("Flatten")
def flatten(node: Node, x: Tensor) -> Tensor:
    """A matrix: the dims before ``axis`` by those from it."""
    axis = node.attr("axis", 1)
    axis = axis if axis == x.rank else axis_of(node, axis, x.rank)
    return p.reshape(x, [product(x.shape[:axis]), product(x.shape[axis:])])


@lowering("Transpose")
def transpose(node: Node, x: Tensor) -> Tensor:
    perm = list(node.attr("perm", range(x.rank - 1, -1, -1)))
    if sorted(perm) != list(range(x.rank)):
        raise ModelError(f"{node.label}: perm {perm} is no permutation of the {x.rank} axes of the input")
    return p.transpose(x, perm)


@lowering("Squeeze")
@lowering("Squeeze", since=13, host=(1,))
def squeeze(node: Node, x: Tensor, axes: Value = None) -> Tensor:
    given = axes_operand(node, 1)
    if given is None:
        return p.squeeze(x, [k for k, d in enumerate(x.shape) if d == 1])
    dropped = axes_of(node, given, x.rank)
    for k in dropped:
        require_equal(node, x.shape[k], 1, f"axis {k} of {list(x.shape)} cannot be squeezed")
    return p.squeeze(x, dropped)


@lowering("Unsqueeze")
@lowering("Unsqueeze", since=13, host=(1,))
def unsqueeze(node: Node, x: Tensor, axes: Value = None) -> Tensor:
    given = axes_operand(node, 1) or []
    return p.unsqueeze(x, axes_of(node, given, x.rank + len(given)))


@lowering("Expand", host=(1,))
def expand(node: Node, x: Tensor, shape: Value) -> Tensor:
    """Broadcast both ways: a 1 in the target keeps the input's dim."""
    return p.broadcast_to(x, p.broadcast_shapes(x.shape, counts(node, node.ints(1) or [], "a shape of")))


@lowering("Tile")
def tile_axis(node: Node, x: Tensor, tiles: Value, axis: Value) -> Tensor:
    (count,), (place,) = node.static_ints(1) or [1], node.static_ints(2) or [0]
    axis_number = axis_of(node, place, x.rank)
    return _tile(x, counts(node, [count if k == axis_number else 1 for k in range(x.rank)], "repeats"))


@lowering("Tile", since=6, host=(1,))
def tile(node: Node, x: Tensor, repeats: Value) -> Tensor:
    given = counts(node, node.ints(1) or [], "repeats")
    if len(given) != x.rank:
        raise ModelError(f"{node.label}: {len(given)} repeats for an input of rank {x.rank}")
    return _tile(x, given)


def _tile(x: Tensor, repeats: list[Dim]) -> Tensor:
    shape = [d * r for d, r in zip(x.shape, repeats, strict=True)]
    if x.empty:
        return p.full(shape, 0, x.dtype)

    def element(*i: Expr) -> Expr:
        return x.at(*(a if known_equal(n, d) else a % as_expr(d) for a, n, d in zip(i, shape, x.shape, strict=True)))

    return p.map_of(shape, element)


@lowering("Concat")
def concat(node: Node, *xs: Tensor) -> Tensor:
    return p.concat(xs, axis_of(node, node.attr("axis", 1), xs[0].rank))


@lowering("Split")
@lowering("Split", since=13, host=(1,))
def split(node: Node, x: Tensor, lengths: Value = None) -> tuple[Tensor, ...]:
    """Parts of the given lengths along ``axis``, or equal ones; with ``num_outputs`` the last may be smaller."""
    axis = axis_of(node, node.attr("axis", 0), x.rank)
    given = node.attr("split")
    given = list(given) if given is not None else node.ints(1)
    extent = x.shape[axis]
    if given is None:
        given = _equal_parts(node, extent, len(node.outputs))
    require_equal(node, sum(given), extent, f"the parts {given} of axis {axis}")
    parts: list[Tensor] = []
    start: Dim = 0
    for length in counts(node, given, "parts"):
        parts.append(p.narrow(x, axis, start, length))
        start = start + length
    return tuple(parts)


def _equal_parts(node: Node, extent: Dim, count: int) -> list[Dim]:
    if extent % count == 0:
        return [extent // count] * count
    if node.since < 18:
        raise ModelError(f"{node.label}: a dim of {extent} does not split into {count} equal parts")
    length = -(-extent // count)
    result: list[Dim] = []
    for k in range(count):
        rest = extent - k * length
        result.append(length if at_most(length, rest) else rest if at_most(0, rest) else 0)
    return result


def _block_size(node: Node, x: Tensor) -> int:
    require_rank(node, x, 4)
    size: int = node.attr("blocksize")
    if size < 1:
        raise ModelError(f"{node.label}: a blocksize of {size}")
    return size


@lowering("DepthToSpace")
def depth_to_space(node: Node, x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, C / b², H * b, W * b]."""
    b = _block_size(node, x)
    n, c, h, w = x.shape
    depth = c // (b * b)
    require_equal(node, depth * (b * b), c, f"channels in blocks of {b} x {b}")
    if node.attr("mode", "DCR") == "DCR":
        blocks = p.transpose(p.reshape(x, [n, b, b, depth, h, w]), [0, 3, 4, 1, 5, 2])
    else:
        blocks = p.transpose(p.reshape(x, [n, depth, b, b, h, w]), [0, 1, 4, 2, 5, 3])
    return p.reshape(blocks, [n, depth, h * b, w * b])


@lowering("SpaceToDepth")
def space_to_depth(node: Node, x: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, C * b², H / b, W / b]."""
    b = _block_size(node, x)
    n, c, h, w = x.shape
    for d in (h, w):
        require_equal(node, d // b * b, d, f"a dim in blocks of {b}")
    blocks = p.reshape(x, [n, c, h // b, b, w // b, b])
    perm = [0, 3, 5, 1, 2, 4] if node.attr("mode", "DCR") == "DCR" else [0, 1, 3, 5, 2, 4]
    return p.reshape(p.transpose(blocks, perm), [n, c * b * b, h // b, w // b])


@lowering("ReverseSequence")
def reverse_sequence(node: Node, x: Tensor, lengths: Tensor) -> Tensor:
    """The first ``lengths[b]`` elements along the time axis in reverse, the others as they are."""
    batch, time = (axis_of(node, node.attr(name), x.rank) for name in ("batch_axis", "time_axis"))
    require_shape(node, lengths, (x.shape[batch],), "sequence_lens")

    def element(*i: Expr) -> Expr:
        last = lengths.at(i[batch]) - 1
        place, guard, fault = p.checked_index(
            expr.select(i[time] <= last, last - i[time], i[time]), x.shape[time], "a sequence length"
        )
        return x.at(*(place if k == time else a for k, a in enumerate(i)), guard=guard, fault=fault)

    return p.map_of(x.shape, element)
