"""Tracing a segment: from one node on, lower nodes into prims until the graph ends or the host has to step in.

A segment ends at a cut: a lowering needs elements that a device computed (they are read back, and the node starts the
next segment), or a node runs on the host by nature (control flow, strings, sequences).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from omniop.backends.base import Device
from omniop.dispatcher.decision import Decision
from omniop.dispatcher.graph import Graph, NodeInfo, Value
from omniop.dispatcher.host_table import HOST_OPS
from omniop.dispatcher.model import Model
from omniop.dispatcher.placement import Placement
from omniop.dispatcher.precision import Precision
from omniop.dispatcher.result import ReadKey
from omniop.dispatcher.template import Cut, StaticValue, Symbol
from omniop.dispatcher.values import DeviceTensor, RuntimeValue
from omniop.dispatcher.watch import tell
from omniop.opset import dtype as dtypes
from omniop.opset import host_arithmetic, prims
from omniop.opset.definitions import Source, Tensor
from omniop.opset.dtype import DType
from omniop.opset.errors import MISFITS, ModelError, OmniopError, UnsupportedError
from omniop.opset.expr import OperandError
from omniop.opset.gradient import GRADIENT, gradients, leaf
from omniop.opset.lowering import HostValue, NeedsHost, Node, OnHost, as_tensor, host_value
from omniop.opset.sym import Dim
from omniop.opset.trace import Trace, tracing

MAX_HOST_ELEMENTS = 1024
"""Values with more elements are not held as host values."""
SMALL_CONSTANT = 64


@dataclass
class Traced:
    """A traced segment, not yet planned."""

    trace: Trace
    placement: Placement
    symbols: list[Symbol]
    statics: list[StaticValue]
    sources: dict[Tensor, Value | ReadKey]
    """Runtime value (or read key) of each Source that is not a constant."""
    results: dict[Value, Any]
    """Tensor | HostValue | Opaque of every value that is needed after the segment."""
    passed: list[Value]
    """Runtime values that go through untouched."""
    cut: Cut
    read: Tensor | None
    """The tensor whose elements the next segment needs."""


@dataclass(frozen=True)
class Opaque:
    """A runtime value that only host ops can take (a sequence, strings, None), by where it comes from."""

    key: Value


class _CutHere(Exception):
    """A node inside has to run on the host."""


class _ReadHere(Exception):
    """The elements of a tensor have to be read back."""

    def __init__(self, tensor: Tensor, key: ReadKey) -> None:
        super().__init__(key)
        self.tensor = tensor
        self.key = key


@dataclass
class SegmentTracer:
    """Traces one segment of ``graph`` from node ``start`` on."""

    model: Model
    graph: Graph
    start: int
    env: Mapping[Value, RuntimeValue]
    reads: Mapping[ReadKey, np.ndarray]
    devices: Sequence[Device]
    exclude: Mapping[str, Collection[str]]
    precision: Precision | None = None
    values: dict[Value, Any] = field(default_factory=dict)
    symbols: list[Symbol] = field(default_factory=list)
    statics: list[StaticValue] = field(default_factory=list)
    sources: dict[Tensor, Value | ReadKey] = field(default_factory=dict)
    hosts: dict[Tensor, HostValue] = field(default_factory=dict)

    def run(self) -> Traced:
        """Raises ModelError, UnsupportedError or PlacementError naming the node."""
        self.trace = Trace()
        self.placement = Placement(self.trace, self.devices, self.exclude, self.precision)
        self.named: dict[str, Dim] = {}
        self.inputs = set(self.graph.inputs) if self.graph is self.model.graph else set()
        cut, read = Cut("end", len(self.graph.nodes)), None
        with tracing(self.trace):
            for position in range(self.start, len(self.graph.nodes)):
                info = self.graph.nodes[position]
                tell("placing nodes", position, len(self.graph.nodes))
                try:
                    self._node(info, position)
                except _ReadHere as need:
                    cut, read = Cut("read", position, need.key), need.tensor
                    break
                except _CutHere:
                    cut = Cut("host", position)
                    break
                except OmniopError as error:
                    raise _naming(info, error) from error
            results, passed = self._results(cut)
        return Traced(self.trace, self.placement, self.symbols, self.statics, self.sources, results, passed, cut, read)

    def _results(self, cut: Cut) -> tuple[dict[Value, Any], list[Value]]:
        results: dict[Value, Any] = {}
        passed: list[Value] = []
        for v in self.graph.live(cut.node):
            if v not in self.values and v in self.env:
                passed.append(v)
                continue
            value = self.value(v)
            if self._is_untouched(value, v):
                passed.append(v)
            else:
                results[v] = value
        return results, passed

    def _is_untouched(self, value: Any, v: Value) -> bool:
        """Whether ``value`` is the runtime value ``v`` itself."""
        source = value.key if isinstance(value, Opaque) else None
        return (self.sources.get(value) if isinstance(value, Tensor) else source) is v

    # Values -----------------------------------------------------------------------------------------------------------

    def value(self, v: Value) -> Any:
        """Tensor, HostValue, Opaque, or an array of constant strings."""
        if v not in self.values:
            if v in self.env:
                self.values[v] = self._from_run(v, self.env[v])
            elif v.constant:
                self.values[v] = constant_value(v.array)
            else:
                raise ModelError(f'value "{v.name}" is used before anything defines it')
        return self.values[v]

    def _from_run(self, v: Value, value: RuntimeValue) -> Any:
        if isinstance(value, np.ndarray) and value.dtype != object:
            shape = self._dims(v, value.shape, v.type.dims if v.type is not None and v in self.inputs else None)
            return self._source(v, shape, dtypes.of_numpy(value.dtype))
        if isinstance(value, DeviceTensor):
            return self._source(v, self._dims(v, value.shape, value.dims), value.dtype)
        return Opaque(v)

    def _source(self, key: Value, shape: Sequence[Dim], dtype: DType) -> Tensor:
        t = prims.source(key.name or "value", shape, dtype)
        self.sources[t] = key
        return t

    def _dims(self, v: Value, shape: Sequence[int], fixed: Sequence[object] | None) -> list[Dim]:
        """Constant where the model says so, one symbol per name, a symbol of its own otherwise."""
        dims: list[Dim] = []
        for axis, extent in enumerate(shape):
            known = fixed[axis] if fixed is not None and axis < len(fixed) else None
            if isinstance(known, int):
                dims.append(extent)
                continue
            name = f"d{len(self.symbols)}"
            if isinstance(known, str) and known in self.named:
                dims.append(self.named[known])
                continue
            self.symbols.append(Symbol(name, v, axis, None))
            dim = self.trace.env.symbol(name, extent)
            if isinstance(known, str):
                self.named[known] = dim
            dims.append(dim)
        return dims

    def host(self, key: Value | ReadKey, array: np.ndarray, dtype: DType) -> HostValue:
        """Elements of a runtime array: integers become symbols, everything else has to be the same in every run."""
        result = host_value(array, dtype)
        flat = result.array.reshape(-1)
        if dtype.is_int:
            for k in range(flat.size):
                name = f"e{len(self.symbols)}"
                self.symbols.append(Symbol(f"~{name}", key, None, k))
                flat[k] = self.trace.env.scalar(name, int(flat[k]))
        else:
            self.statics.append(StaticValue(key, array.tobytes()))
        result.array = flat.reshape(result.array.shape)
        return result

    def host_of(self, tensor: Tensor) -> HostValue | None:
        """A tensor's elements when the host has them: a constant, or a feed."""
        if tensor in self.hosts:
            return self.hosts[tensor]
        definition = tensor.definition
        if isinstance(definition, Source) and definition.array is not None:
            return host_value(definition.array, tensor.dtype)
        key = self.sources.get(tensor)
        run = self.env.get(key) if isinstance(key, Value) else None
        if key is not None and isinstance(run, np.ndarray) and run.size <= MAX_HOST_ELEMENTS:
            self.hosts[tensor] = self.host(key, run, tensor.dtype)
            return self.hosts[tensor]
        return None

    # Nodes ------------------------------------------------------------------------------------------------------------

    def _node(self, info: NodeInfo, position: int) -> None:
        inputs = [None if v is None else self.value(v) for v in info.inputs]
        outputs = self._evaluate(info, position, inputs, self.graph.host_wanted)
        for v, value in zip(info.outputs, outputs, strict=False):
            self.values[v] = value

    def _evaluate(
        self, info: NodeInfo, position: int, inputs: list[Any], wanted: set[Value], path: ReadKey = ()
    ) -> list[Any]:
        """The outputs of a node. ``path`` tells apart the read-backs of nodes inside functions."""
        if info.key == ("", "Constant"):
            return [constant_value(_constant_array(info))]
        if info.key == ("", "Identity"):
            return [inputs[0]]
        if info.key == GRADIENT:
            return self._gradient(info, position, inputs, path)
        if info.key == ("", "If"):
            return self._if(info, position, inputs[0], path)
        if info.key in HOST_OPS:
            raise _CutHere
        if makes_strings(info) or any(x is not None and not isinstance(x, Tensor | HostValue) for x in inputs):
            raise _CutHere
        if any(v in wanted for v in info.outputs):
            found = self._host_arithmetic(info, inputs)
            if found is not None:
                return found
        if info.entry is None:
            types = [None if x is None else _type_proto(x) for x in inputs] if info.function is None else []
            return self._function(info, self.model.function(info, types, inside=True), position, inputs, path)
        return self._lower(info, position, inputs, path)

    def _if(self, info: NodeInfo, position: int, condition: Any, path: ReadKey) -> list[Any]:
        """Trace the branch in place of the node where the host knows the condition, as when it asks for a size or a
        sample rate: the choice is a guard of the template. A condition that a device computes is for the host."""
        known = self._known(condition)
        if not isinstance(known, HostValue) or known.array.size != 1:
            raise _CutHere
        name = "then_branch" if known.array.reshape(-1)[0] else "else_branch"
        branch: Graph = info.attributes[name]
        if not all(v in self.values or v in self.env for v in branch.captured):
            raise _CutHere  # the values of a function's body have a scope of their own
        for k, inner in enumerate(branch.nodes):
            inputs = [None if v is None else self.value(v) for v in inner.inputs]
            outputs = self._evaluate(inner, position, inputs, self.graph.host_wanted, (*path, k))
            self.values.update(zip(inner.outputs, outputs, strict=False))
        route = f"no work: its {name} takes its place, for a condition that the host knows"
        self.placement.decisions.setdefault(info.origin, Decision(info.origin, info.label, info.op_type, "-", route))
        return [self.value(v) for v in branch.outputs]

    def _host_arithmetic(self, info: NodeInfo, inputs: list[Any]) -> list[Any] | None:
        shape_alone = info.op_type in host_arithmetic.TAKES_TENSORS
        known = inputs if shape_alone else [self._known(x) for x in inputs]
        try:
            result = host_arithmetic.evaluate(self._lowering_node(info, known, {}), known)
        except MISFITS as error:
            raise _misfit(info, known, error) from error
        if result is None:
            return None
        return list(result) if isinstance(result, tuple) else [result]

    def _known(self, value: Any) -> Any:
        """A tensor's elements when the host has them; else the value itself. A run's floats are data, and stay on
        the device: to compute with them here would make a template for each of their values."""
        if not isinstance(value, Tensor) or (value.dtype.is_float and value in self.sources):
            return value
        found = self.host_of(value)
        return value if found is None else found

    def _lowering_node(self, info: NodeInfo, inputs: Sequence[Any], known: Mapping[object, HostValue]) -> Node:
        return Node(info.op_type, info.domain, info.since, info.label, info.attributes, inputs, info.wanted, known)

    def _lower(self, info: NodeInfo, position: int, inputs: list[Any], path: ReadKey) -> list[Any]:
        entry = info.entry
        assert entry is not None
        self.trace.origin = info.origin
        while inputs and inputs[-1] is None:
            inputs = inputs[:-1]
        known = {
            key[-1]: self.host(key, array, dtypes.of_numpy(array.dtype))
            for key, array in self.reads.items()
            if key[:-1] == (position, *path)
        }
        first = len(self.trace.definitions)
        while True:
            args = [x if k in entry.host or x is None else as_tensor(x) for k, x in enumerate(inputs)]
            node = self._lowering_node(info, args, known)
            try:
                result = entry.function(node, *args)
                break
            except NeedsHost as need:
                found = self.host_of(need.tensor)
                if found is None:
                    self._place_partial(info, first)
                    raise _ReadHere(need.tensor, (position, *path, need.key)) from None
                known = {**known, need.key: found}
            except OnHost:
                raise _CutHere from None
            except OperandError as error:
                kinds = ", ".join("-" if not isinstance(x, Tensor) else x.dtype.name for x in args)
                raise ModelError(f"{info.label}: does not take inputs of {kinds}: {error}") from error
            except MISFITS as error:
                raise _misfit(info, args, error) from error
        results = list(result) if isinstance(result, tuple | list) else [result]
        return self.placement.place(info, self.trace.definitions[first:], results, args)

    def _place_partial(self, info: NodeInfo, first: int) -> None:
        """Prims recorded before a read-back still need a device."""
        self.placement.place(info, self.trace.definitions[first:], [], [])

    # Functions --------------------------------------------------------------------------------------------------------

    def _function(self, info: NodeInfo, function: Graph, position: int, inputs: list[Any], path: ReadKey) -> list[Any]:
        """Trace a function's body in place of its call. Its nodes count as the calling node."""
        scope: dict[Value, Any] = {}
        for k, v in enumerate(function.inputs):
            scope[v] = inputs[k] if k < len(inputs) else None
        for k, inner in enumerate(function.nodes):
            args: list[Any] = []
            for used in inner.inputs:
                if used is None:
                    args.append(None)
                elif used in scope:
                    args.append(scope[used])
                elif used.constant:
                    args.append(constant_value(used.array))
                else:
                    raise ModelError(f'{inner.label}: value "{used.name}" is used before anything defines it')
            outputs = self._evaluate(inner, position, args, function.host_wanted, (*path, k))
            scope.update(zip(inner.outputs, outputs, strict=False))
        return [scope.get(v) for v in function.outputs]

    def _gradient(self, info: NodeInfo, position: int, inputs: list[Any], path: ReadKey) -> list[Any]:
        """Trace the body on the inputs, and then backwards what it recorded."""
        leaves = [leaf(as_tensor(x)) for x in inputs]
        try:
            (y,) = self._function(info, info.attributes["body"], position, leaves, path)
        except _CutHere:
            raise UnsupportedError(f"{info.label}: what its graph does on the host has no derivative") from None
        self.trace.origin = info.origin
        first = len(self.trace.definitions)
        try:
            found = gradients(as_tensor(y), leaves[: len(info.outputs)])
        except UnsupportedError as error:
            raise UnsupportedError(f"{info.label}: {error}") from error
        return self.placement.place(info, self.trace.definitions[first:], found, leaves)


