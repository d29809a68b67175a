"""The plan of one segment: which tensors get buffers, which disappear into their readers, and the steps that remain.

Rules of fusion, over one segment's prims in reverse order:

- a tensor that is an output, an operand of a call, a scatter's base or read on another device is materialised;
- a pure view (one load, no arithmetic) or an expression without loads is always written into its readers;
- other maps are written into their reader when all their readers end in one kernel; a map that holds a reduce only
  where the reduce's own axes do not come back in the index (the row pattern of softmax and layer normalisation);
- a map that would be computed much more often than it has elements is materialised;
- a kernel that would need more buffers than the device takes is cut at the largest part that fits;
- the map after a call that takes epilogues becomes the call's epilogue when it reads the result at its own place.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from math import prod

from omniop.backends.base import Device
from omniop.dispatcher.inline import Inliner, KernelBuilder, build_kernel
from omniop.opset import expr, poly, prims
from omniop.opset.alu import ALU
from omniop.opset.expr import Expr
from omniop.opset.kernel import Call, Work
from omniop.opset.layout import ROW_MAJOR, Layout
from omniop.opset.prims import Definition, Map, Repeat, Scatter, Source, Structured, Tensor
from omniop.opset.sym import ShapeEnv, as_expr, product

RECOMPUTE_LIMIT = 2
"""A map is written into a kernel that evaluates it at most this many times per element ..."""
CHEAP_RECOMPUTE_LIMIT = 2.5
CHEAP = 3
"""... or a little more when its arithmetic is at most this many adds."""
MIN_ROWS = 32
"""A reduce joins its reader's kernel when there are this many rows to run in parallel, or little work."""
SMALL = 1 << 14


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


@dataclass
class CopyStep:
    """A tensor brought to another device; it then is ``target`` there."""

    source: Tensor
    target: Tensor
    device: Device
    origins: set[int] = field(default_factory=set)

    @property
    def writes(self) -> list[Tensor]:
        return [self.target]

    @property
    def reads(self) -> list[Tensor]:
        return [self.source]


@dataclass
class BaseStep:
    """``target`` starts as a copy of ``source`` on the same device: what a scatter stores over."""

    device: Device
    source: Tensor
    target: Tensor
    origins: set[int]

    @property
    def writes(self) -> list[Tensor]:
        return [self.target]

    @property
    def reads(self) -> list[Tensor]:
        return [self.source]


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


