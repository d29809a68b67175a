"""Tracing a segment: from one node on, lower nodes into prims until the graph ends or the host has to step in.

A segment ends at a cut: a lowering needs elements that a device computed (they are read back, and the node starts the
next segment), or a node runs on the host by nature (control flow, strings, sequences).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir as ir

from omniop.backends.base import Device
from omniop.dispatcher.graph import GraphContext, NodeInfo, describe
from omniop.dispatcher.host_ops import HOST_OPS
from omniop.dispatcher.placement import Placement
from omniop.dispatcher.values import DeviceTensor, RuntimeValue
from omniop.opset import dtype as dtypes
from omniop.opset import host_arithmetic, prims
from omniop.opset.definitions import Source, Tensor
from omniop.opset.dtype import DType
from omniop.opset.errors import ModelError, UnsupportedError
from omniop.opset.expr import OperandError
from omniop.opset.host_arithmetic import HOST_ARITHMETIC
from omniop.opset.lowering import HostValue, NeedsHost, Node, as_tensor, host_value
from omniop.opset.nodes import initializer_array
from omniop.opset.schemas import function_graph
from omniop.opset.sym import Dim
from omniop.opset.trace import Trace, tracing

MAX_HOST_ELEMENTS = 1024
"""Values with more elements are not held as host values."""
SMALL_CONSTANT = 64

ReadKey = tuple[object, ...]


@dataclass(frozen=True)
class Symbol:
    """Where a size symbol's value comes from at run time: a dim or an element of a runtime value."""

    name: str
    key: object
    """The ir.Value, or the `ReadKey` of a read-back."""
    axis: int | None
    element: int | None


@dataclass(frozen=True)
class StaticValue:
    """Host elements that the trace took as they are (floats, bools, strings): they have to be the same again."""

    key: object
    content: bytes


@dataclass
class Cut:
    """How a segment ends: ``node`` is the position of the node that goes on."""

    kind: Literal["end", "read", "host"]
    node: int
    read: Tensor | None = None
    key: ReadKey = ()


@dataclass
class Traced:
    """A traced segment, not yet planned."""

    trace: Trace
    placement: Placement
    symbols: list[Symbol]
    statics: list[StaticValue]
    sources: dict[Tensor, object]
    """Runtime value (or read key) of each Source that is not a constant."""
    results: dict[ir.Value, Any]
    """Tensor | HostValue | Opaque of every value that is needed after the segment."""
    passed: list[ir.Value]
    """Runtime values that go through untouched."""
    cut: Cut


