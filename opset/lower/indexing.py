"""Reading and writing at computed places. Negative indices count from the end; one out of range is a fault."""

from __future__ import annotations

from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.definitions import Tensor
from omniop.opset.dtype import BOOL, INT64
from omniop.opset.errors import ExecutionError, ModelError
from omniop.opset.expr import Expr
from omniop.opset.lower.common import at_most, axis_of, counts, require_equal, require_rank, require_shape
from omniop.opset.lowering import Node, Value, lowering
from omniop.opset.sym import Dim, as_expr, product


def _refuse_empty(node: Node, x: Tensor, shape: list[Dim]) -> None:
    """Nothing can be read from an empty tensor, so that any element asked for is out of range."""
    if x.empty and not any(isinstance(d, int) and d == 0 for d in shape):
        raise ExecutionError(f"{node.label}: an index into a tensor of shape {list(x.shape)}, which is empty")


@lowering("Gather")
def gather(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    """Slices of ``x`` along ``axis``: the indices' dims take the axis's place."""
    axis = axis_of(node, node.attr("axis", 0), x.rank)
    shape = [*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :]]
    _refuse_empty(node, x, shape)

    def element(*i: Expr) -> Expr:
        at = indices.at(*i[axis : axis + indices.rank])
        place, guard, fault = p.checked_index(at, x.shape[axis], "an index")
        return x.at(*i[:axis], place, *i[axis + indices.rank :], guard=guard, fault=fault)

    return p.map_of(shape, element)


