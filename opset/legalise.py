"""Rewrites a kernel into what a device can do, or says why it cannot.

- A narrow float that the device cannot compute in is held in float32 and rounded after every operation. Where it can
  at least store the type, a conversion is a cast; otherwise the buffer becomes one of integers, and conversions are
  written out on the bits (`omniop.opset.narrow`).
- Integers below 8 bits are held in 8 and wrapped after every operation; in memory the high bits are clear, as ml_dtypes
  has them.
- A bool buffer becomes one of uint8 where the device has no bool; float64 that is only moved becomes uint64.
- Complex numbers become pairs of floats (`omniop.opset.complex_pairs`).
- Sums and products of a reduce over a narrow float are kept in float32 and rounded once.
- A store that combines in a rewritten dtype reads, combines and writes in order: its axes become one sequential axis.

A kernel that is legal already is returned as it is, so legalising twice changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from omniop.opset import expr, poly
from omniop.opset.complex_pairs import NotPairsError, as_pairs, has_complex
from omniop.opset.dtype import BOOL, FLOAT8E8M0, FLOAT32, FLOAT64, INT8, INT64, UINT8, UINT16, UINT32, UINT64, DType
from omniop.opset.expr import Expr
from omniop.opset.kernel import Call, Carry, Kernel, Param, Store
from omniop.opset.narrow import FORMATS, decode, encode, narrow_double, saturate_integer, wrap_integer


class Capabilities(Protocol):
    """The part of a device's Caps that legalising looks at."""

    @property
    def storage(self) -> frozenset[DType]: ...

    @property
    def compute(self) -> frozenset[DType]: ...

    @property
    def max_buffers(self) -> int: ...


@dataclass(frozen=True)
class Refusal:
    """Why there is no legal kernel: ``code`` for machines ("needs-fp64", "too-many-buffers"), ``detail`` for people."""

    code: str
    detail: str


def legalise(kernel: Kernel, caps: Capabilities) -> Kernel | Refusal:
    """An equal kernel in the dtypes of ``caps``. The buffers keep their bytes; only what they are called may change."""
    if len(kernel.params) > caps.max_buffers:
        return Refusal("too-many-buffers", f"it takes {len(kernel.params)} buffers, the device {caps.max_buffers}")
    if has_complex(kernel):
        try:
            kernel = as_pairs(kernel)
        except NotPairsError as error:
            return Refusal("needs-complex", f"it {error}, which the device does not have")
    combined = [kernel.params[s.buffer].dtype for s in kernel.stores if s.combine is not None]
    rewritten = [d for d in combined if d is not BOOL and not {d} <= caps.storage & caps.compute]
    if not rewritten and all(p.dtype in caps.storage for p in kernel.params) and _legal(kernel.roots(), caps):
        return kernel
    try:
        return _Rewriter(caps).kernel(_in_order(kernel, rewritten[0]) if rewritten else kernel)
    except _Refused as refused:
        return refused.refusal


def legalise_expr(root: Expr, caps: Capabilities) -> Expr | Refusal:
    """The epilogue of a Call, in the dtypes of ``caps``.

    The result has the dtype that the result's buffer is stored in (`stored_dtype`), and its loads those of theirs. A
    hole of a narrow float becomes one of float32, whose value is then rounded.
    """
    if _legal([root], caps) and root.dtype in caps.storage:
        return root
    try:
        return _Rewriter(caps).stored_value(root)
    except _Refused as refused:
        return refused.refusal


def stored_dtype(dtype: DType, caps: Capabilities) -> DType:
    """What elements of ``dtype`` are called in a legal kernel; ``dtype`` itself when nothing can stand for it."""
    if dtype in caps.storage:
        return dtype
    if dtype is FLOAT64:
        return UINT64
    if _is_narrow(dtype) and dtype.bits == 16:
        return UINT16
    return INT8 if dtype.kind == "i" and dtype.bits < 8 else UINT8 if dtype.bits <= 8 else dtype


def stored_params(call: Call, caps: Capabilities) -> tuple[Param, ...]:
    """The buffers of a call as `stored_dtype` has them, which its legal epilogue loads and stores."""
    return tuple(Param(stored_dtype(p.dtype, caps), p.written) for p in call.params)


class _Refused(Exception):
    def __init__(self, dtype: DType, does: str) -> None:
        super().__init__(does)
        code = "needs-fp64" if dtype is FLOAT64 else f"needs-{dtype}"
        self.refusal = Refusal(code, f"it {does} {dtype}, which the device does not have")


def _is_narrow(dtype: DType) -> bool:
    return dtype.is_float and dtype.bits < 32


