"""How far functions are from exact: in units in the last place, over their whole range, against OpenCL's limits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial

import numpy as np

from omniop.conformance.oracles.arithmetic import exact, float_limits, rounded
from omniop.conformance.prim.bench import Bench
from omniop.conformance.prim.table import Check, checks
from omniop.conformance.tolerance import ulp_limit
from omniop.conformance.verdict import Error
from omniop.opset import expr
from omniop.opset.alu import ALU
from omniop.opset.dtype import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, DType
from omniop.opset.kernel import Kernel, Param, Store

FUNCTIONS = ("sqrt", "div", *(name for name, op in ALU.items() if op.cost >= 16 and "f" in op.kinds))
"""What devices compute by approximations, and what some round less than exactly."""

_POINTS = 1 << 15


@checks
def functions() -> Iterator[Check]:
    for name in FUNCTIONS:
        for dtype in (FLOAT32, FLOAT64, FLOAT16, BFLOAT16):
            yield Check(f"prim_{name}_{dtype}_ulp", name, (dtype.name,), partial(_accuracy, name, dtype))


def _accuracy(name: str, dtype: DType, bench: Bench) -> None:
    """Every value of a 16-bit dtype where there is one operand; elsewhere numbers of every size."""
    operands = _operands(name, dtype)
    i = expr.axis(0, operands[0].size)
    value = expr.alu(name, *(expr.load(k, (i,), dtype) for k in range(len(operands))))
    params = (*(Param(dtype) for _ in operands), Param(dtype, True))
    kernel = Kernel(params, (i,), (Store(len(operands), i, value),))
    (found,) = bench.run(kernel, [*operands, np.zeros(operands[0].size, dtype.numpy)])
    _judge(bench, found, exact(name, dtype, operands), operands, dtype, ulp_limit(name, dtype))


def _judge(
    bench: Bench, found: np.ndarray, wanted: np.ndarray, operands: list[np.ndarray], dtype: DType, limit: float
) -> None:
    """Against the exact value, not its rounding: half a unit is what a correctly rounded function shows."""
    limits = float_limits(dtype)
    tiny, largest = float(limits.tiny), float(limits.max)
    with np.errstate(all="ignore"):
        actual, nearest = found.astype(wanted.dtype), rounded(wanted, dtype).astype(wanted.dtype)
        unit = float(limits.eps) * 2.0 ** np.floor(np.log2(np.maximum(np.abs(nearest), tiny)))
        same = (actual == nearest) | (np.isnan(actual) & np.isnan(nearest))
        counted = np.isfinite(actual) & np.isfinite(nearest) & np.isfinite(wanted)
        distance = np.where(counted, np.abs(actual - wanted), 0)
        steps = np.where(distance <= tiny, 0, distance / unit)  # what is smaller may be flushed
        # Within the limit of the largest number, infinity is as good.
        ends = np.abs(wanted) >= largest - limit * float(limits.eps) * largest
        wrong = np.where(counted, steps > limit, ~(same | ends))
        relative = np.where(distance == 0, 0, distance / np.maximum(np.abs(wanted), tiny))
    if counted.any():
        bench.note(Error(float(distance.max()), float(relative.max()), round(float(steps.max()), 3)))
    if wrong.any() and not bench.reason:
        k = int(np.argmax(np.where(wrong, np.where(counted, steps, np.inf), -1)))
        at = ", ".join(repr(float(operand[k])) for operand in operands)
        bench.reason = (
            f"{int(wrong.sum())} of {wrong.size} values differ, worst at ({at}): {float(found[k])!r}, "
            f"expected {float(nearest[k])!r} ({limit:g} ulp)"
        )


def _operands(name: str, dtype: DType) -> list[np.ndarray]:
    """Drawn from the name: half of every magnitude that the dtype has, half near zero."""
    arity = ALU[name].arity
    if arity == 1 and dtype.bits == 16:
        return [np.arange(1 << 16, dtype=np.uint16).view(dtype.numpy)]
    digest = hashlib.sha256(f"{name}/{dtype}".encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    limits = float_limits(dtype)
    low, high = np.log2(float(limits.tiny)), np.log2(float(limits.max))
    found = []
    for _ in range(arity):
        signs = random.choice((-1.0, 1.0), _POINTS)
        sizes = 2.0 ** np.where(
            np.arange(_POINTS) % 2, random.uniform(low, high, _POINTS), random.uniform(-8, 7, _POINTS)
        )
        values = signs * np.minimum(sizes, float(limits.max))
        with np.errstate(all="ignore"):
            found.append(random.permutation(values).astype(dtype.numpy))
    return found
