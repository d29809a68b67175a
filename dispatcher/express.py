"""The short way of a run: feeds of dtypes and shapes that were met before go straight to the program.

It is there for runs of one segment whose outputs were made for the caller: what most models are. Checks that were
passed once are not made again, but for elements that the plan depends on: they have to be what they were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from omniop.backends.base import Device, HostArray, LaunchError
from omniop.dispatcher.execute import take_fault
from omniop.dispatcher.graph import Graph, Labels, Value
from omniop.dispatcher.program import Launches, RunReport
from omniop.dispatcher.result import Binding, DeviceResult
from omniop.dispatcher.template import MAX_CONTEXTS, RunContext, Template
from omniop.opset.dtype import DType
from omniop.opset.errors import OmniopError

MAX_KEPT = 256
"""Signatures of a session."""

Signature = tuple[object, ...]


class _Output(NamedTuple):
    name: str
    entry: int
    device: Device
    shape: tuple[int, ...]
    dtype: DType


class Express:
    """One signature's run."""

    def __init__(self, template: Template, binding: Binding, graph: Graph, labels: Labels, kind: Signature) -> None:
        self.template = template
        self.binding = binding
        self.labels = labels
        self.report = RunReport(segments=[(template, binding)])
        self.feeds = [(entry, key.name, device) for entry, key, device in template.feeds if isinstance(key, Value)]
        self.elements = [
            (s.key.name, s.element, value)
            for s, value in zip(template.symbols, binding.symbols, strict=True)
            if s.element is not None and isinstance(s.key, Value)
        ]
        self.statics = [(s.key.name, s.content) for s in template.statics if isinstance(s.key, Value)]
        made = {r.value: r for r in template.results if isinstance(r, DeviceResult)}
        found = [(v, made[v]) for v in graph.outputs]
        self.outputs = [_Output(v.name, r.entry, r.device, binding.shapes[r.shape], r.dtype) for v, r in found]
        self.bytes = [(o, max(1, int(np.prod(o.shape, dtype=np.int64)) * o.dtype.itemsize)) for o in self.outputs]
        names: Sequence[Any] = kind[::3]
        self._count = len(names)
        self._take: Callable[[Mapping[str, Any]], Sequence[Any]] = (
            itemgetter(*names) if self._count > 1 else lambda feeds: [feeds[name] for name in names]
        )
        self._launches = self._on_one_device()
        entries = {name: entry for entry, name, _ in self.feeds}
        self._fed = [HostArray(entries.get(n), d, s) for n, d, s in zip(names, kind[1::3], kind[2::3], strict=True)]  # type: ignore[arg-type]
        self._made = [HostArray(o.entry, o.dtype.numpy, o.shape) for o in self.outputs]

    def _on_one_device(self) -> Launches | None:
        """What the run is, where it is nothing but launches on one device."""
        (stage, *more) = self.binding.stages or [None]
        if more or not isinstance(stage, Launches) or self.elements or self.statics or not self.feeds:
            return None
        names = [name for _, name, _ in self.feeds]
        devices = {device for *_, device in self.feeds} | {o.device for o in self.outputs}
        return stage if devices == {stage.device} and len(set(names)) == len(names) else None

    def direct(self, feeds: Mapping[str, Any]) -> list[np.ndarray] | None:
        """The graph's outputs, with the least work in Python; None when the feeds are others than this is for, or the
        device does not run so. Feeds are checked by the device."""
        if self._launches is None or len(feeds) != self._count:
            return None
        try:
            arrays = self._take(feeds)
            template = self.template
            contexts = template.contexts
            context = contexts.pop() if contexts else None  # one step each: no other thread gets the same one
            if context is None or context.direct_of is not self:
                context = self._prepared(context, self._launches)
            outputs = context.direct(arrays) if context.direct is not None else None
        except (KeyError, IndexError, OmniopError, LaunchError, MemoryError):
            return None  # the long way tells what is the matter
        fault = take_fault(template, context, self.labels) if template.error_devices and outputs is not None else None
        if len(contexts) < MAX_CONTEXTS:
            contexts.append(context)
        if fault is not None:
            raise fault
        return outputs

    def _prepared(self, context: RunContext | None, launches: Launches) -> RunContext:
        context = self.template.fitted(context, self.binding, self.labels)
        assert context.table is not None
        context.direct = launches.device.direct(launches.run, context.table, self._fed, self._made)
        context.direct_of = self
        if context.direct is None:
            self._launches = None
        return context

    def __call__(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray] | None:
        """The outputs; None when elements differ, or a device has not the memory: the long way tells what then is."""
        if any(feeds[name].item(k) != value for name, k, value in self.elements):
            return None
        if any(feeds[name].tobytes() != content for name, content in self.statics):
            return None
        template = self.template
        try:
            context = template.lease(self.binding, self.labels)
            table = context.table.copy()  # type: ignore[union-attr]  # a leased one has it
            for entry, name, device in self.feeds:
                array = feeds[name]
                buffer = device.borrow(array)
                if buffer is None:
                    buffer = device.alloc(array.nbytes)
                    device.h2d(buffer, array)
                table[entry] = buffer
            for output, nbytes in self.bytes:
                table[output.entry] = output.device.alloc(nbytes)
        except (OmniopError, MemoryError):
            return None
        for stage in self.binding.stages or ():
            stage(table, self.report)
        fault = take_fault(template, context, self.labels) if template.error_devices else None
        template.release(context)
        if fault is not None:
            raise fault
        return {o.name: self._array(o, table[o.entry]) for o in self.outputs}

    def _array(self, output: _Output, buffer: Any) -> np.ndarray:
        array = output.device.lend(buffer, output.shape, output.dtype)
        if array is None:
            array = np.empty(output.shape, output.dtype.numpy)
            output.device.d2h(array, buffer)
        return array


def signature(feeds: Mapping[str, Any]) -> Signature | None:
    """What a short way is found by; None for feeds that are not plain arrays as devices take them."""
    found: list[object] = []
    for name, array in feeds.items():
        if type(array) is not np.ndarray or not (array.flags.c_contiguous and array.flags.aligned):
            return None
        found += (name, array.dtype, array.shape)
    return tuple(found)


def express(
    report: RunReport, graph: Graph, labels: Labels, inputs: Mapping[str, Value], kind: Signature
) -> Express | None:
    """The short way of runs like the one reported, of feeds of this kind; None when there is none."""
    if len(report.segments) != 1:
        return None
    template, binding = report.segments[0]
    if template.cut.kind != "end":
        return None
    made = {r.value: r for r in template.results if isinstance(r, DeviceResult)}
    own = {entry for entry, *_ in template.outputs}
    outputs = [made.get(v) for v in graph.outputs]
    if any(r is None or r.entry not in own or 0 in binding.shapes[r.shape] for r in outputs):
        return None
    entries = [r.entry for r in outputs if r is not None]
    if len(set(entries)) != len(entries) or len({v.name for v in graph.outputs}) != len(entries):
        return None
    keys = {key for _, key, _ in template.feeds}
    keys |= {s.key for s in template.symbols} | {s.key for s in template.statics}
    if not all(isinstance(key, Value) and inputs.get(key.name) is key for key in keys):
        return None
    return Express(template, binding, graph, labels, kind)
