"""How a kernel becomes loops on a CPU: their order, whose points are lanes of a vector, and what a launch's range covers.

Three decisions, each by one rule:

- **Order.** Axes that reduces depend on are outside, so that a softmax computes its row's maximum once; otherwise the
  order is the kernel's, which is the memory's.
- **Lanes.** One axis is walked a vector at a time, wherever in the order it stands. It is the one with the least estimated
  cost: unit strides and invariants cost a vector, anything else costs an element. A reduce that does not depend on
  the lanes may have lanes of its own along one of its axes.
- **Range.** A launch covers ``begin .. end`` of the flattened leading axes, up to the first level that holds a reduce
  for the loops inside it, so that a range may be split anywhere and no reduce is computed twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from omniop.backends.codegen.axes import index_like, refine, stride_of
from omniop.opset import expr
from omniop.opset.alu import ALU
from omniop.opset.expr import Expr
from omniop.opset.kernel import Kernel

_UNKNOWN_EXTENT = 64
_LANES = 8
"""Lanes assumed when costs are compared; the order of the answers hardly depends on it."""
_GATHER = 1.5
"""An element fetched into a lane, against a scalar load."""


@dataclass(frozen=True)
class Nest:
    """``kernel`` over ``order``, the first ``parallel`` of which a launch's range covers, flattened.

    ``lanes``: the axis walked in vectors, or None. ``own_lanes``: the same for a reduce reached without lanes.
    ``free``: the axes an expression depends on, a carry depending on all that is outside it.
    ``serial``: stores of different points may meet, so a launch covers the whole range.
    """

    kernel: Kernel
    order: tuple[Expr, ...]
    parallel: int
    lanes: Expr | None
    own_lanes: dict[Expr, Expr | None]
    free: dict[Expr, frozenset[Expr]]
    serial: bool


def plan(kernel: Kernel) -> Nest:
    kernel = refine(kernel)
    free = _free(kernel)
    costs = _Costs(kernel, free)
    serial = any(s.combine for s in kernel.stores)
    lanes = None if serial or not _may_have_lanes(kernel) else costs.best(costs.root)
    count = {a: sum(a in free[r] for r in costs.root.reduces) for a in kernel.axes}
    order = sorted(kernel.axes, key=lambda a: (-count[a], a is lanes))
    depths = [max((order.index(a) + 1 for a in free[r] if a in order), default=0) for r in costs.root.reduces]
    parallel = min(depths, default=len(order))
    own = {context.reduce: costs.best(context) for context in costs.contexts if context.reduce is not None}
    return Nest(kernel, tuple(order), parallel, lanes, own, free, serial)


def _may_have_lanes(kernel: Kernel) -> bool:
    """A sequential axis keeps its lanes only while nothing it stores is read again."""
    written = {s.buffer for s in kernel.stores}
    return not any(n.op == "load" and n.attr.source in written for n in expr.walk(*kernel.roots()))


def _free(kernel: Kernel) -> dict[Expr, frozenset[Expr]]:
    outside = frozenset(kernel.axes) | ({kernel.seq} if kernel.seq is not None else set())
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
    return free


# Costs ------------------------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class _Context:
    """The body of one loop nest: the stores of the kernel, or what one reduce combines."""

    reduce: Expr | None
    axes: tuple[Expr, ...]
    outside: frozenset[Expr]
    """Axes further out that the body depends on."""
    accesses: list[tuple[Expr, bool]] = field(default_factory=list)
    """(offset, whether it is a load)."""
    work: float = 1.0
    inner: list[_Context] = field(default_factory=list)

    @property
    def reduces(self) -> list[Expr]:
        return [c.reduce for c in self.inner if c.reduce is not None]


class _Costs:
    """Estimated cost of each context, by the axis that has lanes in it. The unit is an operation."""

    def __init__(self, kernel: Kernel, free: dict[Expr, frozenset[Expr]]) -> None:
        self._free = free
        self._strides: dict[tuple[Expr, Expr], int | None] = {}
        self._plain: dict[Expr, bool] = {}
        self.contexts: list[_Context] = []
        seq = () if kernel.seq is None else (kernel.seq,)
        roots = [e for c in kernel.carries for e in (c.init, c.update)]
        roots += [e for s in kernel.stores for e in (s.value, s.guard) if e is not None]
        self.root = self._context(None, (*kernel.axes, *seq), frozenset(), roots)
        self.root.accesses += [(s.offset, False) for s in kernel.stores]
        self._lanes_axes = set(kernel.axes)

    def _context(self, reduce: Expr | None, axes: tuple[Expr, ...], outside: frozenset[Expr], roots: list[Expr]) -> _Context:
        context = _Context(reduce, axes, outside)
        self.contexts.append(context)
        for node in self._body(roots):
            if node.op == "load":
                context.accesses.append((node.args[0], True))
            elif node.op == "alu" and not index_like(node, self._plain):
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
        """The axis of this context that should have lanes. The last of equals, which is innermost in memory."""
        choices = [a for a in reversed(context.axes) if context.reduce is not None or a in self._lanes_axes]
        return min([*choices, None], key=lambda a: self._cost(context, a))

    def _cost(self, context: _Context, lanes: Expr | None) -> float:
        points = 1.0
        for a in (*context.axes, *context.outside):
            points *= _extent(a)
        if lanes is None:
            here = context.work + len(context.accesses)
            inner = sum(self._cost(c, self.best(c)) for c in context.inner)
            return points * here + inner
        share = -(-_extent(lanes) // _LANES) / _extent(lanes)
        here = context.work * share
        for offset, is_load in context.accesses:
            stride = self._stride(offset, lanes)
            here += share if stride in (1, -1) or (stride == 0 and is_load) else _GATHER
        inner = sum(self._cost(c, lanes if lanes in c.outside else self.best(c)) for c in context.inner)
        return points * here + inner

    def _stride(self, offset: Expr, axis: Expr) -> int | None:
        """The offset's step along an axis where it is 0, 1 or -1."""
        if axis not in self._free[offset]:
            return 0
        key = (offset, axis)
        if key not in self._strides:
            parts = stride_of(offset, axis)
            self._strides[key] = parts[0].attr if parts is not None and parts[0].op == "const" else None
        return self._strides[key]


def _extent(axis: Expr) -> int:
    extent = axis.args[0]
    return max(1, extent.attr) if extent.op == "const" else _UNKNOWN_EXTENT
