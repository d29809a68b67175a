"""Kernels that differ in extents and strides alone, as one: these numbers are arguments of it.

What code is made of them stays as it is: `llvm_nest` has decided with the numbers known.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from omniop.backends.codegen.axes import NEAR, steps_of
from omniop.backends.codegen.llvm_nest import Nest
from omniop.opset import expr, poly
from omniop.opset.expr import Expr

_SHORT, _LONG = 16, 64
"""Lanes of an axis that code is made for: up to the one where there is no other axis, below the other one else."""


def shared(nest: Nest) -> tuple[Nest, tuple[int, ...]]:
    """The nest with its numbers as size arguments, and these; for kernels without sizes whose axes only step through
    memory."""
    kernel = nest.kernel
    steps = None if kernel.sizes else steps_of(kernel)
    if steps is None:
        return nest, ()
    numbers: list[int] = []

    def argument(number: Expr, scalar: str = "") -> Expr:
        numbers.append(number.attr)
        return expr.size(f"{scalar}s{len(numbers) - 1}")

    def changed(axis: Expr) -> Expr:
        extent = axis.args[0]
        few = extent.attr <= _SHORT if kernel.axes == (axis,) else extent.attr < _LONG
        known = axis is nest.block or (axis is nest.lanes[None] and few)
        return axis if known else expr.raw_axis(axis.attr, argument(extent))

    axes = {a: changed(a) for a in kernel.axes if a.op == "axis"}

    @cache
    def place(start: Expr, along: tuple[Expr, ...]) -> Expr:
        result = start
        for axis, step in zip(kernel.axes, along, strict=True):
            if axis in axes:
                known = abs(step.attr) <= NEAR
                result = result + axes[axis] * (step if known else argument(step, expr.SCALAR))
        return poly.simplify(result)

    def value(root: Expr) -> Expr:
        loads = [n for n in expr.walk(root) if n.op == "load" and not n.attr.guarded]
        return expr.substitute(root, {n: expr.load(n.attr.source, (place(*steps[n.args[0]]),), n.dtype) for n in loads})

    stores = tuple(
        replace(
            s, offset=place(*steps[s.offset]), value=value(s.value), guard=None if s.guard is None else value(s.guard)
        )
        for s in kernel.stores
    )
    order = tuple(axes.get(a, a) for a in nest.order)
    lanes = {k: None if a is None else axes.get(a, a) for k, a in nest.lanes.items()}
    made = replace(kernel, axes=tuple(axes.get(a, a) for a in kernel.axes), stores=stores, sizes=len(numbers))
    return replace(nest, kernel=made, order=order, lanes=lanes), tuple(numbers)
