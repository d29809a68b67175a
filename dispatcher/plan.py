"""The plan of one segment: the steps that remain once `fusion` has decided what is materialised.

Each materialised map is a kernel with everything that disappears into it; a scatter, a call and a repeat are steps of
their own. The map after a call that takes epilogues becomes the call's epilogue when it reads the result at its own
place.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from omniop.backends.base import Device
from omniop.dispatcher.fusion import Fusion, row_major_strides, strided
from omniop.dispatcher.inline import Inliner, KernelBuilder, build_kernel
from omniop.opset import expr, poly, prims
from omniop.opset.definitions import Attention, Definition, Map, Repeat, Scatter, Structured, Tensor
from omniop.opset.expr import Expr
from omniop.opset.kernel import Call, Work
from omniop.opset.layout import ROW_MAJOR
from omniop.opset.sym import as_expr, product


@dataclass
class Step:
    """One launch. ``reads`` and ``writes`` in the order of the work's params; ``sizes`` are its size arguments."""

    device: Device
    work: Work
    buffers: list[Tensor | None]
    """Per param; None is the error word."""
    sizes: list[Expr]
    origins: set[int]
    kind: str = "kernel"

    @property
    def writes(self) -> list[Tensor]:
        return [t for t, p in zip(self.buffers, self.work.params, strict=True) if p.written and t is not None]

    @property
    def reads(self) -> list[Tensor]:
        return [t for t, p in zip(self.buffers, self.work.params, strict=True) if not p.written and t is not None]


class _Copies:
    """A step that makes ``target`` of ``source``."""

    source: Tensor
    target: Tensor

    @property
    def writes(self) -> list[Tensor]:
        return [self.target]

    @property
    def reads(self) -> list[Tensor]:
        return [self.source]


@dataclass
class CopyStep(_Copies):
    """A tensor brought to another device; it then is ``target`` there."""

    source: Tensor
    target: Tensor
    device: Device
    origins: set[int] = field(default_factory=set)


@dataclass
class BaseStep(_Copies):
    """``target`` starts as a copy of ``source`` on the same device: what a scatter stores over."""

    device: Device
    source: Tensor
    target: Tensor
    origins: set[int]


@dataclass
class RepeatStep:
    """A body run ``count`` times by the dispatcher, ``step`` being its size symbol."""

    definition: Repeat
    device: Device
    before: list[AnyStep]
    """Fill the carries with their initial values."""
    body: list[AnyStep]
    """One run: the body's own steps, then the carries updated and the collected tensors put in their rows."""
    reads: list[Tensor]
    writes: list[Tensor]
    origins: set[int]


AnyStep = Step | CopyStep | BaseStep | RepeatStep


