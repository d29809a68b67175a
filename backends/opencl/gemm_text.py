"""The text of the matrix kernels for one pair of dtypes and one way to finish a sum."""

from __future__ import annotations

from omniop.backends.base import Caps
from omniop.backends.codegen.c_helpers import memory_name
from omniop.backends.opencl.finish import finish
from omniop.backends.opencl.macros import ACCUMULATORS, fitted, load_macros, read, tile_macros, tile_of
from omniop.backends.opencl.probe import Profile
from omniop.backends.opencl.programs import Text
from omniop.opset.dtype import DType
from omniop.opset.expr import Expr
from omniop.opset.kernel import Call

FEW_ROWS = 8
"""So many rows read the other operand once, in place."""

_VECTOR_FILES = ("gemm_vector.cl", "dot_vector.cl", "strip_vector.cl")
_LANES_FILES = ("gemm_tiled.cl", "gemv_lanes.cl")


def gemm_text(call: Call, accumulator: DType, caps: Caps, profile: Profile, few: bool) -> Text:
    """The kernel gemm, and those for ``few`` rows or columns."""
    files = (_VECTOR_FILES if profile.cpu else _LANES_FILES)[: None if few else 1]
    done = finish(call, accumulator, caps, len(call.results[0].shape) - 1)
    tile = tile_of(profile, accumulator)
    macros = {
        "T": ACCUMULATORS[accumulator],
        **done.macros,
        **_operands(call, accumulator, tile.lanes),
        **(tile_macros(tile, accumulator) if profile.cpu else {}),
        "PLAIN": str(int(done.plain)),
        "PLAIN_RESULT": f"b{call.results[0].buffer}" if done.plain else "(global T *)0",
        "FINISH_ATTRIBUTES": "__attribute__((noinline))" if profile.cpu else "inline",
    }
    return fitted(call.describe(), done.uses, macros, [read("gemm.h"), done.text, *map(read, ("finish.cl", *files))])


def may_be_few(extent: Expr) -> bool:
    """Rows or columns, in some run."""
    return extent.op != "const" or extent.attr <= FEW_ROWS


def _operands(call: Call, accumulator: DType, lanes: int) -> dict[str, str]:
    a, b = call.operands
    macros = {}
    for letter, view in (("A", a), ("B", b)):
        macros[f"T{letter}"] = memory_name(call.params[view.buffer].dtype)
        macros.update(load_macros(letter, view.dtype, accumulator, lanes))
    same = a.dtype is b.dtype
    first, second = f"b{a.buffer}", f"b{b.buffer}"
    macros["FIRST(g)"] = f"(g.flipped ? {second} : {first})" if same else first
    macros["SECOND(g)"] = f"(g.flipped ? {first} : {second})" if same else second
    macros["SAME_A"] = str(int(a.dtype is accumulator))
    return macros