_MOVES = ("load", "cast", "const")
"""What may be done in a dtype that a device can store but not compute in."""


def _legal(roots: Iterable[Expr], caps: Capabilities) -> bool:
    computes = caps.compute | {BOOL}
    for node in expr.walk(*roots):
        if node.dtype not in computes and not (node.dtype in caps.storage and node.op in _MOVES):
            return False
        if node.op in ("alu", "bitcast", "reduce") and any(a.dtype not in computes for a in node.args):
            return False
        ends = {node.dtype, node.args[0].dtype} if node.op == "cast" else set()
        if FLOAT64 in ends and not ends <= computes:
            return False  # a type that is only stored converts to and from float32
    return True


def _in_order(kernel: Kernel, dtype: DType) -> Kernel:
    """The kernel with one sequential axis, in which combining stores read what they combine with."""
    if kernel.seq is not None and kernel.axes:
        raise _Refused(dtype, "combines, beside a sequential axis, in")
    axes = tuple(a for a in kernel.axes if a.op == "axis")
    mapping: dict[Expr, Expr] = {}
    seq = kernel.seq
    if len(axes) == 1:
        seq = axes[0]
    elif axes:
        total = expr.const(1, INT64)
        for a in axes:
            total = total * a.args[0]
        above = 1 + max(n.attr for n in expr.walk(*kernel.roots()) if n.op == "axis")
        seq = expr.raw_axis(above, poly.simplify(total))
        mapping = dict(zip(axes, poly.delinear(seq, tuple(a.args[0] for a in axes)), strict=True))

    def moved(node: Expr) -> Expr:
        return expr.substitute(node, mapping) if mapping else node

    stores: list[Store] = []
    for store in kernel.stores:
        offset, value = moved(store.offset), moved(store.value)
        guard = None if store.guard is None else moved(store.guard)
        if store.combine is not None:
            value = expr.alu(store.combine, expr.load(store.buffer, (offset,), value.dtype, guard), value)
        stores.append(replace(store, offset=offset, value=value, guard=guard, combine=None))
    return replace(kernel, axes=(), seq=seq, stores=tuple(stores))


_EXACT_FLOAT = frozenset(("neg", "abs", "min", "max", "floor", "ceil", "rint", "trunc"))
_EXACT_INTEGER = frozenset(("min", "max", "and", "or", "xor", "rem", "floormod", "shr"))
"""Operations that cannot leave the values of a narrower type."""

_NO_NEGATIVE_ZERO = frozenset({FLOAT8E8M0, *(d for d, form in FORMATS.items() if not form.sign)})


def _stays(node: Expr) -> bool:
    if node.op == "select" or (node.op == "reduce" and node.attr.monoid not in ("add", "mul")):
        return True
    if node.dtype.is_int:
        return node.attr in _EXACT_INTEGER
    return node.attr in _EXACT_FLOAT and node.dtype not in _NO_NEGATIVE_ZERO


def _held_const(node: Expr, held: DType) -> Expr:
    """The constant, rounded to its own dtype, in the one that holds it."""
    value = node.attr
    if node.dtype is FLOAT64:
        value = int(np.float64(value).view(np.uint64))
    elif node.dtype.is_float:
        with np.errstate(all="ignore"):
            value = float(np.float64(value).astype(node.dtype.numpy))
    return expr.const(value, held)


