"""Kernels printed as LLVM IR functions with explicit vectors.

A kernel is printed from its expressions and not from `linearise`'s program: a vector body is printed twice (in
the main loop and, masked and narrower, for what is left), the loops stand in an order of `llvm_nest`'s choosing, and
a reduce may have lanes of its own. What `linearise` does, each value once and as far out as its axes allow,
`Printer.value` does here for whichever loops are open.

The function printed is ``i64 name(ptr buffers, ptr sizes, i64 begin, i64 end)``: an array of buffer addresses, an
array of int64 sizes, and a range of the points of `Nest.parallel` axes. It gives the number of points there are, and
does nothing else when ``end`` is negative.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from omniop.backends.codegen import llvm_vector
from omniop.backends.codegen.llvm_access import Accesses
from omniop.backends.codegen.llvm_ir import Loop, Module, Section, Value, const, index, iota
from omniop.backends.codegen.llvm_nest import Nest, Width, free_axes, plan
from omniop.backends.codegen.llvm_shared import shared
from omniop.backends.codegen.llvm_signature import Printed
from omniop.backends.codegen.llvm_values import Scope
from omniop.opset import expr
from omniop.opset.dtype import BOOL, INT32, INT64
from omniop.opset.expr import Expr
from omniop.opset.kernel import Kernel, Store


def print_kernel(kernel: Kernel, module: Module, name: str) -> Printed:
    """Adds the kernel's function to the module."""
    nest, numbers = shared(plan(kernel, module.target))
    printer = Printer(nest, module)
    main = nest.lanes[None]
    module.functions[name] = printer.function(name)
    ranged = main is not None and main in nest.order[: nest.parallel]
    return Printed(name, printer.wide(None) if ranged else 1, nest.serial, nest.weight, numbers)


Run = Callable[[Scope, Sequence[Value]], list[Value]]
"""Prints a loop's body: takes the carried values and gives their updates."""


