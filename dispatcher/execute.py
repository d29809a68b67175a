"""Running a graph: segments one after another, host steps between them.

A `GraphRunner` holds the templates of one graph. It is stateless between runs and may be called from several threads;
each run leases the memory it needs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from omniop.backends.base import Buffer, Device
from omniop.dispatcher.build import check_memory
from omniop.dispatcher.graph import GraphContext, Labels, NodeInfo
from omniop.dispatcher.host_ops import HOST_OPS, by_reference
from omniop.dispatcher.placement import Decision
from omniop.dispatcher.segment import ReadKey, SegmentTracer, Symbol
from omniop.dispatcher.template import Binding, Launch, Loop, Op, RunContext, Template, Transfer
from omniop.dispatcher.template_builder import TemplateBuilder
from omniop.dispatcher.values import DeviceTensor, RuntimeValue, signature
from omniop.dispatcher.weights import Weights
from omniop.opset import dtype as dtypes
from omniop.opset.errors import ExecutionError, UnsupportedError
from omniop.opset.importer import ImportedModel
from omniop.opset.nodes import initializer_array
from omniop.opset.schemas import function_graph

MAX_TEMPLATES = 64
"""Templates kept for one place and signature: values that guards pin down could make more without end."""

Env = dict[ir.Value, RuntimeValue]


@dataclass
class Options:
    """What all graphs of a session share."""

    devices: Sequence[Device]
    exclude: Mapping[str, Collection[str]]
    weights: Weights
    labels: Labels
    templates_made: int = 0
    """In all graphs of the session."""


@dataclass
class RunReport:
    """What one run did beyond launching: for fallback messages and tests."""

    copied_bytes: int = 0
    read_backs: int = 0
    templates_made: int = 0
    bind_seconds: float = 0.0


@dataclass
class GraphRunner:
    """Templates of one graph by (first node, signature of the values that live there)."""

    model: ImportedModel
    graph: ir.Graph
    options: Options
    context: GraphContext
    templates: dict[tuple[object, ...], list[Template]] = field(default_factory=dict)
    bodies: dict[ir.Graph, GraphRunner] = field(default_factory=dict)
    functions: dict[tuple[object, ...], GraphRunner] = field(default_factory=dict)
    host_decisions: dict[int, Decision] = field(default_factory=dict)
    """Of the nodes that ran between segments."""
    lock: threading.RLock = field(default_factory=threading.RLock)
    declared: dict[ir.Value, list[object]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for graph, sub in self.context.subgraphs.items():
            self.bodies[graph] = GraphRunner(self.model, graph, self.options, sub)

    def run(self, env: Env, report: RunReport) -> list[RuntimeValue]:
        """Values of the graph's outputs. ``env`` holds its inputs and captured values."""
        position = 0
        reads: dict[ReadKey, np.ndarray] = {}
        env = dict(env)
        while True:
            template, binding = self._template(position, env, reads, report)
            produced, read = _execute(template, binding, env, reads, report, self.options.labels)
            env = {**{v: env[v] for v in template.passed}, **produced}
            cut = template.cut
            if cut.kind == "end":
                return [self._output(v, env) for v in self.graph.outputs]
            if cut.kind == "read":
                assert read is not None
                report.read_backs += 1
                kept = {k: a for k, a in reads.items() if k[0] == cut.node}
                reads = {**kept, cut.key: read}
                position = cut.node
                continue
            position = self._host_step(cut.node, env, report)
            reads = {}

    def _output(self, v: ir.Value, env: Env) -> RuntimeValue:
        return env[v] if v in env else initializer_array(v)

    def _host_step(self, position: int, env: Env, report: RunReport) -> int:
        """Run host ops from ``position`` on; gives the position of the first node that is none."""
        nodes = self.context.nodes
        first = position
        while position < len(nodes):
            info = nodes[position]
            function = HOST_OPS.get((info.node.domain, info.node.op_type))
            if function is None and position > first:
                break
            inputs = [None if v is None else self._output(v, env) for v in info.node.inputs]
            route = "a host step: control flow, a sequence, strings, or numpy's random draw"
            if function is None and (info.entry is not None or any(_is_strings(v) for v in inputs)):
                function, route = by_reference, "a host step: it met strings"
            elif function is None:
                route = "its function's body, which holds host steps, as a graph of its own"
            self.host_decisions[info.origin] = Decision(info.origin, info.label, info.node.op_type, "host", route)
            if function is None:
                outputs = self._call_function(info, inputs, report)
            else:
                outputs = function(self, info, inputs, env, report)
            env.update(zip(info.node.outputs, outputs, strict=False))
            position += 1
        return position

    def _call_function(
        self, info: NodeInfo, inputs: Sequence[RuntimeValue], report: RunReport
    ) -> Sequence[RuntimeValue]:
        """Run a function whose body holds host ops as a graph of its own."""
        types = tuple(_type_proto(v) for v in inputs)
        key = (info.origin, tuple(None if t is None else t.SerializeToString() for t in types))
        with self.lock:
            runner = self.functions.get(key)
            if runner is None:
                runner = self.functions[key] = self._function_runner(info, types)
        scope: Env = dict(zip(runner.graph.inputs, inputs, strict=False))
        scope.update({v: None for v in runner.graph.inputs if v not in scope})
        return runner.run(scope, report)

    def _function_runner(self, info: NodeInfo, types: Sequence[onnx.TypeProto | None]) -> GraphRunner:
        function = self.model.functions.get(info.node.op_identifier())
        if function is None:
            function = function_graph(info.node, info.imports, types)
        if function is None:
            raise UnsupportedError(f"{info.label}: no lowering for {info.node.op_type} since version {info.since}")
        imports = {**self.model.opset_imports, **function.opset_imports}
        context = GraphContext(self.model, function.graph, self.options.labels, imports)
        return GraphRunner(self.model, function.graph, self.options, context)

    # Templates --------------------------------------------------------------------------------------------------------

    def _template(
        self, position: int, env: Env, reads: Mapping[ReadKey, np.ndarray], report: RunReport
    ) -> tuple[Template, Binding]:
        live = self.context.live[position]
        key = (
            position,
            tuple(signature(env[v]) if v in env else None for v in live),
            tuple(sorted((repr(k), a.dtype.str, a.shape) for k, a in reads.items())),
        )
        start = time.perf_counter()
        found = self._match(key, env, reads)
        if found is None:
            with self.lock:
                found = self._match(key, env, reads)
                if found is None:
                    found = self._make(key, position, env, reads)
                    report.templates_made += 1
                    return found
        report.bind_seconds += time.perf_counter() - start
        return found

    def _match(
        self, key: tuple[object, ...], env: Env, reads: Mapping[ReadKey, np.ndarray]
    ) -> tuple[Template, Binding] | None:
        for template in self.templates.get(key, ()):
            if any(_content(s.key, env, reads) != s.content for s in template.statics):
                continue
            values = symbol_values(template.symbols, env, reads)
            binding = None if values is None else template.bind(values)
            if binding is not None:
                return template, binding
        return None

    def _make(
        self, key: tuple[object, ...], position: int, env: Env, reads: Mapping[ReadKey, np.ndarray]
    ) -> tuple[Template, Binding]:
        options = self.options
        tracer = SegmentTracer(self.context, position, env, reads, options.devices, options.exclude, self.declared)
        template = TemplateBuilder(tracer.run(), options.weights).build()
        made = self.templates.setdefault(key, [])
        if len(made) >= MAX_TEMPLATES:
            del made[0]
        made.append(template)
        options.templates_made += 1
        values = symbol_values(template.symbols, env, reads)
        binding = None if values is None else template.bind(values)
        if binding is None:
            raise AssertionError("a template does not hold for the shapes it was traced with")
        return template, binding