@lowering("GatherElements")
def gather_elements(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    axis = axis_of(node, node.attr("axis", 0), x.rank)
    _check_extents(node, x, indices, axis)
    _refuse_empty(node, x, list(indices.shape))

    def element(*i: Expr) -> Expr:
        place, guard, fault = p.checked_index(indices.at(*i), x.shape[axis], "an index")
        return x.at(*i[:axis], place, *i[axis + 1 :], guard=guard, fault=fault)

    return p.map_of(indices.shape, element)


def _check_extents(node: Node, x: Tensor, indices: Tensor, axis: int) -> None:
    """Away from ``axis`` the indices may cover less than the data, never more."""
    if indices.rank != x.rank:
        raise ModelError(f"{node.label}: indices of rank {indices.rank} for data of rank {x.rank}")
    for k in range(x.rank):
        if k != axis and not at_most(indices.shape[k], x.shape[k]):
            raise ModelError(f"{node.label}: indices of shape {list(indices.shape)} reach past data of {list(x.shape)}")


def _places(
    indices: Tensor, lead: tuple[Expr, ...], depth: int, extents: tuple[Dim, ...]
) -> tuple[list[Expr], Expr, int]:
    """The index tuple along the last axis of ``indices``: places, the guard of all of them, the fault code."""
    places: list[Expr] = []
    guards: list[Expr] = []
    fault = 0
    for k in range(depth):
        place, guard, fault = p.checked_index(indices.at(*lead, k), extents[k], "an index")
        places.append(place)
        guards.append(guard)
    return places, expr.all_of(guards) or expr.const(True, BOOL), fault


def _depth(node: Node, indices: Tensor, limit: int) -> int:
    """How many indices make a tuple; a template is for one such number."""
    require_rank(node, indices, 1, or_more=True)
    depth = int(indices.shape[-1])
    if depth > limit:
        raise ModelError(f"{node.label}: tuples of {depth} indices for {limit} axes")
    return depth


@lowering("GatherND")
def gather_nd(node: Node, x: Tensor, indices: Tensor) -> Tensor:
    """Slices of ``x`` at index tuples, batch by batch."""
    batch = node.attr("batch_dims", 0)
    if not 0 <= batch < min(x.rank, indices.rank):
        raise ModelError(f"{node.label}: {batch} batch dims of ranks {x.rank} and {indices.rank}")
    depth = _depth(node, indices, x.rank - batch)
    lead = indices.rank - 1
    for k in range(batch):
        require_equal(node, indices.shape[k], x.shape[k], f"batch dim {k}")
    shape = [*indices.shape[:-1], *x.shape[batch + depth :]]
    _refuse_empty(node, x, shape)

    def element(*i: Expr) -> Expr:
        places, guard, fault = _places(indices, i[:lead], depth, x.shape[batch : batch + depth])
        return x.at(*i[:batch], *places, *i[lead:], guard=guard, fault=fault)

    return p.map_of(shape, element)


def _combine(node: Node) -> str | None:
    reduction = node.attr("reduction", "none")
    return None if reduction == "none" else str(reduction)


@lowering("Scatter")
@lowering("ScatterElements")
def scatter_elements(node: Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """``x`` with each update written, or combined, at its own place but for ``axis``, where the index says."""
    axis = axis_of(node, node.attr("axis", 0), x.rank)
    _check_extents(node, x, indices, axis)
    require_shape(node, updates, indices.shape, "updates")
    _refuse_empty(node, x, list(indices.shape))
    fault = p.checked_index(expr.index(0), x.shape[axis], "an index")[2]

    def store(*i: Expr) -> tuple[list[Expr], Expr, Expr]:
        place, guard, _ = p.checked_index(indices.at(*i), x.shape[axis], "an index")
        return [*i[:axis], place, *i[axis + 1 :]], updates.at(*i), guard

    return p.scatter_of(x, updates.shape, store, _combine(node), fault)


@lowering("ScatterND")
def scatter_nd(node: Node, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """``x`` with slices written, or combined, at index tuples."""
    depth = _depth(node, indices, x.rank)
    lead = indices.rank - 1
    require_shape(node, updates, (*indices.shape[:-1], *x.shape[depth:]), "updates")
    _refuse_empty(node, x, list(updates.shape))
    fault = p.checked_index(expr.index(0), x.shape[0], "an index")[2] if depth else 0

    def store(*i: Expr) -> tuple[list[Expr], Expr, Expr | None]:
        places, guard, _ = _places(indices, i[:lead], depth, x.shape)
        return [*places, *i[lead:]], updates.at(*i), guard if depth else None

    return p.scatter_of(x, updates.shape, store, _combine(node), fault)


@lowering("TensorScatter")
def tensor_scatter(node: Node, past: Tensor, update: Tensor, write_indices: Tensor | None = None) -> Tensor:
    """The cache with ``update`` written along ``axis`` from each batch member's index on."""
    axis = axis_of(node, node.attr("axis", -2), past.rank)
    require_rank(node, update, past.rank)
    require_shape(node, update, (*past.shape[:axis], update.shape[axis], *past.shape[axis + 1 :]), "update")
    if write_indices is not None:
        require_shape(node, write_indices, past.shape[:1], "write_indices")
    circular = node.attr("mode", "linear") == "circular"
    extent = as_expr(past.shape[axis])
    fault = p.checked_index(expr.index(0), past.shape[axis], "a write index")[2]

    def store(*i: Expr) -> tuple[list[Expr], Expr, Expr | None]:
        place = i[axis] if write_indices is None else i[axis] + expr.index(write_indices.at(i[0]))
        inside = None if circular else (place >= 0) & (place < extent)
        place = place % extent if circular else place
        return [*i[:axis], place, *i[axis + 1 :]], update.at(*i), inside

    return p.scatter_of(past, update.shape, store, None, fault)


@lowering("OneHot", host=(1,))
def one_hot(node: Node, indices: Tensor, depth: Value, values: Tensor) -> Tensor:
    """``values[1]`` where the new axis meets the index, ``values[0]`` elsewhere; out of range marks nothing."""
    given = node.host(1)
    count = given.array.reshape(-1)[0] if given is not None else 0
    (count,) = counts(node, [int(count) if isinstance(count, float) else count], "a depth of")
    require_shape(node, values, (2,), "values")
    axis = axis_of(node, node.attr("axis", -1), indices.rank + 1)

    def element(*i: Expr) -> Expr:
        hot = expr.cast(indices.at(*i[:axis], *i[axis + 1 :]), INT64)
        hot = expr.select(hot < 0, hot + as_expr(count), hot)
        return expr.select(hot.eq(i[axis]), values.at(1), values.at(0))

    return p.map_of([*indices.shape[:axis], count, *indices.shape[axis:]], element)


@lowering("Col2Im", host=(1, 2))
def col2im(node: Node, x: Tensor, image_shape: Value, block_shape: Value) -> Tensor:
    """Columns [N, C * block, L] added up where their blocks overlap: [N, C, *image]."""
    require_rank(node, x, 3)
    image, block = node.ints(1) or [], node.ints(2) or []
    rank = len(image)
    dilations, strides = node.attr("dilations", [1] * rank), node.attr("strides", [1] * rank)
    pads = node.attr("pads", [0] * 2 * rank)
    if not len(block) == len(dilations) == len(strides) == rank == len(pads) // 2:
        raise ModelError(f"{node.label}: image, block, dilations, strides and pads differ in number of axes")
    blocks = [
        (image[k] + pads[k] + pads[rank + k] - dilations[k] * (block[k] - 1) - 1) // strides[k] + 1 for k in range(rank)
    ]
    area = product(tuple(block))
    require_equal(node, product(tuple(blocks)), x.shape[2], "blocks in the image")
    require_equal(node, x.shape[1] // area * area, x.shape[1], f"channels of blocks of {block}")
    wide = p.accumulator(x.dtype)

    def element(*i: Expr) -> Expr:
        n, c, place, offset = i[0], i[1], i[2 : 2 + rank], i[2 + rank :]
        row, column, tests = c, expr.index(0), []
        for k in range(rank):
            row = row * as_expr(block[k]) + offset[k]
            distance = place[k] + pads[k] - offset[k] * dilations[k]
            number = distance // strides[k]
            tests += [distance >= 0, (distance % strides[k]).eq(0), number < as_expr(blocks[k])]
            column = column * as_expr(blocks[k]) + number
        return expr.cast(x.at(n, row, column, guard=expr.all_of(tests)), wide)

    monoid = "or" if x.dtype.kind == "b" else "add"
    total = p.reduce_of([x.shape[0], x.shape[1] // area, *image], block, monoid, element)
    return p.cast(total, x.dtype)