class Planner:
    """Plans one list of definitions (a segment, or a repeat's body)."""

    def __init__(
        self,
        env: ShapeEnv,
        definitions: Sequence[Definition],
        outputs: Sequence[Tensor],
        device_of: Callable[[Definition], Device],
        replaced: dict[Tensor, Tensor],
        layouts: dict[Tensor, Layout],
        relayouts: Collection[Definition] = (),
    ) -> None:
        self.relayouts = relayouts
        self.env = env
        self.inside = set(definitions)
        self.device_of = device_of
        self.replaced = replaced
        self.layouts = layouts
        self.outputs = [self.resolve(t) for t in outputs]
        self.materialised: set[Tensor] = set()
        self.owners: dict[Tensor, set[Definition]] = {}
        self.evaluations: dict[Definition, int] = {}
        """How often a definition's element is computed in all, where no reduce is around."""
        self.reducing: set[Definition] = set()
        """Owners whose kernels hold a reduce, as decided so far."""
        self.order = self._topological(self.outputs)
        self._choose()

    def resolve(self, tensor: Tensor) -> Tensor:
        while tensor in self.replaced:
            tensor = self.replaced[tensor]
        return tensor

    def inputs(self, definition: Definition) -> list[Tensor]:
        return list(dict.fromkeys(self.resolve(t) for t in definition.inputs()))

    def hint(self, dims: Sequence[Expr]) -> int:
        return prod(self.env.hint(d) for d in dims)

    # Which tensors get a buffer ---------------------------------------------------------------------------------------

    def _topological(self, roots: Sequence[Tensor]) -> list[Definition]:
        order: list[Definition] = []
        seen: set[Definition] = set()
        stack: list[tuple[Definition, bool]] = [(t.definition, False) for t in reversed(roots)]
        while stack:
            definition, ready = stack.pop()
            if ready:
                order.append(definition)
            elif definition not in seen and definition in self.inside:
                seen.add(definition)
                stack.append((definition, True))
                stack.extend((t.definition, False) for t in reversed(self.inputs(definition)))
        return order

    def is_leaf(self, tensor: Tensor) -> bool:
        return (
            tensor in self.materialised
            or tensor.definition not in self.inside
            or not isinstance(tensor.definition, Map)
        )

    def _choose(self) -> None:
        must = self.materialised
        must.update(self.outputs)
        readers: dict[Tensor, list[Definition]] = {}
        for definition in self.order:
            for t in self.inputs(definition):
                readers.setdefault(t, []).append(definition)
        for definition in reversed(self.order):
            if isinstance(definition, Map):
                self._choose_map(definition.outputs[0], readers.get(definition.outputs[0], []))
            else:
                for t in definition.outputs:
                    self.owners[t] = {definition}
                self._note_reduce(definition)
                for t in self._boundary(definition):
                    must.add(t)
        self._cut_large_kernels()

    def _boundary(self, definition: Definition) -> list[Tensor]:
        """Tensors that a call, a scatter or a repeat needs in buffers (views are looked through)."""
        if isinstance(definition, Structured):
            whole = definition.prim.startswith("kernel:")
            return [self.resolve(t) if whole else self._view_base(self.resolve(t)) for t in definition.operands]
        if isinstance(definition, Scatter):
            return [self.resolve(b) for b in definition.bases if b is not None]
        if isinstance(definition, Repeat):
            return self.inputs(definition)
        return []

    def _choose_map(self, tensor: Tensor, readers: list[Definition]) -> None:
        device = self.device_of(tensor.definition)
        if any(self.device_of(r) is not device for r in readers):
            self.materialised.add(tensor)
        if tensor in self.materialised:
            self.owners[tensor] = {tensor.definition}
            self._note_reduce(tensor.definition)
            return
        owners: set[Definition] = set()
        for reader in readers:
            for out in reader.outputs:
                owners |= self.owners.get(out, set())
        map_ = tensor.definition
        assert isinstance(map_, Map)
        if _is_view(map_.value) and not (_has_fault(map_.value) and self._read_under_guard(tensor, readers)):
            self.owners[tensor] = owners or {map_}
            return
        if len(owners) == 1 and self._may_inline(tensor, readers, next(iter(owners))):
            self.owners[tensor] = owners
            if _reduces(map_):
                self.reducing |= owners
            return
        self.materialised.add(tensor)
        self.owners[tensor] = {map_}
        self.evaluations.pop(map_, None)
        self._note_reduce(map_)

    def _note_reduce(self, definition: Definition) -> None:
        if _reduces(definition):
            self.reducing.add(definition)

    def _may_inline(self, tensor: Tensor, readers: list[Definition], owner: Definition) -> bool:
        map_ = tensor.definition
        assert isinstance(map_, Map)
        if not isinstance(owner, Map) and not (isinstance(owner, Scatter) and owner.seq is None):
            return False
        if _has_fault(map_.value) and self._read_under_guard(tensor, readers):
            return False
        reduces = _reduces(map_)
        only = self._only_load(tensor, readers)
        if not reduces and owner not in self.reducing and only is not None:
            reader = readers[0]
            repeats = self._evaluated(reader) / max(1, self.hint(reader.outputs[0].extents))
            evaluations = int(self.hint([a.args[0] for a in expr.free_axes(only)]) * max(1.0, repeats))
        else:
            uses = self._uses_in(tensor, owner)
            if reduces:
                return isinstance(owner, Map) and self._row_pattern(tensor, owner, [node for node, _ in uses])
            evaluations = sum(self.hint([a.args[0] for a in scope]) for _, scope in uses)
        self.evaluations[map_] = evaluations
        limit = CHEAP_RECOMPUTE_LIMIT if _cost(map_.value) <= CHEAP else RECOMPUTE_LIMIT
        return evaluations <= limit * max(1, self.hint(tensor.extents))

    def _only_load(self, tensor: Tensor, readers: list[Definition]) -> Expr | None:
        """The load through which all of the tensor is read, when there is one and it is in a map with arithmetic."""
        if len(readers) != 1 or not isinstance(readers[0], Map) or _is_view(readers[0].value):
            return None
        loads = self._loads_of(tensor, readers[0])
        return loads[0] if len(loads) == 1 else None

    def _evaluated(self, definition: Definition) -> int:
        """How often the definition's elements are computed: once each unless it was written into readers."""
        if definition not in self.evaluations:
            axes = definition.axes if isinstance(definition, Scatter) else prims.axes_of(definition.outputs[0].shape)
            self.evaluations[definition] = self.hint([a.args[0] for a in axes if a.op == "axis"])
        return self.evaluations[definition]

    def _uses_in(self, tensor: Tensor, owner: Definition) -> list[tuple[Expr, set[Expr]]]:
        """Each load of ``tensor`` in the kernel of ``owner``, as decided so far, with the axes it is evaluated over."""
        inliner = Inliner(
            lambda t: t is tensor or self.is_leaf(t) or t not in self.owners, self.resolve, first_axis=1 << 10
        )
        roots = [inliner.expand(e, {}) for e in owner.expressions()]
        if isinstance(owner, Map):
            roots = [
                inliner.expand(owner.value, {a: a for a in prims.axes_of(owner.outputs[0].shape) if a.op == "axis"})
            ]
        found: list[tuple[Expr, set[Expr]]] = []
        pending: list[tuple[Expr, tuple[Expr, ...]]] = [(r, ()) for r in roots]
        done: set[Expr] = set()
        while pending:
            root, around = pending.pop()
            for node in _outside_reduces(root):
                if node.op == "reduce" and node not in done:
                    done.add(node)
                    pending += [(v, (*around, node)) for v in node.args[node.attr.axes :]]
                elif node.op == "load" and node.attr.source is tensor:
                    found.append((node, _evaluated_over(node, around)))
        return found

    def _read_under_guard(self, tensor: Tensor, readers: list[Definition]) -> bool:
        return any(node.attr.guarded for reader in readers for node in self._loads_of(tensor, reader))

    def _loads_of(self, tensor: Tensor, reader: Definition) -> list[Expr]:
        return [n for n in expr.walk(*reader.expressions()) if n.op == "load" and self.resolve(n.attr.source) is tensor]

    def _row_pattern(self, tensor: Tensor, owner: Map, loads: list[Expr]) -> bool:
        """The reduce's rows are the kernel's rows: each index is an axis of the kernel itself, or constant."""
        own = {expr.axis(k, e) for k, e in enumerate(owner.outputs[0].extents)}
        if any(i.op != "const" and i not in own for node in loads for i in expr.load_parts(node)[0]):
            return False
        rows, elements = self.hint(tensor.extents), self.hint(owner.outputs[0].extents)
        return rows >= MIN_ROWS or elements <= SMALL or rows * 4 >= elements

    def _cut_large_kernels(self) -> None:
        """Materialise tensors inside kernels that need more buffers than their device takes; readers first."""
        for definition in reversed(self.order):
            while True:
                if isinstance(definition, Map) and definition.outputs[0] in self.materialised:
                    roots: list[Tensor] = [definition.outputs[0]]
                elif isinstance(definition, Scatter):
                    roots = list(definition.outputs)
                else:
                    break
                limit = self.device_of(definition).caps.max_buffers - 3
                direct = [t for t in self.inputs(definition) if not self.is_leaf(t)]
                leaves = [self._leaves(t) for t in direct]
                total = set().union(*leaves, {t for t in self.inputs(definition) if self.is_leaf(t)})
                if len(total) + len(roots) <= limit or not direct:
                    break
                self.materialised.add(self._cut(direct, limit - 1))

    def _cut(self, direct: Sequence[Tensor], most: int) -> Tensor:
        """Of ``direct`` and what goes into them: the tensor of most leaves, but no more than ``most`` if any."""
        leaves: dict[Tensor, int] = {}
        stack = list(direct)
        while stack:
            t = stack.pop()
            if t not in leaves and not self.is_leaf(t):
                leaves[t] = len(self._leaves(t))
                stack.extend(self.inputs(t.definition))
        fitting = [t for t, n in leaves.items() if 1 < n <= most]
        return max(fitting or direct, key=leaves.__getitem__)

    def _leaves(self, tensor: Tensor) -> set[Tensor]:
        found: set[Tensor] = set()
        stack = [tensor]
        seen: set[Tensor] = set()
        while stack:
            t = stack.pop()
            if t in seen:
                continue
            seen.add(t)
            if t is not tensor and self.is_leaf(t):
                found.add(t)
            else:
                stack.extend(self.inputs(t.definition))
        return found

    def _view_base(self, tensor: Tensor) -> Tensor:
        """The tensor that an operand is a strided view of: itself when it is no view."""
        base = self._as_view(tensor)
        return tensor if base is None else base[0]

    def _as_view(self, tensor: Tensor) -> tuple[Tensor, Expr, tuple[Expr, ...]] | None:
        """(base, offset, strides) when the tensor is a strided view of another one in row-major order."""
        axes = prims.axes_of(tensor.shape)
        index: tuple[Expr, ...] = axes
        current = tensor
        while not self.is_leaf(current):
            value = current.definition.value  # type: ignore[attr-defined]
            if value.op != "load" or value.attr.guarded:
                break
            own = [expr.axis(k, e) for k, e in enumerate(current.extents)]
            bound = {a: i for a, i in zip(own, index, strict=True) if a.op == "axis"}
            index = tuple(poly.simplify(expr.substitute(i, bound)) for i in value.args)
            current = self.resolve(value.attr.source)
        if current is tensor:
            return None
        if self.layouts.get(current, ROW_MAJOR) is not ROW_MAJOR:
            return None
        steps = poly.affine(poly.linear(index, current.extents), axes)
        if steps is None:
            return None
        return current, steps[0], steps[1]

    # Steps ------------------------------------------------------------------------------------------------------------

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
        if definition in self.relayouts:
            kind = "relayout"
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
        kernel = build_kernel(builder, definition.axes, stores, definition.seq, carries)
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
                    for leaf in self._leaves(out):
                        read_by.setdefault(leaf, []).append(out)
                elif not isinstance(definition, Map):
                    for t in self.inputs(definition):
                        for leaf in {t} if self.is_leaf(t) else {t, *self._leaves(t)}:
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
                and self.layouts.get(out, ROW_MAJOR) is ROW_MAJOR
                and self._at_own_place(result, out)
                and len(self._leaves(out)) + len(definition.operands) + 2 <= device.caps.max_buffers
            ):
                fused[definition] = out
        return fused

    def _at_own_place(self, result: Tensor, out: Tensor) -> bool:
        """``out`` reads ``result`` once, at the same row-major place, and holds no reduce."""
        axes, value, _ = self._written_out(out)
        nodes = list(expr.walk(value))
        loads = [n for n in nodes if n.op == "load" and n.attr.source is result]
        if len(loads) != 1 or loads[0].attr.guarded or any(n.op == "reduce" for n in nodes):
            return False
        if any(n.op == "load" and n.attr.fault for n in nodes):
            return False
        place = poly.linear(loads[0].args, result.extents)
        count = poly.same(as_expr(product(result.shape)), as_expr(product(out.shape)))
        return count and poly.same(place, poly.linear(axes, out.extents))

    def _call_step(self, definition: Structured, epilogue: Tensor | None) -> Step:
        builder = self._builder()
        tuned = definition.prim.startswith("kernel:")
        operands = []
        for t in map(self.resolve, definition.operands):
            view = None if tuned or t in self.materialised else self._as_view(t)
            base, offset, strides = view or (t, expr.index(0), _row_major(t.extents))
            operands.append(builder.view(base, t.extents, offset, strides))
        tail: Expr | None = None
        origins = {definition.origin}
        targets: tuple[Tensor, ...] = definition.outputs
        if epilogue is not None:
            tail, more = self._epilogue(definition.outputs[0], epilogue, builder)
            origins |= more
            targets = (epilogue,)
        results = []
        for t, shaped in zip(targets, definition.outputs, strict=True):
            results.append(builder.view(t, shaped.extents, expr.index(0), _row_major(shaped.extents), written=True))
        call = Call(
            definition.prim,
            tuple(builder.params),
            tuple(operands),
            tuple(results),
            definition.attrs,
            len(builder.sizes),
            tail,
        )
        return self._step(definition, call, builder, origins, "call")

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
            self.relayouts,
        )
        device = self.device_of(definition)
        carries = len(definition.initial)
        before: list[AnyStep] = []
        after: list[AnyStep] = []
        for k in range(carries):
            target = definition.outputs[k]
            axes = prims.axes_of(target.shape)
            before.append(self._move(definition, self.resolve(definition.initial[k]), target, axes))
            after.append(self._move(definition, self.resolve(definition.updated[k]), target, axes))
        for k, t in enumerate(definition.collected):
            axes = prims.axes_of(t.shape)
            target = definition.outputs[carries + k]
            after.append(self._move(definition, self.resolve(t), target, (expr.size(definition.step), *axes)))
        return RepeatStep(
            definition,
            device,
            before,
            body.steps() + after,
            self.inputs(definition),
            list(definition.outputs),
            {definition.origin},
        )

    def _move(self, definition: Repeat, source: Tensor, target: Tensor, index: tuple[Expr, ...]) -> Step:
        """``target[index] = source``."""
        axes = prims.axes_of(source.shape)
        builder = self._builder()
        value = expr.load(source, axes, source.dtype)
        kernel = build_kernel(builder, axes, [(target, index, value, None, None, 0)])
        return self._step(definition, kernel, builder, {definition.origin})


