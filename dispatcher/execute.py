"""Running a graph: segments one after another, host steps between them.

A `GraphRunner` holds the templates of one graph. It is stateless between runs and may be called from several threads;
each run leases the memory it needs.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from omniop.backends.base import Buffer, Device
from omniop.dispatcher.build import allocate
from omniop.dispatcher.decision import Decision
from omniop.dispatcher.graph import Graph, Labels, NodeInfo, Value
from omniop.dispatcher.model import Model
from omniop.dispatcher.program import RunReport, stages_of
from omniop.dispatcher.result import Binding, ReadKey
from omniop.dispatcher.template import RunContext, Symbol, Template
from omniop.dispatcher.values import DeviceTensor, RuntimeValue, signature
from omniop.dispatcher.watch import tell
from omniop.dispatcher.weights import Weights
from omniop.opset import dtype as dtypes
from omniop.opset.errors import MISFITS, DeviceError, ExecutionError

if TYPE_CHECKING:
    import onnx

    from omniop.dispatcher.precision import Precision

MAX_TEMPLATES = 64
"""Templates kept for one place and signature: values that guards pin down could make more without end."""

Env = dict[Value, RuntimeValue]


@dataclass(eq=False, repr=False)
class Options:
    """What all graphs of a session share."""

    devices: Sequence[Device]
    exclude: Mapping[str, Collection[str]]
    weights: Weights
    threads: int | None = None
    """See `Device.sequence`."""
    precision: Precision | None = None
    templates_made: int = 0
    """In all graphs of the session."""


@dataclass(eq=False, repr=False)
class GraphRunner:
    """Templates of one graph by (first node, signature of the values that live there)."""

    model: Model
    graph: Graph
    options: Options
    templates: dict[tuple[object, ...], list[Template]] = field(default_factory=dict)
    bodies: dict[Graph, GraphRunner] = field(default_factory=dict)
    functions: dict[tuple[object, ...], GraphRunner] = field(default_factory=dict)
    host_decisions: dict[int, Decision] = field(default_factory=dict)
    """Of the nodes that ran between segments."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        for graph in self.graph.bodies:
            self.bodies[graph] = GraphRunner(self.model, graph, self.options)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "functions": {}, "lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, lock=threading.RLock())

    def run(self, env: Env, report: RunReport) -> list[RuntimeValue]:
        """Values of the graph's outputs. ``env`` holds its inputs and captured values."""
        position = 0
        reads: dict[ReadKey, np.ndarray] = {}
        env = dict(env)
        while True:
            template, binding = self._template(position, env, reads, report)
            report.segments.append((template, binding))
            produced, read = _execute(template, binding, env, reads, report, self.model.labels, self.options.threads)
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

    def decisions(self) -> dict[int, Decision]:
        """One on each node that was reached, by the node's number."""
        found = dict(self.host_decisions)
        for made in self.templates.values():
            for template in made:
                if template.ran:
                    found.update(template.decisions)
        for inner in (*self.bodies.values(), *self.functions.values()):
            found = {**inner.decisions(), **found}
        return found

    def _output(self, v: Value, env: Env) -> RuntimeValue:
        return env[v] if v in env else v.array  # noqa: SIM401 - the array is read from its file when asked for

    def _host_step(self, position: int, env: Env, report: RunReport) -> int:
        """Run host ops from ``position`` on; gives the position of the first node that is none."""
        from omniop.dispatcher.host_table import HOST_FORMS, HOST_OPS, by_reference  # most models have none

        nodes = self.graph.nodes
        first = position
        while position < len(nodes):
            info = nodes[position]
            function = HOST_OPS.get(info.key)
            if function is None and position > first:
                break
            inputs = [None if v is None else self._output(v, env) for v in info.inputs]
            route = "a host step: control flow, a sequence, a map, strings, or numpy's random draw"
            if function is None and (info.entry is not None or any(_is_strings(v) for v in inputs)):
                function = HOST_FORMS.get(info.key, by_reference)
                route = "a host step: it met strings, or numpy's random draw"
            elif function is None:
                route = "its function's body, which holds host steps, as a graph of its own"
            device = "-" if function is None else "host"  # a call is no work: the body's nodes tell of theirs
            self.host_decisions[info.origin] = Decision(info.origin, info.label, info.op_type, device, route)
            if function is None:
                outputs = self._call_function(info, inputs, report)
            else:
                try:
                    outputs = function(self, info, inputs, env, report)
                except MemoryError as error:
                    raise DeviceError(f"{info.label}: the host has no memory left: {error}") from error
                except MISFITS as error:
                    why = f"{type(error).__name__}: {error}"
                    raise ExecutionError(f"{info.label}: its inputs do not fit it ({why})") from error
                report.host_elements += sum(v.size for v in outputs if isinstance(v, np.ndarray))
            env.update(zip(info.outputs, outputs, strict=False))
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
                graph = self.model.function(info, types, inside=False)
                runner = self.functions[key] = GraphRunner(self.model, graph, self.options)
        scope: Env = dict(zip(runner.graph.inputs, inputs, strict=False))
        scope.update({v: None for v in runner.graph.inputs if v not in scope})
        return runner.run(scope, report)

    # Templates --------------------------------------------------------------------------------------------------------

    def _template(
        self, position: int, env: Env, reads: Mapping[ReadKey, np.ndarray], report: RunReport
    ) -> tuple[Template, Binding]:
        live = self.graph.live(position)
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
        from omniop.dispatcher.segment import SegmentTracer  # a plan from the disk needs neither, nor what they import
        from omniop.dispatcher.template_builder import TemplateBuilder

        options = self.options
        tracer = SegmentTracer(
            self.model, self.graph, position, env, reads, options.devices, options.exclude, options.precision
        )
        template = TemplateBuilder(tracer.run(), options.weights).build()
        tell("computing")
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