def _content(key: object, env: Env, reads: Mapping[ReadKey, np.ndarray]) -> bytes | None:
    value = env.get(key) if isinstance(key, ir.Value) else reads.get(key)  # type: ignore[call-overload]
    return value.tobytes() if isinstance(value, np.ndarray) else None


def symbol_values(symbols: Sequence[Symbol], env: Env, reads: Mapping[ReadKey, np.ndarray]) -> tuple[int, ...] | None:
    """Values of a template's symbols in this run; None when an array has another number of elements."""
    values: list[int] = []
    for s in symbols:
        value: Any = env[s.key] if isinstance(s.key, ir.Value) else reads[s.key]  # type: ignore[index]
        if s.axis is not None:
            values.append(value.shape[s.axis])
            continue
        flat = value.reshape(-1)
        if s.element is None or s.element >= flat.size:
            return None
        values.append(int(flat[s.element]))
    return tuple(values)


def _is_strings(value: RuntimeValue) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == object


def _type_proto(value: RuntimeValue) -> onnx.TypeProto | None:
    """The type of a runtime tensor, its shape included; None for anything else."""
    if isinstance(value, DeviceTensor):
        return onnx.helper.make_tensor_type_proto(value.dtype.onnx, value.shape)
    if isinstance(value, np.ndarray):
        return onnx.helper.make_tensor_type_proto(dtypes.of_numpy(value.dtype).onnx, value.shape)
    return None


# One segment ----------------------------------------------------------------------------------------------------------


