"""Layouts: which tensors of a segment lie in another order than row-major.

A tuned kernel says what it reads and writes. What stands between such kernels follows: elementwise maps,
concatenations, pads, resizing, and whatever else reads a tensor at its own channel, have the layout of what they read,
so that tensors are brought from one order into another at the borders of a network and not within. A relayout is a step
of its own only where no map could do it in passing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import gcd
from weakref import WeakKeyDictionary

from omniop.backends.base import Device
from omniop.opset import expr, poly
from omniop.opset.definitions import Definition, Map, Repeat, Scatter, Source, Structured, Tensor
from omniop.opset.layout import ROW_MAJOR, Layout
from omniop.opset.prims import axes_of, record
from omniop.opset.sym import as_expr, hint_of


class Layouts:
    """The layouts of one segment's tensors.

    ``of``: what is decided; a tensor that is not there is row-major. ``device_of``: where definitions run;
    ``replaced``: tensors that an expansion has put others in place of. Both are shared with the placement.
    """

    def __init__(self, device_of: dict[Definition, Device], replaced: dict[Tensor, Tensor]) -> None:
        self.of: dict[Tensor, Layout] = {}
        self.relayouts: set[Definition] = set()
        self._device_of = device_of
        self._replaced = replaced
        self._followed: dict[Tensor, Layout] = {}

    def resolve(self, tensor: Tensor) -> Tensor:
        while tensor in self._replaced:
            tensor = self._replaced[tensor]
        return tensor

    def apply(
        self, call: Structured, wanted: Callable[[int], Layout], made: Callable[[int], Layout], device: Device
    ) -> None:
        """Give a tuned kernel's operands and results the layouts that it wants and makes, by position."""
        call.operands = tuple(self.brought(t, wanted(k), device) for k, t in enumerate(call.operands))
        for k, t in enumerate(call.outputs):
            if made(k) is not ROW_MAJOR:
                self.of[t] = made(k)

    def brought(self, tensor: Tensor, layout: Layout, device: Device) -> Tensor:
        """The tensor in a layout: itself when it has it, or its own kernel can write it; else a relayout of it."""
        tensor = self.resolve(tensor)
        if self.of.get(tensor, ROW_MAJOR) == layout:
            return tensor
        own = isinstance(tensor.definition, Map) and self._device_of.get(tensor.definition) is device
        if own and tensor not in self.of and layout is not ROW_MAJOR:
            self.of[tensor] = layout
            return tensor
        key = ("relayout", tensor, layout)
        axes = axes_of(tensor.shape)
        (copy,) = record(Map(tensor.at(*axes)), [(tensor.shape, tensor.dtype)], key)
        self.of[copy] = layout
        self.relayouts.add(copy.definition)
        self._device_of[copy.definition] = device
        return copy

    # Following --------------------------------------------------------------------------------------------------------

    def following(self, tensor: Tensor) -> Layout:
        """The layout that the tensor has, or, for a map, that most of what it reads at its own channel has."""
        tensor = self.resolve(tensor)
        pending = [tensor]
        while pending:
            t = pending[-1]
            if t in self.of or t in self._followed:
                pending.pop()
                continue
            sources = self._read_alike(t)
            unknown = [s for s in sources if s not in self.of and s not in self._followed]
            if unknown:
                pending += unknown
                continue
            pending.pop()
            self._followed[t] = self._heaviest(sources)
        return self._known(tensor)

    def _heaviest(self, sources: Mapping[Tensor, int]) -> Layout:
        """The layout that most elements have; those that stand apart by parts of blocks count as row-major."""
        weight: dict[Layout, int] = {}
        for t, apart in sources.items():
            layout = self._known(t)
            layout = ROW_MAJOR if apart % _block_of(layout) else layout
            weight[layout] = weight.get(layout, 0) + _elements(t)
        return max(weight, key=lambda layout: weight[layout], default=ROW_MAJOR)

    def _known(self, tensor: Tensor) -> Layout:
        return self.of.get(tensor) or self._followed.get(tensor, ROW_MAJOR)

    def _read_alike(self, tensor: Tensor) -> dict[Tensor, int]:
        """What a map reads at its own channel, or at one that is a multiple of so many apart."""
        definition = tensor.definition
        if not isinstance(definition, Map) or tensor.rank < 3:
            return {}
        channel = as_expr(axes_of(tensor.shape)[1])
        found: dict[Tensor, int] = {}
        for node in expr.walk(definition.value):
            if node.op == "load" and node.attr.source.rank == tensor.rank:
                apart = poly.poly_of(expr.load_parts(node)[0][1] - channel)
                if channel.op == "axis" and channel not in expr.free_axes(poly.expr_of(apart)):
                    found.setdefault(self.resolve(node.attr.source), gcd(*apart.values()))
        return found

    def settle(self, definitions: Sequence[Definition], outputs: Iterable[Tensor]) -> None:
        """Decide what is left: maps follow what they read, unless they leave the segment or feed what wants row-major.

        What row-major prims read is brought to them.
        """
        if not self.of:
            return
        self._followed.clear()
        inside = {d for r in definitions if isinstance(r, Repeat) for d in r.body}
        in_rows = [d for d in definitions if not _is_tuned(d)]
        fixed = {self.resolve(t) for t in (*outputs, *(t for d in in_rows for t in _whole_operands(d)))}
        for definition in definitions:
            for t in definition.inputs():
                if self._device_of.get(t.definition) is not self._device_of.get(definition):
                    fixed.add(self.resolve(t))
        for definition in definitions:
            if isinstance(definition, Map) and definition not in inside:
                (t,) = definition.outputs
                if t not in self.of and t not in fixed and (layout := self.following(t)) is not ROW_MAJOR:
                    self.of[t] = layout
        for d in in_rows:
            if isinstance(d, Structured):
                d.operands = tuple(self._in_rows(t, d) for t in d.operands)
            elif isinstance(d, Scatter):
                d.bases = tuple(None if t is None else self._in_rows(t, d) for t in d.bases)

    def _in_rows(self, tensor: Tensor, reader: Definition) -> Tensor:
        if self.resolve(tensor) not in self.of:
            return tensor
        return self.brought(tensor, ROW_MAJOR, self._device_of[reader])


