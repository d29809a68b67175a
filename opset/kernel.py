"""Units of device work: what the dispatcher plans and a device builds and launches.

`Kernel` is a loop program of the kernel IR, with its expressions already fused. `Call` is a structured prim or a
contract on strided views, optionally followed by an epilogue. Both are frozen values whose equality is content: axes,
buffers and sizes are numbered in order of use, so layers of one shape share one kernel.

Sizes: every number that is not the same for all shapes is a size argument ``s0``, ``s1``, ... (an int64 a launch is
given), at least 1; one that may be less is called ``~s0``, ``~s1``, ... instead. Static dims are constants in the
expressions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from omniop.opset import expr
from omniop.opset.dtype import DType
from omniop.opset.expr import Expr
from omniop.opset.expr_text import format_expr


@dataclass(frozen=True)
class Param:
    """A buffer argument: ``written`` buffers are outputs (never read, except by a combining store)."""

    dtype: DType
    written: bool = False


@dataclass(frozen=True)
class Store:
    """``buffer[offset] = value`` where ``guard`` holds.

    ``offset`` is in elements. ``combine`` (add, mul, min, max) merges with what the buffer holds: several points may
    then hit one element, and the result must be as if they came one after another, in any order. Without ``combine``
    a duplicate keeps any one of the values. A failed guard with ``fault`` above 0 sets the error word to it.
    """

    buffer: int
    offset: Expr
    value: Expr
    guard: Expr | None = None
    combine: str | None = None
    fault: int = 0


@dataclass(frozen=True)
class Carry:
    """A scalar of the sequential axis: its value before the first step, and after each one."""

    dtype: DType
    init: Expr
    update: Expr


@dataclass(frozen=True)
class Kernel:
    """For every point of ``axes`` (any order, in parallel): run the stores.

    Shapes: axis ``k`` of ``axes`` is the node ``axis(k, extent)``; a reduce inside an expression binds axes of higher
    numbers. An expression that does not depend on the innermost axes is computed once for them: a softmax is a kernel
    over (row, column) whose value holds reduces that depend on the row alone.

    ``seq``: with a sequential axis (an axis node that is not in ``axes``), the stores run once a step, in order, and
    may use ``carry(k)``: the value before this step's update. Updates see the values before the step, all at once.

    ``until``: makes the sequential axis a *fold*. The stores then run once, after the last step, and see the final
    carries; and the steps may end as soon as this condition on the carries holds, since those left change nothing.

    ``error``: the number of the error word's buffer (int32[1]) among ``params``, when a load or a store may fault.
    """

    params: tuple[Param, ...]
    axes: tuple[Expr, ...]
    stores: tuple[Store, ...]
    sizes: int = 0
    seq: Expr | None = None
    carries: tuple[Carry, ...] = ()
    error: int | None = None
    until: Expr | None = None
    _hash: int = field(default=0, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(
            self,
            "_hash",
            hash((self.params, self.axes, self.stores, self.sizes, self.seq, self.carries, self.error, self.until)),
        )

    def __hash__(self) -> int:
        return self._hash

    def roots(self) -> Iterator[Expr]:
        """Every expression of the kernel."""
        yield from self.axes
        if self.seq is not None:
            yield self.seq
        for c in self.carries:
            yield from (c.init, c.update)
        if self.until is not None:
            yield self.until
        for s in self.stores:
            yield from (s.offset, s.value)
            if s.guard is not None:
                yield s.guard

    def after_step(self) -> Expr:
        """``until`` as it is after a step: of the updates in place of the carries."""
        assert self.until is not None
        updates = {expr.carry(k, c.dtype): c.update for k, c in enumerate(self.carries)}
        return expr.substitute(self.until, updates)

    def stores_after_one_step(self) -> tuple[Store, ...]:
        """The stores of a fold of one step, with what the carries then are."""
        before = {expr.carry(k, c.dtype): c.init for k, c in enumerate(self.carries)}
        after = {carry: expr.substitute(c.update, before) for carry, c in zip(before, self.carries, strict=True)}
        return tuple(
            replace(
                s,
                offset=expr.substitute(s.offset, after),
                value=expr.substitute(s.value, after),
                guard=None if s.guard is None else expr.substitute(s.guard, after),
            )
            for s in self.stores
        )

    def describe(self) -> str:
        """One line for ``explain``."""
        return "; ".join(format_expr(s.value)[:120] for s in self.stores)


@dataclass(frozen=True)
class View:
    """A strided window of a buffer: element (i, j, ...) lies at ``offset + i * strides[0] + j * strides[1] + ...``.

    ``buffer`` numbers a param; offset, shape and strides are expressions over size arguments, in elements; strides may
    be 0 (broadcast) or negative.
    """

    buffer: int
    dtype: DType
    shape: tuple[Expr, ...]
    strides: tuple[Expr, ...]
    offset: Expr


_TUNED = "kernel:"


def tuned_prim(name: str) -> str:
    """What stands in a prim's place for the tuned kernel ``name``."""
    return _TUNED + name


def tuned_kernel(prim: str) -> str | None:
    """The name of the tuned kernel that stands in a prim's place, if one does."""
    return prim.removeprefix(_TUNED) if prim.startswith(_TUNED) else None


@dataclass(frozen=True)
class Call:
    """A prim on views: ``prim`` is "contract", "attention", a structured prim's name, or "kernel:NAME" for a tuned
    kernel.

    ``attrs`` are the prim's parameters (name, value), sorted; see `omniop.opset.prims` for each prim's. ``epilogue`` is
    an expression with a `expr.hole` for the prim's value at axes (0 .. rank-1) of ``results[0]``; it may load from
    other params. ``scores``: that of `definitions.Attention`, likewise; its operands' offsets are over the batch axes,
    whose strides are 0.
    """

    prim: str
    params: tuple[Param, ...]
    operands: tuple[View, ...]
    results: tuple[View, ...]
    attrs: tuple[tuple[str, Any], ...] = ()
    sizes: int = 0
    epilogue: Expr | None = None
    scores: Expr | None = None

    @property
    def tuned(self) -> str | None:
        """The name of the tuned kernel that it is; None for a prim that a device takes whole."""
        return tuned_kernel(self.prim)

    def attr(self, name: str) -> Any:
        return dict(self.attrs)[name]

    def describe(self) -> str:
        text = f"{self.prim}({', '.join(f'{n}={v}' for n, v in self.attrs)})"
        if self.scores is not None:
            text += f" of {format_expr(self.scores)[:100]}"
        return text if self.epilogue is None else f"{text} then {format_expr(self.epilogue)[:100]}"


Work = Kernel | Call
