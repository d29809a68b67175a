"""Shape arithmetic: the small computations that feed axes, shapes and counts, done on the host while tracing.

What single elements mean is in `omniop.opset.host_elements`; here are the operators, on object arrays of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np

from omniop.opset import dtype as dtypes
from omniop.opset.definitions import Source, Tensor
from omniop.opset.dtype import BOOL, FLOAT32, INT64, STRING, DType
from omniop.opset.errors import ModelError
from omniop.opset.host_elements import (
    BINARY,
    REDUCTIONS,
    TESTS,
    UNARY,
    Element,
    c_remainder,
    equal,
    range_count,
    rounded,
)
from omniop.opset.lower.common import at_most, axes_of, axis_of
from omniop.opset.lowering import HostValue, Node, Value, host_value
from omniop.opset.sym import Dim, product

LIMIT = 1024
"""Elements of the largest value computed here: what is larger is data, and belongs on a device."""

Result = HostValue | tuple[HostValue, ...]


class Declined(Exception):
    """The node is not shape arithmetic: too large, or of strings."""


def evaluate(node: Node, inputs: Sequence[Value]) -> Result | None:
    """The node's outputs as host values; None when it is not shape arithmetic or an input's elements are not known.

    Raises ModelError where the node is invalid.
    """
    function = HOST_ARITHMETIC.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if function is None:
        return None
    operands = [_known(v) if node.op_type not in TAKES_TENSORS else v for v in inputs]
    if any(v is not None and not isinstance(v, HostValue) for v in operands) and node.op_type not in TAKES_TENSORS:
        return None
    try:
        return function(node, operands)
    except Declined:
        return None


def _known(value: Value) -> Value:
    """A small constant on the device as the host value it was made from."""
    if isinstance(value, Tensor) and isinstance(value.definition, Source):
        array = value.definition.array
        if array is not None and array.size <= LIMIT:
            return host_value(array, value.dtype)
    return value


def _made(elements: object, dtype: DType, shape: Sequence[int] | None = None) -> HostValue:
    """A host value of a list, an object array or one element."""
    array = np.asarray(elements, dtype=object)
    if array.size > LIMIT:
        raise Declined
    return HostValue(array if shape is None else array.reshape(tuple(shape)), dtype)


def _ints(value: HostValue | None) -> list[int] | None:
    """Elements as Python ints: the template is for these values."""
    return None if value is None else [int(v) for v in value.array.reshape(-1)]


def _input(inputs: Sequence[Value], position: int) -> HostValue | None:
    return inputs[position] if position < len(inputs) else None


def _elementwise(function: Callable[..., Element], dtype: DType, *arrays: np.ndarray) -> HostValue:
    """``function`` of the elements, broadcast, each rounded to ``dtype``."""
    try:
        shape = np.broadcast_shapes(*(a.shape for a in arrays))
    except ValueError as error:
        raise ModelError(f"shape arithmetic: {error}") from None
    if math.prod(shape) > LIMIT:
        raise Declined
    result = np.empty(shape, dtype=object)
    for place in np.ndindex(shape):
        result[place] = rounded(function(*(np.broadcast_to(a, shape)[place] for a in arrays)), dtype)
    return HostValue(result, dtype)


# The table ------------------------------------------------------------------------------------------------------------

HostFunction = Callable[[Node, Sequence[Any]], Result]
HOST_ARITHMETIC: dict[str, HostFunction] = {}
"""By op_type: (node, inputs) gives the output or a tuple of them. Inputs are HostValue or None; see `TAKES_TENSORS`."""

TAKES_TENSORS = ("Shape", "Size")
"""Operators that look at an input's shape alone."""


def _entry(*names: str) -> Callable[[HostFunction], HostFunction]:
    def register(function: HostFunction) -> HostFunction:
        HOST_ARITHMETIC.update(dict.fromkeys(names, function))
        return function

    return register


@_entry(*UNARY)
def _unary(node: Node, inputs: Sequence[Any]) -> HostValue:
    (x,) = inputs
    if x.dtype is STRING and node.op_type == "Identity":
        return _made(x.array, STRING)
    return _elementwise(UNARY[node.op_type], x.dtype, x.array)


@_entry(*BINARY)
def _binary(node: Node, inputs: Sequence[Any]) -> HostValue:
    function = c_remainder if node.op_type == "Mod" and node.attr("fmod") else BINARY[node.op_type]
    result = inputs[0]
    for other in inputs[1:]:
        result = _elementwise(function, inputs[0].dtype, result.array, other.array)
    return _made(result.array, inputs[0].dtype)


@_entry(*TESTS)
def _test(node: Node, inputs: Sequence[Any]) -> HostValue:
    a, b = inputs
    if STRING in (a.dtype, b.dtype):
        raise Declined
    return _elementwise(TESTS[node.op_type], BOOL, a.array, b.array)


@_entry("Where")
def _where(node: Node, inputs: Sequence[Any]) -> HostValue:
    condition, x, y = inputs
    return _elementwise(lambda c, a, b: a if c else b, x.dtype, condition.array, x.array, y.array)


