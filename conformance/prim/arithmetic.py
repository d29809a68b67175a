"""Every operation of an expression in every dtype, on each pair of edges; and every cast."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from omniop.conformance.oracles.arithmetic import cast, edges, expected, operations, pairs
from omniop.conformance.prim.bench import Bench
from omniop.conformance.prim.table import Check, checks
from omniop.conformance.tolerance import tolerance_of_function
from omniop.opset import dtype as dtypes
from omniop.opset import expr
from omniop.opset.alu import ALU
from omniop.opset.dtype import DType
from omniop.opset.kernel import Kernel, Param, Store

COMPUTED = tuple(d for d in dtypes.ALL if d.kind in "biuf" and d is not dtypes.FLOAT8E8M0)
"""What arithmetic is done in; float8_e8m0fnu is a scale, without a zero or a sign."""


@checks
def at_the_edges() -> Iterator[Check]:
    for dtype in COMPUTED:
        for name in operations(dtype):
            yield Check(f"prim_{name}_{dtype}_edges", name, (dtype.name,), partial(_operation, name, dtype))


def _operation(name: str, dtype: DType, bench: Bench) -> None:
    """One kernel over all pairs."""
    operands = pairs(dtype)[: ALU[name].arity]
    if name in _DIVISOR_ABOVE_ZERO:
        above = operands[1].astype(np.float64) > 0
        operands = operands[0][above], operands[1][above]
    count = operands[0].size
    i = expr.axis(0, count)
    value = expr.alu(name, *(expr.load(k, (i,), dtype) for k in range(len(operands))))
    params = (*(Param(dtype) for _ in operands), Param(value.dtype, True))
    kernel = Kernel(params, (i,), (Store(len(operands), i, value),))
    (found,) = bench.run(kernel, [*operands, np.zeros(count, value.dtype.numpy)])
    wanted = expected(name, dtype, operands)
    bench.expect(found, wanted, tolerance_of_function(name, dtype))
    _signs(bench, name, dtype, found, wanted)


_DIVISOR_ABOVE_ZERO = ("floordiv", "floormod")
_KEEPS_SIGN = ("neg", "abs", "floor", "ceil", "rint", "trunc", "sqrt", "mul", "div")


def _signs(bench: Bench, name: str, dtype: DType, found: np.ndarray, wanted: np.ndarray) -> None:
    """A zero has the sign that it should have, which comparing values does not see. Formats without a negative zero
    have none to lose."""
    if name not in _KEEPS_SIGN or not dtype.is_float or dtype.name.endswith("fnuz"):
        return
    zeros = (wanted.astype(np.float64) == 0) & (found.astype(np.float64) == 0)
    bench.expect(
        np.signbit(found[zeros].astype(np.float32)), np.signbit(wanted[zeros].astype(np.float32)), what="signs"
    )


@checks
def casts() -> Iterator[Check]:
    for source in COMPUTED:
        for target in COMPUTED:
            if source is not target:
                name = f"prim_cast_{source}_to_{target}"
                yield Check(name, "cast", (source.name, target.name), partial(_cast, source, target))


def _cast(source: DType, target: DType, bench: Bench) -> None:
    values = edges(source)
    i = expr.axis(0, len(values))
    store = Store(1, i, expr.cast(expr.load(0, (i,), source), target))
    kernel = Kernel((Param(source), Param(target, True)), (i,), (store,))
    (found,) = bench.run(kernel, [values, np.zeros(len(values), target.numpy)])
    bench.expect(found, cast(values, source, target))
