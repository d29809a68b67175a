"""Complex numbers as the pairs of floats that they are in memory, whose arithmetic devices do not have.

A kernel over complex elements becomes one over their parts: a load at an offset is two, at twice the offset and behind
it, and so is a store. Complex tensors are moved, chosen, compared with 0 and added up; ONNX asks for little more.
"""

from __future__ import annotations

from dataclasses import replace

from omniop.opset import expr, poly
from omniop.opset.dtype import BOOL, COMPLEX64, COMPLEX128, FLOAT32, FLOAT64, UINT32, UINT64, DType
from omniop.opset.expr import Expr
from omniop.opset.kernel import Kernel, Param, Store

PART = {COMPLEX64: FLOAT32, COMPLEX128: FLOAT64}
"""The float that each complex dtype is a pair of."""

_Pair = tuple[Expr, Expr]


class NotPairsError(Exception):
    """Something is done to complex numbers that cannot be done to their parts."""


def has_complex(kernel: Kernel) -> bool:
    return any(p.dtype in PART for p in kernel.params)


def as_pairs(kernel: Kernel) -> Kernel:
    """The kernel over the parts. Raises NotPairsError."""
    parts = _Parts()
    stores: list[Store] = []
    for store in kernel.stores:
        plain = replace(
            store,
            offset=parts.plain(store.offset),
            guard=None if store.guard is None else parts.plain(store.guard),
        )
        if store.value.dtype not in PART:
            stores.append(replace(plain, value=parts.plain(store.value)))
            continue
        if store.combine not in (None, "add"):
            raise NotPairsError(f"combines by {store.combine}")
        for k, value in enumerate(parts.pair(store.value)):
            stores.append(replace(plain, offset=_place(plain.offset, k), value=value))
    carries = tuple(replace(c, init=parts.plain(c.init), update=parts.plain(c.update)) for c in kernel.carries)
    params = tuple(Param(PART.get(p.dtype, p.dtype), p.written) for p in kernel.params)
    until = None if kernel.until is None else parts.plain(kernel.until)
    return replace(kernel, params=params, stores=tuple(stores), carries=carries, until=until)


def _place(offset: Expr, part: int) -> Expr:
    return poly.simplify(offset * 2 + part)


class _Parts:
    """Expressions taken apart, each once."""

    def __init__(self) -> None:
        self._pairs: dict[Expr, _Pair] = {}
        self._plain: dict[Expr, Expr] = {}

    def pair(self, root: Expr) -> _Pair:
        """The parts of a complex expression."""
        self._walk(root)
        return self._pairs[root]

    def plain(self, root: Expr) -> Expr:
        """An expression of another dtype over the parts."""
        self._walk(root)
        if root not in self._plain:
            raise NotPairsError(f"holds {root.dtype}")
        return self._plain[root]

    def _walk(self, root: Expr) -> None:
        for node in expr.walk(root):
            if node in self._pairs or node in self._plain:
                continue
            if node.dtype in PART:
                self._pairs[node] = self._split(node, PART[node.dtype])
            else:
                self._plain[node] = self._rebuilt(node)

    def _split(self, node: Expr, part: DType) -> _Pair:
        if node.op == "const":
            return expr.const(node.attr.real, part), expr.const(node.attr.imag, part)
        if node.op == "select":
            test, x, y = node.args
            (a, b), (c, d) = self._pairs[x], self._pairs[y]
            return expr.select(self._plain[test], a, c), expr.select(self._plain[test], b, d)
        if node.op == "load":
            (offset,), guard, other = expr.load_parts(node)
            inside = None if guard is None else self._plain[guard]
            others = (expr.const(0, part),) * 2 if other is None else self._pairs[other]
            place = self._plain[offset]
            first, second = (
                expr.load(node.attr.source, (_place(place, k),), part, inside, others[k], node.attr.fault)
                for k in (0, 1)
            )
            return first, second
        if node.op == "reduce" and node.attr.monoid == "add":
            *axes, total = node.args
            bound = tuple(self._plain[a] for a in axes)
            first, second = (expr.reduce("add", bound, (x,)) for x in self._pairs[total])
            return first, second
        if node.op == "bitcast" and part is FLOAT32:
            word = expr.bitcast(self._plain[node.args[0]], UINT64)
            first, second = (expr.bitcast(expr.cast(w, UINT32), FLOAT32) for w in (word, expr.binary("shr", word, 32)))
            return first, second
        raise NotPairsError(f"does {node.attr if node.op == 'alu' else node.op} in {node.dtype}")

    def _rebuilt(self, node: Expr) -> Expr:
        if all(a in self._plain for a in node.args):
            return expr.rebuild(node, tuple(self._plain[a] for a in node.args))
        if node.op == "cast" and node.dtype is BOOL:
            real, imaginary = self._pairs[node.args[0]]
            return expr.alu("or", real.ne(0), imaginary.ne(0))
        if node.op == "bitcast" and node.args[0].dtype is COMPLEX64:
            low, high = (expr.cast(expr.bitcast(x, UINT32), UINT64) for x in self._pairs[node.args[0]])
            return expr.bitcast(low | expr.binary("shl", high, 32), node.dtype)
        raise NotPairsError(f"does {node.attr if node.op == 'alu' else node.op} on {node.args[0].dtype}")
