"""What tiles store: the sums in registers, run through the call's own expressions, in the blocked result."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from omniop.backends.codegen import llvm_vector
from omniop.backends.codegen.llvm_access import Accesses
from omniop.backends.codegen.llvm_flow import argument, define, lanes_below, load, plus, store
from omniop.backends.codegen.llvm_ir import Code, Loop, Module, Value, index
from omniop.backends.codegen.llvm_nest import free_axes
from omniop.backends.codegen.llvm_tiles import NUMBERS, POINTERS, Tile, TileStore, block_of
from omniop.backends.codegen.llvm_values import Scope
from omniop.opset import expr, poly
from omniop.opset.alu import ALU
from omniop.opset.dtype import FLOAT32
from omniop.opset.expr import Expr
from omniop.opset.kernel import Store

_CHEAP = 12
"""Arithmetic, in adds, that is printed for every vector of a tile; of more there is a loop."""


class TilePrinter(Accesses):
    """Code of a tile: sums are added to ``root``, and `finish` prints what is stored and defines the function."""

    def __init__(self, module: Module, tile: Tile, stored: TileStore) -> None:
        kernel = stored.kernel
        super().__init__(kernel, module, free_axes(kernel))
        self.module = module
        self.tile = tile
        self.lanes = block_of(module.target)
        (self._store,) = kernel.stores
        self._axes = kernel.axes
        self._stored = stored
        self._known: dict[tuple[int, Expr], Store] = {}
        llvm_vector.prologue(self.root)
        read = {n.attr.source for n in expr.walk(self._store.value) if n.op == "load"} - {stored.hole}
        for k in sorted({*read, self._store.buffer}):
            at = self.root.let(f"getelementptr ptr, ptr %buffers, i64 {k}")
            self.root.do(f"%buffer{k} = load ptr, ptr {at}, align 8")
        image, _, y, pixel, _ = self._axes
        self.root.places |= {image: argument("image"), y: argument("y"), pixel: argument("pixel")}

    def finish(self, name: str, sums: Sequence[Value]) -> None:
        """``sums``: by vector, then by pixel."""
        count = len(self.tile.pixels)
        for v in range(self.tile.vectors):
            scope = self._channels(v)
            self._write(scope, sums[v * count : (v + 1) * count])
            self._add(scope)
        define(self.module, name, POINTERS, NUMBERS, self.root)

    def finish_lines(self, name: str, sums: Callable[[Code, str], Sequence[Value]]) -> None:
        """For a tile of one vector that is repeated on several lines: ``sums(code, x)`` prints those of one line."""
        y = self._axes[2]
        scope = self._channels(0)
        line = Scope(self.module, scope)
        loop = Loop(scope, line, [index(0), index(0), argument("y")])
        number, offset, line.places[y] = loop.carried
        self._write(line, sums(line, line.element("%x", FLOAT32, offset)))
        following = plus(line, number, 1)
        updates = [following, line.add(offset, argument("line")), plus(line, line.places[y], 1)]
        loop.close(updates, line.compare("slt", following, argument("lines")))
        self._add(scope)
        define(self.module, name, POINTERS, NUMBERS, self.root)

    def _channels(self, vector: int) -> Scope:
        """Where a vector's block of channels is known; its code is for `_add`."""
        _, block, _, _, lane = self._axes
        root = self.root
        scope = Scope(self.module, root)
        scope.block = root.block
        scope.places |= {block: plus(root, argument("block"), vector), lane: index(0)}
        scope.lane_axis, scope.lanes = lane, self.lanes
        if self._stored.channels is not None:
            before = root.mul(scope.places[block], index(self.lanes))
            left = root.op("sub", self.value(self._stored.channels, root), before)
            scope.mask = lanes_below(root, root.intrinsic("smin", left, index(self.lanes)), self.lanes)
        return scope

    def _add(self, scope: Scope) -> None:
        self.root.lines += scope.lines
        self.root.block = scope.block

    def _write(self, scope: Scope, sums: Sequence[Value]) -> None:
        cost = sum(ALU[n.attr].cost for n in expr.walk(self._store.value) if n.op == "alu" and n.dtype is FLOAT32)
        (self._one_by_one if cost <= _CHEAP else self._in_a_loop)(scope, sums)

    def _one_by_one(self, scope: Scope, sums: Sequence[Value]) -> None:
        """Each pixel is a constant away from the first: its place is part of the instructions."""
        for (line, column), value in zip(self.tile.pixels, sums, strict=True):
            one = self._moved(line, expr.index(column))
            scope.memo[self._hole_of(one)] = value
            self.store(one, scope)

    def _in_a_loop(self, scope: Scope, sums: Sequence[Value]) -> None:
        held = self.root.let(f"alloca [{len(sums) * self.lanes} x float], align 64")
        for k, value in enumerate(sums):
            store(scope, value, held, index(k * self.lanes))
        for line in range(self.tile.lines):
            column = expr.raw_axis(1 << 20, expr.index(self.tile.columns))
            one = self._moved(line, column)
            inside = Scope(self.module, scope)
            loop = Loop(scope, inside, [index(0)])
            inside.places[column] = loop.carried[0]
            at = inside.mul(plus(inside, loop.carried[0], line * self.tile.columns), index(self.lanes))
            inside.memo[self._hole_of(one)] = load(inside, held, at, self.lanes)
            self.store(one, inside)
            following = plus(inside, loop.carried[0], 1)
            loop.close([following], inside.compare("slt", following, index(self.tile.columns)))

    def _moved(self, line: int, column: Expr) -> Store:
        """The store so many pixels away, its offsets in normal form. All vectors want it."""
        if (line, column) not in self._known:
            _, _, y, pixel, _ = self._axes
            self._known[line, column] = self._at({y: y + line, pixel: pixel + column})
        return self._known[line, column]

    def _at(self, places: dict[Expr, Expr]) -> Store:
        done: dict[Expr, Expr] = {}
        for node in expr.walk(self._store.value):
            args = tuple(done[a] for a in node.args)
            if node.op == "axis":
                done[node] = places.get(node, node)
            elif node.op == "load":
                done[node] = expr.rebuild(node, (poly.simplify(args[0]), *args[1:]))
            else:
                done[node] = expr.rebuild(node, args)
        offset = poly.simplify(expr.substitute(self._store.offset, places))
        return Store(self._store.buffer, offset, done[self._store.value])

    def _hole_of(self, store: Store) -> Expr:
        return next(n for n in expr.walk(store.value) if n.op == "load" and n.attr.source == self._stored.hole)
