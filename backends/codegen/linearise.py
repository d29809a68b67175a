"""From a kernel and a schedule to a program: every value once, as far out as its axes allow.

The dataclasses of the result are in `omniop.backends.codegen.program`.

An expression node becomes one statement, in the outermost loop that binds its free axes; a reduce becomes a loop with
accumulators (argmin and argmax: a pair, with the NaN and tie rules spelled out in Lets), a sequential axis a loop with
carries. Reduces over the same axes that do not wait for each other share a loop. Control flow exists only in loops,
guarded loads and guarded stores: both sides of a select are computed.

With 32-bit indices, whatever is made of sizes, axes and constants alone is computed in int32 and widened where it
becomes data; the rest of an offset (a loaded index times a stride) is computed modulo 2**32. The caller has made sure
that `indexing.fits32` holds and that no buffer has 2**31 elements.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from omniop.backends.codegen.indexing import is_index, size_number
from omniop.backends.codegen.program import (
    Carried,
    Const,
    GridAxis,
    Let,
    Load,
    Loop,
    Operand,
    Program,
    Reduction,
    Stmt,
    Store,
    Var,
)
from omniop.backends.codegen.schedule import Schedule
from omniop.opset import expr, poly
from omniop.opset.dtype import BOOL, INT32, INT64, DType
from omniop.opset.expr import Expr
from omniop.opset.kernel import Kernel
from omniop.opset.kernel import Store as KernelStore
from omniop.opset.prims import identity


def linearise(kernel: Kernel, schedule: Schedule, index_bits: int = 32) -> Program:
    """The program of a legal ``kernel`` under ``schedule``."""
    return _KernelWriter(kernel, schedule, INT32 if index_bits == 32 else INT64).program()


def linearise_expr(
    roots: Sequence[Expr], bound: Mapping[Expr, Var], index_bits: int = 64, first: int = 0
) -> tuple[tuple[Stmt, ...], tuple[Operand, ...]]:
    """Statements that compute ``roots`` (an epilogue) where ``bound`` names the values of axis and hole nodes.

    Bound axes have the index dtype. ``first`` is the number of the first new Var.
    """
    writer = _Writer(INT32 if index_bits == 32 else INT64, first)
    writer.learn(roots)
    scope = _Scope(None, {_GRID: None, **bound})
    operands = tuple(writer.value(root, scope) for root in roots)
    return tuple(scope.stmts), operands


def combine(
    monoid: str, x: Sequence[Operand], y: Sequence[Operand], let: Callable[..., Operand]
) -> tuple[Operand, ...]:
    """One step of a reduction: ``x`` and ``y`` are a value each, or (value, index) for argmin and argmax.

    ``let(op, dtype, *args)`` writes an alu operation or a select and gives its result.
    """
    if monoid not in ("argmin", "argmax"):
        return (let(monoid, x[0].dtype, x[0], y[0]),)
    (xv, xi), (yv, yi) = x, y
    better = let("lt", BOOL, *((xv, yv) if monoid == "argmax" else (yv, xv)))
    equal = let("eq", BOOL, xv, yv)
    if xv.dtype.is_float:  # the first NaN beats every number
        x_nan, y_nan = let("isnan", BOOL, xv), let("isnan", BOOL, yv)
        better = let("or", BOOL, better, let("and", BOOL, y_nan, let("not", BOOL, x_nan)))
        equal = let("or", BOOL, equal, let("and", BOOL, x_nan, y_nan))
    take = let("or", BOOL, better, let("and", BOOL, equal, let("lt", BOOL, yi, xi)))
    return let("select", xv.dtype, take, yv, xv), let("select", xi.dtype, take, yi, xi)


def identities(monoid: str, dtypes: Sequence[DType]) -> tuple[Const, ...]:
    """What an accumulator starts from, and what joins with anything to give it back."""

    def start(name: str, dtype: DType) -> Const:
        return Const(expr.const(identity(name, dtype), dtype).attr, dtype)

    if monoid not in ("argmin", "argmax"):
        return (start(monoid, dtypes[0]),)
    value, index = dtypes
    return start(monoid[3:], value), start("min", index)


class _Scope:
    """A block being written. ``bound``: the axis and hole nodes whose value it defines, and `_GRID`."""

    def __init__(self, parent: _Scope | None, bound: Mapping[Expr, Var | None], uniform: bool = False) -> None:
        self.parent = parent
        self.bound = set(bound)
        self.uniform = uniform
        """All lanes of a work group come here together."""
        self.stmts: list[Stmt] = []
        self.values: dict[Expr, Operand] = {node: var for node, var in bound.items() if var is not None}
        self.converted: dict[tuple[Expr, DType], Operand] = {}
        """Values in another dtype: index arithmetic as data, and data as part of an offset."""


_GRID = expr.raw_axis(-1, expr.const(1, INT64))
"""Stands for being inside the grid, where memory may be read."""

_NO_AXES: frozenset[Expr] = frozenset()


class _Writer:
    """Writes expressions into scopes."""

    def __init__(self, index: DType, first: int = 0) -> None:
        self.index = index
        self._next = first
        self._needs: dict[Expr, frozenset[Expr]] = {}
        """Axes (or `_GRID`, or the sequential axis) that must be bound before a node can be computed."""
        self._inside: dict[Expr, frozenset[Expr]] = {}
        """Reduces in a node, itself included."""
        self._open: set[Expr] = set()
        """Reduces that are being written."""
        self.outer: frozenset[Expr] = _NO_AXES
        """Axes bound by loops that are not of reduces."""
        self.seq: Expr | None = None
        self.written: frozenset[int] = frozenset()
        self.volatile: set[Expr] = set()
        """What changes when memory is written: it is computed anew after a store."""

    # What nodes need ----------------------------------------------------------------------------------------------

    def learn(self, roots: Sequence[Expr]) -> None:
        for node in expr.walk(*roots):
            if node in self._needs:
                continue
            needs = _NO_AXES.union(*(self._needs[a] for a in node.args))
            inside = _NO_AXES.union(*(self._inside[a] for a in node.args))
            if node.op in ("axis", "hole"):
                needs = frozenset((node,))
            elif node.op == "reduce":
                axes = node.args[: node.attr.axes]
                needs = (needs - frozenset(axes)).union((_GRID,), *(self._needs[a.args[0]] for a in axes))
                inside |= {node}
            elif node.op == "load":
                needs |= {_GRID}
            if self.seq is not None and (
                node.op == "carry" or (node.op == "load" and node.attr.source in self.written)
            ):
                needs |= {self.seq}
            if (node.op == "load" and node.attr.source in self.written) or any(a in self.volatile for a in node.args):
                self.volatile.add(node)
            self._needs[node], self._inside[node] = needs, inside

    def home(self, node: Expr, scope: _Scope) -> _Scope:
        """The outermost scope around ``scope`` where ``node`` can be computed."""
        needs = self._needs[node]
        while scope.parent is not None and not scope.bound & needs:
            scope = scope.parent
        return scope

    # Statements ---------------------------------------------------------------------------------------------------

    def var(self, dtype: DType) -> Var:
        self._next += 1
        return Var(self._next - 1, dtype)

    def let(self, scope: _Scope, op: str, dtype: DType, *args: Operand, **facts: bool | int) -> Var:
        var = self.var(dtype)
        scope.stmts.append(Let(var, op, args, **facts))  # type: ignore[arg-type]
        return var

    def dtype_of(self, node: Expr) -> DType:
        """The dtype a node's value has in the program."""
        return self.index if is_index(node) else node.dtype

    def value(self, root: Expr, scope: _Scope, dtype: DType | None = None) -> Operand:
        """``root`` as an operand; in ``dtype``, where index arithmetic has another one than its expression."""
        if root.op == "const":
            return Const(root.attr, dtype or self.dtype_of(root))
        home = self.home(root, scope)
        found = home.values.get(root)
        if found is None:
            self._compute(root, scope)
            found = home.values[root]
        return found if dtype is None or found.dtype is dtype else self._converted(root, found, dtype, home)

    def _compute(self, root: Expr, scope: _Scope) -> None:
        stack = [root]
        while stack:
            node = stack[-1]
            home = self.home(node, scope)
            missing = [] if node in home.values else self._missing(node, scope)
            stack.extend(missing)
            if missing:
                continue
            stack.pop()
            if node in home.values:
                continue
            if node.op == "reduce":
                self._reduce(node, home)
            else:
                home.values[node] = self._define(node, home)

    def _missing(self, node: Expr, scope: _Scope) -> list[Expr]:
        """Operands that are not there yet. The loops of a reduce and the offset of a load are written with them."""
        if node.op in ("reduce", "axis"):
            return []
        operands = node.args[1:] if node.op == "load" else node.args
        return [a for a in reversed(operands) if a.op != "const" and a not in self.home(a, scope).values]

    def _converted(self, node: Expr, found: Operand, dtype: DType, home: _Scope) -> Operand:
        if (node, dtype) not in home.converted:
            home.converted[node, dtype] = self.let(home, "cast", dtype, found)
        return home.converted[node, dtype]

    def _define(self, node: Expr, home: _Scope) -> Operand:
        dtype = self.dtype_of(node)
        if node.op == "size":
            return self.let(home, "size", dtype, attr=size_number(node))
        if node.op == "alu":
            return self._alu(node, dtype, home)
        if node.op == "cast":
            source = self.value(node.args[0], home)
            return source if source.dtype is dtype else self.let(home, "cast", dtype, source)
        if node.op == "bitcast":
            return self.let(home, "bitcast", dtype, self.value(node.args[0], home, node.args[0].dtype))
        if node.op == "select":
            condition = self.value(node.args[0], home)
            x, y = (self.value(a, home, dtype) for a in node.args[1:])
            return self.let(home, "select", dtype, condition, x, y)
        if node.op == "load":
            return self._load(node, home)
        raise ValueError(f"{node!r} ({node.op}) has no value here")

    def _alu(self, node: Expr, dtype: DType, home: _Scope) -> Operand:
        exact = is_index(node) or (node.dtype is BOOL and all(is_index(a) for a in node.args))
        taken = self.index if exact else node.args[0].dtype
        args = [self.value(a, home, taken) for a in node.args]
        divides = node.attr in ("floordiv", "floormod")
        nonnegative = exact and divides and poly.nonnegative(node.args[0])
        return self.let(home, node.attr, dtype, *args, exact=exact, nonnegative=nonnegative)

    def _load(self, node: Expr, home: _Scope) -> Operand:
        (index,), guard, other = expr.load_parts(node)
        offset = self.offset(index, home)
        condition = None if guard is None else self.value(guard, home)
        instead = None if other is None else self.value(other, home, node.dtype)
        var = self.var(node.dtype)
        home.stmts.append(Load(var, node.attr.source, offset, condition, instead, node.attr.fault, index))
        return var

    def offset(self, node: Expr, scope: _Scope) -> Operand:
        """``node`` in the index dtype, right where it lies inside a buffer."""
        if self.index is INT64 or is_index(node):
            return self.value(node, scope, self.index)
        home = self.home(node, scope)
        if (node, self.index) not in home.converted:
            home.converted[node, self.index] = self._wrapped(node, home)
        return home.converted[node, self.index]

    def _wrapped(self, node: Expr, home: _Scope) -> Operand:
        """``node`` modulo 2**32."""
        if node.op == "alu" and node.attr in ("add", "sub", "mul", "neg"):
            return self.let(home, node.attr, self.index, *(self.offset(a, home) for a in node.args))
        if node.op == "select":
            condition = self.value(node.args[0], home)
            return self.let(home, "select", self.index, condition, *(self.offset(a, home) for a in node.args[1:]))
        source = node.args[0] if node.op == "cast" and node.args[0].dtype.is_int else node
        found = self.value(source, home)
        return found if found.dtype is self.index else self.let(home, "cast", self.index, found)

    # Reduces ------------------------------------------------------------------------------------------------------

    def _together(self, node: Expr, home: _Scope) -> list[Expr]:
        """Reduces that can run in the loop of ``node``: over its axes, at its place, and not waiting for it."""
        group = [node]
        axes, needs = node.args[: node.attr.axes], self._needs[node]
        if not needs - {_GRID} <= self.outer:
            return group
        for other in self._inside:
            if other.op != "reduce" or other.args[: other.attr.axes] != axes or self._needs[other] != needs:
                continue
            taken = other in self._open or other in group or other in home.values
            waits = self._inside[other] & (self._open | {*group})
            if not taken and not waits and not any(other in self._inside[g] for g in group):
                group.append(other)
        return group

    def _reduce(self, node: Expr, home: _Scope) -> None:
        group = self._together(node, home)
        self._open.update(group)
        nest = _Nest(self, home, node.args[: node.attr.axes], lanes=home.uniform)
        for reduce in group:
            nest.accumulate(reduce.attr.monoid, reduce.args[reduce.attr.axes :])
        results = nest.close()
        self._open.difference_update(group)
        for reduce, result in zip(group, results, strict=True):
            if result.dtype is not reduce.dtype:  # the index of argmin or argmax, kept narrow so far
                result = self.let(home, "cast", reduce.dtype, result)
            home.values[reduce] = result

    # Spaces -------------------------------------------------------------------------------------------------------

    def product(self, scope: _Scope, extents: Sequence[Operand]) -> Operand:
        result: Operand = Const(1, self.index)
        for extent in extents:
            if isinstance(result, Const) and isinstance(extent, Const):
                result = Const(int(result.value) * int(extent.value), self.index)
            elif isinstance(result, Const) and result.value == 1:
                result = extent
            else:
                result = self.let(scope, "mul", self.index, result, extent, exact=True)
        return result

    def places(self, scope: _Scope, point: Var, extents: Sequence[Operand]) -> list[Operand]:
        """The index along each axis of a flattened space; the last axis runs fastest."""
        rest: Operand = point
        places: list[Operand] = []
        for extent in reversed(extents[1:]):
            facts = {"exact": True, "nonnegative": True}
            places.append(self.let(scope, "floormod", self.index, rest, extent, **facts))
            rest = self.let(scope, "floordiv", self.index, rest, extent, **facts)
        return [rest, *reversed(places)]


