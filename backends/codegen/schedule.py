"""Which axis of a kernel runs where: kept apart from the kernel, so that one kernel serves every device."""

from __future__ import annotations

from dataclasses import dataclass

from omniop.opset import expr, poly
from omniop.opset.expr import Expr
from omniop.opset.kernel import Kernel

SHORT = 16
"""A reduce of at most so many steps may be computed again at every point rather than order the axes around it."""

LONG = 64
"""A reduce of fewer steps is not worth a work group."""

FEW = 4096
"""With fewer points than this, one work item a point leaves a GPU idle."""


@dataclass(frozen=True)
class Schedule:
    """``kinds[k]`` is the way of ``kernel.axes[k]``:

    - ``parallel``: an axis of the grid;
    - ``serial``: a loop inside one work item, nested in the order of the axes, inside the grid;
    - ``group``: flattened with the other ``group`` axes into one loop dealt out to the lanes of a work group.

    With ``lanes`` above 1 a work group of that many shares a point of the grid, and reduces outside a ``group`` loop
    are dealt out too. The sequential axis and all other reduces are loops of one work item.
    """

    kinds: tuple[str, ...]
    lanes: int = 1


@dataclass(frozen=True)
class Target:
    """What a default schedule may use.

    ``lanes``: size of the largest work group that may share a row, a power of two; below 2 there are none (CPUs).
    ``atomic_bits``: widths of the dtypes that combining stores may hit from several work items at once.
    """

    lanes: int = 1
    atomic_bits: frozenset[int] = frozenset((32,))


SEQUENTIAL = Target(atomic_bits=frozenset())
"""Combining stores are made by one work item."""


def default_schedule(kernel: Kernel, target: Target = SEQUENTIAL) -> Schedule:
    """Axes that every reduce depends on are parallel; the others are run through by who has computed the reduces."""
    combining = [s for s in kernel.stores if s.combine is not None]
    if any(kernel.params[s.buffer].dtype.bits not in target.atomic_bits for s in combining):
        return Schedule(("serial",) * len(kernel.axes))
    axes = frozenset(a for a in kernel.axes if a.op == "axis")
    reduces = [n for n in expr.walk(*kernel.roots()) if n.op == "reduce" and _steps(n) > SHORT]
    needs = {r: expr.free_axes(r) for r in reduces}
    reduces = [r for r in reduces if needs[r] <= axes]  # others are inside the loop of one of these
    if kernel.seq is not None or not reduces:
        return Schedule(("parallel",) * len(kernel.axes))
    shared = axes.intersection(*(needs[r] for r in reduces))
    lanes = 1 if combining else _lanes(reduces, target)
    if shared == axes and not _worth_a_group(kernel, reduces):
        lanes = 1
    inner = "group" if lanes > 1 else "serial"
    return Schedule(tuple(inner if a in axes - shared else "parallel" for a in kernel.axes), lanes)


def _steps(reduce: Expr) -> int:
    """Points of its axes; symbolic extents count as many."""
    steps = 1
    for axis in reduce.args[: reduce.attr.axes]:
        extent = axis.args[0]
        steps *= extent.attr if extent.op == "const" else LONG
    return steps


def _lanes(reduces: list[Expr], target: Target) -> int:
    longest = max(map(_steps, reduces))
    if longest < LONG:
        return 1
    symbolic = any(a.args[0].op != "const" for r in reduces for a in r.args[: r.attr.axes])
    return target.lanes if symbolic else min(target.lanes, 1 << (longest - 1).bit_length())


def _worth_a_group(kernel: Kernel, reduces: list[Expr]) -> bool:
    """Whether lanes that step through a reduce read side by side, or are needed to fill the device."""
    points = 1
    for axis in kernel.axes:
        extent = axis.args[0] if axis.op == "axis" else expr.const(1, axis.dtype)
        points *= extent.attr if extent.op == "const" else FEW
    return points < FEW or any(_reads_along(r, kernel.axes) for r in reduces)


def _reads_along(reduce: Expr, outer: tuple[Expr, ...]) -> bool:
    inner = reduce.args[reduce.attr.axes - 1]
    across = tuple(a for a in outer if a.op == "axis")[-1:]
    for node in expr.walk(*reduce.args):
        if node.op != "load":
            continue
        form = poly.affine(node.args[0], (inner, *across))
        if form is not None and expr.is_const(form[1][0], 1):
            return not any(expr.is_const(stride, 1) for stride in form[1][1:])
    return False
