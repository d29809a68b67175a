"""Values of a kernel's expressions in LLVM IR: each computed once, in the outermost loop that knows all its axes.

`Values.value` takes an expression and the innermost open loop. Loops are `Scope`s; as a scope's code joins its outer
one only when the loop is closed, code can still be added in front of every loop that is open, and that is how what
does not change in a loop comes to be computed before it.
"""

from __future__ import annotations

from collections.abc import Sequence

from omniop.backends.codegen import llvm_alu, llvm_rounding, llvm_vector
from omniop.backends.codegen.axes import stride_of
from omniop.backends.codegen.indexing import is_index, size_number
from omniop.backends.codegen.llvm_ir import Code, Module, Value, const, index, iota
from omniop.opset import poly
from omniop.opset.dtype import INT32, INT64, UINT64
from omniop.opset.expr import Expr

_COMPARISONS = ("lt", "le", "eq", "ne")


class Scope(Code):
    """The body of a loop, or of the function: the axes it binds, the values computed in it, and its lanes.

    ``lane_axis`` is the axis whose points are lanes here, ``lanes`` how many; where not all are wanted, ``mask`` says
    which.
    """

    def __init__(self, module: Module, outer: Scope | None = None) -> None:
        super().__init__(module)
        self.outer = outer
        self.depth: int = outer.depth + 1 if outer else 0
        self.places: dict[Expr, Value] = {}
        """Axes bound here: their value, in the first lane."""
        self.memo: dict[object, Value] = {}
        self.pointers: dict[tuple[str, frozenset[tuple[poly.Monomial, int]]], str] = {}
        """Addresses: of one known before, plus terms."""
        self.lane_axis: Expr | None = outer.lane_axis if outer else None
        self.lanes: int = outer.lanes if outer else 1
        self.mask: Value | None = outer.mask if outer else None

    def place(self, axis: Expr) -> Value:
        scope: Scope | None = self
        while scope is not None:
            if axis in scope.places:
                return scope.places[axis]
            scope = scope.outer
        raise KeyError(f"axis {axis!r} is bound by no loop around it")


