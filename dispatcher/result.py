"""What leaves a segment: how each value is taken from a run that has ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from omniop.backends.base import Buffer, Device
from omniop.dispatcher.graph import Value
from omniop.dispatcher.values import DeviceTensor, RuntimeValue
from omniop.opset.dtype import DType

ReadKey = tuple[object, ...]
"""A read-back: the node's position and the names of the places in its lowering."""


@dataclass(eq=False, repr=False)
class Binding:
    """A template's numbers for one set of shapes."""

    symbols: tuple[int, ...]
    numbers: tuple[int, ...]
    slot_bytes: list[int]
    shapes: list[tuple[int, ...]]
    stages: list[Any] | None = None
    """The template's ops for these numbers (`omniop.dispatcher.program`), once it has run."""


Look = Callable[[Value | ReadKey], RuntimeValue]
"""Gives a value that the segment started with."""


@dataclass(eq=False, repr=False)
class Result(ABC):
    """One of the kinds below. The read-back that ends a segment has no ``value``."""

    value: Value | None

    @abstractmethod
    def take(self, binding: Binding, table: Sequence[Buffer], look: Look) -> RuntimeValue:
        """The value after a run with this binding and buffer table."""


@dataclass(eq=False, repr=False)
class DeviceResult(Result):
    """A tensor on a device. ``shape``: its number among the binding's shapes; ``entry``: its place in the table;
    ``fresh``: it is no constant.
    """

    device: Device
    dtype: DType
    dims: tuple[int | None, ...]
    shape: int
    entry: int
    fresh: bool

    def take(self, binding: Binding, table: Sequence[Buffer], look: Look) -> RuntimeValue:
        shape = binding.shapes[self.shape]
        return DeviceTensor(self.device, table[self.entry], shape, self.dtype, self.dims, self.fresh)


@dataclass(eq=False, repr=False)
class EmptyResult(Result):
    """A tensor without elements, which no device ever saw."""

    dtype: DType
    shape: int

    def take(self, binding: Binding, table: Sequence[Buffer], look: Look) -> RuntimeValue:
        return np.empty(binding.shapes[self.shape], self.dtype.numpy)


@dataclass(frozen=True, repr=False)
class Number:
    """Index among a binding's numbers."""

    index: int


@dataclass(eq=False, repr=False)
class HostResult(Result):
    """Elements that the host computes: each a constant, or the `Number` of a size expression."""

    dtype: DType
    dims: tuple[int, ...]
    elements: list[object]

    def take(self, binding: Binding, table: Sequence[Buffer], look: Look) -> RuntimeValue:
        flat = [binding.numbers[e.index] if isinstance(e, Number) else e for e in self.elements]
        return np.array(flat, self.dtype.numpy).reshape(self.dims)


@dataclass(eq=False, repr=False)
class PassedResult(Result):
    """A value that the segment started with."""

    key: Value | ReadKey

    def take(self, binding: Binding, table: Sequence[Buffer], look: Look) -> RuntimeValue:
        return look(self.key)


@dataclass(eq=False, repr=False)
class ConstantResult(Result):
    """An array of the model, or None."""

    constant: np.ndarray | None

    def take(self, binding: Binding, table: Sequence[Buffer], look: Look) -> RuntimeValue:
        return self.constant
