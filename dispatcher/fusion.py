"""Fusion: which tensors of a segment get buffers, and which disappear into their readers.

The rules, over one segment's prims in reverse order:

- a tensor that is an output, an operand of a call, a scatter's base or read on another device is materialised;
- a pure view (one load, no arithmetic) or an expression without loads is always written into its readers;
- what is computed of constants, and is no larger than they are, is materialised: it is computed once, at load;
- other maps are written into their reader when all their readers end in one kernel; a map that holds a reduce only
  where the reduce's own axes do not come back in the index (the row pattern of softmax and layer normalisation);
- a map that would be computed much more often than it has elements is materialised;
- of the calls' results that one kernel reads, one may have that kernel for an epilogue; the others are kept where they
  have been made narrower, as requantised sums are;
- a kernel that would need more buffers than the device takes is cut at the largest part that fits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from math import prod

from omniop.backends.base import Device
from omniop.dispatcher.inline import Inliner
from omniop.dispatcher.layouts import is_constant
from omniop.opset import expr, poly, prims
from omniop.opset.alu import ALU
from omniop.opset.definitions import Attention, Definition, Map, Repeat, Scatter, Structured, Tensor
from omniop.opset.expr import Expr
from omniop.opset.layout import ROW_MAJOR, Layout
from omniop.opset.sym import ShapeEnv, as_expr, product

RECOMPUTE_LIMIT = 2
"""A map is written into a kernel that evaluates it at most this many times per element ..."""
CHEAP_RECOMPUTE_LIMIT = 2.5
CHEAP = 3
"""... or a little more when its arithmetic is at most this many adds."""
MIN_ROWS = 32
"""A reduce joins its reader's kernel when there are this many rows to run in parallel, or little work."""
SMALL = 1 << 14