def _is_view(value: Expr) -> bool:
    """One load at computed indices, or an expression of constants and indices: nothing worth keeping."""
    inner = [n for n in expr.walk(value) if n is not value]
    if any(n.op in ("load", "reduce") for n in inner) or value.op == "reduce":
        return False
    return value.op == "load" or _cost(value) == 0


def _reduces(definition: Definition) -> bool:
    return any(n.op == "reduce" for n in expr.walk(*definition.expressions()))


def _has_fault(value: Expr) -> bool:
    return any(n.op == "load" and n.attr.fault for n in expr.walk(value))


def _cost(value: Expr) -> int:
    """Arithmetic of one element, against an add."""
    return sum(ALU[n.attr].cost for n in expr.walk(value) if n.op == "alu" and n.dtype.name not in ("int64", "bool"))


def _evaluated_over(node: Expr, around: Sequence[Expr]) -> set[Expr]:
    """The axes that ``node`` is evaluated over inside the reduces ``around`` it, once what can be hoisted is."""
    free = expr.free_axes(node)
    for reduce in reversed(around):
        own = set(reduce.args[: reduce.attr.axes])
        if free & own:
            free |= own | expr.free_axes(reduce)
    return free


def _outside_reduces(root: Expr) -> list[Expr]:
    """Nodes that are evaluated outside any reduce of ``root``; reduces themselves included."""
    found: list[Expr] = []
    seen: set[Expr] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            found.append(node)
            if node.op != "reduce":
                stack.extend(node.args)
    return found


def _row_major(shape: Sequence[Expr]) -> tuple[Expr, ...]:
    strides: list[Expr] = []
    step = expr.index(1)
    for extent in reversed(shape):
        strides.append(step)
        step = poly.simplify(step * extent)
    return tuple(reversed(strides))


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


def is_constant_source(tensor: Tensor) -> bool:
    return isinstance(tensor.definition, Source) and tensor.definition.array is not None
