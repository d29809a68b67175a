"""The prim ``prefix``: running sums and products along the last axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from omniop.backends.cpu.memory import Scratch
from omniop.backends.reference.numpy_ops import cast
from omniop.opset import prims
from omniop.opset.dtype import of_numpy
from omniop.opset.kernel import Call

MONOIDS = {"add": np.add, "mul": np.multiply, "min": np.minimum, "max": np.maximum}


def prefix(call: Call, operands: Sequence[np.ndarray], outs: Sequence[np.ndarray], scratch: Scratch) -> None:
    """Accumulates narrow floats in float32 and rounds each result once."""
    (x,), (out,) = operands, outs
    monoid, dtype = call.attr("monoid"), of_numpy(x.dtype)
    wide = prims.accumulator(dtype)
    source, target = cast(x, wide), out
    if call.attr("reverse"):
        source, target = source[..., ::-1], target[..., ::-1]
    if call.attr("exclusive"):
        target[..., 0] = prims.identity(monoid, dtype)
        source, target = source[..., :-1], target[..., 1:]
    with np.errstate(all="ignore"):
        target[...] = cast(MONOIDS[monoid].accumulate(source, axis=-1, dtype=wide.numpy), dtype)
