"""Making templates: a traced segment planned, its constants computed, its memory coloured, its works built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omniop.backends.base import Device
from omniop.dispatcher.attention import fuse_attention
from omniop.dispatcher.binding import SizeFunction
from omniop.dispatcher.build import builds_of
from omniop.dispatcher.graph import Value
from omniop.dispatcher.memory import Interval, colour
from omniop.dispatcher.plan import AnyStep, BaseStep, CopyStep, Planner, RepeatStep, Step
from omniop.dispatcher.result import (
    ConstantResult,
    DeviceResult,
    EmptyResult,
    HostResult,
    Number,
    PassedResult,
    Result,
)
from omniop.dispatcher.segment import Opaque, Traced
from omniop.dispatcher.template import Launch, Loop, Op, StepNote, Summary, Template, Transfer
from omniop.dispatcher.tensor_work import tensor_work
from omniop.dispatcher.weights import Constant, Recipe, Weights
from omniop.opset import expr
from omniop.opset.definitions import Definition, Map, Source, Tensor
from omniop.opset.dtype import DType
from omniop.opset.expr import Expr
from omniop.opset.layout import ROW_MAJOR, Layout
from omniop.opset.lowering import HostValue
from omniop.opset.sym import SymInt, as_expr
from omniop.opset.trace import tracing

Place = tuple[Tensor, Device]


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
        self.constants: dict[Place, Constant] = {}
        self.shapes: list[list[int]] = []
        self.error_entries: dict[Device, int] = {}

    def number(self, node: Expr) -> int:
        if node not in self.root_of:
            self.root_of[node] = len(self.roots)
            self.roots.append(node)
        return self.root_of[node]

    def build(self) -> Template:
        traced, placement = self.traced, self.placement
        items: list[tuple[Value | None, Any]] = list(traced.results.items())
        if traced.read is not None:
            items.append((None, traced.read))
        with tracing(traced.trace):
            made_here = [value for _, value in items if _is_made(value)]
            placement.layouts.settle(traced.trace.definitions, made_here)
            kept = {k: self._row_major(value) for k, (_, value) in enumerate(items) if _is_made(value)}
            definitions, replaced = list(traced.trace.definitions), placement.replaced
            placement.device_of.update(fuse_attention(definitions, list(kept.values()), self._device_of, replaced))
        planner = Planner(
            self.env,
            traced.trace.definitions,
            list(kept.values()),
            self._device_of,
            placement.replaced,
            placement.layouts.of,
        )
        kept = {k: planner.resolve(t) for k, t in kept.items()}
        steps = self._with_copies(planner.steps())
        for step in kernels_of(steps):
            if any(t.definition in placement.layouts.relayouts for t in step.writes):
                step.kind = "relayout"
        run_steps = self._fold(steps)
        guards = [(self.number(c), expected) for c, expected in self.env.guards.items()]
        guards += [(self.number(expr.binary("le", s, 0)), False) for s in self.env.positive]
        outputs = list(dict.fromkeys((t, self._device(t)) for t in kept.values()))
        slots, places = colour(self._intervals(run_steps, outputs))
        self.entries.update(places)
        self.table = len(slots)
        constants = [(self._entry(place), constant) for place, constant in self.constants.items()]
        feeds = [(self._entry((t, device)), traced.sources[t], device) for t, device in self._feeds(run_steps)]
        made: list[tuple[int, int, Device, DType, int]] = []
        for t, device in outputs:
            shape = self._shape(t)
            if (t, device) not in self.constants:
                made.append((self._entry((t, device)), shape, device, t.dtype, t.definition.origin))
        results = [self._result(v, kept.get(k, value)) for k, (v, value) in enumerate(items)]
        self._alias_carries(run_steps)
        for device in {s.device for s in _flatten(run_steps) if isinstance(s, Step) and None in s.buffers}:
            self.error_entries[device] = self.table
            self.table += 1
        slot_parts = [
            [(self.number(e), size, t.definition.origin) for (e, size), t in slot.sizes.items()] for slot in slots
        ]
        names = [s.name for s in traced.symbols]
        ops = [self._op(s, names, self) for s in run_steps]
        return Template(
            traced.symbols,
            traced.statics,
            guards,
            ops,
            results,
            traced.passed,
            traced.cut,
            placement.decisions,
            [slot.device for slot in slots],
            self.table,
            constants,
            feeds,
            made,
            [(entry, device) for device, entry in self.error_entries.items()],
            traced.trace.faults,
            self._summary(steps, run_steps, names),
            SizeFunction(self.roots, names),
            slot_parts,
            self.shapes,
        )

    def _entry(self, place: Place) -> int:
        """A new entry of the buffer table."""
        self.entries[place] = self.table
        self.table += 1
        return self.entries[place]

    def _shape(self, t: Tensor) -> int:
        """The number of a tensor's shape among the binding's."""
        part = [self.number(e) for e in t.extents]
        if part not in self.shapes:
            self.shapes.append(part)
        return self.shapes.index(part)

    def _row_major(self, t: Tensor) -> Tensor:
        return self.placement.layouts.brought(t, ROW_MAJOR, self._device(self._resolve(t)))

    def _result(self, v: Value | None, value: Any) -> Result:
        """How a traced value leaves the segment."""
        if isinstance(value, HostValue):
            flat = value.array.reshape(-1)
            elements = [Number(self.number(as_expr(e))) if isinstance(e, SymInt) else e for e in flat]
            return HostResult(v, value.dtype, value.shape, elements)
        if isinstance(value, Opaque):
            return PassedResult(v, value.key)
        if not isinstance(value, Tensor):
            return ConstantResult(v, value)
        if value.empty:
            return EmptyResult(v, value.dtype, self._shape(value))
        if isinstance(value.definition, Source) and not _is_made(value):
            array = value.definition.array
            return PassedResult(v, self.traced.sources[value]) if array is None else ConstantResult(v, array)
        device = self._device(value)
        dims = tuple(d if isinstance(d, int) else None for d in value.shape)
        fresh = (value, device) not in self.constants
        return DeviceResult(v, device, value.dtype, dims, self._shape(value), self.entries[value, device], fresh)

    def _summary(self, steps: Sequence[AnyStep], run_steps: Sequence[AnyStep], names: Sequence[str]) -> Summary:
        notes = [_note(s, self.placement.layouts.of) for s in run_steps]
        guards = [f"{g!r} is {expected}" for g, expected in self.env.guards.items()]
        work = tensor_work(self.placement.placed)
        return Summary(notes, len(steps) - len(run_steps), guards, tuple(work), SizeFunction([*work.values()], names))

    def _resolve(self, t: Tensor) -> Tensor:
        return self.placement.layouts.resolve(t)

    def _device_of(self, definition: Definition) -> Device:
        return self.placement.device_of.get(definition, self.placement.devices[0])

    def _device(self, t: Tensor) -> Device:
        return self._device_of(t.definition)

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
        """Steps that depend on constants alone are run now, once, and leave the program. All works are built first."""
        known: dict[Place, object] = {}
        rest: list[AnyStep] = []
        folded: list[tuple[Step, tuple[object, ...]]] = []
        for step in steps:
            fixed = isinstance(step, Step) and all(map(self._foldable, step.writes))
            if isinstance(step, Step) and fixed and not step.sizes and None not in step.buffers:
                keys = [self._constant_key(t, step.device, known) for t in step.reads]
                if all(k is not None for k in keys):
                    key = (step.work, *keys)
                    folded.append((step, key))
                    known.update({(t, step.device): (key, k) for k, t in enumerate(step.writes)})
                    continue
            rest.append(step)
        new = [step for step, key in folded if not self.weights.holds(step.device, key)]
        self._build_all([*new, *rest])
        for step, key in sorted(folded, key=lambda made: self._fold_turn(made[0], known)):
            self._run_constant(step, key)
        for step in _flatten(rest):
            device = step.device if not isinstance(step, CopyStep) else self.home.get(step.source, step.device)
            for t in step.reads:
                if (t, device) in self.constants:
                    continue
                if isinstance(t.definition, Source) and t.definition.array is not None:
                    self.constants[t, device] = self.weights.constant(device, t.definition.array, t.dtype)
        return rest

    def _fold_turn(self, step: Step, known: Mapping[Place, object]) -> tuple[bool, int]:
        """What reads the model's own arrays comes first, the largest while there is little else in memory: the pages
        that it read are let go. The others stay in their order."""
        later = any((t, step.device) in known for t in step.reads)
        return later, 0 if later else -sum(expr.evaluate(self._nbytes(t), {}) for t in step.writes)

    def _foldable(self, t: Tensor) -> bool:
        folds = not isinstance(t.definition, Map) or t.definition.folds
        return folds and self._layout_size(t).op == "const"

    def _constant_key(self, t: Tensor, device: Device, known: Mapping[Place, object]) -> object:
        if (t, device) in known:
            return known[t, device]
        if isinstance(t.definition, Source) and t.definition.array is not None:
            return self.weights.key(t.definition.array)
        return None

    def _run_constant(self, step: Step, key: tuple[object, ...]) -> None:
        made = self.weights.derived(
            step.device,
            key,
            [(expr.evaluate(self._layout_size(t), {}), t.dtype) for t in step.writes],
            lambda: self._recipe(step),
            quick=step.kind == "relayout",
        )
        self.constants.update({(t, step.device): buffer for t, buffer in zip(step.writes, made, strict=True)})

    def _recipe(self, step: Step) -> Recipe:
        sources = []
        for t in step.reads:
            known = self.constants.get((t, step.device))
            if known is None:
                assert isinstance(t.definition, Source)
                assert t.definition.array is not None
                known = self.weights.constant(step.device, t.definition.array, t.dtype)
            sources.append(known)
        (built,) = builds_of(step.device).get([step.work])
        return Recipe(built, tuple(p.written for p in step.work.params), tuple(sources))

    def _layout_size(self, t: Tensor) -> Expr:
        return self.placement.layouts.of.get(t, ROW_MAJOR).size(t.extents)

    def _nbytes(self, t: Tensor) -> Expr:
        return self._layout_size(t) * t.dtype.itemsize

    # Memory -----------------------------------------------------------------------------------------------------------

    def _intervals(self, steps: Sequence[AnyStep], outputs: Sequence[Place]) -> list[Interval]:
        spans: dict[Place, list[int]] = {}
        for position, end, step in _positions(steps):
            for t in step.writes:
                span = spans.setdefault((t, step.device), [position, position])
                span[1] = max(span[1], end)
            for t in step.reads:
                device = step.device if not isinstance(step, CopyStep) else self.home.get(step.source, step.device)
                if (t, device) in spans:
                    spans[t, device][1] = max(spans[t, device][1], end)
        return [
            Interval(t, device, self._layout_size(t), self.env.hint(self._nbytes(t)), first, last)
            for (t, device), (first, last) in spans.items()
            if (t, device) not in outputs and (t, device) not in self.constants
        ]

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

    def _build_all(self, steps: Sequence[AnyStep]) -> None:
        """One batch for each device."""
        works: dict[Device, list[Any]] = {}
        for step in _flatten(steps):
            if isinstance(step, Step):
                works.setdefault(step.device, []).append(step.work)
        for device, batch in works.items():
            builds_of(device).get(batch)

    def _op(self, step: AnyStep, names: Sequence[str], numbers: TemplateBuilder | _BodyNumbers) -> Op:
        if isinstance(step, Step):
            (built,) = builds_of(step.device).get([step.work])
            buffers = tuple(
                self.error_entries[step.device] if t is None else self.entries[t, step.device] for t in step.buffers
            )
            origin = max(step.origins, default=-1)
            return Launch(step.device, built, buffers, numbers.block(step.sizes), origin)
        if isinstance(step, BaseStep):
            return Transfer(
                step.device,
                step.device,
                self.entries[step.source, step.device],
                self.entries[step.target, step.device],
                numbers.number(self._nbytes(step.source)),
            )
        if isinstance(step, CopyStep):
            source = self.home[step.source]
            return Transfer(
                source,
                step.device,
                self.entries[step.source, source],
                self.entries[step.target, step.device],
                numbers.number(self._nbytes(step.source)),
            )
        inner = _BodyNumbers()
        before = [self._op(s, names, numbers) for s in step.before]
        body = [self._op(s, names, inner) for s in step.body]
        count = numbers.number(as_expr(step.definition.count))
        function = SizeFunction(inner.roots, [*names, step.definition.step])
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


def _is_made(value: Any) -> bool:
    """Whether it is a tensor that some prim of the segment computes."""
    return isinstance(value, Tensor) and not value.empty and not isinstance(value.definition, Source)


def _note(step: AnyStep, layouts: Mapping[Tensor, Layout]) -> StepNote:
    origins = sorted(o for o in step.origins if o >= 0)
    if isinstance(step, CopyStep):
        return StepNote("copy", step.device.name, "from another device", origins)
    if isinstance(step, BaseStep):
        return StepNote("base", step.device.name, "copy of a scatter's data", origins)
    if isinstance(step, RepeatStep):
        what = f"{len(step.body)} steps, {step.definition.count} times"
        return StepNote("repeat", step.device.name, what, origins)
    orders = dict.fromkeys(layouts[t].name for t in step.writes if t in layouts)
    return StepNote(step.kind, step.device.name, " -> ".join([step.work.describe(), *orders]), origins)


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


def kernels_of(steps: Sequence[AnyStep]) -> list[Step]:
    """Every launch of a plan, those of repeats once."""
    return [s for s in _flatten(steps) if isinstance(s, Step)]
