"""Products in less than their own precision, where a session asks for it: ``precision="bf16"``.

Operands of products and convolutions of float32 are rounded to bfloat16; their sums and all else stay float32. The
rounding is a cast like others: constants are cast at load, and what computes an operand writes it rounded.
"""

from __future__ import annotations

from math import prod
from typing import Literal

from omniop.dispatcher.layouts import is_constant
from omniop.opset import prims
from omniop.opset.definitions import Definition, Map, Structured, Tensor
from omniop.opset.dtype import BFLOAT16, FLOAT32, DType
from omniop.opset.sym import hint_of, known_equal
from omniop.opset.trace import Trace

Precision = Literal["bf16"]
OPERANDS: dict[str, DType] = {"bf16": BFLOAT16}
"""What operands are rounded to."""

_FEW_ROWS = 4
"""Rows up to which a product with a computed matrix is bound by reading that."""
_WIDER = 4
"""A view is taken of its rounded base when that is at most so many times as large."""


def round_operands(definition: Structured, precision: Precision, trace: Trace) -> list[Definition] | None:
    """Give a product or convolution rounded operands; what was recorded for that, or None where it is not for it."""
    operands, results = definition.operands, definition.outputs
    if definition.prim not in ("contract", "conv") or any(t.dtype is not FLOAT32 for t in (*operands, *results)):
        return None
    if definition.prim == "conv" and known_equal(operands[1].shape[1], 1):
        return None  # a window of one channel: its sums are short, and its time goes into moving data
    if definition.prim == "contract" and not is_constant(operands[1]) and hint_of(operands[0].shape[-2]) <= _FEW_ROWS:
        return None
    first = len(trace.definitions)
    definition.operands = tuple(_rounded(t, OPERANDS[precision]) for t in operands)
    channels = [t.shape[1] for t in operands]
    if (
        definition.prim == "conv"
        and definition.attr("group") == 1
        and all(isinstance(c, int) and c % 2 for c in channels)
    ):
        definition.operands = tuple(map(_with_a_channel, definition.operands))
    return trace.definitions[first:]


def _rounded(tensor: Tensor, dtype: DType) -> Tensor:
    """The tensor in ``dtype``; a view as the same view of its base, which then is written rounded."""
    definition = tensor.definition
    if isinstance(definition, Map) and definition.value.op == "load" and not definition.value.attr.guarded:
        base, index = definition.value.attr.source, definition.value.args
        if _elements(base) <= _WIDER * _elements(tensor):
            rounded = _rounded(base, dtype)
            return prims.map_of(tensor.shape, lambda *_: rounded.at(*index))  # maps of one shape have the same axes
    return prims.cast(tensor, dtype)


def _with_a_channel(tensor: Tensor) -> Tensor:
    """Of zeros behind an odd number of them: processors multiply and add two at a time."""
    none = [0] * tensor.rank
    return prims.pad(tensor, none, [0, 1, *none[2:]])


def _elements(tensor: Tensor) -> int:
    return prod(hint_of(d) for d in tensor.shape)