def _execute(
    template: Template,
    binding: Binding,
    env: Env,
    reads: Mapping[ReadKey, np.ndarray],
    report: RunReport,
    labels: Labels,
) -> tuple[Env, np.ndarray | None]:
    """Run a template; gives the values it produced, and the read-back that ends it."""
    context = template.lease(binding)
    table: list[Buffer] = [*context.slots, *[None] * (template.table - len(context.slots))]
    for entry, buffer in template.constants:
        table[entry] = buffer
    for entry, key, device, dtype in template.feeds:
        value = env[key] if key in env else reads[key]  # type: ignore[index]
        table[entry] = _on_device(value, device, dtype, report)
    for entry, shape, device, dtype in template.outputs:
        elements = int(np.prod(binding.shapes[shape], dtype=np.int64))
        table[entry] = device.alloc(check_memory(device, elements * dtype.itemsize))
    for (entry, _), word in zip(template.error_devices, context.errors, strict=True):
        table[entry] = word
    _run_ops(template.ops, table, binding.numbers, binding.symbols, report)
    fault = _take_fault(template, context, labels)
    template.release(context)  # not when a launch failed: its error words may be set
    if fault is not None:
        raise fault
    return _collect(template, binding, table, env, reads)


def _run_ops(
    ops: Sequence[Op], table: list[Buffer], numbers: Sequence[int], symbols: tuple[int, ...], report: RunReport
) -> None:
    for op in ops:
        if isinstance(op, Launch):
            op.run([table[k] for k in op.buffers], numbers[op.sizes])
        elif isinstance(op, Transfer):
            _transfer(op, table, numbers[op.bytes], report)
        elif isinstance(op, Loop):
            count = numbers[op.count]
            _run_ops(op.before, table, numbers, symbols, report)
            for k in range(count):
                inner = op.numbers((*symbols, count - 1 - k if op.reverse else k))
                _run_ops(op.body, table, inner, symbols, report)


def _transfer(op: Transfer, table: list[Buffer], nbytes: int, report: RunReport) -> None:
    if op.source_device is op.target_device:
        op.source_device.copy(table[op.target], table[op.source], nbytes)
        return
    staging = np.empty(nbytes, np.uint8)
    op.source_device.d2h(staging, table[op.source])
    op.target_device.h2d(table[op.target], staging)
    report.copied_bytes += nbytes


def _on_device(value: RuntimeValue, device: Device, dtype: Any, report: RunReport) -> Buffer:
    if isinstance(value, DeviceTensor):
        if value.device is device:
            return value.buffer
        array = value.numpy()
        report.copied_bytes += array.nbytes
    else:
        array = np.ascontiguousarray(value)
    buffer = device.alloc(max(1, array.nbytes))
    if array.nbytes:
        device.h2d(buffer, array)
    return buffer


def _take_fault(template: Template, context: RunContext, labels: Labels) -> ExecutionError | None:
    """The first fault that the devices met; clears every error word."""
    found: list[tuple[int, str]] = []
    for (_, device), word in zip(template.error_devices, context.errors, strict=True):
        code = np.zeros(1, np.int32)
        device.d2h(code, word)
        if code[0]:
            device.h2d(word, np.zeros(1, np.int32))
            found.append((int(code[0]), device.name))
    if not found:
        return None
    first, name = min(found)
    origin, message = template.faults[first - 1]
    return ExecutionError(f"{labels.names[origin]}: {message} (on {name})")


def _collect(
    template: Template, binding: Binding, table: Sequence[Buffer], env: Env, reads: Mapping[ReadKey, np.ndarray]
) -> tuple[Env, np.ndarray | None]:
    produced: Env = {}
    read: np.ndarray | None = None
    for k, r in enumerate(template.results):
        value: RuntimeValue
        if r.host is not None:
            flat = [
                binding.numbers[template.host_numbers[k, n]] if (k, n) in template.host_numbers else v
                for n, v in enumerate(r.host.array.reshape(-1))
            ]
            value = np.array(flat, r.host.dtype.numpy).reshape(r.host.array.shape)
        elif r.tensor is not None:
            assert r.device is not None
            shape = binding.shapes[r.shape]
            dims = tuple(d if isinstance(d, int) else None for d in r.tensor.shape)
            value = DeviceTensor(r.device, table[r.entry], shape, r.tensor.dtype, dims)
        elif r.empty is not None:
            value = np.empty(binding.shapes[r.shape], r.empty.dtype.numpy)
        elif isinstance(r.runtime, ir.Value):
            value = env[r.runtime]
        else:
            value = r.runtime
        if r.value is None:
            read = value.numpy() if isinstance(value, DeviceTensor) else np.asarray(value)
        else:
            produced[r.value] = value
    return produced, read
