"""The registry of lowerings: what each operator means, written in prims.

A lowering is a function of a `Node` and the node's inputs, chosen by the schema's since-version. It is traced: inputs
are `definitions.Tensor` (or `HostValue`, lists for sequences, None for an absent optional input), never data.

    @lowering("Softmax", since=13)
    def softmax(node: Node, x: Tensor) -> Tensor: ...
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

import numpy as np

from omniop.opset import expr, prims
from omniop.opset.definitions import Source, Tensor
from omniop.opset.dtype import DType
from omniop.opset.errors import ModelError, UnsupportedError
from omniop.opset.sym import Dim, SymInt, as_expr


@dataclass(eq=False)
class HostValue:
    """Elements known while tracing: Python ints, floats, bools or strings, and SymInts, in an object array."""

    array: np.ndarray
    dtype: DType

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape


Value = Any
"""Tensor | HostValue | list[Value] (a sequence) | None (an empty optional)."""


class NeedsHost(Exception):
    """Raised inside a lowering that needs elements of a tensor: the segment ends, they are read back, and the node is
    lowered again with ``key`` known."""

    def __init__(self, tensor: Tensor, key: object) -> None:
        super().__init__(key)
        self.tensor = tensor
        self.key = key


class OnHost(Exception):
    """Raised inside a lowering whose node, in the form it has in this run, belongs on the host."""


@dataclass
class Node:
    """What a lowering may ask of the node being lowered."""

    op_type: str
    domain: str
    since: int
    label: str
    """For messages: ``Conv "stem.0"``."""
    attributes: Mapping[str, Any]
    """With the schema's defaults filled in."""
    inputs: Sequence[Value] = ()
    outputs: Sequence[bool] = (True,)
    """For each output, whether anybody wants it."""
    known: Mapping[object, HostValue] = field(default_factory=dict)
    """Read back so far, by the key of `NeedsHost`."""

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute's value, the schema's default, or ``default``."""
        value = self.attributes.get(name)
        return default if value is None else value

    def host(self, position: int) -> HostValue | None:
        """Input ``position`` as a host value; None when it is absent."""
        value = self.inputs[position] if position < len(self.inputs) else None
        if value is None or isinstance(value, HostValue):
            return value
        if isinstance(value, Tensor):
            return self.read(value, position)
        raise ModelError(f"{self.label}: input {position} is a sequence where a tensor is expected")

    def read(self, tensor: Tensor, key: object) -> HostValue:
        """The elements of any tensor, read back unless they are known. ``key`` names the place in the lowering."""
        if key in self.known:
            return self.known[key]
        definition = tensor.definition
        if isinstance(definition, Source) and definition.array is not None:
            return host_value(definition.array, tensor.dtype)
        raise NeedsHost(tensor, key)

    def is_zero(self, tensor: Tensor) -> bool:
        """Whether it is a constant of zeros, as zero points of weights mostly are."""
        definition = tensor.definition
        return isinstance(definition, Source) and definition.array is not None and not definition.array.any()

    def ints(self, position: int) -> list[Dim] | None:
        """A host operand of integers as a flat list; None when it is absent."""
        value = self.host(position)
        return None if value is None else list(value.array.reshape(-1))

    def static_ints(self, position: int) -> list[int] | None:
        """Like `ints`, as Python ints: the template is then for these values only."""
        values = self.ints(position)
        return None if values is None else [int(v) for v in values]

    def tensor(self, value: Value) -> Tensor:
        """A host value made a tensor; a tensor as it is."""
        return as_tensor(value)

    def unsupported(self, what: str) -> UnsupportedError:
        return UnsupportedError(f"{self.label}: {what}")


def host_value(array: np.ndarray, dtype: DType) -> HostValue:
    """A numpy array as a host value: elements become Python's own numbers."""
    if dtype.is_float:
        array = array.astype(np.float64)
    elif dtype.is_int:
        array = array.astype(np.int64 if dtype.kind == "i" else np.uint64)
    result = np.empty(array.shape, dtype=object)
    result[...] = array.astype(object)
    return HostValue(result, dtype)


def as_tensor(value: Value) -> Tensor:
    """A value on the device: constants are uploaded, symbolic elements become an expression over sizes."""
    if isinstance(value, Tensor):
        return value
    if not isinstance(value, HostValue):
        raise ModelError("a sequence or an absent value stands where a tensor is expected")
    flat = value.array.reshape(-1)
    if not any(isinstance(v, SymInt) for v in flat):
        if flat.size == 1:
            return prims.full(value.shape, flat[0], value.dtype)
        return prims.constant(value.array.astype(value.dtype.numpy), value.dtype)

    def element(*i: expr.Expr) -> expr.Expr:
        place = _row_major(i, value.shape)
        result = expr.cast(as_expr(flat[-1]), value.dtype)
        for k in range(len(flat) - 2, -1, -1):
            result = expr.select(place.eq(k), expr.cast(as_expr(flat[k]), value.dtype), result)
        return result

    return prims.map_of(value.shape, element)


def _row_major(axes: Sequence[expr.Expr], shape: Sequence[int]) -> expr.Expr:
    place = expr.index(0)
    for a, d in zip(axes, shape, strict=True):
        place = place * d + a
    return place


# Registry -------------------------------------------------------------------------------------------------------------

Lowering = Callable[..., Any]
F = TypeVar("F", bound=Lowering)


@dataclass(frozen=True)
class Entry:
    """One lowering. ``host``: the inputs it needs as values (axes, shapes, k)."""

    op_type: str
    domain: str
    since: int
    function: Lowering
    host: tuple[int, ...] = ()


_entries: dict[tuple[str, str], list[Entry]] = {}


def lowering(op_type: str, since: int = 1, domain: str = "", host: Sequence[int] = ()) -> Callable[[F], F]:
    """Register a lowering for the versions of an op from ``since`` to the next registered one. May be stacked.

    Raises ValueError on a duplicate, naming both functions.
    """

    def register(function: F) -> F:
        entries = _entries.setdefault((domain, op_type), [])
        for entry in entries:
            if entry.since == since:
                first, second = (f"{f.__module__}.{f.__qualname__}" for f in (entry.function, function))
                raise ValueError(
                    f"{domain or 'ai.onnx'}::{op_type} since {since} is lowered by both {first} and {second}"
                )
        entries.append(Entry(op_type, domain, since, function, tuple(host)))
        entries.sort(key=lambda e: e.since)
        return function

    return register


def find(domain: str, op_type: str, since: int) -> Entry | None:
    """The lowering in force at a schema's since-version, or None."""
    load_all()
    chosen = None
    for entry in _entries.get((domain, op_type), ()):
        if entry.since <= since:
            chosen = entry
    return chosen


def entries() -> list[Entry]:
    """Every registered lowering, by domain, name and version."""
    load_all()
    return [e for key in sorted(_entries) for e in _entries[key]]


@cache
def load_all() -> None:
    """Import every module of `omniop.opset.lower`, which fills the registry."""
    from omniop.opset import lower

    for module in pkgutil.iter_modules(lower.__path__):
        importlib.import_module(f"{lower.__name__}.{module.name}")
