"""The operators that every device must run before anything else counts, each in several variants."""

from __future__ import annotations

import functools

from tests.gate import ops_data, ops_dense
from tests.gate.case import GateCase

FAMILIES = (
    ops_dense.softmax,
    ops_dense.layer_normalization,
    ops_data.arg_max,
    ops_data.gather,
    ops_data.non_zero,
    ops_data.top_k,
    ops_dense.resize,
    ops_dense.conv_transpose,
    ops_dense.conv_relu,
    ops_dense.lstm,
    ops_dense.cum_sum,
    ops_data.scatter_nd,
    ops_data.dequantize_linear,
    ops_data.bfloat16_add,
    ops_data.loop,
    ops_data.if_string,
)


@functools.cache
def gate_cases() -> tuple[GateCase, ...]:
    """Every case, in the order of the gate's list."""
    return tuple(case for family in FAMILIES for case in family())


@functools.cache
def gate_models() -> dict[str, tuple[GateCase, ...]]:
    """The models that have several cases: the first one's name to all of them."""
    by_model: dict[int, list[GateCase]] = {}
    for case in gate_cases():
        by_model.setdefault(id(case.model), []).append(case)
    return {found[0].name.rsplit("/", 1)[0]: tuple(found) for found in by_model.values() if len(found) > 1}
