"""Long sums in parts, each added up by itself: what is rounded off grows with a part's length and the number of parts,
and not with their product.

N. J. Higham, "The accuracy of floating point summation", 1993: the first step of pairwise summation.
"""

from __future__ import annotations

from dataclasses import replace

from omniop.backends.codegen.schedule import SHORT
from omniop.opset import expr
from omniop.opset.expr import Expr
from omniop.opset.kernel import Kernel

LONG = 512
"""Sums that are known to have fewer terms stay whole."""

_MOST = 64
"""Terms of a part."""


def in_parts(kernel: Kernel) -> Kernel:
    """The kernel with its sums of `LONG` and more floats, or of an open number of them, over one axis, in parts."""
    roots = [s.value for s in kernel.stores]
    if not any(_is_long(n) for n in expr.walk(*roots)):
        return kernel
    above = 1 + max(n.attr for n in expr.walk(*kernel.roots()) if n.op == "axis")
    axes: dict[Expr, int] = {}
    done: dict[Expr, Expr] = {}
    for node in expr.walk(*roots):
        new = expr.rebuild(node, tuple(done[a] for a in node.args))
        if _is_long(new):
            new = _split(new, above + 3 * axes.setdefault(new.args[0], len(axes)))
        done[node] = new
    return replace(kernel, stores=tuple(replace(s, value=done[s.value]) for s in kernel.stores))


def _is_long(node: Expr) -> bool:
    if node.op != "reduce" or node.attr.monoid != "add" or node.attr.axes != 1 or not node.dtype.is_float:
        return False
    extent = node.args[0].args[0]
    return extent.op != "const" or bool(extent.attr >= LONG)


def _split(total: Expr, number: int) -> Expr:
    """A long sum by axes numbered from ``number``: parts, a part's terms, and what is left."""
    axis, value = total.args
    extent = axis.args[0]
    size = _part(extent.attr) if extent.op == "const" else _MOST
    if size is None:
        return total
    count, left = extent // size, extent % size
    parts, terms = expr.axis(number, count), expr.axis(number + 1, size)
    part = expr.reduce("add", (terms,), (expr.substitute(value, {axis: parts * size + terms}),))
    most = expr.reduce("add", (parts,), (part,))
    if expr.is_const(left, 0):
        return most
    rest = expr.axis(number + 2, left)
    return most + expr.reduce("add", (rest,), (expr.substitute(value, {axis: rest + count * size}),))


def _part(extent: int) -> int | None:
    """Terms of a part: as many as fit without a rest, or with one that a schedule does not take for a short sum."""
    sizes = [size for size in range(_MOST, SHORT, -1) if extent // size > SHORT]
    whole = (size for size in sizes if extent % size == 0)
    return next(whole, None) or next((size for size in sizes if extent % size > SHORT), None)
