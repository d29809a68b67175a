"""Making templates: a traced segment planned, its constants computed, its memory coloured, its works built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx_ir as ir

from omniop.backends.base import Buffer, Device
from omniop.dispatcher.binding import compile_sizes
from omniop.dispatcher.build import builds_of
from omniop.dispatcher.memory import Interval, colour
from omniop.dispatcher.plan import AnyStep, BaseStep, CopyStep, Planner, RepeatStep, Step
from omniop.dispatcher.segment import Opaque, Traced
from omniop.dispatcher.template import Launch, Loop, Op, Place, Result, Template, Transfer
from omniop.dispatcher.weights import Weights
from omniop.opset import expr
from omniop.opset.definitions import Definition, Source, Tensor
from omniop.opset.dtype import DType
from omniop.opset.expr import Expr
from omniop.opset.layout import ROW_MAJOR
from omniop.opset.lowering import HostValue
from omniop.opset.sym import SymInt, as_expr, product
from omniop.opset.trace import tracing


class TemplateBuilder:
    """Makes a template of a traced segment."""

    def __init__(self, traced: Traced, weights: Weights) -> None:
        self.traced = traced
        self.weights = weights
        self.placement = traced.placement
        self.env = traced.trace.env
        self.entries: dict[Place, int] = {}
        self.roots: list[Expr] = []
        self.root_of: dict[Expr, int] = {}
        self.constants: dict[Place, Buffer] = {}
        self.error_entries: dict[Device, int] = {}

    def number(self, node: Expr) -> int:
        if node not in self.root_of:
            self.root_of[node] = len(self.roots)
            self.roots.append(node)
        return self.root_of[node]

    def build(self) -> Template:
        traced, placement = self.traced, self.placement
        results = self._results()
        with tracing(traced.trace):
            for r in results:
                if r.tensor is not None and placement.layouts.get(self._resolve(r.tensor), ROW_MAJOR) is not ROW_MAJOR:
                    device = self._device(self._resolve(r.tensor))
                    r.tensor = placement.in_layout(r.tensor, ROW_MAJOR, device)
        planner = Planner(
            self.env,
            traced.trace.definitions,
            [r.tensor for r in results if r.tensor is not None],
            self._device_of,
            placement.replaced,
            placement.layouts,
        )
        for r in results:
            if r.tensor is not None:
                r.tensor = planner.resolve(r.tensor)
                r.device = self._device(r.tensor)
        steps = self._with_copies(planner.steps())
        for step in kernels_of(steps):
            if any(t.definition in placement.relayouts for t in step.writes):
                step.kind = "relayout"
        run_steps = self._fold(steps)
        guards = [(self.number(c), expected) for c, expected in self.env.guards.items()]
        guards += [(self.number(expr.binary("le", s, 0)), False) for s in self.env.positive]
        intervals, outputs = self._intervals(run_steps, results)
        slots, places = colour(intervals)
        self.entries.update(places)
        table = len(slots)
        constants: list[tuple[int, Buffer]] = []
        for place, buffer in self.constants.items():
            self.entries[place] = table
            constants.append((table, buffer))
            table += 1
        feeds: list[tuple[int, object, Device, DType]] = []
        for place in self._feeds(run_steps):
            self.entries[place] = table
            feeds.append((table, traced.sources[place[0]], place[1], place[0].dtype))
            table += 1
        shape_parts: list[list[int]] = []
        out_entries: list[tuple[int, int, Device, DType]] = []
        for t, device in outputs:
            shape_parts.append([self.number(e) for e in t.extents])
            if (t, device) not in self.constants:
                self.entries[t, device] = table
                out_entries.append((table, len(shape_parts) - 1, device, t.dtype))
                table += 1
            for r in results:
                if r.tensor is t:
                    r.shape, r.entry = len(shape_parts) - 1, self.entries[t, device]
        for r in results:
            if r.empty is not None:
                r.shape = len(shape_parts)
                shape_parts.append([self.number(e) for e in r.empty.extents])
        self._alias_carries(run_steps)
        for device in {s.device for s in _flatten(run_steps) if isinstance(s, Step) and None in s.buffers}:
            self.error_entries[device] = table
            table += 1
        host_numbers = {
            (k, n): self.number(as_expr(v))
            for k, r in enumerate(results)
            if r.host is not None
            for n, v in enumerate(r.host.array.reshape(-1))
            if isinstance(v, SymInt)
        }
        slot_parts = [[(self.number(e), size) for e, size in slot.sizes] for slot in slots]
        names = [s.name for s in traced.symbols]
        ops = self._ops(run_steps, names)
        return Template(
            traced.symbols,
            traced.statics,
            guards,
            ops,
            steps,
            results,
            traced.passed,
            traced.cut,
            placement.decisions,
            slots,
            table,
            constants,
            feeds,
            out_entries,
            [(entry, device) for device, entry in self.error_entries.items()],
            traced.trace.faults,
            [s for s in steps if not any(s is r for r in run_steps)],
            list(self.env.guards.items()),
            compile_sizes(self.roots, names),
            slot_parts,
            shape_parts,
            host_numbers,
        )

    def _resolve(self, t: Tensor) -> Tensor:
        while t in self.placement.replaced:
            t = self.placement.replaced[t]
        return t

    def _device_of(self, definition: Definition) -> Device:
        return self.placement.device_of.get(definition, self.placement.devices[0])

    def _device(self, t: Tensor) -> Device:
        return self._device_of(t.definition)

    def _results(self) -> list[Result]:
        results = []
        items: list[tuple[ir.Value | None, Any]] = list(self.traced.results.items())
        if self.traced.cut.read is not None:
            items.append((None, self.traced.cut.read))
        for v, value in items:
            if isinstance(value, HostValue):
                results.append(Result(v, host=value))
            elif isinstance(value, Opaque):
                results.append(Result(v, runtime=value.key))
            elif not isinstance(value, Tensor):
                results.append(Result(v, runtime=value))
            elif value.empty:
                results.append(Result(v, empty=value))
            elif isinstance(value.definition, Source):
                array = value.definition.array
                results.append(Result(v, runtime=self.traced.sources[value] if array is None else array))
            else:
                results.append(Result(v, tensor=value))
        return results

    # Devices ----------------------------------------------------------------------------------------------------------

    def _with_copies(self, steps: Sequence[AnyStep]) -> list[AnyStep]:
        """A copy step before the first reader on another device than the writer's."""
        home: dict[Tensor, Device] = {}
        for step in _flatten(steps):
            if not isinstance(step, CopyStep):
                home.update(dict.fromkeys(step.writes, step.device))
        made: list[AnyStep] = []
        moved: set[Place] = set()
        for step in steps:
            assert not isinstance(step, CopyStep)
            for inner in _flatten([step]):
                for t in inner.reads:
                    if t in home and home[t] is not inner.device and (t, inner.device) not in moved:
                        moved.add((t, inner.device))
                        made.append(CopyStep(t, t, inner.device, {t.definition.origin}))
            made.append(step)
        self.home = home
        return made

    # Constants --------------------------------------------------------------------------------------------------------

    def _fold(self, steps: list[AnyStep]) -> list[AnyStep]:
        """Steps that depend on constants alone are run now, once, and leave the program."""
        known: dict[Place, object] = {}
        rest: list[AnyStep] = []
        for step in steps:
            fixed = isinstance(step, Step) and all(self._layout_size(t).op == "const" for t in step.writes)
            if isinstance(step, Step) and fixed and not step.sizes and None not in step.buffers:
                keys = [self._constant_key(t, step.device, known) for t in step.reads]
                if all(k is not None for k in keys):
                    self._run_constant(step, (step.work, *keys), known)
                    continue
            rest.append(step)
        for step in _flatten(rest):
            device = step.device if not isinstance(step, CopyStep) else self.home.get(step.source, step.device)
            for t in step.reads:
                if (t, device) in self.constants:
                    continue
                if isinstance(t.definition, Source) and t.definition.array is not None:
                    self.constants[t, device] = self.weights.constant(device, t.definition.array, t.dtype)
        return rest

    def _constant_key(self, t: Tensor, device: Device, known: Mapping[Place, object]) -> object:
        if (t, device) in known:
            return known[t, device]
        if isinstance(t.definition, Source) and t.definition.array is not None:
            return self.weights.key(t.definition.array)
        return None

    def _run_constant(self, step: Step, key: tuple[object, ...], known: dict[Place, object]) -> None:
        made = self.weights.derived(
            step.device,
            key,
            [(expr.evaluate(self._layout_size(t), {}), t.dtype) for t in step.writes],
            lambda outputs: self._launch_constant(step, outputs),
        )
        for k, (t, buffer) in enumerate(zip(step.writes, made, strict=True)):
            self.constants[t, step.device] = buffer
            known[t, step.device] = (key, k)

    def _launch_constant(self, step: Step, outputs: Sequence[Buffer]) -> None:
        (run,) = builds_of(step.device).get([step.work])
        written = iter(outputs)
        buffers = []
        for t, p in zip(step.buffers, step.work.params, strict=True):
            assert t is not None
            if p.written:
                buffers.append(next(written))
            elif (t, step.device) in self.constants:
                buffers.append(self.constants[t, step.device])
            else:
                assert isinstance(t.definition, Source)
                assert t.definition.array is not None
                buffers.append(self.weights.constant(step.device, t.definition.array, t.dtype))
        run(buffers, ())

    def _layout_size(self, t: Tensor) -> Expr:
        return self.placement.layouts.get(t, ROW_MAJOR).size(t.extents)

    # Memory -----------------------------------------------------------------------------------------------------------

    def _intervals(self, steps: Sequence[AnyStep], results: Sequence[Result]) -> tuple[list[Interval], list[Place]]:
        kept = {r.tensor for r in results if r.tensor is not None}
        outputs = [(r.tensor, r.device) for r in results if r.tensor is not None and r.device is not None]
        outputs = list(dict.fromkeys(outputs))
        spans: dict[Place, list[int]] = {}
        for position, end, step in _positions(steps):
            for t in step.writes:
                span = spans.setdefault((t, step.device), [position, position])
                span[1] = max(span[1], end)
            for t in step.reads:
                device = step.device if not isinstance(step, CopyStep) else self.home.get(step.source, step.device)
                if (t, device) in spans:
                    spans[t, device][1] = max(spans[t, device][1], end)
        intervals = [
            Interval(t, device, self._layout_size(t), first, last)
            for (t, device), (first, last) in spans.items()
            if not (t in kept and (t, device) in outputs) and (t, device) not in self.constants
        ]
        return intervals, outputs

    def _feeds(self, steps: Sequence[AnyStep]) -> list[Place]:
        found: dict[Place, None] = {}
        for step in _flatten(steps):
            for t in step.reads:
                if t in self.traced.sources:
                    found.setdefault((t, step.device))
        return list(found)

    def _alias_carries(self, steps: Sequence[AnyStep]) -> None:
        """A carried tensor lives in the buffer of the repeat's output."""
        for step in _flatten(steps):
            if isinstance(step, RepeatStep):
                for inner, outer in zip(step.definition.carried, step.definition.outputs, strict=False):
                    self.entries[inner, step.device] = self.entries[outer, step.device]

    # Ops --------------------------------------------------------------------------------------------------------------

    def _ops(self, steps: Sequence[AnyStep], names: Sequence[str]) -> list[Op]:
        self._build_all(steps)
        return [self._op(s, names, self) for s in steps]

    def _build_all(self, steps: Sequence[AnyStep]) -> None:
        works: dict[Device, list[Any]] = {}
        for step in _flatten(steps):
            if isinstance(step, Step):
                works.setdefault(step.device, []).append(step.work)
        for device, batch in works.items():
            builds_of(device).get(batch)

    def _op(self, step: AnyStep, names: Sequence[str], numbers: TemplateBuilder | _BodyNumbers) -> Op:
        if isinstance(step, Step):
            (run,) = builds_of(step.device).get([step.work])
            buffers = tuple(
                self.error_entries[step.device] if t is None else self.entries[t, step.device] for t in step.buffers
            )
            return Launch(step.device, run, buffers, numbers.block(step.sizes))
        if isinstance(step, BaseStep):
            return Transfer(
                step.device,
                step.device,
                self.entries[step.source, step.device],
                self.entries[step.target, step.device],
                numbers.number(_nbytes(step.source)),
            )
        if isinstance(step, CopyStep):
            source = self.home[step.source]
            return Transfer(
                source,
                step.device,
                self.entries[step.source, source],
                self.entries[step.target, step.device],
                numbers.number(_nbytes(step.source)),
            )
        inner = _BodyNumbers()
        before = [self._op(s, names, numbers) for s in step.before]
        body = [self._op(s, names, inner) for s in step.body]
        count = numbers.number(as_expr(step.definition.count))
        function = compile_sizes(inner.roots, [*names, step.definition.step])
        return Loop(count, step.definition.reverse, before, body, function)

    def block(self, nodes: Sequence[Expr]) -> slice:
        """Consecutive numbers for a launch's size arguments."""
        start = len(self.roots)
        self.roots.extend(nodes)
        return slice(start, len(self.roots))


