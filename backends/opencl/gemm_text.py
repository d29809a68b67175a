"""The texts of the matrix kernels for one set of dtypes and one way to finish a sum."""

from __future__ import annotations

from omniop.backends.codegen.c_helpers import memory_name
from omniop.backends.opencl.finish import Finish
from omniop.backends.opencl.macros import ACCUMULATORS, fitted, load_macros, read, tile_macros, tile_of
from omniop.backends.opencl.probe import Profile
from omniop.backends.opencl.programs import Text
from omniop.opset.dtype import DType
from omniop.opset.kernel import Call

FEW_ROWS = 8
"""So many rows read the other operand once, in place."""

_FILES = {
    True: {"gemm": "gemm_vector.cl", "dense": "dense_vector.cl", "dot": "dot_vector.cl", "strip": "strip_vector.cl"},
    False: {"gemm": "gemm_tiled.cl", "gemv": "gemv_lanes.cl"},
}
"""Of each kernel, for CPU devices and for others."""


def gemm_texts(call: Call, accumulator: DType, profile: Profile, done: Finish) -> dict[str, Text]:
    """Each kernel's text, by the name before its tag."""
    tile = tile_of(profile, accumulator)
    macros = {
        "T": ACCUMULATORS[accumulator],
        **done.macros,
        **_operands(call, accumulator, tile.lanes, done),
        **(tile_macros(tile, accumulator) if profile.cpu else {}),
        "FINISH_ATTRIBUTES": "__attribute__((noinline))" if profile.cpu else "inline",
    }
    before = (read("gemm.h"), done.text, read("finish.cl"))
    return {
        name: fitted(call.describe(), done.uses, macros, (*before, read(file)))
        for name, file in _FILES[profile.cpu].items()
    }


def _operands(call: Call, accumulator: DType, lanes: int, done: Finish) -> dict[str, str]:
    a, b = call.operands
    macros = {}
    for letter, view in (("A", a), ("B", b)):
        macros[f"T{letter}"] = memory_name(call.params[view.buffer].dtype)
        macros.update(load_macros(letter, view.dtype, accumulator, lanes))
    same = a.dtype is b.dtype
    macros["FIRST(g)"] = f"(g.flipped ? {done.second} : {done.first})" if same else done.first
    macros["SECOND(g)"] = f"(g.flipped ? {done.first} : {done.second})" if same else done.second
    macros["SAME_A"] = str(int(a.dtype is accumulator))
    return macros