def _content(key: Value | ReadKey, env: Env, reads: Mapping[ReadKey, np.ndarray]) -> bytes | None:
    value = env.get(key) if isinstance(key, Value) else reads.get(key)
    return value.tobytes() if isinstance(value, np.ndarray) else None


def symbol_values(symbols: Sequence[Symbol], env: Env, reads: Mapping[ReadKey, np.ndarray]) -> tuple[int, ...] | None:
    """Values of a template's symbols in this run; None when an array has another number of elements."""
    values: list[int] = []
    for s in symbols:
        value: Any = env[s.key] if isinstance(s.key, Value) else reads[s.key]
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
    import onnx

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
    threads: int | None,
) -> tuple[Env, np.ndarray | None]:
    """Run a template; gives the values it produced, and the read-back that ends it."""
    context = template.lease(binding, labels)
    assert context.table is not None
    table = context.table.copy()
    for entry, key, device in template.feeds:
        value = env[key] if isinstance(key, Value) else reads[key]
        table[entry] = _on_device(key, value, device, report)
    for entry, shape, device, dtype, origin in template.outputs:
        nbytes = math.prod(binding.shapes[shape]) * dtype.itemsize
        table[entry] = allocate(device, nbytes, partial(labels.name, origin))
    if binding.stages is None:
        binding.stages = stages_of(template.ops, binding.numbers, binding.symbols, labels, threads)
    for stage in binding.stages:
        stage(table, report)
    fault = take_fault(template, context, labels)
    template.release(context)  # not when a launch failed: its error words may be set
    if fault is not None:
        raise fault
    return _collect(template, binding, table, env, reads)


def _on_device(key: Value | ReadKey, value: RuntimeValue, device: Device, report: RunReport) -> Buffer:
    if isinstance(value, DeviceTensor):
        if value.device is device:
            return value.buffer
        array = value.numpy()
        report.copied_bytes += array.nbytes
    else:
        array = np.ascontiguousarray(value)
        borrowed = device.borrow(array) if array.nbytes else None
        if borrowed is not None:
            return borrowed
    name = f"value {key.name!r}" if isinstance(key, Value) else "a value that was read back"
    buffer = allocate(device, max(1, array.nbytes), lambda: name)
    if array.nbytes:
        device.h2d(buffer, array)
    return buffer


def take_fault(template: Template, context: RunContext, labels: Labels) -> ExecutionError | None:
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
    def look(key: Value | ReadKey) -> RuntimeValue:
        return env[key] if isinstance(key, Value) else reads[key]

    produced: Env = {}
    read: np.ndarray | None = None
    for result in template.results:
        value = result.take(binding, table, look)
        if result.value is None:
            read = value.numpy() if isinstance(value, DeviceTensor) else np.asarray(value)
        else:
            produced[result.value] = value
    return produced, read