@_entry("Cast")
def _cast(node: Node, inputs: Sequence[Any]) -> HostValue:
    to = node.attr("to")
    if isinstance(to, str) or STRING in (inputs[0].dtype, dtypes.of_onnx(to)):
        raise Declined
    return _elementwise(lambda a: a, dtypes.of_onnx(to), inputs[0].array)


@_entry("CastLike")
def _cast_like(node: Node, inputs: Sequence[Any]) -> HostValue:
    x, like = inputs
    if x.dtype is STRING:
        raise Declined
    return _elementwise(lambda a: a, like.dtype, x.array)


def _axes(node: Node, inputs: Sequence[Any], position: int = 1) -> list[int] | None:
    given = node.attr("axes")
    return [int(a) for a in given] if given is not None else _ints(_input(inputs, position))


@_entry(*REDUCTIONS)
def _reduce(node: Node, inputs: Sequence[Any]) -> HostValue:
    x = inputs[0]
    function, empty = REDUCTIONS[node.op_type]
    axes = _axes(node, inputs)
    if not axes and node.attr("noop_with_empty_axes"):
        return _made(x.array, x.dtype)
    over = axes_of(node, axes, x.array.ndim) if axes else list(range(x.array.ndim))
    kept = [k for k in range(x.array.ndim) if k not in over]
    rows = x.array.transpose(kept + over).reshape(math.prod(x.shape[k] for k in kept), -1)
    if rows.shape[1] == 0 and empty is None:
        raise Declined
    values = [rounded(reduce(function, row) if len(row) else empty, x.dtype) for row in rows]
    keepdims = node.attr("keepdims", 1)
    return _made(values, x.dtype, [1 if k in over else d for k, d in enumerate(x.shape) if keepdims or k in kept])


# Shapes, and values made of nothing -----------------------------------------------------------------------------------


def _dims(value: Value) -> tuple[Dim, ...]:
    if not isinstance(value, Tensor | HostValue):
        raise Declined
    return value.shape


@_entry("Shape")
def _shape(node: Node, inputs: Sequence[Any]) -> HostValue:
    dims = _dims(inputs[0])
    return _made(list(dims[slice(node.attr("start", 0), node.attr("end"))]), INT64)


@_entry("Size")
def _size(node: Node, inputs: Sequence[Any]) -> HostValue:
    return _made(product(_dims(inputs[0])), INT64, ())


_CONSTANTS = {
    "value_int": INT64,
    "value_ints": INT64,
    "value_float": FLOAT32,
    "value_floats": FLOAT32,
    "value_string": STRING,
    "value_strings": STRING,
}


def constant_value(node: Node) -> HostValue:
    """What a Constant node holds, of any size."""
    array = node.attr("value")
    if array is not None:
        return host_value(array, dtypes.of_numpy(array.dtype))
    for name, dtype in _CONSTANTS.items():
        given = node.attr(name)
        if given is not None:
            return HostValue(np.asarray(given, dtype=object), dtype)
    raise node.unsupported("no attribute that holds a dense value")


@_entry("Constant")
def _constant(node: Node, inputs: Sequence[Any]) -> HostValue:
    array = node.attr("value")
    if array is not None and array.size > LIMIT:
        raise Declined
    return constant_value(node)


@_entry("ConstantOfShape")
def _constant_of_shape(node: Node, inputs: Sequence[Any]) -> HostValue:
    shape = _ints(inputs[0]) or []
    if math.prod(shape) > LIMIT:
        raise Declined
    given = node.attr("value", np.zeros(1, np.float32))
    fill = host_value(given, dtypes.of_numpy(given.dtype))
    return _made(np.full(shape, fill.array.reshape(-1)[0], dtype=object), fill.dtype)


@_entry("Range")
def _range(node: Node, inputs: Sequence[Any]) -> HostValue:
    start, limit, delta = (v.array.reshape(-1)[0] for v in inputs)
    count = range_count(node, start, limit, delta)
    if not at_most(count, LIMIT):
        raise Declined
    dtype = inputs[0].dtype
    return _made([rounded(start + k * delta, dtype) for k in range(int(count))], dtype)


# Elements moved -------------------------------------------------------------------------------------------------------


@_entry("Gather")
def _gather(node: Node, inputs: Sequence[Any]) -> HostValue:
    x, indices = inputs
    axis = axis_of(node, node.attr("axis", 0), x.array.ndim)
    try:
        picked = np.take(x.array, np.asarray(_ints(indices), np.int64).reshape(indices.shape), axis)
    except IndexError:
        raise ModelError(f"{node.label}: an index is outside axis {axis} of {x.shape[axis]} elements") from None
    return _made(picked, x.dtype)


