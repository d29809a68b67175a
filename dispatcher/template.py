"""Templates: the plan of one segment for one set of guards, and its bindings to shapes.

A template is immutable once made, and shared by all runs. What a run needs of its own (slots, error words) is a
`RunContext`, leased from the template for the time of the run.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from omniop.backends.base import Buffer, Device, Runnable
from omniop.dispatcher.build import check_memory
from omniop.dispatcher.memory import Slot
from omniop.dispatcher.placement import Decision
from omniop.dispatcher.plan import AnyStep
from omniop.dispatcher.segment import Cut, StaticValue, Symbol
from omniop.opset.definitions import Tensor
from omniop.opset.dtype import DType
from omniop.opset.expr import Expr
from omniop.opset.lowering import HostValue

Place = tuple[Tensor, Device]
MAX_CONTEXTS = 8
MAX_BINDINGS = 256


@dataclass
class Launch:
    """A step made ready. ``buffers`` index the run's buffer table, ``sizes`` is a range of the binding's numbers."""

    device: Device
    run: Runnable
    buffers: tuple[int, ...]
    sizes: slice


@dataclass
class Transfer:
    """Bytes from one buffer to another, across devices or within one."""

    source_device: Device
    target_device: Device
    source: int
    target: int
    bytes: int
    """Index of the byte count among the binding's numbers."""


@dataclass
class Loop:
    """A repeat: ``before`` once, ``body`` ``count`` times with numbers of its own."""

    count: int
    reverse: bool
    before: list[Op]
    body: list[Op]
    numbers: Any
    """The body's numbers as a function of (symbols..., step)."""


Op = Launch | Transfer | Loop


@dataclass
class Binding:
    """A template's numbers for one set of shapes."""

    symbols: tuple[int, ...]
    numbers: tuple[int, ...]
    slot_bytes: list[int]
    shapes: list[tuple[int, ...]]


@dataclass
class RunContext:
    """Memory of one run in flight."""

    slots: list[Buffer | None]
    capacity: list[int]
    errors: list[Buffer]


@dataclass
class Result:
    """How one value leaves the segment."""

    value: ir.Value | None
    """None: the read-back that ends the segment."""
    tensor: Tensor | None = None
    host: HostValue | None = None
    runtime: object = None
    """Key of the runtime value it is, or a constant array."""
    device: Device | None = None
    empty: Tensor | None = None
    """A tensor without elements, which no device ever saw."""
    shape: int = -1
    """Number of its shape among the binding's."""
    entry: int = -1
    """Its place in the buffer table."""


@dataclass
class Template:
    """See the module."""

    symbols: list[Symbol]
    statics: list[StaticValue]
    guards: list[tuple[int, bool]]
    """(index among the numbers, expected)."""
    ops: list[Op]
    steps: list[AnyStep]
    results: list[Result]
    passed: list[ir.Value]
    cut: Cut
    decisions: dict[int, Decision]
    slots: list[Slot]
    table: int
    """Entries of the buffer table: slots, then the rest."""
    constants: list[tuple[int, Buffer]]
    feeds: list[tuple[int, object, Device, DType]]
    outputs: list[tuple[int, int, Device, DType]]
    """(table entry, shape number, device, dtype) of tensors that outlive the segment."""
    error_devices: list[tuple[int, Device]]
    faults: list[tuple[int, str]]
    folded: list[AnyStep]
    """Steps that depended on constants alone, and ran when the template was made."""
    conditions: list[tuple[Expr, bool]]
    compute: Any
    slot_parts: list[list[tuple[int, int]]]
    """Per slot: (number of elements, bytes of one) of its members."""
    shape_parts: list[list[int]]
    host_numbers: dict[tuple[int, int], int]
    """(result, element) -> number, for host values that hold symbols."""
    bindings: dict[tuple[int, ...], Binding | None] = field(default_factory=dict)
    contexts: list[RunContext] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def bind(self, values: tuple[int, ...]) -> Binding | None:
        """The numbers for these symbol values; None when a guard does not hold."""
        found = self.bindings.get(values, False)
        if found is False:
            found = self._bind(values)
            with self.lock:
                if len(self.bindings) >= MAX_BINDINGS:
                    self.bindings.clear()
                self.bindings[values] = found
        return found  # type: ignore[return-value]

    def _bind(self, values: tuple[int, ...]) -> Binding | None:
        numbers = self.compute(values)
        if any(bool(numbers[k]) != expected for k, expected in self.guards):
            return None
        slot_bytes = [max(numbers[k] * size for k, size in parts) for parts in self.slot_parts]
        shapes = [tuple(numbers[k] for k in part) for part in self.shape_parts]
        return Binding(values, numbers, slot_bytes, shapes)

    def lease(self, binding: Binding) -> RunContext:
        """A context of the free list, or a new one, with slots large enough."""
        with self.lock:
            context = self.contexts.pop() if self.contexts else None
        if context is None:
            errors = [device.alloc(4) for _, device in self.error_devices]
            for (_, device), word in zip(self.error_devices, errors, strict=True):
                device.h2d(word, np.zeros(1, np.int32))
            context = RunContext([None] * len(self.slots), [0] * len(self.slots), errors)
        for k, (slot, nbytes) in enumerate(zip(self.slots, binding.slot_bytes, strict=True)):
            if context.capacity[k] < nbytes:
                context.slots[k] = None
                context.slots[k] = slot.device.alloc(check_memory(slot.device, nbytes))
                context.capacity[k] = nbytes
        return context

    def release(self, context: RunContext) -> None:
        with self.lock:
            if len(self.contexts) < MAX_CONTEXTS:
                self.contexts.append(context)
