"""Graphs as the dispatcher sees them: plain data, so that what was planned can be kept on disk.

`omniop.dispatcher.model` makes them of what `omniop.opset.importer` has read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from omniop.opset.dtype import DType

if TYPE_CHECKING:
    import onnx_ir as ir

    from omniop.opset.lowering import Entry

FunctionKey = tuple[str, str, str]
"""(domain, name, overload) of a model-local function."""


@dataclass(frozen=True)
class ValueType:
    """What a model declares of a value. A dim is an int, a name, or None."""

    kind: Literal["tensor", "sequence", "optional", "map"]
    dtype: DType | None = None
    """Of a tensor's elements or a map's keys; None where left open."""
    dims: tuple[int | str | None, ...] | None = None
    """Of a tensor; None where not even the rank is declared."""
    element: ValueType | None = None
    """Of a sequence or an optional; of a map, its values."""

    @property
    def holds_map(self) -> bool:
        return self.kind == "map" or (self.element is not None and self.element.holds_map)


class Value:
    """An input, a constant, or an output of a node. Compared by identity."""

    __slots__ = ("_array", "_load", "constant", "name", "type")

    def __init__(self, name: str, load: Callable[[], np.ndarray] | None = None) -> None:
        self.name = name
        self.type: ValueType | None = None
        """Of inputs and outputs of graphs."""
        self.constant = load is not None
        """It is an initializer (which an input may be, too: its default)."""
        self._load = load
        self._array: np.ndarray | None = None

    @property
    def array(self) -> np.ndarray:
        """The elements of a constant: one object, which all templates share. Raises ModelError when damaged."""
        if self._array is None:
            assert self._load is not None
            self._array = self._load()
        return self._array

    def __getstate__(self) -> tuple[object, ...]:
        return self.name, self.type, self.constant, self.array if self.constant else None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.name, self.type, self.constant, self._array = state
        self._load = None

    def __repr__(self) -> str:
        return f"Value({self.name!r})"


@dataclass(eq=False, repr=False)
class NodeInfo:
    """A node with its schema looked up."""

    op_type: str
    domain: str
    label: str
    origin: int
    """Number in the session's list of nodes."""
    inputs: list[Value | None] = field(default_factory=list)
    outputs: list[Value] = field(default_factory=list)
    since: int = 0
    version: int = 1
    attributes: dict[str, Any] = field(default_factory=dict)
    """As Python values, the schema's defaults filled in; a graph is a `Graph`."""
    imports: Mapping[str, int] = field(default_factory=dict)
    function: FunctionKey | None = None
    """The model-local function that it calls."""
    source: ir.Node | None = None
    """The node in the imported model; not kept on disk."""

    @cached_property
    def entry(self) -> Entry | None:
        """Its lowering."""
        from omniop.opset import lowering  # nothing that came from the disk needs one

        return None if self.function is not None else lowering.find(self.domain, self.op_type, self.since)

    @property
    def key(self) -> tuple[str, str]:
        return self.domain, self.op_type

    @property
    def graphs(self) -> Iterator[Graph]:
        """Its branches or its body."""
        return (a for a in self.attributes.values() if isinstance(a, Graph))

    def uses(self) -> list[Value]:
        """Its inputs, and what its graphs capture."""
        return [v for v in self.inputs if v is not None] + [v for graph in self.graphs for v in graph.captured]

    @property
    def wanted(self) -> tuple[bool, ...]:
        """For each output, whether anybody wants it."""
        return tuple(bool(v.name) for v in self.outputs)

    def __getstate__(self) -> dict[str, Any]:
        return {**{k: v for k, v in self.__dict__.items() if k != "entry"}, "source": None}


class Labels:
    """Numbers the nodes of a session, subgraphs included, for decisions, faults and ``explain``."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def add(self, label: str) -> int:
        self.names.append(label)
        return len(self.names) - 1

    def name(self, number: int) -> str:
        """The label of a node; what is no node's own (a copy between devices) has the number -1."""
        return self.names[number] if number >= 0 else "a copy between devices"


@dataclass(eq=False, repr=False)
class Graph:
    """One graph of a model: the main one, a branch, a body, a function's."""

    inputs: list[Value]
    outputs: list[Value]
    nodes: list[NodeInfo]
    captured: list[Value]
    """Values of enclosing graphs that this one uses; constants are not among them."""
    host_wanted: set[Value]
    """Values that feed a host operand, directly or through shape arithmetic."""
    kept_live: dict[int, list[Value]] = field(default_factory=dict)

    @property
    def bodies(self) -> Iterator[Graph]:
        """The graphs of its nodes."""
        return (graph for info in self.nodes for graph in info.graphs)

    def live(self, position: int) -> list[Value]:
        """What is needed by the node at ``position`` or later (at the end: the outputs), constants left out."""
        if position not in self.kept_live:
            live = dict.fromkeys(self.outputs)
            for info in reversed(self.nodes[position:]):
                for v in info.outputs:
                    live.pop(v, None)
                live.update(dict.fromkeys(info.uses()))
            inputs = set(self.inputs)
            self.kept_live[position] = [v for v in live if not v.constant or v in inputs]
        return self.kept_live[position]
