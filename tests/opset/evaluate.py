"""Run a trace prim by prim in numpy, without fusion or planning: how lowerings are tested on their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from omniop.backends.array_eval import KernelEvaluator
from omniop.backends.reference.numpy_ops import NUMPY
from omniop.opset import dtype as dtypes
from omniop.opset import expr, lowering, poly, prims, sym, trace
from omniop.opset.definitions import Definition, Map, Repeat, Scatter, Source, Structured, Tensor
from omniop.opset.expand import expand
from omniop.opset.kernel import Carry, Kernel, Param, Store


class Interpreter:
    """Values of a trace's tensors, computed on demand."""

    def __init__(self, tr: trace.Trace, feeds: Mapping[str, np.ndarray]) -> None:
        self.trace = tr
        self.feeds = feeds
        self.values: dict[Tensor, np.ndarray] = {}

    def shape(self, t: Tensor) -> list[int]:
        return [self.trace.env.hint(e) for e in t.extents]

    def value(self, t: Tensor) -> np.ndarray:
        if t not in self.values:
            for x in t.definition.inputs():
                self.value(x)
            getattr(self, f"_{type(t.definition).__name__.lower()}")(t.definition)
        return self.values[t]

    def _source(self, d: Source) -> None:
        self.values[d.outputs[0]] = self.feeds[d.name] if d.array is None else d.array

    def _kernel(
        self,
        d: Definition,
        axes: tuple,
        stores: list,
        carries: tuple = (),
        seq: Any = None,
        bases: tuple = (),
        until: Any = None,
    ) -> None:
        tensors = list(d.inputs())
        params = [Param(t.dtype) for t in tensors]
        arrays = [np.ascontiguousarray(self.value(t)).reshape(-1) for t in tensors]
        outs = []
        for t, base in zip(d.outputs, bases or (None,) * len(d.outputs), strict=True):
            out = np.zeros(self.shape(t), t.dtype.numpy) if base is None else self.value(base).copy()
            outs.append(out)
            arrays.append(out.reshape(-1))
            params.append(Param(t.dtype, True))
        error = np.zeros(1, np.int32)
        arrays.append(error)
        params.append(Param(dtypes.INT32, True))
        names = list(self.trace.env.hints)
        mapping = {expr.size(n): expr.size(f"s{k}") for k, n in enumerate(names)}

        def flat(root: expr.Expr) -> expr.Expr:
            done: dict[expr.Expr, expr.Expr] = {}
            for node in expr.walk(root):
                if node in mapping:
                    done[node] = mapping[node]
                elif node.op == "load":
                    index, guard, other = expr.load_parts(node)
                    source = node.attr.source
                    extents = tuple(expr.substitute(e, mapping) for e in source.extents)
                    offset = poly.linear(tuple(done[i] for i in index), extents)
                    done[node] = expr.load(
                        tensors.index(source),
                        (offset,),
                        node.dtype,
                        guard and done[guard],
                        0 if other is None else done[other],
                        node.attr.fault,
                    )
                else:
                    done[node] = expr.rebuild(node, tuple(done[a] for a in node.args))
            return done[root]

        kernel = Kernel(
            tuple(params),
            tuple(a for a in map(flat, axes) if a.op == "axis"),
            tuple(
                Store(
                    len(tensors) + s.output,
                    poly.linear(tuple(map(flat, s.index)), tuple(map(flat, d.outputs[s.output].extents))),
                    flat(s.value),
                    None if s.guard is None else flat(s.guard),
                    s.combine,
                    s.fault,
                )
                for s in stores
            ),
            len(names),
            None if seq is None else flat(seq),
            tuple(Carry(c.init.dtype, flat(c.init), flat(c.update)) for c in carries),
            len(params) - 1,
            None if until is None else flat(until),
        )
        KernelEvaluator(kernel, NUMPY)(arrays, [self.trace.env.hints[n] for n in names])
        if error[0]:
            raise IndexError(self.trace.faults[error[0] - 1][1])
        self.values.update(zip(d.outputs, outs, strict=True))

    def _map(self, d: Map) -> None:
        (out,) = d.outputs
        if out.empty:
            self.values[out] = np.zeros(self.shape(out), out.dtype.numpy)
            return
        axes = prims.axes_of(out.shape)
        self._kernel(d, axes, [prims.TensorStore(0, axes, d.value)])

    def _scatter(self, d: Scatter) -> None:
        self._kernel(d, d.axes, list(d.stores), d.carries, d.seq, d.bases, d.until)

    def _structured(self, d: Structured) -> None:
        if d.prim == "contract":
            a, b = (self.value(t).astype(d.attr("accumulate").numpy) for t in d.operands)
            self.values[d.outputs[0]] = np.matmul(a, b).astype(d.outputs[0].dtype.numpy)
            return
        with trace.tracing(self.trace):
            for out, t in zip(d.outputs, expand(d, loops=False), strict=True):
                self.values[out] = self.value(t)

    def _repeat(self, d: Repeat) -> None:
        n = self.trace.env.hint(sym.as_expr(d.count))
        state = [self.value(t) for t in d.initial]
        rows: list[list[np.ndarray]] = [[None] * n for _ in d.collected]  # type: ignore[list-item]
        for k in range(n):
            step = n - 1 - k if d.reverse else k
            self.trace.env.hints[d.step] = step
            for definition in d.body:
                for t in definition.outputs:
                    self.values.pop(t, None)
            self.values.update(zip(d.carried, state, strict=True))
            state = [self.value(t) for t in d.updated]
            for row, t in zip(rows, d.collected, strict=True):
                row[step] = self.value(t)
        outs = state + [
            np.stack(r) if r else np.zeros(self.shape(t)) for r, t in zip(rows, d.outputs[len(state) :], strict=True)
        ]
        self.values.update(zip(d.outputs, outs, strict=True))