@dataclass
class _Level:
    """A loop of a nest. ``vars`` are its carried values."""

    scope: _Scope
    index: Var
    extent: Operand
    axis: Expr | None
    vars: list[Var] = field(default_factory=list)


class _Nest:
    """Loops over ``axes`` inside ``home`` with accumulators. With ``lanes`` they are one loop, flattened."""

    def __init__(self, writer: _Writer, home: _Scope, axes: Sequence[Expr], lanes: bool) -> None:
        self._writer = writer
        self._home = home
        self._lanes = lanes
        self._levels: list[_Level] = []
        self._inits: list[Operand] = []
        self._updates: list[Operand] = []
        self._reductions: list[Reduction] = []
        for together in [tuple(axes)] if lanes else [(a,) for a in axes]:
            self._open(together)

    @property
    def inner(self) -> _Scope:
        return self._levels[-1].scope if self._levels else self._home

    def _open(self, axes: tuple[Expr, ...]) -> None:
        writer, parent = self._writer, self.inner
        extents = [writer.value(a.args[0], parent, writer.index) for a in axes]
        extent = writer.product(parent, extents)
        index = writer.var(writer.index)
        scope = _Scope(parent, dict.fromkeys(axes), uniform=parent.uniform and not self._lanes)
        for axis, place in zip(axes, writer.places(scope, index, extents), strict=True):
            scope.values[axis] = place
        self._levels.append(_Level(scope, index, extent, axes[0] if len(axes) == 1 else None))

    def accumulate(self, monoid: str, values: Sequence[Expr]) -> None:
        """Reduce ``values`` of the innermost step."""
        writer, inner = self._writer, self.inner
        narrow = monoid in ("min", "max", "argmin", "argmax")  # sums of indices need more bits than indices
        operands = [writer.value(v, inner, writer.dtype_of(v) if narrow else v.dtype) for v in values]
        for level in self._levels:
            level.vars.extend(writer.var(o.dtype) for o in operands)
        self._reductions.append(Reduction(monoid, len(self._inits), len(operands)))
        self._inits.extend(identities(monoid, [o.dtype for o in operands]))
        accumulated = self._levels[-1].vars[-len(operands) :]
        self._updates.extend(combine(monoid, accumulated, operands, partial(writer.let, inner)))

    def close(self) -> list[Operand]:
        """Write the loops into ``home``; the results of the reductions, in order."""
        for number in range(len(self._levels) - 1, -1, -1):
            level = self._levels[number]
            last = number == len(self._levels) - 1
            inits = self._levels[number - 1].vars if number else self._inits
            updates = self._updates if last else self._levels[number + 1].vars
            carried = tuple(Carried(v, i, u) for v, i, u in zip(level.vars, inits, updates, strict=True))
            parent = level.scope.parent
            assert parent is not None
            parent.stmts.append(
                Loop(
                    level.index,
                    level.extent,
                    tuple(level.scope.stmts),
                    carried,
                    tuple(self._reductions),
                    level.axis,
                    self._lanes,
                )
            )
        return [self._levels[0].vars[r.first + r.count - 1] for r in self._reductions]