class Fusion:
    """What is materialised of one list of definitions (a segment, or a repeat's body)."""

    def __init__(
        self,
        env: ShapeEnv,
        definitions: Sequence[Definition],
        outputs: Sequence[Tensor],
        device_of: Callable[[Definition], Device],
        replaced: dict[Tensor, Tensor],
        layouts: dict[Tensor, Layout],
    ) -> None:
        self.env = env
        self.inside = set(definitions)
        self.device_of = device_of
        self.replaced = replaced
        self.layouts = layouts
        self.outputs = [self.resolve(t) for t in outputs]
        self.materialised: set[Tensor] = set()
        self.readers: dict[Tensor, list[Definition]] = {}
        self.owners: dict[Tensor, set[Definition]] = {}
        self.evaluations: dict[Definition, int] = {}
        """How often a definition's element is computed in all, where no reduce is around."""
        self.after_reduce: set[Definition] = set()
        """Maps that hold a reduce or are computed from one by maps alone: they may join a kernel of rows."""
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
        readers = self.readers
        for definition in self.order:
            for t in self.inputs(definition):
                readers.setdefault(t, []).append(definition)
        for definition in self.order:
            made = [t.definition for t in self.inputs(definition)]
            if isinstance(definition, Map) and (
                _reduces(definition) or any(isinstance(d, Map) and d in self.after_reduce for d in made)
            ):
                self.after_reduce.add(definition)
        for definition in reversed(self.order):
            if isinstance(definition, Map):
                self._choose_map(definition.outputs[0], readers.get(definition.outputs[0], []))
            else:
                for t in definition.outputs:
                    self.owners[t] = {definition}
                self._note_reduce(definition)
                for t in self._boundary(definition):
                    must.add(t)
        self._keep_narrow_results()
        self._cut_large_kernels()

    def _boundary(self, definition: Definition) -> list[Tensor]:
        """Tensors that a call, a scatter or a repeat needs in buffers (views are looked through)."""
        if isinstance(definition, Structured):
            views = [self.operand_view(self.resolve(t), definition) for t in definition.operands]
            return [self.resolve(t) if v is None else v[0] for t, v in zip(definition.operands, views, strict=True)]
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
        kept = is_constant(tensor) and not all(map(self._is_constant, owners)) and self._is_compact(tensor)
        if len(owners) == 1 and not kept and self._may_inline(tensor, readers, next(iter(owners))):
            self.owners[tensor] = owners
            if _reduces(map_):
                self.reducing |= owners
            return
        self.materialised.add(tensor)
        self.owners[tensor] = {map_}
        self.evaluations.pop(map_, None)
        self._note_reduce(map_)

    @staticmethod
    def _is_constant(definition: Definition) -> bool:
        return all(map(is_constant, definition.outputs))

    def _is_compact(self, tensor: Tensor) -> bool:
        """Whether it has no more elements than what it is computed of."""
        return self.hint(tensor.extents) <= max(
            (self.hint(t.extents) for t in self.inputs(tensor.definition)), default=0
        )

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
        if owner not in self.reducing and map_ not in self.after_reduce and _cost(map_.value) > CHEAP:
            # without a reduce every axis is parallel: nothing is hoisted out of one
            evaluations = max(evaluations, self._evaluated(owner))
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
        """Each load of ``tensor`` in the kernel of ``owner``, as decided so far, with the axes it is evaluated over.

        What does not read ``tensor`` is not written out, views aside: a kernel may hold thousands of maps.
        """
        above = self._above(tensor)

        def is_leaf(t: Tensor) -> bool:
            if t is tensor or self.is_leaf(t) or t not in self.owners:
                return True
            return t not in above and not _is_view(t.definition.value)  # type: ignore[attr-defined]

        inliner = Inliner(is_leaf, self.resolve, first_axis=1 << 10)
        own = prims.axes_of(owner.outputs[0].shape) if isinstance(owner, Map) else ()
        roots = [inliner.expand(e, {a: a for a in own if a.op == "axis"}) for e in owner.expressions()]
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

    def _above(self, tensor: Tensor) -> set[Tensor]:
        """What is computed from ``tensor`` up to where the next tensors in buffers are."""
        found: set[Tensor] = set()
        stack = [tensor]
        while stack:
            for reader in self.readers.get(stack.pop(), ()):
                new = [out for out in reader.outputs if out not in found]
                found.update(new)
                stack += [out for out in new if out not in self.materialised]
        return found

    def _read_under_guard(self, tensor: Tensor, readers: list[Definition]) -> bool:
        """By a reader, or by what a reader is written into."""
        if any(node.attr.guarded for reader in readers for node in self._loads_of(tensor, reader)):
            return True
        inlined = [t for r in readers if isinstance(r, Map) for t in r.outputs if t not in self.materialised]
        return any(self._read_under_guard(t, self.readers.get(t, [])) for t in inlined)

    def _loads_of(self, tensor: Tensor, reader: Definition) -> list[Expr]:
        return [n for n in expr.walk(*reader.expressions()) if n.op == "load" and self.resolve(n.attr.source) is tensor]

    def _row_pattern(self, tensor: Tensor, owner: Map, loads: list[Expr]) -> bool:
        """The reduce's rows are the kernel's rows: each index is an axis of the kernel itself, or constant."""
        own = {expr.axis(k, e) for k, e in enumerate(owner.outputs[0].extents)}
        if any(i.op != "const" and i not in own for node in loads for i in expr.load_parts(node)[0]):
            return False
        rows, elements = self.hint(tensor.extents), self.hint(owner.outputs[0].extents)
        return rows >= MIN_ROWS or elements <= SMALL or rows * 4 >= elements

    def _keep_narrow_results(self) -> None:
        """Materialise what calls' results become of fewer bits, where their reader ends a later call, too."""
        calls = [d for d in self.order if isinstance(d, Structured) and self.device_of(d).accepts_epilogue(d.prim)]
        places = {t: place for place, call in enumerate(calls) for t in call.outputs}
        for definition in self.order:
            if isinstance(definition, Map) and definition.outputs[0] in self.materialised:
                read = self.leaves(definition.outputs[0]) & places.keys()
                for result in sorted(read, key=places.__getitem__)[:-1]:
                    if result not in self.outputs and result not in self.layouts:
                        self.materialised.update(self._narrower(result))

    def _narrower(self, result: Tensor) -> list[Tensor]:
        """The narrowest of the maps that a call's result goes through element by element, alone of calls' results."""
        found = [result]
        while len(readers := self.readers.get(found[-1], [])) == 1 and isinstance(reader := readers[0], Map):
            read, out = found[-1], reader.outputs[0]
            loads = self._loads_of(read, reader)
            own = len(loads) == 1 and loads[0].args == prims.axes_of(out.shape) and read.extents == out.extents
            others = set().union(*(self.leaves(t) | {t} for t in self.inputs(reader) if t is not read))
            joined = any(isinstance(t.definition, Structured) for t in others)
            if out in self.materialised or joined or not own or _reduces(reader):
                break
            found.append(out)
        narrowest = min(found, key=lambda t: t.dtype.bits)
        return [] if narrowest is result else [narrowest]

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
                leaves = [self.leaves(t) for t in direct]
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
                leaves[t] = len(self.leaves(t))
                stack.extend(self.inputs(t.definition))
        fitting = [t for t, n in leaves.items() if 1 < n <= most]
        return max(fitting or direct, key=leaves.__getitem__)

    def leaves(self, tensor: Tensor) -> set[Tensor]:
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

    def operand_view(self, tensor: Tensor, reader: Structured) -> tuple[Tensor, Expr, tuple[Expr, ...]] | None:
        """`as_view` of a call's operand; for a tuned kernel only where the tensor is its base in another shape, for
        attention wherever its matrices are strided."""
        if tensor in self.layouts:
            return None
        view = self.as_view(tensor, tensor.rank - 2 if isinstance(reader, Attention) else 0)
        if view is None or reader.tuned is None:
            return view
        base, offset, strides = view
        steps = zip(strides, row_major_strides(tensor.extents), tensor.extents, strict=True)
        same = all(expr.is_const(extent, 1) or poly.same(own, dense) for own, dense, extent in steps)
        count = poly.same(as_expr(product(tensor.shape)), as_expr(product(base.shape)))
        return view if same and count and expr.is_const(offset, 0) else None

    def as_view(self, tensor: Tensor, batch: int = 0) -> tuple[Tensor, Expr, tuple[Expr, ...]] | None:
        """(base, offset, strides) when the tensor is a strided view of another one in row-major order. The first
        ``batch`` axes may be anywhere in the offset; their strides are 0."""
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
        return strided(poly.linear(index, current.extents), axes, batch, current)


