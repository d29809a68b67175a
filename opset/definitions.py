"""What a trace records: tensors, and the definitions of the prims that compute them.

The prims themselves, and what each means, are in `omniop.opset.prims`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from omniop.opset import expr
from omniop.opset.dtype import DType
from omniop.opset.expr import Expr, Scalar
from omniop.opset.kernel import tuned_kernel
from omniop.opset.sym import Dim, as_expr


class Tensor:
    """One output of a prim: a shape of dims, a dtype, and the prim that defines it. Compared by identity."""

    __slots__ = ("definition", "dtype", "output", "shape")

    def __init__(self, shape: Sequence[Dim], dtype: DType, definition: Definition, output: int = 0) -> None:
        self.shape: tuple[Dim, ...] = tuple(shape)
        self.dtype = dtype
        self.definition = definition
        self.output = output

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def extents(self) -> tuple[Expr, ...]:
        """The shape as int64 expressions."""
        return tuple(as_expr(d) for d in self.shape)

    @property
    def empty(self) -> bool:
        """Some dim is 0."""
        return any(isinstance(d, int) and d == 0 for d in self.shape)

    def at(self, *indices: Scalar, guard: Expr | None = None, other: Scalar = 0, fault: int = 0) -> Expr:
        """The element at ``indices`` (one per axis, integer expressions); ``other`` where ``guard`` is false."""
        if len(indices) != self.rank:
            raise ValueError(f"{len(indices)} indices for a tensor of rank {self.rank}")
        return expr.load(self, tuple(expr.index(i) for i in indices), self.dtype, guard, other, fault)

    def __repr__(self) -> str:
        return f"%{self.definition.number}{f'.{self.output}' if self.output else ''}"


@dataclass(eq=False)
class Definition:
    """What a prim computes. ``number`` is its place in the trace, ``origin`` the ONNX node it belongs to."""

    outputs: tuple[Tensor, ...] = field(default=(), init=False)
    number: int = field(default=-1, init=False)
    origin: int = field(default=-1, init=False)

    def expressions(self) -> tuple[Expr, ...]:
        """The expressions it evaluates, over its own axes."""
        return ()

    def inputs(self) -> tuple[Tensor, ...]:
        """The tensors it reads."""
        return self._loaded

    @cached_property
    def _loaded(self) -> tuple[Tensor, ...]:
        found: dict[Tensor, None] = {}
        for node in expr.walk(*self.expressions()):
            if node.op == "load":
                found.setdefault(node.attr.source)
        return tuple(found)

    @cached_property
    def dtypes(self) -> frozenset[DType]:
        """The element types that it reads, writes and computes in."""
        tensors = (*self.outputs, *self.inputs())
        return frozenset([t.dtype for t in tensors] + [node.dtype for node in expr.walk(*self.expressions())])


@dataclass(eq=False)
class Source(Definition):
    """A tensor that is there: a feed, a constant, or a result of an earlier segment."""

    name: str
    array: np.ndarray | None = None
    """A constant's elements."""


@dataclass(eq=False)
class Map(Definition):
    """``value`` over axes ``0 .. rank - 1`` of the output's shape. Where it ``folds`` and depends on constants alone it
    is computed once and kept."""

    value: Expr
    folds: bool = True

    def expressions(self) -> tuple[Expr, ...]:
        return (self.value,)


@dataclass(frozen=True)
class TensorStore:
    """``outputs[output][index] = value``; see `kernel.Store`."""

    output: int
    index: tuple[Expr, ...]
    value: Expr
    guard: Expr | None = None
    combine: str | None = None
    fault: int = 0


@dataclass(frozen=True)
class TensorCarry:
    """See `kernel.Carry`."""

    init: Expr
    update: Expr


@dataclass(eq=False)
class Scatter(Definition):
    """Stores over the points of ``axes``; each output starts as a copy of its base, or as undefined memory
    where the base is None (then the stores must cover it)."""

    axes: tuple[Expr, ...]
    stores: tuple[TensorStore, ...]
    bases: tuple[Tensor | None, ...]
    seq: Expr | None = None
    carries: tuple[TensorCarry, ...] = ()
    until: Expr | None = None
    """See `kernel.Kernel`."""

    def expressions(self) -> tuple[Expr, ...]:
        result: list[Expr] = []
        for c in self.carries:
            result += [c.init, c.update]
        if self.until is not None:
            result.append(self.until)
        for s in self.stores:
            result += [*s.index, s.value, *([] if s.guard is None else [s.guard])]
        return tuple(result)

    def inputs(self) -> tuple[Tensor, ...]:
        return tuple(dict.fromkeys((*super().inputs(), *(b for b in self.bases if b is not None))))


@dataclass(eq=False)
class Structured(Definition):
    """A structured prim (or "contract", or what `kernel.tuned_prim` names) on whole tensors."""

    prim: str
    operands: tuple[Tensor, ...]
    attrs: tuple[tuple[str, Any], ...] = ()

    @property
    def tuned(self) -> str | None:
        """The name of the tuned kernel that it is, if it is one."""
        return tuned_kernel(self.prim)

    def inputs(self) -> tuple[Tensor, ...]:
        return tuple(dict.fromkeys(self.operands))

    def attr(self, name: str) -> Any:
        return dict(self.attrs)[name]


@dataclass(eq=False)
class Attention(Structured):
    """``softmax(scores(q @ k)) @ v`` of operands q [*batch, M, d], k [*batch, d, N] and v [*batch, N, columns], all of
    float32 or of bfloat16; products are float32, and the softmax is rounded to what v is.

    ``scores``: an expression over the axes of [*batch, M, N] with a hole for the product's value; None for the value
    itself. The attribute ``blank``: rows of scores that are all -inf give zeros. ``covers``: what it was made of.
    """

    scores: Expr | None = None
    covers: tuple[Definition, ...] = ()

    def expressions(self) -> tuple[Expr, ...]:
        return () if self.scores is None else (self.scores,)

    def inputs(self) -> tuple[Tensor, ...]:
        return tuple(dict.fromkeys((*self.operands, *self._loaded)))


@dataclass(eq=False)
class Repeat(Definition):
    """``count`` runs of a body. The body's tensors are in the same trace, after ``carried`` (Sources that stand for
    the carried values); ``step`` is the size symbol that counts the runs from 0.

    Outputs: the final value of each carry, then each of ``collected`` stacked along a new first axis (at place
    ``position`` of each run: the step itself, or counted from the end when ``reverse``).
    """

    count: Dim
    step: str
    initial: tuple[Tensor, ...]
    carried: tuple[Tensor, ...]
    updated: tuple[Tensor, ...]
    collected: tuple[Tensor, ...]
    body: tuple[Definition, ...]
    reverse: bool = False

    def inputs(self) -> tuple[Tensor, ...]:
        inside = set(self.body)
        found: dict[Tensor, None] = dict.fromkeys(self.initial)
        for definition in self.body:
            for t in definition.inputs():
                if t.definition not in inside:
                    found.setdefault(t)
        for t in (*self.updated, *self.collected):
            if t.definition not in inside:
                found.setdefault(t)
        return tuple(found)
