"""Patterns over values: what a spelling looks like, written as the expression that it computes.

    x = anything()
    relu_squared = op("Relu", x) * op("Relu", x)

A pattern matches a value and, through the nodes that produce it, their inputs. A pattern object used in two places
stands for one value: both places must hold the same. ``+`` and ``*`` match either order of inputs; a Python number
matches a scalar constant near it. Matching backtracks, so alternatives may be nested freely.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from math import isclose

import numpy as np
import onnx_ir as ir

from omniop.opset.errors import ModelError
from omniop.opset.tensor_data import tensor_array

Binding = Mapping["Pattern", ir.Value]
"""The value that each pattern of a match stands for."""

_COMMUTATIVE = frozenset({"Add", "Mul"})

# Exporters write constants in the model's own type, and some literals by hand (1.4142): what counts as near.
_RELATIVE_TOLERANCE = {ir.DataType.FLOAT16: 1e-3, ir.DataType.BFLOAT16: 4e-3}
_DEFAULT_TOLERANCE = 2e-5


class Pattern:
    """Matches values. Compared by identity: the same object is the same value of a match."""

    def match(self, value: ir.Value, bound: Binding) -> Iterator[Binding]:
        """Every way to match ``value``, each as ``bound`` with what it added."""
        if self in bound:
            if bound[self] is value:
                yield bound
            return
        for found in self._match(value, bound):
            yield {**found, self: value}

    def _match(self, value: ir.Value, bound: Binding) -> Iterator[Binding]:
        raise NotImplementedError

    def roots(self) -> frozenset[str]:
        """The operators that may produce a value it matches."""
        return frozenset()

    def __add__(self, other: Pattern | float) -> Pattern:
        return op("Add", self, other)

    def __mul__(self, other: Pattern | float) -> Pattern:
        return op("Mul", self, other)

    def __sub__(self, other: Pattern | float) -> Pattern:
        return op("Sub", self, other)

    def __truediv__(self, other: Pattern | float) -> Pattern:
        return op("Div", self, other)

    def __rtruediv__(self, other: float) -> Pattern:
        return op("Div", other, self)

    def __pow__(self, other: float) -> Pattern:
        return op("Pow", self, other)


class _Anything(Pattern):
    def __init__(self, where: Callable[[ir.Value], bool] | None) -> None:
        self.where = where

    def _match(self, value: ir.Value, bound: Binding) -> Iterator[Binding]:
        if self.where is None or self.where(value):
            yield bound


class Constant(Pattern):
    """One number, in an initializer that no feed can replace or in a Constant node."""

    def __init__(self, near: float | None) -> None:
        self.near = near

    def _match(self, value: ir.Value, bound: Binding) -> Iterator[Binding]:
        tensor = constant_tensor(value)
        number = None if tensor is None else _number(tensor)
        if tensor is None or number is None:
            return
        tolerance = _RELATIVE_TOLERANCE.get(tensor.dtype, _DEFAULT_TOLERANCE)
        if self.near is None or isclose(number, self.near, rel_tol=tolerance):
            yield bound


class Op(Pattern):
    """The first output of an ai.onnx node with exactly these inputs."""

    def __init__(self, op_type: str, inputs: Sequence[Pattern], where: Callable[[ir.Node], bool] | None) -> None:
        self.op_type = op_type
        self.inputs = inputs
        self.where = where

    def _match(self, value: ir.Value, bound: Binding) -> Iterator[Binding]:
        node = value.producer()
        if node is None or node.op_type != self.op_type or node.domain or node.outputs[0] is not value:
            return
        inputs = [v for v in node.inputs if v is not None]
        if len(inputs) != len(self.inputs) or (self.where is not None and not self.where(node)):
            return
        yield from _match_all(self.inputs, inputs, bound)
        if self.op_type in _COMMUTATIVE:
            yield from _match_all(self.inputs, inputs[::-1], bound)

    def roots(self) -> frozenset[str]:
        return frozenset({self.op_type})


class _OneOf(Pattern):
    def __init__(self, alternatives: Sequence[Pattern]) -> None:
        self.alternatives = alternatives

    def _match(self, value: ir.Value, bound: Binding) -> Iterator[Binding]:
        for alternative in self.alternatives:
            yield from alternative.match(value, bound)

    def roots(self) -> frozenset[str]:
        return frozenset().union(*(a.roots() for a in self.alternatives))


def _match_all(patterns: Sequence[Pattern], values: Sequence[ir.Value], bound: Binding) -> Iterator[Binding]:
    if not patterns:
        yield bound
        return
    for found in patterns[0].match(values[0], bound):
        yield from _match_all(patterns[1:], values[1:], found)


def anything(where: Callable[[ir.Value], bool] | None = None) -> Pattern:
    """Any value that ``where`` accepts."""
    return _Anything(where)


def constant(near: float | None = None) -> Constant:
    """A scalar constant: near a number (within what its type can tell), or any."""
    return Constant(near)


def op(op_type: str, *inputs: Pattern | float, where: Callable[[ir.Node], bool] | None = None) -> Pattern:
    """An ai.onnx operator on ``inputs``, absent optional ones not counted, that ``where`` accepts."""
    return Op(op_type, [x if isinstance(x, Pattern) else constant(x) for x in inputs], where)


def one_of(*alternatives: Pattern) -> Pattern:
    """Whichever alternative matches, tried in order."""
    return _OneOf(alternatives)


def product(*factors: Pattern | float) -> Pattern:
    """The factors multiplied, in any order and association."""
    patterns = [f if isinstance(f, Pattern) else constant(f) for f in factors]
    if len(patterns) == 1:
        return patterns[0]
    splits = []
    # Each way to part them in two, once: the first factor is always on the left, and Mul matches either order.
    for size in range(1, len(patterns)):
        for chosen in combinations(range(1, len(patterns)), size - 1):
            left = [p for i, p in enumerate(patterns) if i == 0 or i in chosen]
            right = [p for i, p in enumerate(patterns) if i != 0 and i not in chosen]
            splits.append(op("Mul", product(*left), product(*right)))
    return one_of(*splits) if len(splits) > 1 else splits[0]


def constant_tensor(value: ir.Value) -> ir.TensorProtocol | None:
    """The tensor of a value that is the same in every run, or None."""
    if value.is_initializer():
        return None if value.is_graph_input() else value.const_value
    node = value.producer()
    if node is None or node.op_type != "Constant" or node.domain or len(node.attributes) != 1:
        return None
    attr = next(iter(node.attributes.values()))
    if attr.is_ref():
        return None
    if attr.type == ir.AttributeType.TENSOR:
        tensor: ir.TensorProtocol = attr.value
        return tensor
    dtype = _CONSTANT_DTYPES.get(attr.name)
    return None if dtype is None else ir.Tensor(np.array(attr.value, dtype=dtype), name=value.name)


_CONSTANT_DTYPES = {
    "value_float": np.float32,
    "value_floats": np.float32,
    "value_int": np.int64,
    "value_ints": np.int64,
}


def scalar(value: ir.Value) -> float | None:
    """The one number of a constant value, or None."""
    tensor = constant_tensor(value)
    return None if tensor is None else _number(tensor)


def _number(tensor: ir.TensorProtocol) -> float | None:
    if tensor.size != 1 or tensor.dtype == ir.DataType.STRING:
        return None
    try:
        return float(tensor_array(tensor).reshape(()))
    # Not a number a pattern could want: complex, or damaged.
    except (ModelError, TypeError):
        return None