def strided(
    place: Expr, axes: Sequence[Expr], batch: int, base: Tensor
) -> tuple[Tensor, Expr, tuple[Expr, ...]] | None:
    """``place`` taken apart for `Fusion.as_view`."""
    names = {a: expr.size(f"batch{k}") for k, a in enumerate(axes[:batch]) if a.op == "axis"}
    steps = poly.affine(poly.simplify(expr.substitute(place, names)), tuple(axes[batch:]))
    if steps is None:
        return None
    offset, strides = steps
    if any(n in names.values() for s in strides for n in expr.walk(s)):
        return None
    back = {name: a for a, name in names.items()}
    return base, expr.substitute(offset, back), (*[expr.index(0)] * batch, *strides)


def row_major_strides(shape: Sequence[Expr]) -> tuple[Expr, ...]:
    """In elements."""
    strides: list[Expr] = []
    step = expr.index(1)
    for extent in reversed(shape):
        strides.append(step)
        step = poly.simplify(step * extent)
    return tuple(reversed(strides))


def _is_view(value: Expr) -> bool:
    """One load at computed indices, or an expression of constants and indices: nothing worth keeping."""
    if value.op == "reduce" or any(a.holds & (expr.LOAD | expr.REDUCE) for a in value.args):
        return False
    return value.op == "load" or _cost(value) == 0


def _reduces(definition: Definition) -> bool:
    return any(e.holds & expr.REDUCE for e in definition.expressions())


def _has_fault(value: Expr) -> bool:
    return bool(value.holds & expr.FAULT)


@lru_cache(maxsize=1 << 12)
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
