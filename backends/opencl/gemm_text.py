"""The text of the matrix kernels for one pair of dtypes and one way to finish a sum.

The kernels themselves are in ``kernels/``; here are the macros that fit them, and the function that stores an element.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from importlib import resources

from omniop.backends.base import Caps
from omniop.backends.codegen.c_helpers import memory_name
from omniop.backends.codegen.c_like import KernelPrinter
from omniop.backends.codegen.linearise import linearise
from omniop.backends.codegen.opencl_c import OPENCL_C
from omniop.backends.codegen.schedule import Schedule
from omniop.backends.opencl.probe import Profile
from omniop.backends.opencl.programs import Text
from omniop.opset import dtype as dtypes
from omniop.opset import expr, poly
from omniop.opset.dtype import DType
from omniop.opset.expr import Expr
from omniop.opset.kernel import Call, Kernel, Param, Store, View
from omniop.opset.legalise import Refusal, legalise_expr

FEW_ROWS = 8
"""So many rows read the other operand once, in place."""

_VECTOR_FILES = ("gemm_vector.cl", "dot_vector.cl", "strip_vector.cl")
_LANES_FILES = ("gemm_tiled.cl", "gemv_lanes.cl")

ACCUMULATORS = {
    dtypes.FLOAT32: "float",
    dtypes.FLOAT64: "double",
    dtypes.INT32: "int",
    dtypes.UINT32: "uint",
    dtypes.INT64: "long",
    dtypes.UINT64: "ulong",
}
"""What sums are kept in, by OpenCL's names, which its vector functions are named after."""

_HALF = ("vload_half(i, (global const half *)(p))", "vload_half{lanes}(0, (global const half *)((p) + (i)))")
_BFLOAT = ("as_float((uint)(p)[i] << 16)", "as_float{lanes}(convert_uint{lanes}(vload{lanes}(0, (p) + (i))) << 16)")
_SAME = ("((p)[i])", "vload{lanes}(0, (p) + (i))")
_CONVERTED = ("({type})(p)[i]", "convert_{type}{lanes}(vload{lanes}(0, (p) + (i)))")


def loads_as(dtype: DType, accumulator: DType) -> tuple[str, str] | None:
    """Templates of a load of element i from pointer p, and of several; None where it is not a plain conversion."""
    if dtype is accumulator:
        return _SAME
    if dtype.is_float != accumulator.is_float:
        return None
    if dtype in (dtypes.FLOAT16, dtypes.BFLOAT16):
        return {dtypes.FLOAT16: _HALF, dtypes.BFLOAT16: _BFLOAT}[dtype] if accumulator is dtypes.FLOAT32 else None
    return _CONVERTED if 8 <= dtype.bits <= accumulator.bits else None


@dataclass(frozen=True)
class Tile:
    """Shape of the register tile of CPU devices: rows, and vectors of ``lanes`` elements."""

    rows: int
    vectors: int
    lanes: int

    @property
    def panel(self) -> int:
        return self.vectors * self.lanes