@_entry("Slice")
def _slice(node: Node, inputs: Sequence[Any]) -> HostValue:
    x = inputs[0]
    if node.since < 10:
        starts, ends, axes, steps = node.attr("starts"), node.attr("ends"), node.attr("axes"), None
    else:
        starts, ends, axes, steps = (_ints(_input(inputs, k)) for k in (1, 2, 3, 4))
    places = axes_of(node, range(len(starts)) if axes is None else axes, x.array.ndim)
    window = [slice(None)] * x.array.ndim
    for axis, start, end, step in zip(places, starts, ends, steps or [1] * len(starts), strict=True):
        # Python's own clamping; a stop before the first element is None when going down
        window[axis] = slice(start, None if step < 0 and end < -x.shape[axis] else end, step)
    return _made(x.array[tuple(window)], x.dtype)


@_entry("Concat")
def _concat(node: Node, inputs: Sequence[Any]) -> HostValue:
    axis = axis_of(node, node.attr("axis", 1), inputs[0].array.ndim)
    return _made(np.concatenate([v.array for v in inputs], axis), inputs[0].dtype)


@_entry("Squeeze")
def _squeeze(node: Node, inputs: Sequence[Any]) -> HostValue:
    x, axes = inputs[0], _axes(node, inputs)
    dropped = range(x.array.ndim) if axes is None else axes_of(node, axes, x.array.ndim)
    return _made(x.array, x.dtype, [d for k, d in enumerate(x.shape) if k not in dropped or d != 1])


@_entry("Unsqueeze")
def _unsqueeze(node: Node, inputs: Sequence[Any]) -> HostValue:
    x, axes = inputs[0], _axes(node, inputs) or []
    return _made(np.expand_dims(x.array, axes_of(node, axes, x.array.ndim + len(axes))), x.dtype)


@_entry("Reshape")
def _reshape(node: Node, inputs: Sequence[Any]) -> HostValue:
    x = inputs[0]
    target = list(node.attr("shape") or []) if node.since < 5 else _ints(inputs[1]) or []
    if not node.attr("allowzero"):
        target = [x.shape[k] if d == 0 and k < x.array.ndim else d for k, d in enumerate(target)]
    try:
        return _made(x.array.reshape(target), x.dtype)
    except ValueError:
        raise ModelError(f"{node.label}: {list(x.shape)} does not reshape to {target}") from None


@_entry("Flatten")
def _flatten(node: Node, inputs: Sequence[Any]) -> HostValue:
    x, axis = inputs[0], node.attr("axis", 1)
    axis = axis if axis >= 0 else axis + x.array.ndim
    return _made(x.array, x.dtype, [math.prod(x.shape[:axis]), math.prod(x.shape[axis:])])


@_entry("Transpose")
def _transpose(node: Node, inputs: Sequence[Any]) -> HostValue:
    return _made(inputs[0].array.transpose(node.attr("perm")), inputs[0].dtype)


@_entry("Expand")
def _expand(node: Node, inputs: Sequence[Any]) -> HostValue:
    x, target = inputs[0], _ints(inputs[1]) or []
    try:
        shape = np.broadcast_shapes(x.shape, tuple(target))
    except ValueError as error:
        raise ModelError(f"{node.label}: {error}") from None
    return _made(np.broadcast_to(x.array, shape), x.dtype)


@_entry("Tile")
def _tile(node: Node, inputs: Sequence[Any]) -> HostValue:
    repeats = _ints(inputs[1]) or []
    if node.since < 6 or inputs[0].array.size * math.prod(repeats) > LIMIT:
        raise Declined
    return _made(np.tile(inputs[0].array, repeats), inputs[0].dtype)


@_entry("Split")
def _split(node: Node, inputs: Sequence[Any]) -> tuple[HostValue, ...]:
    x, count = inputs[0], len(node.outputs)
    axis = axis_of(node, node.attr("axis", 0), x.array.ndim)
    lengths = list(node.attr("split") or _ints(_input(inputs, 1)) or [])
    if not lengths:
        longest = -(-x.shape[axis] // count)
        lengths = [min(longest, max(0, x.shape[axis] - k * longest)) for k in range(count)]
    ends = np.cumsum(lengths)
    return tuple(_made(part, x.dtype) for part in np.split(x.array, ends[:-1], axis))


@_entry("ScatterND")
def _scatter_nd(node: Node, inputs: Sequence[Any]) -> HostValue:
    x, indices, updates = inputs
    if node.attr("reduction", "none") != "none":
        raise Declined
    result, places = x.array.copy(), np.asarray(_ints(indices), np.int64).reshape(indices.shape)
    try:
        for lead in np.ndindex(indices.shape[:-1]):
            result[tuple(places[lead])] = updates.array[lead]
    except IndexError:
        raise ModelError(f"{node.label}: an index is outside a value of shape {list(x.shape)}") from None
    return _made(result, x.dtype)


@_entry("NonZero")
def _non_zero(node: Node, inputs: Sequence[Any]) -> HostValue:
    x = inputs[0]
    found = [place for place in np.ndindex(x.shape) if x.array[place] and not equal(x.array[place], 0)]
    return _made(np.asarray(found, dtype=object).reshape(-1, x.array.ndim).T, INT64)
