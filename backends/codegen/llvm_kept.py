"""What a reduce computes on its way and the row needs again, kept in the output until the row is written.

``exp(x[i, j] - m) / sum_k exp(x[i, k] - m)``: the sum has computed every exponential of the row. It stores each where
the quotient will go, and the quotient reads it back from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from omniop.opset import expr, poly
from omniop.opset.alu import ALU
from omniop.opset.expr import Expr
from omniop.opset.kernel import Kernel, Store

_DEAR = 16
"""Cost (see `alu.AluOp`) from which an operation is worth a store and a load."""


@dataclass(frozen=True)
class Kept:
    """``reduce`` stores ``value``, over its own axis, at ``offset`` of the kernel's only store; ``kernel`` reads it
    there."""

    reduce: Expr
    value: Expr
    offset: Expr
    buffer: int
    kernel: Kernel


def find(
    kernel: Kernel,
    order: tuple[Expr, ...],
    parallel: int,
    lanes: Mapping[Expr | None, Expr | None],
    free: Mapping[Expr, frozenset[Expr]],
) -> Kept | None:
    """A value worth keeping, when one axis is left inside the range and it and the reduce both run along the lanes."""
    row = lanes[None]
    if row is None or order[parallel:] != (row,) or kernel.seq is not None or len(kernel.stores) != 1:
        return None
    (store,) = kernel.stores
    if store.guard is not None or store.combine or not _dense(store.offset, order):
        return None
    for reduce in _outside_reduces(store.value):
        if reduce.op != "reduce" or reduce.attr.axes != 1 or row in free[reduce] or lanes[reduce] is not reduce.args[0]:
            continue
        axis = reduce.args[0]
        shared = _shared(reduce, row, store, free) if poly.same(axis.args[0], row.args[0]) else None
        if shared is not None:
            value, along_row = shared
            there = poly.simplify(expr.substitute(store.offset, {row: axis}))
            read = expr.load(store.buffer, (store.offset,), value.dtype)
            reading = replace(store, value=expr.substitute(store.value, {along_row: read}))
            return Kept(reduce, value, there, store.buffer, replace(kernel, stores=(reading,)))
    return None


def _shared(reduce: Expr, row: Expr, store: Store, free: Mapping[Expr, frozenset[Expr]]) -> tuple[Expr, Expr] | None:
    """The largest dear part of a reduce's value that the store needs too: over the reduce's axis, and along the row."""
    axis, value = reduce.args[0], reduce.args[-1]
    along_row = _renamed(value, axis, row, free)
    needed = set(_outside_reduces(store.value))
    stack = [value]
    while stack:
        node = stack.pop()
        if axis in free[node] and node.dtype is store.value.dtype and along_row[node] in needed and _dear(node):
            return node, along_row[node]
        if node.op != "reduce":
            stack.extend(node.args)
    return None


def _renamed(root: Expr, axis: Expr, row: Expr, free: Mapping[Expr, frozenset[Expr]]) -> dict[Expr, Expr]:
    """Every part of an expression with the axis replaced, offsets in normal form."""
    done: dict[Expr, Expr] = {}
    for node in expr.walk(root):
        if node is axis:
            done[node] = row
        elif axis not in free[node]:
            done[node] = node
        else:
            args = tuple(done[a] for a in node.args)
            done[node] = expr.rebuild(node, (poly.simplify(args[0]), *args[1:]) if node.op == "load" else args)
    return done


def _outside_reduces(root: Expr) -> Iterator[Expr]:
    """The parts of an expression, reduces included and their bodies not."""
    seen = {root}
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        if node.op != "reduce":
            stack.extend(a for a in node.args if a not in seen)
            seen.update(node.args)


def _dear(root: Expr) -> bool:
    return any(n.op == "alu" and ALU[n.attr].cost >= _DEAR for n in _outside_reduces(root))


def _dense(offset: Expr, axes: tuple[Expr, ...]) -> bool:
    """Whether no two points share an offset: the strides are those of a contiguous array, in some order of its axes."""
    parts = poly.affine(offset, axes)
    if parts is None:
        return False
    left = list(zip(axes, parts[1], strict=True))
    expected = expr.index(1)
    while left:
        found = next((pair for pair in left if poly.same(pair[1], expected)), None)
        if found is None:
            return False
        left.remove(found)
        expected = expected * found[0].args[0]
    return True