def tile_of(profile: Profile, accumulator: DType) -> Tile:
    """Twelve sums in the 16 registers of narrower machines, 24 in the 32 of those with vectors of 16."""
    return Tile(12 if profile.vector == 16 else 6, 2, max(2, profile.vector * 32 // accumulator.bits))


def gemm_text(call: Call, accumulator: DType, caps: Caps, profile: Profile, tag: str) -> Text:
    """Kernels whose names end in ``tag``: gemm, and those for few rows where there may be few."""
    many, *few = _VECTOR_FILES if profile.cpu else _LANES_FILES
    kind = (many, *few) if any(_may_be_few(x) for x in call.results[0].shape[-2:]) else (many,)
    value = _value(call, accumulator, caps)
    finish, arguments, uses = _finish(call, value, accumulator)
    tile = tile_of(profile, accumulator)
    macros = {
        **_operands(call.operands[0], call.operands[1], call.params, accumulator, tile.lanes),
        "ID(name)": f"name##_{tag}",
        "BUFFERS": arguments.buffers,
        "AND_SIZES": arguments.sizes,
        "PARAMS": arguments.buffers + arguments.sizes,
        "ARGUMENTS": arguments.names,
        "PLAIN": str(int(value.op == "hole")),
        "T": ACCUMULATORS[accumulator],
        "PLAIN_RESULT": f"b{call.results[0].buffer}" if value.op == "hole" else "(global T *)0",
        "FINISH_ATTRIBUTES": "__attribute__((noinline))" if profile.cpu else "inline",
        **(_vectors(tile, accumulator) if profile.cpu else {}),
    }
    parts = [_read(name) for name in ("finish.cl", *kind)]
    body = "".join((_defines(macros), finish, *parts, *(f"#undef {name}\n" for name in _names(macros, parts))))
    return Text(call.describe(), body, uses, (_read("gemm.h"),))


def _may_be_few(extent: Expr) -> bool:
    return extent.op != "const" or extent.attr <= FEW_ROWS


@functools.cache
def _read(name: str) -> str:
    return resources.files("omniop.backends.opencl").joinpath("kernels", name).read_text()


def _defines(macros: dict[str, str]) -> str:
    return "".join(f"#define {name} {text}\n" for name, text in macros.items())


def _names(macros: dict[str, str], parts: list[str]) -> list[str]:
    """Every macro of a variant, those that the kernels' files define included: the next variant defines them anew."""
    own = [line.split()[1] for part in parts for line in part.splitlines() if line.startswith("#define")]
    return [name.split("(")[0] for name in (*macros, *own)]


def _operands(a: View, b: View, params: tuple[Param, ...], accumulator: DType, lanes: int) -> dict[str, str]:
    facts = {"type": ACCUMULATORS[accumulator], "lanes": lanes}
    macros = {}
    for letter, view in (("A", a), ("B", b)):
        loads = loads_as(view.dtype, accumulator)
        assert loads is not None, f"contract of {view.dtype} was not accepted"
        macros[f"T{letter}"] = memory_name(params[view.buffer].dtype)
        macros[f"LOAD_{letter}(p, i)"], macros[f"LOADV_{letter}(p, i)"] = (text.format(**facts) for text in loads)
    same = a.dtype is b.dtype
    first, second = f"b{a.buffer}", f"b{b.buffer}"
    macros["FIRST(g)"] = f"(g.flipped ? {second} : {first})" if same else first
    macros["SECOND(g)"] = f"(g.flipped ? {first} : {second})" if same else second
    macros["SAME_A"] = str(int(a.dtype is accumulator))
    return macros


def _vectors(tile: Tile, accumulator: DType) -> dict[str, str]:
    half = tile.lanes // 2
    mask = f"{'ulong' if accumulator.bits == 64 else 'uint'}{tile.lanes}"
    low, high = (
        ", ".join(f"{first + j}, {first + j + tile.lanes}" for j in range(half)) for first in (0, half)
    )
    return {
        "LANES": str(tile.lanes),
        "TILE_ROWS": str(tile.rows),
        "TILE_VECTORS": str(tile.vectors),
        "TV": f"{ACCUMULATORS[accumulator]}{tile.lanes}",
        "VLOAD": f"vload{tile.lanes}",
        "VSTORE": f"vstore{tile.lanes}",
        "INTERLEAVE_LOW": f"({mask})({low})",
        "INTERLEAVE_HIGH": f"({mask})({high})",
    }


# What happens to a sum ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Arguments:
    """A call's arguments in OpenCL C: declared, and by name."""

    buffers: str
    sizes: str
    names: str


def _value(call: Call, accumulator: DType, caps: Caps) -> Expr:
    """What is stored, as an expression of the sum."""
    total = expr.hole(accumulator)
    epilogue = expr.cast(total, call.results[0].dtype) if call.epilogue is None else call.epilogue
    legal = legalise_expr(epilogue, caps)
    assert not isinstance(legal, Refusal), f"the epilogue of {call.prim} is not legal: {legal}"
    holes = {node: expr.cast(total, node.dtype) for node in expr.walk(legal) if node.op == "hole"}
    return expr.substitute(legal, holes)


def _finish(call: Call, value: Expr, accumulator: DType) -> tuple[str, _Arguments, frozenset[str]]:
    """The function ``finish(..., row, column, sum)`` that stores an element, its arguments, the helpers it uses.

    Rows count through all batches, so that the kernels need not know what a batch is made of. The sum comes as one more
    buffer.
    """
    result = call.results[0]
    row = expr.raw_axis(0, _product(result.shape[:-1]))
    column = expr.raw_axis(1, result.shape[-1])
    places = (*poly.delinear(row, result.shape[:-1]), column)
    axes = {n: places[n.attr] for n in expr.walk(value) if n.op == "axis"}
    sums = {n: expr.load(len(call.params), (expr.index(0),), n.dtype) for n in expr.walk(value) if n.op == "hole"}
    offset = result.offset
    for place, stride in zip(places, result.strides, strict=True):
        offset = offset + place * stride
    store = Store(result.buffer, poly.simplify(offset), expr.substitute(expr.substitute(value, axes), sums))
    params = (*call.params, Param(accumulator))
    kernel = Kernel(params, (row, column), (store,), call.sizes)
    program = linearise(kernel, Schedule(("parallel", "parallel")), 64)
    printer = KernelPrinter(OPENCL_C, program)
    names = {row: "row", column: "column"}
    for axis in program.grid:
        printer.define(axis.var, names[axis.axis])
    printer.block(program.prologue)
    printer.block(program.body)
    pointers = [f"{OPENCL_C.space}{printer.pointer(k)} b{k}" for k in range(len(call.params))]
    arguments = _Arguments(
        ", ".join(pointers),
        "".join(f", i64 s{k}" for k in range(call.sizes)),
        ", ".join((*(f"b{k}" for k in range(len(call.params))), *(f"s{k}" for k in range(call.sizes)))),
    )
    total = f"{printer.pointer(len(call.params))} b{len(call.params)}"
    head = f"static inline void ID(finish)(PARAMS, long row, long column, {total})"
    return "\n".join((head, "{", *printer.lines, "}", "")), arguments, frozenset(printer.used)


def _product(extents: tuple[Expr, ...]) -> Expr:
    total = expr.index(1)
    for extent in extents:
        total = total * extent
    return poly.simplify(total)
