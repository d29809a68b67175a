"""Loads and stores of kernels in LLVM IR: what lies in a row goes as a vector, one element to all lanes as a scalar,
and anything else lane by lane."""

from __future__ import annotations

from omniop.backends.codegen import llvm_alu, llvm_vector
from omniop.backends.codegen.axes import step_of
from omniop.backends.codegen.llvm_ir import Module, Value, const, index
from omniop.backends.codegen.llvm_values import Scope, Values
from omniop.opset import expr, poly
from omniop.opset.dtype import BOOL, INT32, DType
from omniop.opset.expr import Expr
from omniop.opset.kernel import Kernel, Store


class Accesses(Values):
    def __init__(self, kernel: Kernel, module: Module, free: dict[Expr, frozenset[Expr]]) -> None:
        super().__init__(module, free)
        self.params = kernel.params
        self.error = kernel.error

    # Addresses --------------------------------------------------------------------------------------------------------

    def _pointer(self, buffer: int, dtype: DType, offset: poly.Poly, scope: Scope, along: Value | None = None) -> str:
        """The address of a scalar offset, and ``along`` more, summed from the outside in: each loop adds what it alone
        knows. A constant comes last: it is part of the instruction, and neighbours share the rest."""
        terms: dict[int, tuple[Scope, poly.Poly]] = {}
        constant = offset.get((), 0)
        for monomial, c in offset.items():
            if not monomial:
                continue
            home = self.root
            for atom in monomial:
                other = self.home(atom, scope)
                home = other if other.depth > home.depth else home
            terms.setdefault(home.depth, (home, {}))[1][monomial] = c
        pointer = f"%buffer{buffer}"
        for depth in sorted(terms):
            home, part = terms[depth]
            key = (pointer, frozenset(part.items()))
            if key not in home.pointers:
                home.pointers[key] = home.element(pointer, dtype, self.value(poly.expr_of(part), home))
            pointer = home.pointers[key]
        if along is not None:
            pointer = scope.element(pointer, dtype, along)
        return scope.element(pointer, dtype, index(constant))

    def _pointers(self, buffer: int, dtype: DType, offset: Expr, scope: Scope) -> list[str]:
        """The address for each lane."""
        assert scope.lane_axis is not None
        parts = self.stride(offset, scope.lane_axis)
        if parts is None:
            offsets = llvm_alu.index_of(scope, self.value(offset, scope))
            base = f"%buffer{buffer}"
            return [scope.element(base, dtype, scope.lane(offsets, k)) for k in range(scope.lanes)]
        stride = self.value(parts[0], scope)
        along = scope.mul(scope.place(scope.lane_axis), stride)
        first = self._pointer(buffer, dtype, poly.poly_of(parts[1]), scope, along)
        return [scope.element(first, dtype, scope.mul(stride, index(k)) if k else index(0)) for k in range(scope.lanes)]

    def _step(self, offset: Expr, scope: Scope) -> int | None:
        """The offset's step from lane to lane; see `axes.step_of`."""
        if scope.lane_axis is None or not self.in_lanes(offset, scope):
            return 0
        return step_of(offset, scope.lane_axis)

    def _row(self, buffer: int, dtype: DType, offset: Expr, scope: Scope, step: int) -> str:
        """The address of the lowest of lanes that lie in a row."""
        assert scope.lane_axis is not None
        rest = poly.poly_of(offset)
        rest.pop((scope.lane_axis,))
        place = scope.place(scope.lane_axis)
        if step < 0:
            place = scope.op("sub", index(1 - scope.lanes), place)
        elif step > 1:
            place = scope.mul(place, index(step))
        return self._pointer(buffer, dtype, rest, scope, place)

    # Loads ------------------------------------------------------------------------------------------------------------

    def load(self, node: Expr, scope: Scope) -> Value:
        (offset,), guard, other = expr.load_parts(node)
        buffer = node.attr.source
        lanes = scope.lanes if self.in_lanes(node, scope) else 1
        allowed = None if guard is None else self.value(guard, scope)
        mask = scope.mask if lanes > 1 else None
        if node.attr.fault and allowed is not None:
            self._fault(scope, allowed, mask, node.attr.fault)
        wanted = _both(scope, mask, allowed)
        rest = const(0, node.dtype) if other is None else self.settled(other, scope, lanes)
        step = self._step(offset, scope)
        if lanes == 1 or step == 0:
            return self._load_one(scope, self._pointer(buffer, node.dtype, poly.poly_of(offset), scope), wanted, rest)
        if step == 1 and wanted is not None and mask is None and wanted.lanes == 1:  # all lanes or none
            row = self._row(buffer, node.dtype, offset, scope, 1)
            other_lanes = scope.splat(rest, lanes)
            return scope.either(wanted, lambda: llvm_vector.load(scope, row, node.dtype, lanes), lambda: other_lanes)
        if step == 1 and (wanted is None or llvm_vector.has_masked(scope, node.dtype)):
            row = self._row(buffer, node.dtype, offset, scope, 1)
            if wanted is None:
                return llvm_vector.load(scope, row, node.dtype, lanes)
            return llvm_vector.masked_load(scope, row, scope.splat(wanted, lanes), rest)
        if step == -1 and wanted is None:
            row = self._row(buffer, node.dtype, offset, scope, -1)
            return scope.shuffle(llvm_vector.load(scope, row, node.dtype, lanes), range(lanes - 1, -1, -1))
        if step is not None and step > 1 and wanted is None:
            row = self._row(buffer, node.dtype, offset, scope, step)
            return llvm_vector.load_every(scope, row, node.dtype, lanes, step)
        pointers = self._pointers(buffer, node.dtype, offset, scope)

        def apart() -> Value:
            loaded = llvm_vector.gather(scope, pointers, node.dtype, wanted)
            return loaded if allowed is None else scope.select(allowed, loaded, rest)

        if step == 1 and wanted is not None and mask is None:  # most vectors are inside what the guard allows
            row = self._row(buffer, node.dtype, offset, scope, 1)
            some = scope.any_lane(scope.op("xor", wanted, const(True, BOOL)))
            return scope.either(some, apart, lambda: llvm_vector.load(scope, row, node.dtype, lanes))
        return apart()

    @staticmethod
    def _load_one(scope: Scope, pointer: str, wanted: Value | None, rest: Value) -> Value:
        """One element for all lanes."""
        if wanted is not None:
            pointer = llvm_vector.permitted(scope, pointer, scope.any_lane(wanted))
        loaded = llvm_vector.load(scope, pointer, rest.dtype)
        return loaded if wanted is None else scope.select(wanted, loaded, rest)

    def load_block(self, node: Expr, scope: Scope, block: Expr) -> list[Value] | None:
        """The load's lanes for each place along ``block``, when memory has those in a row and the lanes apart."""
        (offset,), guard, _ = expr.load_parts(node)
        if guard is not None or scope.lane_axis is None or self._step(offset, scope) is not None:
            return None
        lanes = self.stride(offset, scope.lane_axis)
        row = None if lanes is None else self.stride(lanes[1], block)
        if lanes is None or row is None or not expr.is_const(row[0], 1) or block in self.free(lanes[0]):
            return None
        stride = self.value(lanes[0], scope)
        along = scope.mul(scope.place(scope.lane_axis), stride)
        first = self._pointer(node.attr.source, node.dtype, poly.poly_of(row[1]), scope, along)
        places = [scope.mul(stride, index(k)) if k else index(0) for k in range(scope.lanes)]
        return llvm_vector.load_square(scope, [scope.element(first, node.dtype, p) for p in places], node.dtype)

    # Stores -----------------------------------------------------------------------------------------------------------

    def store(self, store: Store, scope: Scope) -> None:
        dtype = self.params[store.buffer].dtype
        value = self.settled(store.value, scope, scope.lanes)
        allowed = None if store.guard is None else self.value(store.guard, scope)
        if store.fault and allowed is not None:
            self._fault(scope, allowed, scope.mask, store.fault)
        if scope.lanes == 1:
            self._store_one(store, scope, dtype, value, allowed)
        else:
            self.put(scope, store.buffer, dtype, store.offset, value, allowed)

    def put(
        self, scope: Scope, buffer: int, dtype: DType, offset: Expr, value: Value, allowed: Value | None = None
    ) -> None:
        """Stores lanes."""
        wanted = _both(scope, scope.mask, allowed)
        step = self._step(offset, scope)
        if step == 1 and (wanted is None or llvm_vector.has_masked(scope, dtype)):
            row = self._row(buffer, dtype, offset, scope, 1)
            if wanted is None:
                llvm_vector.store(scope, row, value)
            else:
                llvm_vector.masked_store(scope, row, value, scope.splat(wanted, scope.lanes))
        elif step == -1 and wanted is None:
            row = self._row(buffer, dtype, offset, scope, -1)
            llvm_vector.store(scope, row, scope.shuffle(value, range(scope.lanes - 1, -1, -1)))
        else:
            llvm_vector.scatter(scope, self._pointers(buffer, dtype, offset, scope), value, wanted)

    def _store_one(self, store: Store, scope: Scope, dtype: DType, value: Value, wanted: Value | None) -> None:
        pointer = self._pointer(store.buffer, dtype, poly.poly_of(store.offset), scope)
        if wanted is not None:
            pointer = llvm_vector.permitted(scope, pointer, wanted)
        if store.combine:
            old = llvm_vector.load(scope, pointer, dtype)
            value = llvm_alu.apply(scope, store.combine, old, value)
        llvm_vector.store(scope, pointer, value)

    def _fault(self, scope: Scope, allowed: Value, mask: Value | None, code: int) -> None:
        """Sets the error word when a guard fails in a lane that counts."""
        if self.error is None:
            return
        failed = scope.op("xor", allowed, const(True, BOOL))
        failed = scope.any_lane(failed if mask is None else scope.op("and", failed, mask))
        word = llvm_vector.permitted(scope, f"%buffer{self.error}", failed)
        llvm_vector.store(scope, word, const(code, INT32))


def _both(scope: Scope, mask: Value | None, allowed: Value | None) -> Value | None:
    if mask is None or allowed is None:
        return allowed if mask is None else mask
    return scope.op("and", mask, allowed)
