"""How a kernel becomes loops on a CPU: their order, whose points are lanes of a vector, and what a launch's range
covers.

Three decisions, each by one rule:

- **Order.** Axes that reduces depend on are outside, so that a softmax computes its row's maximum once; otherwise the
  order is the kernel's, which is the memory's.
- **Lanes.** One axis is walked a vector at a time, wherever in the order it stands. It is the one with the least
  estimated cost: unit strides and invariants cost a vector, anything else costs an element. A reduce that does not
  depend on the lanes may have lanes of its own along one of its axes.
- **Range.** A launch covers ``begin .. end`` of the flattened leading axes, up to the first level that holds a reduce
  for the loops inside it, so that a range may be split anywhere and no reduce is computed twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from omniop.backends.codegen import llvm_kept
from omniop.backends.codegen.axes import refine, split, step_of, stride_of
from omniop.backends.codegen.indexing import is_index
from omniop.backends.codegen.llvm_ir import Target
from omniop.opset import expr
from omniop.opset.alu import ALU
from omniop.opset.dtype import DType
from omniop.opset.expr import Expr
from omniop.opset.kernel import Kernel

_UNKNOWN_EXTENT = 64
_LANES = 8
"""Lanes assumed when costs are compared; the order of the answers hardly depends on it."""
_SMALL_WORK = 32
"""A body may be printed once for each row of a square while it does no more."""
_MANY_LOADS = 8
"""With more than these, several registers to a vector are more registers than there are."""
_GATHER = 1.5
"""An element fetched into a lane, against a scalar load."""


@dataclass(frozen=True)
class Width:
    """``bits`` of the widest element (32 at most) decide how many lanes a register has; ``unroll`` registers to a
    vector."""

    bits: int
    unroll: int


@dataclass(frozen=True)
class Nest:
    """``kernel`` over ``order``, the first ``parallel`` of which a launch's range covers, flattened.

    ``lanes``: the axis walked in vectors, by reduce for one that is reached without lanes, and under None for the
    kernel itself. ``widths``: how wide those vectors are, under the same keys. ``serial``: stores of different points
    may meet, so a launch covers the whole range. ``weight``: rough operations, each on one vector or one scalar, for
    a point of the range. ``kept``: what a reduce leaves in the output for ``kernel`` to read. ``block``: the axis,
    next to the lanes' and as long as a vector, along which some loads have in memory what others have across it.
    """

    kernel: Kernel
    order: tuple[Expr, ...]
    parallel: int
    lanes: dict[Expr | None, Expr | None]
    widths: dict[Expr | None, Width]
    serial: bool
    weight: float
    kept: llvm_kept.Kept | None = None
    block: Expr | None = None


def plan(kernel: Kernel, target: Target) -> Nest:
    kernel = refine(kernel)
    free = free_axes(kernel)
    costs = _Costs(kernel, free)
    serial = any(s.combine for s in kernel.stores)
    lanes = {context.reduce: costs.best(context) for context in costs.contexts}
    if serial or not _may_have_lanes(kernel):
        lanes[None] = None
    main = lanes[None]
    count = {a: sum(a in free[r] for r in costs.root.reduces) for a in kernel.axes}
    order = sorted(kernel.axes, key=lambda a: (-count[a], a is main))
    depths = [max((order.index(a) + 1 for a in free[r] if a in order), default=0) for r in costs.root.reduces]
    parallel = min(depths, default=len(order))
    if main in order[:parallel]:
        parallel = order.index(main) + 1  # the lanes are the last of what a range covers
    size = target.vector_bits // 32
    block = costs.block(main, size)
    if main is not None and block is not None:
        return _plan_blocks(kernel, main, block, size)
    kept = llvm_kept.find(kernel, tuple(order), parallel, lanes, free)
    if kept is not None:
        kernel = kept.kernel
        costs = _Costs(kernel, free_axes(kernel))
    widths = {context.reduce: costs.width(context, lanes[context.reduce], target) for context in costs.contexts}
    weight = costs.cost(costs.root, main) / _points(order[:parallel])
    return Nest(kernel, tuple(order), parallel, lanes, widths, serial, weight, kept)


def _plan_blocks(kernel: Kernel, lanes: Expr, block: Expr, size: int) -> Nest:
    """A square of points at a time, whose rows some load has in memory and whose columns are lanes."""
    if not expr.is_const(block.args[0], size):
        kernel, block = split(kernel, block, size)
    order = (*(a for a in kernel.axes if a is not lanes and a is not block), block, lanes)
    costs = _Costs(kernel, free_axes(kernel))
    weight = costs.cost(costs.root, lanes) / _points(order[:-2])
    return Nest(kernel, order, len(order) - 2, {None: lanes}, {None: Width(32, 1)}, False, weight, block=block)


def _may_have_lanes(kernel: Kernel) -> bool:
    """A sequential axis keeps its lanes only while nothing it stores is read again."""
    written = {s.buffer for s in kernel.stores}
    return not any(n.op == "load" and n.attr.source in written for n in expr.walk(*kernel.roots()))


def free_axes(kernel: Kernel) -> dict[Expr, frozenset[Expr]]:
    """The axes that each expression depends on. A carry depends on all that is outside it, and so does what is read
    where the kernel writes."""
    outside = frozenset(kernel.axes) | ({kernel.seq} if kernel.seq is not None else set())
    written = {s.buffer for s in kernel.stores}
    free: dict[Expr, frozenset[Expr]] = {}
    for node in expr.walk(*kernel.roots()):
        if node.op == "carry":
            free[node] = outside
        elif node.op == "axis":
            free[node] = frozenset((node,))
        else:
            free[node] = frozenset().union(*(free[a] for a in node.args))
            if node.op == "reduce":
                free[node] -= set(node.args[: node.attr.axes])
            elif node.op == "load" and node.attr.source in written:
                free[node] |= outside
    return free


# Costs ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Access:
    """A load or a store."""

    offset: Expr
    dtype: DType
    is_load: bool
    guarded: bool


@dataclass(eq=False)
class _Context:
    """The body of one loop nest: the stores of the kernel, or what one reduce combines."""

    reduce: Expr | None
    axes: tuple[Expr, ...]
    outside: frozenset[Expr]
    """Axes further out that the body depends on."""
    accesses: list[_Access] = field(default_factory=list)
    work: float = 1.0
    bits: int = 8
    """Of the widest element among its values."""
    inner: list[_Context] = field(default_factory=list)

    @property
    def reduces(self) -> list[Expr]:
        return [c.reduce for c in self.inner if c.reduce is not None]


class _Costs:
    """Estimated cost of each context, by the axis that has lanes in it. The unit is an operation."""

    def __init__(self, kernel: Kernel, free: dict[Expr, frozenset[Expr]]) -> None:
        self._free = free
        self._strides: dict[tuple[Expr, Expr], int | None] = {}
        self.contexts: list[_Context] = []
        seq = () if kernel.seq is None else (kernel.seq,)
        roots = [e for c in kernel.carries for e in (c.init, c.update)] + [e for e in (kernel.until,) if e is not None]
        roots += [e for s in kernel.stores for e in (s.value, s.guard) if e is not None]
        self.root = self._context(None, (*kernel.axes, *seq), frozenset(), roots)
        self.root.accesses += [
            _Access(s.offset, kernel.params[s.buffer].dtype, False, s.guard is not None) for s in kernel.stores
        ]
        self._lanes_axes = kernel.axes
        self._in_order = kernel.seq is not None

    def _context(
        self, reduce: Expr | None, axes: tuple[Expr, ...], outside: frozenset[Expr], roots: list[Expr]
    ) -> _Context:
        context = _Context(reduce, axes, outside)
        self.contexts.append(context)
        for node in self._body(roots):
            if node.op not in ("const", "size", "axis") and not is_index(node):
                context.bits = max(context.bits, node.dtype.bits)
            if node.op == "load":
                context.accesses.append(_Access(node.args[0], node.dtype, True, node.attr.guarded))
            elif node.op == "alu" and not is_index(node):
                context.work += ALU[node.attr].cost
            elif node.op in ("cast", "select"):
                context.work += 1
            elif node.op == "reduce":
                n = node.attr.axes
                context.inner.append(self._context(node, node.args[:n], self._free[node], list(node.args[n:])))
        return context

    @staticmethod
    def _body(roots: list[Expr]) -> Iterator[Expr]:
        """The nodes outside reduces."""
        seen: set[Expr] = set()
        stack = list(roots)
        while stack:
            node = stack.pop()
            if node not in seen:
                seen.add(node)
                yield node
                if node.op != "reduce":
                    stack.extend(node.args)

    def best(self, context: _Context) -> Expr | None:
        """The axis that should have lanes in this context. The last of equals, which is innermost in memory."""
        choices = [a for a in reversed(context.axes) if context.reduce is not None or a in self._lanes_axes]
        return min([*choices, None], key=lambda a: self.cost(context, a))

    def block(self, lanes: Expr | None, size: int) -> Expr | None:
        """An axis to take ``size`` points of together with ``size`` lanes: a load has those in a row, the lanes
        apart."""
        if lanes is None or self.root.inner or self._in_order or _extent(lanes) < size or self.root.work > _SMALL_WORK:
            return None
        for a in self.root.accesses:
            if a.is_load and not a.guarded and self._stride(a.offset, lanes) is None and stride_of(a.offset, lanes):
                for axis in self._lanes_axes:
                    extent = axis.args[0]
                    if self._stride(a.offset, axis) == 1 and extent.op == "const" and extent.attr % size == 0:
                        return axis
        return None

    def width(self, context: _Context, lanes: Expr | None, target: Target) -> Width:
        """Cheap bodies are unrolled; what is fetched lane by lane, or works hard on each element, is not."""
        members = list(self._with_lanes(context, lanes))
        bits = max(c.bits for c in members)
        work = sum(c.work for c in members)
        apart = lanes is not None and any(
            self._stride(a.offset, lanes) is None or (a.guarded and a.dtype.bits not in target.masked_bits)
            for c in members
            for a in c.accesses
        )
        loads = sum(len(c.accesses) for c in members)
        unroll = 1 if apart or work > 160 else 2 if work > 64 or loads > _MANY_LOADS else 4
        return Width(min(bits, 32), max(1, unroll // 2) if bits > 32 else unroll)

    def _with_lanes(self, context: _Context, lanes: Expr | None) -> Iterator[_Context]:
        yield context
        for c in context.inner:
            if lanes in c.outside:
                yield from self._with_lanes(c, lanes)

    def cost(self, context: _Context, lanes: Expr | None) -> float:
        points = _points((*context.axes, *context.outside))
        if lanes is None:
            here = context.work + len(context.accesses)
            inner = sum(self.cost(c, self.best(c)) for c in context.inner)
            return points * here + inner
        share = -(-_extent(lanes) // _LANES) / _extent(lanes)
        here = context.work * share
        for a in context.accesses:
            stride = self._stride(a.offset, lanes)
            vectors = stride is not None and (a.is_load or abs(stride) == 1)
            here += share * max(1, abs(stride)) if vectors and stride is not None else _GATHER
        inner = sum(self.cost(c, lanes if lanes in c.outside else self.best(c)) for c in context.inner)
        return points * here + inner

    def _stride(self, offset: Expr, axis: Expr) -> int | None:
        if axis not in self._free[offset]:
            return 0
        key = (offset, axis)
        if key not in self._strides:
            self._strides[key] = step_of(offset, axis)
        return self._strides[key]


def _points(axes: Sequence[Expr]) -> float:
    points = 1.0
    for axis in axes:
        points *= _extent(axis)
    return points


def _extent(axis: Expr) -> int:
    extent = axis.args[0]
    return max(1, extent.attr) if extent.op == "const" else _UNKNOWN_EXTENT
