"""Axes that suit the memory: a kernel over other axes, with the same points and the same stores.

A reshape or a transpose that fusion folded into a kernel leaves quotients and remainders of its axes behind. `refine`
splits an axis where they cut it (768 columns seen as 12 heads of 64) until offsets are sums of strides, and then joins
neighbours that memory has in one run (rows and columns of a plain elementwise kernel become one axis).

The result is no longer numbered as `kernel.Kernel` asks (axis ``k`` of ``axes`` may have any number), so it is for the
printer that asked for it alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from math import gcd

from omniop.backends.codegen.indexing import is_index
from omniop.opset import expr, poly
from omniop.opset.expr import Expr
from omniop.opset.kernel import Kernel

NEAR = 4
"""The greatest stride at which all elements of a row are loaded to pick out some."""

_LEAST_PART = 4
"""Elements in a row that are worth a loop of their own."""
_ROUNDS = 16
"""More splits than any kernel needs."""


def refine(kernel: Kernel) -> Kernel:
    """An equal kernel over axes in which more offsets are affine, and of which there are fewer."""
    numbers = _fresh(kernel)
    unit = {a for a in _loops(kernel) if expr.is_const(a.args[0], 1)}
    kernel = _changed(kernel, {a: ((), expr.index(0)) for a in unit})
    for _ in range(_ROUNDS):
        cut = _find_cut(kernel) or _find_part(kernel)
        if cut is None:
            break
        kernel, _ = _split(kernel, *cut, numbers)
    while (pair := _find_run(kernel)) is not None:
        both = expr.raw_axis(next(numbers), poly.simplify(pair[0].args[0] * pair[1].args[0]))
        kernel = _changed(kernel, {pair[0]: ((), expr.index(0)), pair[1]: ((both,), both)})
    return kernel


def split(kernel: Kernel, axis: Expr, inner: int) -> tuple[Kernel, Expr]:
    """The kernel with an axis in two, and the inner one, of ``inner`` points; they divide the extent."""
    return _split(kernel, axis, expr.index(inner), _fresh(kernel))


def stride_of(offset: Expr, axis: Expr) -> tuple[Expr, Expr] | None:
    """(stride, rest) with ``offset = stride * axis + rest``, both free of the axis; None when it is not so."""
    stride: poly.Poly = {}
    rest: poly.Poly = {}
    for monomial, c in poly.poly_of(offset).items():
        others = tuple(a for a in monomial if a is not axis)
        if any(_varies_along(axis, a) for a in others):
            return None
        if len(others) == len(monomial):
            rest[monomial] = c
        elif len(others) == len(monomial) - 1:
            stride[others] = stride.get(others, 0) + c
        else:
            return None
    return poly.expr_of(stride), poly.expr_of(rest)


def step_of(offset: Expr, axis: Expr) -> int | None:
    """The stride where it is a number from -1 to `NEAR`; points next to each other are worth a vector then."""
    step = 0
    for monomial, c in poly.poly_of(offset).items():
        if monomial == (axis,):
            step = c
        elif axis in monomial or any(_varies_along(axis, a) for a in monomial):
            return None
    return step if -1 <= step <= NEAR else None


def steps_of(kernel: Kernel) -> dict[Expr, tuple[Expr, tuple[Expr, ...]]] | None:
    """For each place that it loads from or stores to: (start, step along each axis), the same at all points. None where
    axes matter for anything else."""
    values = [e for s in kernel.stores for e in (s.value, s.guard) if e is not None]
    loads = [n for n in expr.walk(*values) if n.op == "load" and not n.attr.guarded]
    others = {n: expr.carry(k, n.dtype) for k, n in enumerate(loads)}  # each its own: a choice of two alike is none
    rest = [expr.substitute(v, others) for v in values]
    if kernel.seq is not None or any(n.op == "axis" for n in expr.walk(*rest)):
        return None
    found = {}
    for place in (*(s.offset for s in kernel.stores), *(n.args[0] for n in loads)):
        if (parts := poly.affine(place, kernel.axes)) is None:
            return None
        found[place] = parts
    return found


def _varies_along(axis: Expr, atom: Expr) -> bool:
    """Whether an atom that is not the axis itself differs from point to point of it. A carry may."""
    if atom.op in ("size", "axis"):
        return False
    return axis in expr.free_axes(atom) or any(n.op == "carry" for n in expr.walk(atom))


def _fresh(kernel: Kernel) -> Iterator[int]:
    """Numbers that no axis has."""
    taken = (node.attr for node in expr.walk(*kernel.roots()) if node.op == "axis")
    return itertools.count(1 + max(taken, default=-1))


Expansion = dict[Expr, tuple[tuple[Expr, ...], Expr]]
"""For an axis: the axes that take its place, and its value in them."""


def _changed(kernel: Kernel, expansion: Expansion) -> Kernel:
    """The kernel with axes expanded, and index arithmetic in normal form."""
    done: dict[Expr, Expr] = {}

    def places(axes: tuple[Expr, ...]) -> tuple[Expr, ...]:
        return tuple(new for a in axes for new in (expansion[a][0] if a in expansion else (a,)))

    def change(root: Expr) -> Expr:
        for node in expr.walk(root):
            if node in done:
                continue
            if node in expansion:
                done[node] = expansion[node][1]
                continue
            args = tuple(done[a] for a in node.args)
            if not is_index(node):
                args = tuple(
                    poly.simplify(new) if is_index(old) else new for old, new in zip(node.args, args, strict=True)
                )
            if node.op == "reduce":
                n = node.attr.axes
                done[node] = expr.reduce(node.attr.monoid, places(node.args[:n]), args[n:])
            elif node.op == "axis":
                done[node] = node
            else:
                done[node] = _by_blocks(expr.rebuild(node, args))
        return poly.simplify(done[root]) if is_index(root) else done[root]

    return replace(
        kernel,
        axes=places(tuple(a for a in kernel.axes if a.op == "axis")),
        carries=tuple(replace(c, init=change(c.init), update=change(c.update)) for c in kernel.carries),
        until=None if kernel.until is None else change(kernel.until),
        stores=tuple(
            replace(
                s,
                offset=change(s.offset),
                value=change(s.value),
                guard=None if s.guard is None else change(s.guard),
            )
            for s in kernel.stores
        ),
    )


def _by_blocks(node: Expr) -> Expr:
    """A comparison that has one outcome for all places of an inner axis without that axis: ``outer * 16 + inner < 32``
    as ``outer < 2``."""
    if node.op != "alu" or node.attr not in ("lt", "le") or not all(map(is_index, node.args)):
        return node
    left, right = node.args
    difference = poly.poly_of(right - left)
    sign = -1 if node.attr == "lt" else 1
    for monomial, c in difference.items():
        if len(monomial) == 1 and monomial[0].op == "axis" and c == sign and monomial[0].args[0].op == "const":
            block = monomial[0].args[0].attr
            rest = {m: k for m, k in difference.items() if m != monomial}
            if not any(k % block for k in rest.values()):
                whole = poly.expr_of({m: k // block for m, k in rest.items()})
                return expr.binary(node.attr, expr.index(0), whole)
    return node


# Splitting ------------------------------------------------------------------------------------------------------------


def _split(kernel: Kernel, axis: Expr, inner: Expr, numbers: Iterator[int]) -> tuple[Kernel, Expr]:
    outer = poly.simplify(axis.args[0] // inner)
    first, second = expr.raw_axis(next(numbers), outer), expr.raw_axis(next(numbers), inner)
    return _changed(kernel, {axis: ((first, second), first * inner + second)}), second


def _find_cut(kernel: Kernel) -> tuple[Expr, Expr] | None:
    """An axis, and the extent of the inner part that a quotient or remainder sees it in."""
    splittable = set(_loops(kernel))
    for node in expr.walk(*kernel.roots()):
        if node.op != "alu" or node.attr not in ("floordiv", "floormod") or not is_index(node):
            continue
        for monomial, c in poly.poly_of(node.args[0]).items():
            for axis in monomial:
                if axis in splittable and c > 0:
                    step = poly.expr_of({tuple(a for a in monomial if a is not axis): c})
                    inner = _exact(node.args[1], step)
                    if inner is not None and inner.op != "axis" and _cuts(axis.args[0], inner):
                        return axis, inner
    return None


def _find_part(kernel: Kernel) -> tuple[Expr, Expr] | None:
    """An axis, and the extent of an inner part that a quotient or remainder sees as one step: of 24 channels in blocks
    of 16, or of those that stand 24 behind, eight are together."""
    splittable = set(_loops(kernel))
    for node in expr.walk(*kernel.roots()):
        if node.op != "alu" or node.attr not in ("floordiv", "floormod") or node.args[1].op != "const":
            continue
        if not is_index(node) or node.args[1].attr <= 0:
            continue
        places = poly.poly_of(node.args[0])
        for monomial, c in places.items():
            if len(monomial) != 1 or monomial[0] not in splittable or monomial[0].args[0].op != "const" or c <= 0:
                continue
            together = gcd(node.args[1].attr, *(k for m, k in places.items() if m != monomial))
            extent = monomial[0].args[0].attr
            inner = gcd(together // c, extent) if together % c == 0 else 1
            if _LEAST_PART <= inner < extent:
                return monomial[0], expr.index(inner)
    return None


def _exact(x: Expr, d: Expr) -> Expr | None:
    """x / d where it is whole for all sizes."""
    if expr.free_axes(x, d):
        return None
    quotient = poly.simplify(x // d)
    return quotient if poly.same(quotient * d, x) else None


def _cuts(extent: Expr, inner: Expr) -> bool:
    outer = _exact(extent, inner)
    return outer is not None and not expr.is_const(outer, 1) and not expr.is_const(inner, 1)


def _loops(kernel: Kernel) -> Iterator[Expr]:
    for axes in _axis_lists(kernel):
        yield from axes


def _axis_lists(kernel: Kernel) -> list[tuple[Expr, ...]]:
    """The axes of the kernel and of each reduce."""
    lists = [tuple(a for a in kernel.axes if a.op == "axis")]  # an extent of 1 may have become a constant
    lists += [n.args[: n.attr.axes] for n in expr.walk(*kernel.roots()) if n.op == "reduce"]
    return list(dict.fromkeys(lists))


# Joining --------------------------------------------------------------------------------------------------------------


def _find_run(kernel: Kernel) -> tuple[Expr, Expr] | None:
    """Two neighbouring axes that every offset sees as one."""
    lists = _axis_lists(kernel)
    pairs = {pair for axes in lists for pair in itertools.pairwise(axes)}
    pinned, offsets = _uses(kernel)
    for a, b in sorted(pairs, key=lambda p: (p[1].attr, p[0].attr)):
        together = all((a, b) in itertools.pairwise(axes) for axes in lists if a in axes or b in axes)
        if together and a not in pinned and b not in pinned and all(_is_run(offset, a, b) for offset in offsets):
            return a, b
    return None


def _uses(kernel: Kernel) -> tuple[set[Expr], list[Expr]]:
    """The axes whose numbers matter as such, and all offsets."""
    pinned: set[Expr] = set()
    offsets = [s.offset for s in kernel.stores]
    stack = [e for c in kernel.carries for e in (c.init, c.update)] + [e for e in (kernel.until,) if e is not None]
    stack += [s.value for s in kernel.stores] + [s.guard for s in kernel.stores if s.guard is not None]
    seen: set[Expr] = set(stack)

    def visit(nodes: tuple[Expr, ...]) -> None:
        stack.extend(n for n in nodes if n not in seen)
        seen.update(nodes)

    for offset in offsets:
        visit(tuple(n for n in expr.walk(offset) if n.op == "load"))
    while stack:
        node = stack.pop()
        if node.op == "axis":
            pinned.add(node)
        elif node.op == "load":
            offsets.append(node.args[0])
            visit(node.args[1:])
            visit(tuple(n for n in expr.walk(node.args[0]) if n.op == "load"))
        else:
            visit(node.args[node.attr.axes :] if node.op == "reduce" else node.args)
    return pinned, offsets


def _is_run(offset: Expr, a: Expr, b: Expr) -> bool:
    """stride(a) == stride(b) * extent(b), where what is loaded to make the offset is looked at by itself."""
    strides: dict[Expr, poly.Poly] = {a: {}, b: {}}
    for monomial, c in poly.poly_of(offset).items():
        places = [k for k, atom in enumerate(monomial) if atom in strides]
        rest = tuple(atom for atom in monomial if atom not in strides)
        if len(places) > 1 or any({a, b} & _free_outside_loads(atom) for atom in rest):
            return False
        if places:
            strides[monomial[places[0]]][rest] = c
    return poly.same(poly.expr_of(strides[a]), poly.expr_of(strides[b]) * b.args[0])


def _free_outside_loads(node: Expr) -> set[Expr]:
    found: set[Expr] = set()
    stack = [node]
    while stack:
        n = stack.pop()
        if n.op == "axis":
            found.add(n)
        elif n.op != "load":
            stack.extend(n.args)
    return found