class Values:
    """Values of expressions, by scope. A subclass prints what takes more: loads and reduces."""

    def __init__(self, module: Module, free: dict[Expr, frozenset[Expr]]) -> None:
        self.module = module
        self.root = Scope(module)
        self._free = free
        self._strides: dict[tuple[Expr, Expr], tuple[Expr, Expr] | None] = {}

    def load(self, node: Expr, scope: Scope) -> Value:
        raise NotImplementedError

    def reduce(self, node: Expr, scope: Scope) -> Value:
        raise NotImplementedError

    def stride(self, offset: Expr, axis: Expr) -> tuple[Expr, Expr] | None:
        """See `axes.stride_of`."""
        key = (offset, axis)
        if key not in self._strides:
            self._strides[key] = stride_of(offset, axis)
        return self._strides[key]

    def free(self, node: Expr) -> frozenset[Expr]:
        """The axes a node depends on; also of index arithmetic that was put together here."""
        if node not in self._free:
            if node.op == "axis":
                self._free[node] = frozenset((node,))
            else:
                self._free[node] = frozenset().union(*(self.free(a) for a in node.args))
        return self._free[node]

    def home(self, node: Expr, scope: Scope) -> Scope:
        """The outermost scope in which all axes of ``node`` are bound."""
        free = self.free(node)
        while scope.outer is not None and free.isdisjoint(scope.places):
            scope = scope.outer
        return scope

    def in_lanes(self, node: Expr, scope: Scope) -> bool:
        """Whether lanes of ``scope`` differ in the node's value."""
        return scope.lane_axis is not None and scope.lane_axis in self.free(node)

    def value(self, root: Expr, scope: Scope) -> Value:
        """The value, computed where it belongs: added to the innermost loop that binds one of its axes."""
        stack = [root]
        while stack:
            node = stack[-1]
            home = self.home(node, scope)
            if node in home.memo:
                stack.pop()
                continue
            missing = [a for a in self._operands(node) if a not in self.home(a, scope).memo]
            if missing:
                stack.extend(reversed(missing))
                continue
            stack.pop()
            home.memo[node] = self._compute(node, home)
        return self.home(root, scope).memo[root]

    def _operands(self, node: Expr) -> Sequence[Expr]:
        """The operands that a value needs first. The rest is seen to where it is printed: a load's offset and a
        reduce's body, and indices that are compared, which may not be needed lane by lane."""
        if node.op == "load":
            return node.args[1:]
        if node.op == "alu" and node.attr in _COMPARISONS and all(map(is_index, node.args)):
            return ()
        if (rounded := llvm_rounding.find(node)) is not None:
            return rounded.operands
        return () if node.op in ("axis", "reduce") else node.args

    def settled(self, node: Expr, scope: Scope, lanes: int) -> Value:
        """The value with at least ``lanes`` lanes; a scalar is spread out where it was computed, not in the loop."""
        value = self.value(node, scope)
        if value.lanes == lanes or lanes == 1 or value.is_const:
            return scope.splat(value, lanes) if value.is_const else value
        home = self.home(node, scope)
        key = (node, lanes)
        if key not in home.memo:
            home.memo[key] = home.splat(value, lanes)
        return home.memo[key]

    def _compute(self, node: Expr, scope: Scope) -> Value:
        match node.op:
            case "const":
                return const(node.attr, node.dtype)
            case "size":
                address = self.root.let(f"getelementptr i64, ptr %sizes, i64 {size_number(node)}")
                return llvm_vector.load(self.root, address, INT64)
            case "axis":
                place = scope.place(node)
                if scope.lane_axis is not node or scope.lanes == 1:
                    return place
                return scope.op("add", iota(scope.lanes, INT64), place)
            case "load":
                return self.load(node, scope)
            case "reduce":
                return self.reduce(node, scope)
        if node.op == "alu" and (known := self._known_comparison(node, scope)) is not None:
            return known
        if (rounded := llvm_rounding.find(node)) is not None:
            return llvm_rounding.rounded(scope, rounded, *(self.value(a, scope) for a in rounded.operands))
        lanes = max(self.value(a, scope).lanes for a in node.args)
        args = [self.settled(a, scope, lanes) for a in node.args]
        match node.op:
            case "cast":
                return llvm_alu.cast(scope, args[0], node.dtype)
            case "bitcast":
                return llvm_alu.bitcast(scope, args[0], node.dtype)
            case "select":
                condition = self.value(node.args[0], scope)
                return scope.select(condition, *args[1:])
        if node.attr in ("floordiv", "floormod") and args[0].dtype is INT64 and self._nonnegative(node.args[0]):
            quotient = llvm_alu.apply(scope, node.attr, *(llvm_alu.bitcast(scope, a, UINT64) for a in args))
            return llvm_alu.bitcast(scope, quotient, INT64)
        return llvm_alu.apply(scope, node.attr, *args)

    def _nonnegative(self, node: Expr) -> bool:
        return is_index(node) and poly.nonnegative(node)

    def _known_comparison(self, node: Expr, scope: Scope) -> Value | None:
        """A comparison of indices, one of which steps by 1 from lane to lane: the lanes before some place.

        Places are compared as int32, as many to a register as there are float32 values, and not as the int64 they are.
        """
        if node.attr not in _COMPARISONS or not self.in_lanes(node, scope) or scope.lanes == 1:
            return None
        if not all(map(is_index, node.args)) or scope.lane_axis is None:
            return None
        parts = self.stride(poly.simplify(node.args[1] - node.args[0]), scope.lane_axis)
        if parts is None or parts[0].op != "const" or parts[0].attr not in (1, -1):
            return None
        rising = parts[0].attr == 1
        place = scope.place(scope.lane_axis)
        rest = self.value(parts[1], scope)
        # right - left = rest + place + lane, or rest - place - lane: it is 0 in lane ``zero``
        zero = scope.op("sub", index(0), scope.op("add", rest, place)) if rising else scope.op("sub", rest, place)
        if node.attr in ("eq", "ne"):
            return self._compare_lanes(scope, node.attr, zero)
        strict = node.attr == "lt"
        if rising:  # lanes above zero (or at it)
            limit = scope.add(zero, index(1)) if strict else zero
            return self._compare_lanes(scope, "uge", limit)
        return self._compare_lanes(scope, "ult", zero if strict else scope.add(zero, index(1)))

    @staticmethod
    def _compare_lanes(scope: Scope, predicate: str, place: Value) -> Value:
        low = index(-1 if predicate in ("eq", "ne") else 0)
        limited = scope.intrinsic("smin", scope.intrinsic("smax", place, low), index(scope.lanes))
        return scope.compare(predicate, iota(scope.lanes), scope.convert("trunc", limited, INT32))