def lower(
    op_type: str,
    since: int,
    inputs: list[Any],
    attributes: Mapping[str, Any] | None = None,
    outputs: int = 1,
    domain: str = "",
    symbolic: bool = True,
) -> list[Any]:
    """Lower one node and compute it. Array inputs become feeds with symbolic dims; a read-back restarts it."""
    known: dict[object, lowering.HostValue] = {}
    entry = lowering.find(domain, op_type, since)
    assert entry is not None, f"no lowering of {op_type} since {since}"
    while True:
        tr = trace.Trace()
        feeds = {f"x{k}": v for k, v in enumerate(inputs) if isinstance(v, np.ndarray)}
        with trace.tracing(tr):
            values: list[Any] = []
            for k, v in enumerate(inputs):
                if isinstance(v, np.ndarray):
                    shape = [tr.env.symbol(f"d{k}_{a}", n) if symbolic else n for a, n in enumerate(v.shape)]
                    host = lowering.host_value(v, dtypes.of_numpy(v.dtype))
                    values.append(host if k in entry.host else prims.source(f"x{k}", shape, dtypes.of_numpy(v.dtype)))
                else:
                    values.append(v)
            node = lowering.Node(op_type, domain, since, op_type, attributes or {}, values, (True,) * outputs, known)
            run = Interpreter(tr, feeds)
            try:
                results = entry.function(node, *values)
            except lowering.NeedsHost as need:
                known[need.key] = lowering.host_value(run.value(need.tensor), need.tensor.dtype)
                continue
            results = list(results) if isinstance(results, tuple) else [results]
            return [_host(r, run) for r in results]


def _host(value: Any, run: Interpreter) -> Any:
    if isinstance(value, Tensor):
        return run.value(value)
    if isinstance(value, lowering.HostValue):
        plain: Callable[[Any], Any] = lambda v: v.hint if isinstance(v, sym.SymInt) else v  # noqa: E731
        return np.vectorize(plain, otypes=[object])(value.array).astype(value.dtype.numpy)
    if isinstance(value, list):
        return [_host(v, run) for v in value]
    return value