class Printer(Accesses):
    def __init__(self, nest: Nest, module: Module) -> None:
        super().__init__(nest.kernel, module, free_axes(nest.kernel))
        self.nest = nest
        self.kernel = nest.kernel

    # The function -----------------------------------------------------------------------------------------------------

    def function(self, name: str) -> str:
        root = self.root
        llvm_vector.prologue(root)
        total = index(1)
        for axis in self.nest.order[: self.nest.parallel]:
            total = root.mul(total, self.value(axis.args[0], root))
        asked = root.compare("slt", Value("%end", INT64), index(0))
        root.do(f"br {asked}, label %count, label %run")
        root.begin("count")
        root.do(f"ret {total}")
        root.begin("run")
        for k in range(len(self.kernel.params)):
            address = root.let(f"getelementptr ptr, ptr %buffers, i64 {k}")
            root.do(f"%buffer{k} = load ptr, ptr {address}, align 8")
        self._range()
        head = f"define i64 @{name}(ptr %buffers, ptr %sizes, i64 %begin, i64 %end) nounwind {{"
        return "\n".join([head, "entry:", *root.lines, f"  ret {total}", "}"])

    def _range(self) -> None:
        """Loops over the range's points, decoded once and then counted up axis by axis."""
        axes = list(self.nest.order[: self.nest.parallel])
        begin, end = Value("%begin", INT64), Value("%end", INT64)
        lane_axis = axes[-1] if axes and axes[-1] is self.nest.lanes[None] else None
        if not axes:
            self._inside(self.root, self.nest.order)
        elif lane_axis is not None and len(axes) == 1:
            self._lane_loop(self.root, None, self._rest, (begin, end))
        elif len(axes) == 1:
            loop, scope = self._open(self.root, [begin])
            loop.test(scope.compare("slt", loop.carried[0], end))
            scope.places[axes[0]] = loop.carried[0]
            self._rest(scope, ())
            loop.close([scope.add(loop.carried[0], index(1))])
        else:
            self._many(axes, lane_axis, begin, end)

    def _many(self, axes: list[Expr], lane_axis: Expr | None, begin: Value, end: Value) -> None:
        root = self.root
        extents = [self.value(a.args[0], root) for a in axes]
        starts = []
        left = begin
        for extent in reversed(extents):
            starts.append(root.op("urem", left, extent))
            left = root.op("udiv", left, extent)
        loop, scope = self._open(root, [begin, *reversed(starts)])
        point, *places = loop.carried
        loop.test(scope.compare("slt", point, end))
        step = index(1)
        if lane_axis is None:
            scope.places.update(zip(axes, places, strict=True))
            self._rest(scope, ())
        else:  # a row, or the part of one that lies in the range
            scope.places.update(zip(axes[:-1], places[:-1], strict=True))
            stop = scope.op("add", places[-1], scope.op("sub", end, point))
            stop = scope.intrinsic("smin", stop, extents[-1])
            self._lane_loop(scope, None, self._rest, (places[-1], stop))
            step = scope.op("sub", stop, places[-1])
        updates = []
        more = step
        for place, extent in zip(reversed(places), reversed(extents), strict=True):
            moved = scope.op("add", place, more)
            over = scope.compare("eq", moved, extent)
            updates.append(scope.select(over, index(0), moved))
            more = scope.convert("zext", over, INT64)
        loop.close([scope.op("add", point, step), *reversed(updates)])

    def _rest(self, scope: Scope, _: Sequence[Value]) -> list[Value]:
        self._inside(scope, self.nest.order[self.nest.parallel :])
        return []

    def _inside(self, scope: Scope, axes: tuple[Expr, ...]) -> None:
        """Loops over whole axes around the stores."""
        if not axes:
            self._stores(scope)
            return

        if axes[0] is self.nest.block:
            self._blocks(scope, axes[0])
            return

        def run(inner: Scope, _: Sequence[Value]) -> list[Value]:
            self._inside(inner, axes[1:])
            return []

        if axes[0] is self.nest.lanes[None]:
            self._lane_loop(scope, None, run)
        else:
            self._axis_loop(scope, axes[0], (), run)

    def _blocks(self, scope: Scope, block: Expr) -> None:
        """Squares of lanes by places along ``block``; loads that have a row of those are transposed."""
        loads = [n for s in self.kernel.stores for n in expr.walk(*_roots(s)) if n.op == "load"]

        def stores(inner: Scope, _: Sequence[Value]) -> list[Value]:
            self._stores(inner)
            return []

        def run(inner: Scope, _: Sequence[Value]) -> list[Value]:
            if inner.mask is not None:
                self._axis_loop(inner, block, (), stores)
                return []
            squares = {n: self.load_block(n, inner, block) for n in dict.fromkeys(loads)}
            for k in range(inner.lanes):
                part = Scope(self.module, inner)
                section = Section(inner, part)
                part.places[block] = index(k)
                part.memo.update({n: square[k] for n, square in squares.items() if square is not None})
                self._stores(part)
                section.close()
            return []

        self._lane_loop(scope, None, run)

    def _stores(self, scope: Scope) -> None:
        kernel = self.kernel
        if kernel.seq is None:
            for s in kernel.stores:
                self.store(s, scope)
            return
        carries = [expr.carry(k, c.dtype) for k, c in enumerate(kernel.carries)]
        state = [self.settled(c.init, scope, scope.lanes) for c in kernel.carries]
        each_step = kernel.stores if kernel.until is None else ()

        def run(inner: Scope, carried: Sequence[Value]) -> list[Value]:
            inner.memo.update(zip(carries, carried, strict=True))
            for s in each_step:
                self.store(s, inner)
            return [self.settled(c.update, inner, inner.lanes) for c in kernel.carries]

        if kernel.seq.op != "axis":  # an extent of 1: one step
            run(scope, state)
            for s in () if kernel.until is None else kernel.stores_after_one_step():
                self.store(s, scope)
            return
        until = None if kernel.until is None else kernel.after_step()
        state = self._axis_loop(scope, kernel.seq, state, run, until)
        if kernel.until is not None:
            for carry, value in zip(carries, state, strict=True):
                self.home(carry, scope).memo[carry] = value
            for s in kernel.stores:
                self.store(s, scope)

    # Loops ------------------------------------------------------------------------------------------------------------

    def _open(self, outer: Scope, carried: Sequence[Value]) -> tuple[Loop, Scope]:
        scope = Scope(self.module, outer)
        return Loop(outer, scope, carried), scope

    def _axis_loop(
        self, outer: Scope, axis: Expr, carried: Sequence[Value], run: Run, until: Expr | None = None
    ) -> list[Value]:
        """A loop over a whole axis, one point at a time; it ends early once ``until`` holds in all lanes."""
        extent = self.value(axis.args[0], self.root)
        loop, scope = self._open(outer, [index(0), *carried])
        scope.places[axis] = loop.carried[0]
        updates = run(scope, loop.carried[1:])
        step = scope.add(loop.carried[0], index(1))
        again = scope.compare("slt", step, extent)
        if until is not None:
            again = scope.op("and", again, self._somewhere_false(scope, self.value(until, scope)))
        return loop.close([step, *updates], again)[1:]

    @staticmethod
    def _somewhere_false(scope: Scope, condition: Value) -> Value:
        """Whether a wanted lane lacks the condition."""
        lacking = scope.op("xor", condition, const(True, BOOL))
        if scope.mask is not None and condition.lanes > 1:
            lacking = scope.op("and", lacking, scope.mask)
        return scope.any_lane(lacking)

    def wide(self, key: Expr | None) -> int:
        """Lanes of a main loop: whole registers, several of them."""
        width = self.nest.widths[key]
        lanes = self._register(width) * width.unroll
        axis = self.nest.lanes[key]
        if axis is not None and (extent := axis.args[0]).op == "const":
            while lanes > extent.attr and lanes > self._register(width):
                lanes //= 2
        return lanes

    def _register(self, width: Width) -> int:
        return max(1, self.module.target.vector_bits // width.bits)

    def _tail(self, key: Expr | None) -> int:
        """Lanes of a tail: a register, or less when the whole axis is shorter."""
        axis = self.nest.lanes[key]
        lanes = self._register(self.nest.widths[key])
        if axis is not None and (extent := axis.args[0]).op == "const":
            while lanes // 2 >= extent.attr:
                lanes //= 2
        return lanes

    def _lane_loop(
        self, outer: Scope, key: Expr | None, run: Run, span: tuple[Value, Value] | None = None
    ) -> list[Value]:
        """Points of the axis that has lanes, a vector at a time; what is left over in narrower vectors under a mask.

        ``span``: first point and end; without it the whole axis, whose constant extent says how much is left over. When
        ``key`` is a reduce, ``run`` carries its accumulator: the result is that, in as many lanes as a tail has.
        """
        axis = self.nest.lanes[key]
        assert axis is not None
        low, high = span or (index(0), self.value(axis.args[0], self.root))
        size = axis.args[0].attr if axis.args[0].op == "const" else None
        extent = None if span else size
        wide, narrow = self.wide(key), self._tail(key)
        start = self._identity(key, narrow)
        done: list[Value] = []
        if extent is not None and extent // wide == 1:
            done = self._once(outer, axis, 0, wide, wide, run, self._identity(key, wide))
            low = index(wide)
        elif extent is None or extent > wide:
            loop, scope = self._open(outer, [low, *self._identity(key, wide)])
            self._give_lanes(scope, axis, loop.carried[0], wide)
            following = scope.add(loop.carried[0], index(wide))
            if extent is None:
                loop.test(scope.compare("sle", following, high))
                low, *done = loop.close([following, *run(scope, loop.carried[1:])])
            else:
                updates = run(scope, loop.carried[1:])
                again = scope.compare("slt", following, index(extent - extent % wide))
                low, *done = loop.close([following, *updates], again)
        if key is not None and done:
            start = llvm_vector.narrowed(outer, key.attr.monoid, done, narrow)
        left = None if size is None else size % wide
        if left == 0:  # the ranges of a launch are made of whole vectors then
            return start
        if left is not None and extent is not None and left <= narrow:
            return self._once(outer, axis, extent - left, left, narrow, run, start)
        loop, scope = self._open(outer, [low, *start])
        loop.test(scope.compare("slt", loop.carried[0], high))
        self._give_lanes(scope, axis, loop.carried[0], narrow)
        count = scope.convert("trunc", scope.op("sub", high, loop.carried[0]), INT32)
        scope.mask = scope.compare("ult", iota(narrow), count) if narrow > 1 else None
        updates = run(scope, loop.carried[1:])
        return loop.close([scope.add(loop.carried[0], index(narrow)), *updates])[1:]

    def _once(
        self, outer: Scope, axis: Expr, place: int, count: int, lanes: int, run: Run, start: Sequence[Value]
    ) -> list[Value]:
        """One vector, of which ``count`` lanes are wanted."""
        scope = Scope(self.module, outer)
        section = Section(outer, scope)
        self._give_lanes(scope, axis, index(place), lanes)
        scope.mask = _first_lanes(count, lanes) if count < lanes else None
        result = run(scope, start)
        section.close()
        return result

    def _give_lanes(self, scope: Scope, axis: Expr, place: Value, lanes: int) -> None:
        scope.places[axis] = place
        scope.lane_axis, scope.lanes, scope.mask = axis, lanes, None

    @staticmethod
    def _identity(key: Expr | None, lanes: int) -> list[Value]:
        """The accumulator of a reduce before its first point."""
        if key is None:
            return []
        return llvm_vector.identity(key.attr.monoid, [v.dtype for v in key.args[key.attr.axes :]], lanes)

    # Reduces ----------------------------------------------------------------------------------------------------------

    def reduce(self, node: Expr, scope: Scope) -> Value:
        monoid, n = node.attr.monoid, node.attr.axes
        axes, values = node.args[:n], node.args[n:]
        outside = self.in_lanes(node, scope)
        own = None if outside else self.nest.lanes[node]
        lanes = scope.lanes if outside else 1
        kept = self.nest.kept if self.nest.kept is not None and self.nest.kept.reduce is node else None

        def leaf(inner: Scope, carried: Sequence[Value]) -> list[Value]:
            width = carried[0].lanes
            items = [self.settled(v, inner, width) for v in values]
            if kept is not None:
                self.put(inner, kept.buffer, kept.value.dtype, kept.offset, self.settled(kept.value, inner, width))
            joined = llvm_vector.combine(inner, monoid, carried, items)
            if inner.mask is None or own is None:  # lanes of loops outside may hold anything where they are idle
                return joined
            return [inner.select(inner.mask, new, old) for new, old in zip(joined, carried, strict=True)]

        def around(order: tuple[Expr, ...], run: Run) -> Run:
            if not order:
                return run
            return lambda s, carried: self._axis_loop(s, order[0], carried, around(order[1:], run))

        if own is None:
            return around(axes, leaf)(scope, self._identity(node, lanes))[-1]

        def row(inner: Scope, carried: Sequence[Value]) -> list[Value]:
            lane_values = llvm_vector.narrowed(inner, monoid, self._lane_loop(inner, node, leaf), 1)
            return llvm_vector.combine(inner, monoid, carried, lane_values) if len(axes) > 1 else lane_values

        rest = tuple(a for a in axes if a is not own)
        return around(rest, row)(scope, self._identity(node, 1) if rest else [])[-1]


def _roots(store: Store) -> tuple[Expr, ...]:
    return tuple(e for e in (store.offset, store.value, store.guard) if e is not None)


def _first_lanes(count: int, lanes: int) -> Value:
    bits = ", ".join(f"i1 {'true' if k < count else 'false'}" for k in range(lanes))
    return Value(f"<{bits}>", BOOL, lanes)
