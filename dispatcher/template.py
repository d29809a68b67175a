"""Templates: the plan of one segment for one set of guards, and its bindings to shapes.

A template is immutable once made, and shared by all runs. What a run needs of its own (slots, error words) is a
`RunContext`, leased from the template for the time of the run.

Nobody compares or prints these classes, and methods for that would take longer to make than a small model to load.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np

from omniop.backends.base import Buffer, Device, Direct
from omniop.dispatcher.binding import SizeFunction
from omniop.dispatcher.build import Built, allocate
from omniop.dispatcher.decision import Decision
from omniop.dispatcher.graph import Labels, Value
from omniop.dispatcher.result import Binding, ReadKey, Result
from omniop.dispatcher.weights import Constant
from omniop.opset.dtype import DType

MAX_CONTEXTS = 8
MAX_BINDINGS = 256


class Symbol(NamedTuple):
    """Where a size symbol's value comes from at run time: a dim or an element of a runtime value."""

    name: str
    key: Value | ReadKey
    axis: int | None
    element: int | None


class StaticValue(NamedTuple):
    """Host elements that the trace took as they are (floats, bools, strings): they have to be the same again."""

    key: Value | ReadKey
    content: bytes


@dataclass(eq=False, repr=False)
class Cut:
    """How a segment ends: ``node`` is the position of the node that goes on."""

    kind: Literal["end", "read", "host"]
    node: int
    key: ReadKey = ()
    """Of a read-back."""


@dataclass(eq=False, repr=False)
class Launch:
    """A step made ready. ``buffers`` index the run's buffer table, ``sizes`` is a range of the binding's numbers."""

    device: Device
    built: Built
    buffers: tuple[int, ...]
    sizes: slice
    origin: int
    """The number of a node that it computes."""


@dataclass(eq=False, repr=False)
class Transfer:
    """Bytes from one buffer to another, across devices or within one."""

    source_device: Device
    target_device: Device
    source: int
    target: int
    bytes: int
    """Index of the byte count among the binding's numbers."""


@dataclass(eq=False, repr=False)
class Loop:
    """A repeat: ``before`` once, ``body`` ``count`` times with numbers of its own."""

    count: int
    reverse: bool
    before: list[Op]
    body: list[Op]
    numbers: SizeFunction
    """The body's numbers as a function of (symbols..., step)."""


Op = Launch | Transfer | Loop


@dataclass(eq=False, repr=False)
class RunContext:
    """Memory of one run in flight."""

    slots: list[Buffer | None]
    capacity: list[int]
    errors: list[Buffer]
    table: list[Buffer] | None = None
    """A run's buffer table with what is the same in all runs of this context: slots, constants, error words."""
    direct: Direct | None = None
    """A run on this table for feeds like those of the last one, whose binding is ``direct_of``."""
    direct_of: object = None


@dataclass(eq=False, repr=False)
class StepNote:
    """One step of a program, for people: a kernel, call, relayout, copy or repeat, and the nodes that it computes."""

    kind: str
    device: str
    what: str
    origins: list[int]


@dataclass(eq=False, repr=False)
class Summary:
    """What ``explain`` tells of a template."""

    steps: list[StepNote]
    constant_steps: int
    """Steps that depended on constants alone, and ran when the template was made."""
    guards: list[str]
    devices: tuple[str, ...]
    tensor_work: SizeFunction
    """Scalars that each of ``devices`` computes: see `omniop.dispatcher.tensor_work`."""


@dataclass(eq=False, repr=False)
class Template:
    """See the module."""

    symbols: list[Symbol]
    statics: list[StaticValue]
    guards: list[tuple[int, bool]]
    """(index among the numbers, expected)."""
    ops: list[Op]
    results: list[Result]
    passed: list[Value]
    cut: Cut
    decisions: dict[int, Decision]
    slots: list[Device]
    """Per slot, where it is."""
    table: int
    """Entries of the buffer table: slots, then the rest."""
    constants: list[tuple[int, Constant]]
    feeds: list[tuple[int, Value | ReadKey, Device]]
    outputs: list[tuple[int, int, Device, DType, int]]
    """(table entry, shape number, device, dtype, the node's number) of tensors that outlive the segment."""
    error_devices: list[tuple[int, Device]]
    faults: list[tuple[int, str]]
    summary: Summary
    compute: SizeFunction
    slot_parts: list[list[tuple[int, int, int]]]
    """Per slot: (number of elements, bytes of one, the node's number) of its members."""
    shape_parts: list[list[int]]
    bindings: dict[tuple[int, ...], Binding | None] = field(default_factory=dict)
    contexts: list[RunContext] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "bindings": {}, "contexts": [], "lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, lock=threading.Lock())

    @property
    def ran(self) -> bool:
        """Whether it did in this session: a plan from the disk holds what others needed, too."""
        return any(binding is not None for binding in self.bindings.values())

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
        slot_bytes = [max(numbers[k] * size for k, size, _ in parts) for parts in self.slot_parts]
        shapes = [tuple(numbers[k] for k in part) for part in self.shape_parts]
        return Binding(values, numbers, slot_bytes, shapes)

    def lease(self, binding: Binding, labels: Labels) -> RunContext:
        """A context of the free list, or a new one, with slots large enough. Raises DeviceError naming the node."""
        with self.lock:
            context = self.contexts.pop() if self.contexts else None
        return self.fitted(context, binding, labels)

    def fitted(self, context: RunContext | None, binding: Binding, labels: Labels) -> RunContext:
        """As `lease`, for a context that was taken from the free list already."""
        if context is None:
            errors = [device.alloc(4) for _, device in self.error_devices]
            for (_, device), word in zip(self.error_devices, errors, strict=True):
                device.h2d(word, np.zeros(1, np.int32))
            context = RunContext([None] * len(self.slots), [0] * len(self.slots), errors)
        for k, (slot, nbytes) in enumerate(zip(self.slots, binding.slot_bytes, strict=True)):
            if context.capacity[k] < nbytes:
                context.slots[k] = None
                context.slots[k] = allocate(slot, nbytes, partial(self._owner, k, binding, labels))
                context.capacity[k] = nbytes
                context.table = context.direct = context.direct_of = None
        if context.table is None:
            context.table = self._table(context)
        return context

    def _table(self, context: RunContext) -> list[Buffer]:
        table = [*context.slots, *[None] * (self.table - len(context.slots))]
        for entry, constant in self.constants:
            table[entry] = constant.buffer
        for (entry, _), word in zip(self.error_devices, context.errors, strict=True):
            table[entry] = word
        return table

    def _owner(self, slot: int, binding: Binding, labels: Labels) -> str:
        """The node that needs a slot to be as large as it is."""
        *_, origin = max(self.slot_parts[slot], key=lambda part: binding.numbers[part[0]] * part[1])
        return labels.name(origin)

    def release(self, context: RunContext) -> None:
        with self.lock:
            if len(self.contexts) < MAX_CONTEXTS:
                self.contexts.append(context)
