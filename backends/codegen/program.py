"""Linearised kernels: structured SSA with typed values, loops that carry values, guarded loads and stores.

A dialect only prints this. Everything that needs thought (where a value is computed, accumulators, argmin's ties,
index width) has been decided by `omniop.backends.codegen.linearise`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from omniop.opset.dtype import DType
from omniop.opset.expr import Expr
from omniop.opset.kernel import Param


@dataclass(frozen=True, eq=False)
class Var:
    """An SSA value, defined once: by a statement, as a loop's index or carried value, or as a grid axis.

    Numbers are unique within a program.
    """

    number: int
    dtype: DType


@dataclass(frozen=True)
class Const:
    """``value`` in ``dtype``: bool, int in range, or a float that may still need rounding to ``dtype``."""

    value: bool | int | float
    dtype: DType


Operand = Var | Const


@dataclass(frozen=True, eq=False)
class Let:
    """``var = op(args)``.

    ``op``: a name of `alu.ALU`, or "cast", "bitcast", "select" (condition, x, y), "size" (``attr`` is the number of
    the size argument, an int64 to be narrowed to ``var.dtype``).
    ``exact``: integer index arithmetic that cannot overflow (LLVM's nsw) and whose operands of floordiv and floormod
    have a divisor above zero. Where ``exact`` is false integers wrap, and division has the edges of `alu`.
    ``nonnegative`` (floordiv, floormod with ``exact``): the dividend is at least 0.
    """

    var: Var
    op: str
    args: tuple[Operand, ...]
    attr: int = 0
    exact: bool = False
    nonnegative: bool = False


@dataclass(frozen=True, eq=False)
class Load:
    """``var = guard ? buffer[offset] : other``; memory is touched only where ``guard`` holds (None: always).

    ``offset`` counts elements and has the program's index dtype. ``fault`` above 0 goes to the error word where the
    guard fails. ``index`` is the offset as an expression, for `poly.affine` over the loops' ``axis`` nodes.
    """

    var: Var
    buffer: int
    offset: Operand
    guard: Operand | None
    other: Operand | None
    fault: int
    index: Expr


@dataclass(frozen=True, eq=False)
class Store:
    """``buffer[offset] = value`` where ``guard`` holds (None: always).

    ``combine`` (add, mul, min, max of `alu`, in the buffer's dtype): ``combine(buffer[offset], value)`` is stored;
    ``atomic`` says that other work items may be at the same element.
    """

    buffer: int
    offset: Operand
    value: Operand
    guard: Operand | None
    combine: str | None
    atomic: bool
    fault: int
    index: Expr


@dataclass(frozen=True, eq=False)
class Carried:
    """A value carried around a loop: ``var`` is ``init`` before the first step and ``update`` after each; all of a
    loop's updates happen at once, at the end of a step. After the loop ``var`` is the final value."""

    var: Var
    init: Operand
    update: Operand


@dataclass(frozen=True, eq=False)
class Reduction:
    """Tells that ``carried[first : first + count]`` of a loop accumulates ``monoid``, started from its identity.

    So the loop may be split and the parts joined by `linearise.combine`. ``count`` is 2 for argmin and argmax, whose
    accumulator is (value, index).
    """

    monoid: str
    first: int
    count: int = 1


@dataclass(frozen=True, eq=False)
class Loop:
    """``for index in 0 .. extent - 1: body``, at least once.

    ``lanes``: the steps are dealt out to the lanes of the work group: index runs from the lane's number in steps of the
    program's ``lanes``. Every carried value is then part of a reduction, and after the loop holds it over all lanes, in
    all lanes. Such a loop is never inside another one with ``lanes``; control flow around it is uniform.
    ``axis``: the axis node the index stands for; None when several axes were flattened into this loop.
    ``ordered``: steps must run in order (a sequential axis); otherwise only the carried values order them.
    ``until``: a value of the body; the step in which it is true is the last one.
    """

    index: Var
    extent: Operand
    body: tuple[Stmt, ...]
    carried: tuple[Carried, ...] = ()
    reductions: tuple[Reduction, ...] = ()
    axis: Expr | None = None
    lanes: bool = False
    ordered: bool = False
    until: Operand | None = None


Stmt = Let | Load | Store | Loop


@dataclass(frozen=True, eq=False)
class GridAxis:
    """A parallel axis: ``var`` runs over 0 .. extent - 1. ``axis`` is its node."""

    var: Var
    extent: Operand
    axis: Expr


@dataclass(frozen=True, eq=False)
class Program:
    """For every point of ``grid``, in any order and in parallel: ``body``. The last axis of ``grid`` runs fastest.

    ``prologue`` holds what depends on size arguments alone; ``grid``'s extents are defined there. With ``lanes`` above
    1 a work group of that many lanes shares a point: all run the body, loops marked ``lanes`` are dealt out among them.
    ``error`` is the number of the error word's buffer. ``index`` is the dtype of offsets and loop indices.
    """

    params: tuple[Param, ...]
    sizes: int
    prologue: tuple[Stmt, ...]
    grid: tuple[GridAxis, ...]
    body: tuple[Stmt, ...]
    index: DType
    lanes: int = 1
    error: int | None = None
    items: tuple[Expr, ...] = field(default=())
    """Extents of ``grid`` as expressions over sizes; their product is the number of points."""

    def walk(self) -> Iterator[Stmt]:
        """Every statement, a loop before its body."""
        stack = [*reversed(self.body), *reversed(self.prologue)]
        while stack:
            stmt = stack.pop()
            yield stmt
            if isinstance(stmt, Loop):
                stack.extend(reversed(stmt.body))