def _is_tuned(definition: Definition) -> bool:
    return isinstance(definition, Structured) and definition.tuned is not None


def _whole_operands(definition: Definition) -> tuple[Tensor, ...]:
    """What a definition reads as a row-major buffer, and not element by element."""
    if isinstance(definition, Structured):
        return definition.operands
    return tuple(t for t in definition.bases if t is not None) if isinstance(definition, Scatter) else ()


def _block_of(layout: Layout) -> int:
    """Channels of a block."""
    return max((block for axis, block, _ in layout.order if axis == 1), default=1) or 1


def _elements(t: Tensor) -> int:
    n = 1
    for d in t.shape:
        n *= hint_of(d)
    return n


_constant: WeakKeyDictionary[Definition, bool] = WeakKeyDictionary()
"""What `is_constant` found: most tensors are made of others that it was asked about."""


def is_constant(tensor: Tensor) -> bool:
    """Whether the tensor's elements depend on the model alone."""
    stack = [tensor.definition]
    while stack:
        definition = stack[-1]
        found = [_constant.get(t.definition) for t in definition.inputs()] if _may_be_constant(definition) else [False]
        if False not in found and None in found:
            stack += [t.definition for t, known in zip(definition.inputs(), found, strict=True) if known is None]
        else:
            _constant[stack.pop()] = False not in found
    return _constant[tensor.definition]


def _may_be_constant(definition: Definition) -> bool:
    """Where what it reads is."""
    if isinstance(definition, Source):
        return definition.array is not None
    return isinstance(definition, Map) and definition.folds and not _is_sized(definition)


def _is_sized(definition: Definition) -> bool:
    """Whether it is of sizes that differ from run to run."""
    return any(node.op == "size" for node in expr.walk(*definition.expressions()))