class _BodyNumbers:
    """Numbers of a repeat's body, which depend on the step."""

    def __init__(self) -> None:
        self.roots: list[Expr] = []

    def number(self, node: Expr) -> int:
        self.roots.append(node)
        return len(self.roots) - 1

    def block(self, nodes: Sequence[Expr]) -> slice:
        start = len(self.roots)
        self.roots.extend(nodes)
        return slice(start, len(self.roots))


def _flatten(steps: Sequence[AnyStep]) -> Iterator[AnyStep]:
    """Steps with those inside repeats."""
    for step in steps:
        yield step
        if isinstance(step, RepeatStep):
            yield from _flatten(step.before)
            yield from _flatten(step.body)


def _positions(steps: Sequence[AnyStep]) -> list[tuple[int, int, AnyStep]]:
    """(position, end of life of what it touches, step). Inside a repeat what comes from outside lives until its end."""
    found: list[tuple[int, int, AnyStep]] = []

    def visit(step: AnyStep, outer: RepeatStep | None) -> None:
        position = len(found)
        found.append((position, position, step))
        if isinstance(step, RepeatStep):
            for inner in (*step.before, *step.body):
                visit(inner, step)
            found.append((len(found), len(found), step))

    for step in steps:
        visit(step, None)
    return found


def _nbytes(t: Tensor) -> Expr:
    return as_expr(product(t.shape)) * t.dtype.itemsize


def kernels_of(steps: Sequence[AnyStep]) -> list[Step]:
    """Every launch of a plan, those of repeats once."""
    return [s for s in _flatten(steps) if isinstance(s, Step)]