def makes_strings(info: NodeInfo) -> bool:
    """A cast to strings."""
    return info.op_type == "Cast" and info.attributes.get("to") == dtypes.STRING.onnx


def _constant_array(info: NodeInfo) -> np.ndarray:
    values = {k: v for k, v in info.attributes.items() if v is not None}
    for name, dtype in (
        ("value_float", np.float32),
        ("value_int", np.int64),
        ("value_floats", np.float32),
        ("value_ints", np.int64),
    ):
        if name in values:
            return np.asarray(values[name], dtype)
    if "value" in values:
        return np.asarray(values["value"])
    for name in ("value_string", "value_strings"):
        if name in values:
            return np.asarray(values[name], object)
    raise UnsupportedError(f"{info.label}: sparse constants are not supported")


def _naming(info: NodeInfo, error: OmniopError) -> OmniopError:
    """An error that says at which node it was met, in one line: names come from the file, line breaks and all."""
    text = " ".join(str(error).split())
    return type(error)(text if info.label in text else f"{info.label}: {text}")


def _misfit(info: NodeInfo, inputs: Sequence[Any], error: Exception) -> ModelError:
    kinds = ", ".join(_kind(x) for x in inputs) or "none"
    why = f"{type(error).__name__}: {error}"
    return ModelError(f"{info.label}: its inputs ({kinds}) and attributes do not go together ({why})")


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{value.dtype} of rank {value.rank}"
    return f"{value.dtype} {list(value.array.shape)}" if isinstance(value, HostValue) else "-"


def constant_value(array: np.ndarray) -> Any:
    """A constant while tracing: small ones as host values, so that they melt into expressions."""
    if array.dtype == object:
        return array
    dtype = dtypes.of_numpy(array.dtype)
    if array.size <= SMALL_CONSTANT:
        return host_value(array, dtype)
    return prims.constant(np.ascontiguousarray(array), dtype)


def _type_proto(value: Any) -> onnx.TypeProto:
    shape: list[int | None] = [d if isinstance(d, int) else None for d in value.shape]
    return onnx.helper.make_tensor_type_proto(value.dtype.onnx, shape)
