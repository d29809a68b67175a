"""Primitives: the narrow waist. What lowerings write operators in, and what a device has to do.

**Core** prims, which every device runs:

- ``map``: any expression over an index space (elementwise arithmetic, gather, pad, casts, broadcasting). An
  expression may hold reduces over further axes with a monoid of `alu.MONOIDS`.
- ``contract``: batched matrix product ``[..., M, K] x [..., K, N]`` with a stated accumulator dtype.
- ``scatter``: stores at computed places, combining or not; with a sequential axis, in order, or once after a fold.

**Structured** prims, which a device may take whole and which otherwise expand (`omniop.opset.expand`): conv,
integer_conv (operands ``x, w, zero``: of narrow integers, x counted from ``zero``, sums in int32), window_reduce, sort,
prefix. **repeat** runs a body a number of times; the dispatcher runs it.

Empty dims: nothing with 0 elements is ever computed. A reduce over an empty axis gives the monoid's identity, a
contract with K = 0 gives 0, an index out of range never touches memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from omniop.opset import expr
from omniop.opset.definitions import (
    Definition,
    Map,
    Repeat,
    Scatter,
    Source,
    Structured,
    Tensor,
    TensorStore,
)
from omniop.opset.dtype import FLOAT32, INT64, DType
from omniop.opset.errors import ModelError
from omniop.opset.expr import Expr, Scalar
from omniop.opset.reshaping import reshape_index
from omniop.opset.sym import Dim, as_expr, known_equal, product
from omniop.opset.trace import current

# Recording ------------------------------------------------------------------------------------------------------------


def record(
    definition: Definition, outputs: Sequence[tuple[Sequence[Dim], DType]], key: object = None
) -> tuple[Tensor, ...]:
    """Enter a prim into the trace. With a ``key`` of content, an equal prim is returned instead."""
    trace = current()
    if key is not None and key in trace.interned:
        return trace.interned[key]
    definition.number = len(trace.definitions)
    definition.origin = trace.origin
    definition.outputs = tuple(Tensor(shape, dtype, definition, i) for i, (shape, dtype) in enumerate(outputs))
    trace.definitions.append(definition)
    if key is not None:
        trace.interned[key] = definition.outputs
    return definition.outputs


def _check_dims(shape: Sequence[Dim]) -> tuple[Dim, ...]:
    return tuple(current().env.dim(as_expr(d)) for d in shape)


def source(name: str, shape: Sequence[Dim], dtype: DType, array: np.ndarray | None = None) -> Tensor:
    """A tensor that the run provides."""
    return record(Source(name, array), [(_check_dims(shape), dtype)])[0]


def constant(array: np.ndarray, dtype: DType | None = None) -> Tensor:
    """A constant held on the device. For a single value prefer `full`, for a computed table `map_of`."""
    from omniop.opset import dtype as dtypes

    dtype = dtype or dtypes.of_numpy(array.dtype)
    key = ("constant", dtype, array.shape, array.tobytes()) if array.nbytes <= 4096 else None
    return record(Source("constant", array), [(array.shape, dtype)], key)[0]


def map_of(shape: Sequence[Dim], function: Callable[..., Expr], folds: bool = True) -> Tensor:
    """The prim ``map``: ``function(*axes)`` is the element at a point of ``shape``. A result that does not fold is
    computed in every run even if it depends on constants alone."""
    shape = _check_dims(shape)
    return _map(shape, function(*axes_of(shape)), folds)


def axes_of(shape: Sequence[Dim], first: int = 0) -> tuple[Expr, ...]:
    """Axis nodes numbered from ``first``; an extent of 1 gives the constant 0."""
    return tuple(expr.axis(first + k, as_expr(d)) for k, d in enumerate(shape))


def _map(shape: tuple[Dim, ...], value: Expr, folds: bool = True) -> Tensor:
    extents = tuple(as_expr(d) for d in shape)
    return record(Map(value, folds), [(shape, value.dtype)], ("map", extents, value, folds))[0]


def reduce_of(
    shape: Sequence[Dim], over: Sequence[Dim], monoid: str, function: Callable[..., Expr | tuple[Expr, Expr]]
) -> Tensor:
    """Map whose element is a reduce: ``function(*axes of shape, *axes of over)`` combined over ``over``.

    ``function`` gives the value, or (value, index) for argmin and argmax.
    """
    shape, over = _check_dims(shape), _check_dims(over)
    outer, inner = axes_of(shape), axes_of(over, len(shape))
    value = function(*outer, *inner)
    values = value if isinstance(value, tuple) else (value,)
    if any(isinstance(d, int) and d == 0 for d in over):
        return full(shape, identity(monoid, values[-1].dtype), values[-1].dtype)
    return _map(shape, expr.reduce(monoid, inner, values))


def identity(monoid: str, dtype: DType) -> bool | int | float:
    """What a monoid gives over nothing."""
    if monoid in ("add", "mul"):
        return 0 if monoid == "add" else 1
    if monoid in ("and", "or"):
        return monoid == "and" if dtype.kind == "b" else (-1 if monoid == "and" else 0)
    if monoid in ("argmin", "argmax"):
        return 0
    least = monoid == "max"
    if dtype.kind == "b":
        return not least
    if dtype.is_float:
        return float("-inf") if least else float("inf")
    if dtype.kind == "u":
        return 0 if least else (1 << dtype.bits) - 1
    return -(1 << (dtype.bits - 1)) if least else (1 << (dtype.bits - 1)) - 1


def scatter_of(
    base: Tensor,
    space: Sequence[Dim],
    function: Callable[..., tuple[Sequence[Expr], Expr, Expr | None]],
    combine: str | None = None,
    fault: int = 0,
) -> Tensor:
    """A copy of ``base`` with stores over ``space``: ``function(*axes)`` gives (index, value, guard)."""
    space = _check_dims(space)
    if any(isinstance(d, int) and d == 0 for d in space) or base.empty:
        return base
    index, value, guard = function(*axes_of(space))
    store = TensorStore(0, tuple(expr.index(i) for i in index), value, guard, combine, fault)
    return record(Scatter(axes_of(space), (store,), (base,)), [(base.shape, base.dtype)])[0]


def structured(
    prim: str, operands: Sequence[Tensor], outputs: Sequence[tuple[Sequence[Dim], DType]], **attrs: Any
) -> tuple[Tensor, ...]:
    """Record a structured prim; attribute values must be hashable."""
    items = tuple(sorted(attrs.items()))
    checked = [(_check_dims(shape), dtype) for shape, dtype in outputs]
    if all(any(isinstance(d, int) and d == 0 for d in shape) for shape, _ in checked):
        return tuple(full(shape, 0, dtype) for shape, dtype in checked)
    return record(Structured(prim, tuple(operands), items), checked, ("structured", prim, tuple(operands), items))


def contract(a: Tensor, b: Tensor, dtype: DType | None = None, accumulate: DType | None = None) -> Tensor:
    """Batched matrix product: ``a[*batch, M, K] x b[*batch, K, N] -> [*batch, M, N]``; batch dims are equal or 1.

    Accumulates in float32 for narrower floats, in the dtype itself otherwise (or as stated), and rounds once to
    ``dtype`` (default: a's). Sums may be taken in any order.
    """
    dtype = dtype or a.dtype
    accumulate = accumulate or accumulator(a.dtype)
    batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])
    m, k, n = a.shape[-2], a.shape[-1], b.shape[-1]
    if not dims_equal(k, b.shape[-2]):
        raise ModelError(f"matrix product of {list(a.shape)} and {list(b.shape)}: {k} columns meet {b.shape[-2]} rows")
    if isinstance(k, int) and k == 0:
        return full((*batch, m, n), 0, dtype)
    a, b = broadcast_to(a, (*batch, m, k)), broadcast_to(b, (*batch, b.shape[-2], n))
    return structured("contract", (a, b), [((*batch, m, n), dtype)], accumulate=accumulate)[0]


def accumulator(dtype: DType) -> DType:
    """What sums of ``dtype`` are kept in."""
    return FLOAT32 if dtype.is_float and dtype.bits < 32 else dtype


def repeat(
    count: Dim,
    initial: Sequence[Tensor],
    body: Callable[..., tuple[Sequence[Tensor], Sequence[Tensor]]],
    reverse: bool = False,
) -> tuple[list[Tensor], list[Tensor]]:
    """Run ``body(step, *carried) -> (updated, collected)`` ``count`` times.

    ``step`` is a dim-like scalar that counts from 0, or from ``count - 1`` down when ``reverse``. Shapes of carries do
    not change. Gives the final carries, and the collected tensors stacked along a new first axis in the order of
    ``step``.
    """
    trace = current()
    number = sum(isinstance(d, Repeat) for d in trace.definitions)
    step = trace.env.scalar(f"step{trace.origin}_{number}_{len(trace.definitions)}", 0)
    first = len(trace.definitions)
    outside = dict(trace.interned)
    carried = tuple(source("carried", t.shape, t.dtype) for t in initial)
    updated, collected = body(step, *carried)
    for old, new in zip(initial, updated, strict=True):
        if old.rank != new.rank or not all(map(dims_equal, old.shape, new.shape)):
            raise ModelError(f"a state of shape {list(old.shape)} becomes one of {list(new.shape)}")
    own = set(trace.definitions[first:]) - {t.definition for t in carried}
    updated = [t if t.definition in own else _map(t.shape, t.at(*axes_of(t.shape))) for t in updated]
    inside = tuple(trace.definitions[first:])
    trace.interned = outside  # what was recorded inside exists only inside
    definition = Repeat(
        count, as_expr(step).attr, tuple(initial), carried, tuple(updated), tuple(collected), inside, reverse
    )
    outputs = [(t.shape, t.dtype) for t in initial] + [((count, *t.shape), t.dtype) for t in collected]
    results = record(definition, outputs)
    return list(results[: len(initial)]), list(results[len(initial) :])


# Dims -----------------------------------------------------------------------------------------------------------------


def dims_equal(a: Dim, b: Dim) -> bool:
    """Equal in this run; guarded unless it is known."""
    return known_equal(a, b) or bool(a == b)


def broadcast_shapes(*shapes: Sequence[Dim]) -> tuple[Dim, ...]:
    """Numpy's rule. Raises ModelError naming the shapes."""
    rank = max(map(len, shapes), default=0)
    result: list[Dim] = []
    for k in range(rank):
        dim: Dim = 1
        for shape in shapes:
            d = shape[k - rank + len(shape)] if k - rank + len(shape) >= 0 else 1
            if isinstance(d, int) and d == 1:
                continue
            if isinstance(dim, int) and dim == 1:
                dim = d
            elif not known_equal(dim, d):
                # two dims that may differ: ask for the cheaper answers first, each leaves a guard
                if dim == d or d == 1:
                    continue
                if dim != 1:
                    raise ModelError(f"shapes {', '.join(str(list(s)) for s in shapes)} do not broadcast together")
                dim = d
        result.append(dim)
    return tuple(result)


# Composed from map: no prims of their own -----------------------------------------------------------------------------


def full(shape: Sequence[Dim], value: bool | int | float, dtype: DType) -> Tensor:
    return map_of(shape, lambda *_: expr.const(value, dtype))


def iota(shape: Sequence[Dim], axis: int, dtype: DType = INT64) -> Tensor:
    """The index along ``axis``."""
    return map_of(shape, lambda *i: expr.cast(i[axis], dtype))


def scalar(value: Dim | Expr | bool | float, dtype: DType) -> Tensor:
    """A 0-d tensor of a number, a dim, or an expression over sizes."""
    node = (
        value if isinstance(value, Expr) else expr.const(value, dtype) if isinstance(value, float) else as_expr(value)
    )
    return map_of((), lambda: expr.cast(node, dtype))


def broadcast_index(t: Tensor, axes: Sequence[Expr], shape: Sequence[Dim]) -> tuple[Expr, ...]:
    """Indices into ``t`` at a point ``axes`` of ``shape``, which ``t`` broadcasts to."""
    skip = len(shape) - t.rank
    zero = expr.const(0, INT64)
    return tuple(
        zero if isinstance(d, int) and d == 1 else axes[skip + k] if stays(d, shape[skip + k]) else zero
        for k, d in enumerate(t.shape)
    )


def stays(d: Dim, target: Dim) -> bool:
    """Dim ``d`` is ``target`` itself; otherwise it is 1 and broadcasts (guarded by whoever made the shape)."""
    return known_equal(d, target) or bool(d == target)


def elementwise(function: Callable[..., Expr], *tensors: Tensor) -> Tensor:
    """``function`` of the elements, with broadcasting. Dtypes are the function's business."""
    shape = broadcast_shapes(*(t.shape for t in tensors))
    if any(isinstance(d, int) and d == 0 for d in shape):
        value = function(*(expr.const(0, t.dtype) for t in tensors))
        return full(shape, 0, value.dtype)
    return map_of(shape, lambda *i: function(*(t.at(*broadcast_index(t, i, shape)) for t in tensors)))


def alu(name: str, *tensors: Tensor) -> Tensor:
    """One operation of `alu.ALU`, with broadcasting."""
    return elementwise(lambda *x: expr.alu(name, *x), *tensors)


def add(a: Tensor, b: Tensor) -> Tensor:
    return alu("add", a, b)


def sub(a: Tensor, b: Tensor) -> Tensor:
    return alu("sub", a, b)


def mul(a: Tensor, b: Tensor) -> Tensor:
    return alu("mul", a, b)


def div(a: Tensor, b: Tensor) -> Tensor:
    return alu("div", a, b)


def where(condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return elementwise(expr.select, condition, a, b)


def cast(t: Tensor, dtype: DType) -> Tensor:
    return t if t.dtype is dtype else elementwise(lambda x: expr.cast(x, dtype), t)


def broadcast_to(t: Tensor, shape: Sequence[Dim]) -> Tensor:
    """``t`` over ``shape``, numpy's rule; a no-op when the shapes are known to be equal."""
    if len(shape) == t.rank and all(known_equal(a, b) for a, b in zip(t.shape, shape, strict=True)):
        return t
    return map_of(shape, lambda *i: t.at(*broadcast_index(t, i, shape)))


def reshape(t: Tensor, shape: Sequence[Dim]) -> Tensor:
    """The same elements in row-major order. The caller has made sure that the counts agree."""
    shape = _check_dims(shape)
    if len(shape) == t.rank and all(known_equal(a, b) for a, b in zip(t.shape, shape, strict=True)):
        return t
    if t.empty:
        return full(shape, 0, t.dtype)
    extents = tuple(as_expr(d) for d in shape)
    return map_of(shape, lambda *i: t.at(*reshape_index(i, extents, t.extents)))


def transpose(t: Tensor, perm: Sequence[int]) -> Tensor:
    """Output axis ``k`` is input axis ``perm[k]``."""
    if list(perm) == list(range(t.rank)):
        return t
    inverse = [list(perm).index(k) for k in range(t.rank)]
    return map_of([t.shape[p] for p in perm], lambda *i: t.at(*(i[p] for p in inverse)))


def strided_slice(t: Tensor, starts: Sequence[Dim], steps: Sequence[int], shape: Sequence[Dim]) -> Tensor:
    """Element ``i`` of axis ``k`` is element ``starts[k] + i * steps[k]`` of the input; all in range."""
    return map_of(shape, lambda *i: t.at(*(as_expr(s) + a * step for s, a, step in zip(starts, i, steps, strict=True))))


def narrow(t: Tensor, axis: int, start: Dim, length: Dim) -> Tensor:
    """``length`` elements of one axis, from ``start``."""
    axis %= t.rank
    return strided_slice(
        t,
        [start if k == axis else 0 for k in range(t.rank)],
        [1] * t.rank,
        [length if k == axis else d for k, d in enumerate(t.shape)],
    )


def squeeze(t: Tensor, axes: Sequence[int]) -> Tensor:
    dropped = {a % t.rank for a in axes}
    return reshape(t, [d for k, d in enumerate(t.shape) if k not in dropped])


def unsqueeze(t: Tensor, axes: Sequence[int]) -> Tensor:
    """Dims of 1 at ``axes`` of the result."""
    rank = t.rank + len(axes)
    new = {a % rank for a in axes}
    rest = iter(t.shape)
    return reshape(t, [1 if k in new else next(rest) for k in range(rank)])


def concat(tensors: Sequence[Tensor], axis: int) -> Tensor:
    """Joined along ``axis``. More than eight are joined as a tree, to keep each kernel's buffers few."""
    rank = tensors[0].rank
    axis %= rank
    for t in tensors[1:]:
        for k in range(rank):
            if k != axis and not dims_equal(t.shape[k], tensors[0].shape[k]):
                raise ModelError(
                    f"tensors of shapes {', '.join(str(list(x.shape)) for x in tensors)} do not join along axis {axis}"
                )
    parts = [t for t in tensors if not (isinstance(t.shape[axis], int) and t.shape[axis] == 0)] or list(tensors[:1])
    if len(parts) == 1:
        return parts[0]
    if len(parts) > 8:
        size = -(-len(parts) // 8) if len(parts) <= 64 else 8
        return concat([concat(parts[k : k + size], axis) for k in range(0, len(parts), size)], axis)
    ends: list[Dim] = []
    for t in parts:
        ends.append((ends[-1] if ends else 0) + t.shape[axis])
    shape = [ends[-1] if k == axis else d for k, d in enumerate(parts[0].shape)]

    def element(*i: Expr) -> Expr:
        result: Expr | None = None
        for k in range(len(parts) - 1, -1, -1):
            start = as_expr(ends[k - 1]) if k else expr.const(0, INT64)
            place = i[axis] - start
            inside = [] if k == 0 else [i[axis] >= start]
            inside += [i[axis] < as_expr(ends[k])] if k < len(parts) - 1 else []
            at = tuple(place if a == axis else i[a] for a in range(rank))
            value = parts[k].at(*at, guard=expr.all_of(inside))
            result = value if result is None else expr.select(i[axis] < as_expr(ends[k]), value, result)
        assert result is not None
        return result

    return map_of(shape, element)


def pad(t: Tensor, before: Sequence[Dim], after: Sequence[Dim], value: Scalar = 0) -> Tensor:
    """``value`` around; negative amounts cut."""
    shape = [d + a + b for d, a, b in zip(t.shape, before, after, strict=True)]
    if t.empty:
        return map_of(shape, lambda *_: value if isinstance(value, Expr) else expr.const(value, t.dtype))

    def element(*i: Expr) -> Expr:
        at = [a - as_expr(b) for a, b in zip(i, before, strict=True)]
        tests: list[Expr] = []
        for k in range(t.rank):
            if not (isinstance(before[k], int) and before[k] <= 0):
                tests.append(at[k] >= 0)
            if not (isinstance(after[k], int) and after[k] <= 0):
                tests.append(at[k] < as_expr(t.shape[k]))
        return t.at(*at, guard=expr.all_of(tests), other=value)

    return map_of(shape, element)


def reduce(monoid: str, t: Tensor, axes: Sequence[int], keepdims: bool = False) -> Tensor:
    """``t`` combined over ``axes``. Sums and products of narrow floats are kept in float32 and rounded once."""
    over = sorted({a % t.rank for a in axes}) if t.rank else []
    if not over:
        return t
    kept = [k for k in range(t.rank) if k not in over]
    wide = accumulator(t.dtype) if monoid in ("add", "mul") else t.dtype

    def element(*i: Expr) -> Expr:
        place = dict(zip((*kept, *over), i, strict=True))
        return expr.cast(t.at(*(place[k] for k in range(t.rank))), wide)

    result = reduce_of([t.shape[k] for k in kept], [t.shape[k] for k in over], monoid, element)
    result = cast(result, t.dtype)
    return unsqueeze(result, over) if keepdims else result


def count(t: Tensor, axes: Sequence[int]) -> Dim:
    """How many elements a reduce over ``axes`` combines."""
    return product(tuple(t.shape[a % t.rank] for a in {a % t.rank for a in axes}))


def arg_reduce(monoid: str, t: Tensor, axis: int, last: bool = False) -> Tensor:
    """Index (int64) of the greatest or least element along ``axis``; of equal ones the first, or the last."""
    axis %= t.rank
    kept = [k for k in range(t.rank) if k != axis]
    end = as_expr(t.shape[axis]) - 1

    def element(*i: Expr) -> tuple[Expr, Expr]:
        place = dict(zip((*kept, axis), i, strict=True))
        value = t.at(*(place[k] for k in range(t.rank)))
        return value, (end - i[-1] if last else i[-1])

    found = reduce_of([t.shape[k] for k in kept], [t.shape[axis]], monoid, element)
    return elementwise(lambda x: end - x, found) if last else found


def checked_index(value: Expr, extent: Dim, what: str) -> tuple[Expr, Expr, int]:
    """(index counted from the start, guard, fault code) of an index element that may be negative or out of range."""
    limit = as_expr(extent)
    value = expr.index(value)
    place = expr.select(value < 0, value + limit, value)
    guard = expr.alu("and", place >= 0, place < limit)
    trace, check = current(), (value, limit, what)
    if check not in trace.checked:
        trace.checked[check] = trace.fault(f"{what} is outside its axis of {extent}")
    return place, guard, trace.checked[check]