class Planner(Fusion):
    """Plans one list of definitions (a segment, or a repeat's body)."""

    def steps(self) -> list[AnyStep]:
        """The launches in an order that computes every tensor before it is read."""
        made: list[AnyStep] = []
        fused = self._epilogues()
        absorbed = set(fused.values())
        for definition in self.order:
            if isinstance(definition, Map):
                out = definition.outputs[0]
                if out in self.materialised and out not in absorbed and not out.empty:
                    made.append(self._map_step(out))
            elif isinstance(definition, Scatter):
                made.extend(self._scatter_steps(definition))
            elif isinstance(definition, Structured):
                made.append(self._call_step(definition, fused.get(definition)))
            elif isinstance(definition, Repeat):
                made.append(self._repeat_step(definition))
        return _ordered(made)

    def _inliner(self, first_axis: int) -> Inliner:
        return Inliner(self.is_leaf, self.resolve, first_axis)

    def _builder(self) -> KernelBuilder:
        return KernelBuilder(lambda t: self.layouts.get(t, ROW_MAJOR))

    def _written_out(self, out: Tensor) -> tuple[tuple[Expr, ...], Expr, set[int]]:
        """(axes, value, origins) of a materialised map with everything that goes into it."""
        axes = prims.axes_of(out.shape)
        inliner = self._inliner(out.rank)
        bound = {a: a for a in axes if a.op == "axis"}
        value = inliner.expand(out.definition.value, bound)  # type: ignore[attr-defined]
        return axes, value, self._origins(out)

    def _origins(self, out: Tensor) -> set[int]:
        origins: set[int] = set()
        stack = [out]
        seen: set[Tensor] = set()
        while stack:
            t = stack.pop()
            if t in seen or (t is not out and self.is_leaf(t)):
                continue
            seen.add(t)
            origins.add(t.definition.origin)
            stack.extend(self.inputs(t.definition))
        return origins

    def _map_step(self, out: Tensor) -> Step:
        axes, value, origins = self._written_out(out)
        builder = self._builder()
        kernel = build_kernel(builder, axes, [(out, axes, value, None, None, 0)])
        return self._step(out.definition, kernel, builder, origins)

    def _step(
        self, definition: Definition, work: Work, builder: KernelBuilder, origins: set[int], kind: str = "kernel"
    ) -> Step:
        buffers: list[Tensor | None] = list(builder.buffers)
        if builder.error is not None:
            buffers.append(None)
        return Step(self.device_of(definition), work, buffers, builder.sizes, origins, kind)

    def _scatter_steps(self, definition: Scatter) -> list[AnyStep]:
        device = self.device_of(definition)
        made: list[AnyStep] = []
        for out, base in zip(definition.outputs, definition.bases, strict=True):
            if base is not None:
                made.append(BaseStep(device, self.resolve(base), out, {definition.origin}))
        first = len(definition.axes) + 64
        inliner = self._inliner(first)
        bound = {a: a for a in definition.axes if a.op == "axis"}
        if definition.seq is not None:
            bound[definition.seq] = definition.seq

        def write(node: Expr) -> Expr:
            return inliner.expand(node, bound)

        builder = self._builder()
        stores = [
            (
                definition.outputs[s.output],
                tuple(write(i) for i in s.index),
                write(s.value),
                None if s.guard is None else write(s.guard),
                s.combine,
                s.fault,
            )
            for s in definition.stores
        ]
        carries = [(write(c.init), write(c.update)) for c in definition.carries]
        until = None if definition.until is None else write(definition.until)
        kernel = build_kernel(builder, definition.axes, stores, definition.seq, carries, until)
        origins = {definition.origin}
        for t in self.inputs(definition):
            if not self.is_leaf(t):
                origins |= self._origins(t)
        made.append(self._step(definition, kernel, builder, origins))
        return made

    def _epilogues(self) -> dict[Structured, Tensor]:
        """The map that each call takes as its epilogue."""
        read_by: dict[Tensor, list[Tensor]] = {}
        for definition in self.order:
            for out in definition.outputs:
                if isinstance(definition, Map) and out in self.materialised:
                    for leaf in self.leaves(out):
                        read_by.setdefault(leaf, []).append(out)
                elif not isinstance(definition, Map):
                    for t in self.inputs(definition):
                        for leaf in {t} if self.is_leaf(t) else {t, *self.leaves(t)}:
                            read_by.setdefault(leaf, []).append(out)
        fused: dict[Structured, Tensor] = {}
        for definition in self.order:
            if not isinstance(definition, Structured) or len(definition.outputs) != 1:
                continue
            device = self.device_of(definition)
            result = definition.outputs[0]
            readers = read_by.get(result, [])
            if result in self.outputs or len(readers) != 1 or not device.accepts_epilogue(definition.prim):
                continue
            (out,) = readers
            if (
                isinstance(out.definition, Map)
                and out not in fused.values()
                and out in self.materialised
                and self.device_of(out.definition) is device
                and self._at_own_place(result, out)
                and len(self.leaves(out)) + len(definition.operands) + 2 <= device.caps.max_buffers
            ):
                fused[definition] = out
        return fused

    def _at_own_place(self, result: Tensor, out: Tensor) -> bool:
        """``out`` reads ``result`` once, at the same place of their one layout, and holds no reduce."""
        layout = self.layouts.get(result, ROW_MAJOR)
        if self.layouts.get(out, ROW_MAJOR) != layout:
            return False
        axes, value, _ = self._written_out(out)
        if value.holds & (expr.REDUCE | expr.FAULT):
            return False
        loads = [n for n in expr.walk(value) if n.op == "load" and n.attr.source is result]
        if len(loads) != 1 or loads[0].attr.guarded:
            return False
        if layout is not ROW_MAJOR:
            return result.extents == out.extents and loads[0].args == axes
        place = poly.linear(loads[0].args, result.extents)
        count = poly.same(as_expr(product(result.shape)), as_expr(product(out.shape)))
        return count and poly.same(place, poly.linear(axes, out.extents))

    def _call_step(self, definition: Structured, epilogue: Tensor | None) -> Step:
        builder = self._builder()
        operands = []
        for t in map(self.resolve, definition.operands):
            view = None if t in self.materialised else self.operand_view(t, definition)
            base, offset, strides = view or self._whole(t, definition)
            operands.append(builder.view(base, t.extents, offset, strides))
        tail: Expr | None = None
        scores: Expr | None = None
        origins = {definition.origin}
        if isinstance(definition, Attention):
            origins |= {d.origin for d in definition.covers}
            if definition.scores is not None:
                scores, more = self._scores(definition.scores, builder)
                origins |= more
        targets: tuple[Tensor, ...] = definition.outputs
        if epilogue is not None:
            tail, more = self._epilogue(definition.outputs[0], epilogue, builder)
            origins |= more
            targets = (epilogue,)
        results = []
        for t, shaped in zip(targets, definition.outputs, strict=True):
            results.append(
                builder.view(t, shaped.extents, expr.index(0), row_major_strides(shaped.extents), written=True)
            )
        call = Call(
            definition.prim,
            tuple(builder.params),
            tuple(operands),
            tuple(results),
            definition.attrs,
            len(builder.sizes),
            tail,
            scores,
        )
        return self._step(definition, call, builder, origins, "call")

    def _whole(self, tensor: Tensor, reader: Structured) -> tuple[Tensor, Expr, tuple[Expr, ...]]:
        """A buffer of its own as `operand_view` has one."""
        axes = prims.axes_of(tensor.shape)
        batch = tensor.rank - 2 if isinstance(reader, Attention) else 0
        view = strided(poly.linear(axes, tensor.extents), axes, batch, tensor)
        assert view is not None
        return view

    def _scores(self, scores: Expr, builder: KernelBuilder) -> tuple[Expr, set[int]]:
        """An attention's scores over buffers."""
        axes = sorted((n for n in expr.walk(scores) if n.op == "axis"), key=lambda a: int(a.attr))
        value = self._inliner(1 << 10).expand(scores, {a: a for a in axes})
        read = {self.resolve(n.attr.source) for n in expr.walk(scores) if n.op == "load"}
        origins = set().union(*(self._origins(t) for t in read if not self.is_leaf(t)))
        return builder.size_arguments(builder.flatten(value)), origins

    def _epilogue(self, result: Tensor, out: Tensor, builder: KernelBuilder) -> tuple[Expr, set[int]]:
        """The expression of ``out`` over the axes of ``result``, with a hole where it reads it."""
        axes, value, origins = self._written_out(out)
        places = poly.delinear(poly.linear(prims.axes_of(result.shape), result.extents), out.extents)
        bound = {a: p for a, p in zip(axes, places, strict=True) if a.op == "axis"}
        (read,) = (n for n in expr.walk(value) if n.op == "load" and n.attr.source is result)
        value = expr.substitute(value, {read: expr.hole(result.dtype)})
        value = expr.substitute(value, bound)
        return builder.size_arguments(builder.flatten(value)), origins

    def _repeat_step(self, definition: Repeat) -> RepeatStep:
        body = Planner(
            self.env,
            definition.body,
            [*definition.updated, *definition.collected],
            self.device_of,
            self.replaced,
            self.layouts,
        )
        device = self.device_of(definition)
        carries = len(definition.initial)
        before: list[AnyStep] = []
        after: list[AnyStep] = []
        for k in range(carries):
            target = definition.outputs[k]
            before.append(self._move(definition, self.resolve(definition.initial[k]), target))
            after.append(self._move(definition, self.resolve(definition.updated[k]), target))
        for k, t in enumerate(definition.collected):
            target = definition.outputs[carries + k]
            after.append(self._move(definition, self.resolve(t), target, expr.size(definition.step)))
        return RepeatStep(
            definition,
            device,
            before,
            body.steps() + after,
            self.inputs(definition),
            list(definition.outputs),
            {definition.origin},
        )

    def _move(self, definition: Repeat, source: Tensor, target: Tensor, *row: Expr) -> Step:
        """``target = source``, or ``target[row] = source``. Their dims are equal, but may be spelled otherwise."""
        axes = prims.axes_of(source.shape)
        builder = self._builder()
        value = expr.load(source, axes, source.dtype)
        kernel = build_kernel(builder, axes, [(target, (*row, *axes), value, None, None, 0)])
        return self._step(definition, kernel, builder, {definition.origin})


def _ordered(steps: list[AnyStep]) -> list[AnyStep]:
    """Steps sorted so that writers come before readers; otherwise as they were."""
    writers: dict[Tensor, list[int]] = {}
    for k, step in enumerate(steps):
        for t in step.writes:
            writers.setdefault(t, []).append(k)
    done: set[int] = set()
    order: list[AnyStep] = []

    def visit(k: int) -> None:
        stack = [(k, False)]
        while stack:
            n, ready = stack.pop()
            if n in done:
                continue
            if ready:
                done.add(n)
                order.append(steps[n])
                continue
            stack.append((n, True))
            before = {w for t in steps[n].reads for w in writers.get(t, ())}
            before |= {w for t in steps[n].writes for w in writers[t] if w < n}
            stack.extend((w, False) for w in sorted(before - {n}, reverse=True) if w not in done)

    for k in range(len(steps)):
        visit(k)
    return order