@dataclass(frozen=True)
class Opaque:
    """A runtime value that only host ops can take (a sequence, strings, None), by where it comes from."""

    key: ir.Value


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
    """Traces one segment of ``context`` from node ``start`` on."""

    context: GraphContext
    start: int
    env: Mapping[ir.Value, RuntimeValue]
    reads: Mapping[ReadKey, np.ndarray]
    devices: Sequence[Device]
    exclude: Mapping[str, Collection[str]]
    declared: Mapping[ir.Value, Sequence[object]]
    """Dims of graph inputs as the model declares them: an int, a name, or None."""
    values: dict[ir.Value, Any] = field(default_factory=dict)
    symbols: list[Symbol] = field(default_factory=list)
    statics: list[StaticValue] = field(default_factory=list)
    sources: dict[Tensor, object] = field(default_factory=dict)
    hosts: dict[Tensor, HostValue] = field(default_factory=dict)

    def run(self) -> Traced:
        """Raises ModelError, UnsupportedError or PlacementError naming the node."""
        self.trace = Trace()
        self.placement = Placement(self.trace, self.devices, self.exclude)
        self.named: dict[str, Dim] = {}
        cut = Cut("end", len(self.context.nodes))
        with tracing(self.trace):
            for position in range(self.start, len(self.context.nodes)):
                info = self.context.nodes[position]
                try:
                    self._node(info, position)
                except _ReadHere as need:
                    cut = Cut("read", position, need.tensor, need.key)
                    break
                except _CutHere:
                    cut = Cut("host", position)
                    break
            results, passed = self._results(cut)
        return Traced(self.trace, self.placement, self.symbols, self.statics, self.sources, results, passed, cut)

    def _results(self, cut: Cut) -> tuple[dict[ir.Value, Any], list[ir.Value]]:
        results: dict[ir.Value, Any] = {}
        passed: list[ir.Value] = []
        for v in self.context.live[cut.node]:
            if v not in self.values and v in self.env:
                passed.append(v)
                continue
            value = self.value(v)
            if value == Opaque(v) or (isinstance(value, Tensor) and self.sources.get(value) is v):
                passed.append(v)
            else:
                results[v] = value
        return results, passed

    # Values -----------------------------------------------------------------------------------------------------------

    def value(self, v: ir.Value) -> Any:
        """Tensor, HostValue, Opaque, or an array of constant strings."""
        if v not in self.values:
            if v in self.env:
                self.values[v] = self._from_run(v, self.env[v])
            elif v.const_value is not None:
                self.values[v] = constant_value(initializer_array(v))
            else:
                raise ModelError(f'value "{v.name}" is used before anything defines it')
        return self.values[v]

    def _from_run(self, v: ir.Value, value: RuntimeValue) -> Any:
        if isinstance(value, np.ndarray) and value.dtype != object:
            shape = self._dims(v, value.shape, self.declared.get(v))
            return self._source(v, shape, dtypes.of_numpy(value.dtype))
        if isinstance(value, DeviceTensor):
            return self._source(v, self._dims(v, value.shape, value.dims), value.dtype)
        return Opaque(v)

    def _source(self, key: ir.Value, shape: Sequence[Dim], dtype: DType) -> Tensor:
        t = prims.source(key.name or "value", shape, dtype)
        self.sources[t] = key
        return t

    def _dims(self, v: ir.Value, shape: Sequence[int], fixed: Sequence[object] | None) -> list[Dim]:
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

    def host(self, key: object, array: np.ndarray, dtype: DType) -> HostValue:
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
        run = self.env.get(key) if isinstance(key, ir.Value) else None
        if isinstance(run, np.ndarray) and run.size <= MAX_HOST_ELEMENTS:
            self.hosts[tensor] = self.host(key, run, tensor.dtype)
            return self.hosts[tensor]
        return None

    # Nodes ------------------------------------------------------------------------------------------------------------

    def _node(self, info: NodeInfo, position: int) -> None:
        node = info.node
        inputs = [None if v is None else self.value(v) for v in node.inputs]
        outputs = self._evaluate(info, position, inputs, self.context.host_wanted)
        for v, value in zip(node.outputs, outputs, strict=False):
            self.values[v] = value

    def _evaluate(
        self, info: NodeInfo, position: int, inputs: list[Any], wanted: set[ir.Value], path: ReadKey = ()
    ) -> list[Any]:
        """The outputs of a node. ``path`` tells apart the read-backs of nodes inside functions."""
        node = info.node
        if node.op_type == "Constant" and not node.domain:
            return [constant_value(_constant_array(info))]
        if node.op_type == "Identity" and not node.domain:
            return [inputs[0]]
        if (node.domain, node.op_type) in HOST_OPS:
            raise _CutHere
        if makes_strings(info) or any(x is not None and not isinstance(x, Tensor | HostValue) for x in inputs):
            raise _CutHere
        if any(v in wanted for v in node.outputs):
            found = self._host_arithmetic(info, inputs)
            if found is not None:
                return found
        key = node.op_identifier()
        if key in self.context.model.functions:
            return self._function(info, self.context.model.functions[key], position, inputs, path)
        if info.entry is None:
            return self._schema_function(info, position, inputs, path)
        return self._lower(info, position, inputs, path)

    def _host_arithmetic(self, info: NodeInfo, inputs: list[Any]) -> list[Any] | None:
        shape_alone = info.node.op_type in host_arithmetic.TAKES_TENSORS
        known = inputs if shape_alone else [self._known(x) for x in inputs]
        result = host_arithmetic.evaluate(self._lowering_node(info, known, {}), known)
        if result is None:
            return None
        return list(result) if isinstance(result, tuple) else [result]

    def _known(self, value: Any) -> Any:
        """A tensor's elements when the host has them; else the value itself."""
        found = self.host_of(value) if isinstance(value, Tensor) else None
        return value if found is None else found

    def _lowering_node(self, info: NodeInfo, inputs: Sequence[Any], known: Mapping[object, HostValue]) -> Node:
        wanted = tuple(v is not None and bool(v.name) for v in info.node.outputs)
        return Node(info.node.op_type, info.node.domain, info.since, info.label, info.attributes, inputs, wanted, known)

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
            except OperandError as error:
                kinds = ", ".join("-" if not isinstance(x, Tensor) else x.dtype.name for x in args)
                raise ModelError(f"{info.label}: does not take inputs of {kinds}: {error}") from error
        results = list(result) if isinstance(result, tuple | list) else [result]
        return self.placement.place(info, self.trace.definitions[first:], results, args)

    def _place_partial(self, info: NodeInfo, first: int) -> None:
        """Prims recorded before a read-back still need a device."""
        self.placement.place(info, self.trace.definitions[first:], [], [])

    # Functions --------------------------------------------------------------------------------------------------------

    def _schema_function(self, info: NodeInfo, position: int, inputs: list[Any], path: ReadKey) -> list[Any]:
        types = [None if x is None else _type_proto(x) for x in inputs]
        function = function_graph(info.node, info.imports, types)
        if function is None:
            raise UnsupportedError(f"{info.label}: no lowering for {info.node.op_type} since version {info.since}")
        return self._function(info, function, position, inputs, path)

    def _function(
        self, info: NodeInfo, function: ir.Function, position: int, inputs: list[Any], path: ReadKey
    ) -> list[Any]:
        """Trace a function's body in place of its call. Its nodes count as the calling node."""
        scope: dict[ir.Value, Any] = {}
        for k, v in enumerate(function.inputs):
            scope[v] = inputs[k] if k < len(inputs) else None
        imports = {**self.context.model.opset_imports, **function.opset_imports}
        wanted = _function_host_wanted(self, function, imports, info)
        for k, node in enumerate(function):
            inner = describe(self.context.model, node, info.origin, imports)
            inner.label = f"{info.label} / {inner.label}"
            args: list[Any] = []
            for used in node.inputs:
                if used is None:
                    args.append(None)
                elif used in scope:
                    args.append(scope[used])
                elif used.const_value is not None:
                    args.append(constant_value(initializer_array(used)))
                else:
                    raise ModelError(f'{inner.label}: value "{used.name}" is used before anything defines it')
            outputs = self._evaluate(inner, position, args, wanted, (*path, k))
            scope.update(zip(node.outputs, outputs, strict=False))
        return [scope.get(v) for v in function.outputs]


def _function_host_wanted(
    tracer: SegmentTracer, function: ir.Function, imports: Mapping[str, int], info: NodeInfo
) -> set[ir.Value]:
    wanted: set[ir.Value] = set()
    for node in reversed(list(function)):
        inner = describe(tracer.context.model, node, info.origin, imports)
        positions = inner.entry.host if inner.entry is not None else ()
        wanted.update(v for k in positions if k < len(node.inputs) and (v := node.inputs[k]) is not None)
        if node.op_type in HOST_ARITHMETIC and any(v in wanted for v in node.outputs):
            wanted.update(v for v in node.inputs if v is not None)
    return wanted


def makes_strings(info: NodeInfo) -> bool:
    """A cast to strings."""
    return info.node.op_type == "Cast" and info.attributes.get("to") == dtypes.STRING.onnx


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