class _Rewriter:
    """Expressions with every value in a dtype that holds it. A value of a narrow float is kept rounded."""

    def __init__(self, caps: Capabilities) -> None:
        self._caps = caps
        self._held: dict[Expr, Expr] = {}
        self._stored: dict[tuple[Expr, DType], Expr] = {}
        """Memory form of held values that came from one, so that a copy stays a copy."""

    def kernel(self, kernel: Kernel) -> Kernel:
        stores = tuple(
            replace(
                s,
                offset=self._hold(s.offset),
                value=self.stored_value(s.value),
                guard=None if s.guard is None else self._hold(s.guard),
            )
            for s in kernel.stores
        )
        carries = tuple(
            Carry(self._held_dtype(c.dtype), self._hold(c.init), self._hold(c.update)) for c in kernel.carries
        )
        params = tuple(Param(self._stored_dtype(p.dtype), p.written) for p in kernel.params)
        until = None if kernel.until is None else self._hold(kernel.until)
        return replace(kernel, params=params, stores=stores, carries=carries, until=until)

    def stored_value(self, root: Expr) -> Expr:
        """``root`` in the dtype its buffer is stored in."""
        return self._to_stored(self._hold(root), root.dtype)

    def _held_dtype(self, dtype: DType) -> DType:
        """The dtype that values of ``dtype`` are computed in."""
        if dtype in self._caps.compute or dtype is BOOL:
            return dtype
        held = FLOAT32 if _is_narrow(dtype) else UINT64 if dtype is FLOAT64 else stored_dtype(dtype, self._caps)
        if held not in self._caps.compute:
            raise _Refused(dtype, "computes in")
        return held

    def _stored_dtype(self, dtype: DType) -> DType:
        stored = stored_dtype(dtype, self._caps)
        if stored not in self._caps.storage or dtype.kind in "cs":
            raise _Refused(dtype, "has a buffer of")
        return stored

    def _hold(self, root: Expr) -> Expr:
        for node in expr.walk(root):
            if node not in self._held:
                self._held[node] = self._node(node)
        return self._held[root]

    def _node(self, node: Expr) -> Expr:
        held = self._held_dtype(node.dtype)
        args = tuple(self._held[a] for a in node.args)
        if node.op in ("alu", "cast", "bitcast", "reduce", "hole"):
            for dtype in (node.dtype, *(a.dtype for a in node.args)):
                if dtype is FLOAT64 and FLOAT64 not in self._caps.compute:
                    raise _Refused(FLOAT64, "computes in")
        if node.op == "load":
            return self._load(node)
        if node.op == "cast":
            return self._cast(args[0], node.args[0].dtype, node.dtype)
        if node.op == "bitcast":
            return self._bitcast(args[0], node.args[0].dtype, node.dtype)
        if held is node.dtype:
            return expr.rebuild(node, args)
        if node.op == "const":
            return _held_const(node, held)
        if node.op == "carry":
            return expr.carry(node.attr, held)
        result = expr.hole(held) if node.op == "hole" else expr.rebuild(node, args)
        return result if _stays(node) else self._fit(result, node.dtype)

    def _fit(self, value: Expr, dtype: DType) -> Expr:
        """The result of an operation, rounded or wrapped into ``dtype``."""
        if dtype.is_int:
            return wrap_integer(value, dtype)
        if (value, dtype) in self._stored:
            return value
        if dtype in self._caps.storage:
            return self._from_stored(expr.cast(value, dtype), dtype)
        code = encode(value, dtype)
        result = decode(code, dtype)
        self._stored[result, dtype] = expr.cast(code, stored_dtype(dtype, self._caps))
        return result

    def _from_stored(self, stored: Expr, dtype: DType) -> Expr:
        held = self._held_dtype(dtype)
        if held is stored.dtype and not (dtype.is_int and dtype.bits < 8):
            return stored
        if dtype is BOOL:
            return stored.ne(0)
        if dtype.is_int:
            return wrap_integer(expr.cast(stored, held), dtype)
        result = expr.cast(stored, held) if stored.dtype is dtype else decode(expr.cast(stored, UINT32), dtype)
        self._stored[result, dtype] = stored
        return result

    def _to_stored(self, value: Expr, dtype: DType) -> Expr:
        """The memory form of a held value: exact, since the value is rounded already."""
        stored = self._stored_dtype(dtype)
        if (value, dtype) in self._stored:
            return self._stored[value, dtype]
        if dtype.is_int and dtype.bits < 8:
            return expr.cast(value & ((1 << dtype.bits) - 1), stored)
        if dtype is BOOL or stored is dtype or stored is value.dtype:
            return expr.cast(value, stored)
        return expr.cast(encode(value, dtype), stored)

    def _load(self, node: Expr) -> Expr:
        indices, guard, other = expr.load_parts(node)
        loaded = expr.load(
            node.attr.source,
            tuple(self._held[i] for i in indices),
            self._stored_dtype(node.dtype),
            None if guard is None else self._held[guard],
            0 if other is None else self._to_stored(self._held[other], node.dtype),
            node.attr.fault,
        )
        return self._from_stored(loaded, node.dtype)

    def _cast(self, value: Expr, source: DType, target: DType) -> Expr:
        held = self._held_dtype(target)
        if held is target:
            return expr.cast(value, target)
        if target.is_int:
            whole = saturate_integer(value, target) if source.is_float else value
            return wrap_integer(expr.cast(whole, held), target)
        single = narrow_double(value) if source is FLOAT64 else expr.cast(value, FLOAT32)
        return self._fit(single, target)

    def _bitcast(self, value: Expr, source: DType, target: DType) -> Expr:
        held = self._held_dtype(target)
        if held is target and self._held_dtype(source) is source:
            return expr.bitcast(value, target)
        code = encode(value, source) if source.is_float else expr.cast(value, UINT32) & ((1 << source.bits) - 1)
        if target.is_float:
            return decode(code, target)
        result = expr.cast(code, held)
        return result if held is target else wrap_integer(result, target)