class _KernelWriter(_Writer):
    """Writes a whole kernel."""

    def __init__(self, kernel: Kernel, schedule: Schedule, index: DType) -> None:
        super().__init__(index)
        self._kernel = kernel
        self._schedule = schedule
        self.seq = kernel.seq
        self.written = frozenset(k for k, p in enumerate(kernel.params) if p.written)
        self.outer = frozenset((*kernel.axes, *(() if kernel.seq is None else (kernel.seq,))))
        self.learn(tuple(kernel.roots()))

    def program(self) -> Program:
        kernel, schedule = self._kernel, self._schedule
        kinds = {a: kind for a, kind in zip(kernel.axes, schedule.kinds, strict=True) if a.op == "axis"}
        parallel, serial, group = ([a for a in kinds if kinds[a] == k] for k in ("parallel", "serial", "group"))
        prologue = _Scope(None, {})
        grid = [GridAxis(self.var(self.index), self.value(a.args[0], prologue, self.index), a) for a in parallel]
        body = _Scope(prologue, {_GRID: None, **{g.axis: g.var for g in grid}}, uniform=schedule.lanes > 1)
        scope = body
        nests: list[_Nest] = []
        for axes, lanes in ((serial, False), (group, True)):
            if axes:
                nests.append(_Nest(self, scope, axes, lanes))
                scope = nests[-1].inner
        self._steps(scope)
        for nest in reversed(nests):
            nest.close()
        return Program(
            params=kernel.params,
            sizes=kernel.sizes,
            prologue=tuple(prologue.stmts),
            grid=tuple(grid),
            body=tuple(body.stmts),
            index=self.index,
            lanes=schedule.lanes,
            error=kernel.error,
            items=tuple(a.args[0] for a in parallel),
        )

    def _steps(self, scope: _Scope) -> None:
        """The stores, inside the sequential axis if there is one, or after it when it is a fold."""
        kernel = self._kernel
        if kernel.seq is None:
            for store in kernel.stores:
                self._store(store, scope)
            return
        one_step = kernel.seq.op != "axis"  # an axis of extent 1 is the constant 0
        extent = Const(1, self.index) if one_step else self.value(kernel.seq.args[0], scope, self.index)
        index = self.var(self.index)
        carries = [self.var(c.dtype) for c in kernel.carries]
        inits = [self.value(c.init, scope, c.dtype) for c in kernel.carries]
        bound = {kernel.seq: index, **{expr.carry(k, v.dtype): v for k, v in enumerate(carries)}}
        step = _Scope(scope, bound, uniform=scope.uniform)
        for store in kernel.stores if kernel.until is None else ():
            self._store(store, step)
        updates = [self.value(c.update, step, c.dtype) for c in kernel.carries]
        until = None if kernel.until is None else self._written(kernel.after_step(), step)
        carried = tuple(Carried(v, i, u) for v, i, u in zip(carries, inits, updates, strict=True))
        scope.stmts.append(Loop(index, extent, tuple(step.stmts), carried, axis=kernel.seq, ordered=True, until=until))
        if kernel.until is not None:
            after = _Scope(scope, bound, uniform=scope.uniform)
            for store in kernel.stores:
                self._store(store, after)
            scope.stmts += after.stmts

    def _written(self, condition: Expr, scope: _Scope) -> Operand:
        """The value of an expression that is none of the kernel's own."""
        self.learn((condition,))
        return self.value(condition, scope)

    def _store(self, store: KernelStore, scope: _Scope) -> None:
        """In the outermost loop that has its values: points that differ in other axes would store the same again."""
        roots = [r for r in (store.offset, store.value, store.guard) if r is not None]
        if store.combine is None and self.seq is None:
            needs = frozenset((_GRID,)).union(*(self._needs[r] for r in roots))
            while not scope.bound & needs:
                assert scope.parent is not None
                scope = scope.parent
        guard = None if store.guard is None else self.value(store.guard, scope)
        value = self.value(store.value, scope, self._kernel.params[store.buffer].dtype)
        offset = self.offset(store.offset, scope)
        atomic = store.combine is not None and any(kind != "serial" for kind in self._schedule.kinds)
        scope.stmts.append(Store(store.buffer, offset, value, guard, store.combine, atomic, store.fault, store.offset))
        self._forget(scope)

    def _forget(self, scope: _Scope | None) -> None:
        """Values that depend on memory this kernel writes are stale after a store."""
        while scope is not None and self.volatile:
            for node in self.volatile & scope.values.keys():
                del scope.values[node]
            for key in [k for k in scope.converted if k[0] in self.volatile]:
                del scope.converted[key]
            scope = scope.parent
