"""Kernels on array libraries: every expression evaluated as a whole array, operation by operation.

A backend whose device is a numpy-like library gives an `ArrayOps` (its functions by name) and gets map, reduce, scatter
and sequential kernels from `KernelEvaluator`. Each value is an array with one dim per axis of the kernel, of extent 1
where the value does not depend on the axis, so that broadcasting does the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omniop.opset import expr, poly
from omniop.opset.dtype import DType
from omniop.opset.expr import Expr
from omniop.opset.kernel import Kernel, Store, View

Array = Any


@dataclass(frozen=True)
class ArrayOps:
    """What an array library has to offer. All functions take and give its arrays.

    ``alu`` by name of `omniop.opset.alu.ALU`, on arrays of one dtype; ``cast(x, dtype)`` and ``bitcast(x, dtype)``;
    ``select(c, x, y)``; ``reduce(monoid, x, dims)`` keeps the dims; ``arg_reduce(monoid, value, index, dims)``
    likewise; ``take(flat, offsets)``; ``put(flat, offsets, values)`` in place; ``combine(name, flat, offsets, values)``
    in place, with duplicates; ``strided(flat, offset, shape, strides)`` a view, writable; ``assign(view, values)``;
    ``arange(n)`` int64; ``full(value, dtype)`` 0-d; ``reshape(x, shape)``; ``broadcast(x, shape)``; ``any(x)`` a Python
    bool.
    """

    alu: Mapping[str, Callable[..., Array]]
    cast: Callable[[Array, DType], Array]
    bitcast: Callable[[Array, DType], Array]
    select: Callable[[Array, Array, Array], Array]
    reduce: Callable[[str, Array, tuple[int, ...]], Array]
    arg_reduce: Callable[[str, Array, Array, tuple[int, ...]], Array]
    take: Callable[[Array, Array], Array]
    put: Callable[[Array, Array, Array], None]
    combine: Callable[[str, Array, Array, Array], None]
    strided: Callable[[Array, int, Sequence[int], Sequence[int]], Array]
    assign: Callable[[Array, Array], None]
    arange: Callable[[int], Array]
    full: Callable[[Any, DType], Array]
    reshape: Callable[[Array, Sequence[int]], Array]
    broadcast: Callable[[Array, Sequence[int]], Array]
    any: Callable[[Array], bool]


def size_names(sizes: Sequence[int]) -> dict[str, int]:
    """Size arguments by the names kernels use: s0, s1, ..., and ~s0, ~s1, ... for those that may be below 1."""
    named = {f"s{k}": int(v) for k, v in enumerate(sizes)}
    return {**named, **{expr.SCALAR + name: v for name, v in named.items()}}


class KernelEvaluator:
    """One kernel made ready: axes numbered, affine loads and stores found once. Called with flat, typed arrays."""

    def __init__(self, kernel: Kernel, ops: ArrayOps) -> None:
        self.kernel = kernel
        self.ops = ops
        nodes = list(expr.walk(*kernel.roots()))
        axes = {n for n in nodes if n.op == "axis"}
        self.axes: list[Expr] = sorted(axes - ({kernel.seq} if kernel.seq else set()), key=lambda a: int(a.attr))
        self.dim = {a: k for k, a in enumerate(self.axes)}
        self.affine: dict[Expr, tuple[Expr, tuple[Expr, ...]] | None] = {}
        for node in nodes:
            if node.op == "load":
                offset = expr.load_parts(node)[0][0]
                self.affine.setdefault(offset, poly.affine(offset, tuple(self.axes)))
        for store in kernel.stores:
            self.affine.setdefault(store.offset, poly.affine(store.offset, tuple(self.axes)))

    def __call__(self, arrays: Sequence[Array], sizes: Sequence[int]) -> None:
        run = _Run(self, arrays, size_names(sizes))
        if self.kernel.seq is None:
            for store in self.kernel.stores:
                run.store(store)
            return
        run.carries = [run.value(c.init) for c in self.kernel.carries]
        each_step = self.kernel.stores if self.kernel.until is None else ()
        for step in range(expr.evaluate(self.kernel.seq.args[0], run.sizes)):
            run.start_step(self.kernel.seq, step)
            for store in each_step:
                run.store(store)
            run.carries = [run.value(c.update) for c in self.kernel.carries]
            if self.kernel.until is not None and run.all(self.kernel.after_step()):
                break
        if self.kernel.until is not None:
            run.memo.clear()
            for store in self.kernel.stores:
                run.store(store)


class _Run:
    """One launch: the values computed so far."""

    def __init__(self, plan: KernelEvaluator, arrays: Sequence[Array], sizes: dict[str, int]) -> None:
        self.plan = plan
        self.ops = plan.ops
        self.arrays = arrays
        self.sizes = sizes
        self.extent = {a: expr.evaluate(a.args[0], sizes) for a in plan.axes}
        self.memo: dict[Expr, Array] = {}
        self.carries: list[Array] = []
        self.step: tuple[Expr, int] | None = None

    def start_step(self, seq: Expr, step: int) -> None:
        self.memo.clear()
        self.step = (seq, step)

    def value(self, root: Expr) -> Array:
        # a reduce's operands are needed by it alone: drop them, they are the large ones
        for node in expr.walk(root):
            if node not in self.memo:
                self.memo[node] = getattr(self, f"_{node.op}")(node)
        return self.memo[root]

    def _const(self, node: Expr) -> Array:
        return self.ops.full(node.attr, node.dtype)

    def _size(self, node: Expr) -> Array:
        return self.ops.full(self.sizes[node.attr], node.dtype)

    def _axis(self, node: Expr) -> Array:
        if self.step is not None and node is self.step[0]:
            return self.ops.full(self.step[1], node.dtype)
        shape = [1] * len(self.plan.axes)
        if node in self.plan.dim:
            shape[self.plan.dim[node]] = self.extent[node]
            return self.ops.reshape(self.ops.arange(self.extent[node]), shape)
        return self.ops.full(0, node.dtype)

    def _alu(self, node: Expr) -> Array:
        return self.ops.alu[node.attr](*(self.memo[a] for a in node.args))

    def _cast(self, node: Expr) -> Array:
        return self.ops.cast(self.memo[node.args[0]], node.dtype)

    def _bitcast(self, node: Expr) -> Array:
        return self.ops.bitcast(self.memo[node.args[0]], node.dtype)

    def _select(self, node: Expr) -> Array:
        return self.ops.select(*(self.memo[a] for a in node.args))

    def _carry(self, node: Expr) -> Array:
        return self.carries[node.attr]

    def _reduce(self, node: Expr) -> Array:
        n = node.attr.axes
        axes, values = node.args[:n], node.args[n:]
        dims = tuple(self.plan.dim[a] for a in axes)
        shape = [1] * len(self.plan.axes)
        for a in axes:
            shape[self.plan.dim[a]] = self.extent[a]
        spread = [self._spread(self.memo[v], shape) for v in values]
        if len(spread) == 2:
            return self.ops.arg_reduce(node.attr.monoid, spread[0], spread[1], dims)
        return self.ops.reduce(node.attr.monoid, spread[0], dims)

    def _spread(self, x: Array, shape: Sequence[int]) -> Array:
        """``x`` with the reduced dims at full extent, even where it does not depend on them."""
        own = tuple(x.shape) if len(x.shape) == len(shape) else (1,) * len(shape)
        return self.ops.broadcast(x, [max(a, b) for a, b in zip(own, shape, strict=True)])

    def _load(self, node: Expr) -> Array:
        flat = self.arrays[node.attr.source]
        (offset,), guard, other = expr.load_parts(node)
        affine = self.plan.affine[offset]
        if guard is None and affine is not None and self.step is None:
            base, strides = affine
            steps = [expr.evaluate(s, self.sizes) for s in strides]
            shape = [self.extent[a] if s else 1 for a, s in zip(self.plan.axes, steps, strict=True)]
            return self.ops.strided(flat, expr.evaluate(base, self.sizes), shape, steps)
        place = self.memo[offset]
        if guard is None or other is None:
            return self.ops.take(flat, place)
        test = self.memo[guard]
        if node.attr.fault and self.ops.any(self.ops.alu["not"](test)):
            self._fault(node.attr.fault)
        found = self.ops.take(flat, self.ops.select(test, place, self.ops.full(0, offset.dtype)))
        return self.ops.select(test, found, self.memo[other])

    def all(self, condition: Expr) -> bool:
        return not self.ops.any(self.ops.alu["not"](self.value(condition)))

    def _fault(self, code: int) -> None:
        from omniop.opset.dtype import INT32, INT64

        assert self.plan.kernel.error is not None
        word = self.arrays[self.plan.kernel.error]
        self.ops.put(word, self.ops.full(0, INT64), self.ops.full(code, INT32))

    def store(self, store: Store) -> None:
        flat = self.arrays[store.buffer]
        shape = [self.extent[a] if a in self.plan.kernel.axes else 1 for a in self.plan.axes]
        value = self.ops.broadcast(self.value(store.value), shape)
        affine = self.plan.affine[store.offset]
        if store.guard is None and store.combine is None and affine is not None and self.step is None:
            base, strides = affine
            steps = [expr.evaluate(s, self.sizes) for s in strides]
            self.ops.assign(self.ops.strided(flat, expr.evaluate(base, self.sizes), shape, steps), value)
            return
        offsets = self.ops.broadcast(self.value(store.offset), shape)
        if store.guard is not None:
            test = self.ops.broadcast(self.value(store.guard), shape)
            if store.fault and self.ops.any(self.ops.alu["not"](test)):
                self._fault(store.fault)
            offsets, value = offsets[test], value[test]
        if store.combine is None:
            self.ops.put(flat, offsets, value)
        else:
            self.ops.combine(store.combine, flat, offsets, value)


def view_of(view: View, arrays: Sequence[Array], sizes: Mapping[str, int], ops: ArrayOps) -> Array:
    """A `kernel.View` as a strided array."""
    return ops.strided(
        arrays[view.buffer],
        expr.evaluate(view.offset, sizes),
        [expr.evaluate(d, sizes) for d in view.shape],
        [expr.evaluate(s, sizes) for s in view.strides],
    )
