"""What happens to a sum before it is stored: the epilogue, printed as a function that a hand-written kernel calls."""

from __future__ import annotations

from dataclasses import dataclass

from omniop.backends.base import Caps
from omniop.backends.codegen.c_like import KernelPrinter
from omniop.backends.codegen.linearise import linearise
from omniop.backends.codegen.opencl_c import OPENCL_C
from omniop.backends.codegen.schedule import Schedule
from omniop.opset import expr, poly
from omniop.opset.dtype import DType
from omniop.opset.expr import Expr
from omniop.opset.kernel import Call, Kernel, Param, Store
from omniop.opset.legalise import Refusal, legalise_expr


@dataclass(frozen=True)
class Finish:
    """``text`` defines ``ID(finish)(ARGUMENTS, row, column, sum)``; ``uses`` are the dialect's helpers in it.

    ``plain``: a sum is stored as it is. ``macros``: the arguments that every kernel of the call begins with, declared
    as ``BUFFERS`` and ``AND_SIZES`` (something may come between) or both as ``PARAMS``, passed on as ``ARGUMENTS``.
    """

    text: str
    uses: frozenset[str]
    plain: bool
    macros: dict[str, str]


def finish(call: Call, accumulator: DType, caps: Caps, row_axes: int) -> Finish:
    """Rows count through the result's first ``row_axes`` axes, columns through the others, so that a kernel need not
    know what they are made of. The sum comes to the function as one more buffer."""
    value, result = _value(call, accumulator, caps), call.results[0]
    parts = (result.shape[:row_axes], result.shape[row_axes:])
    row, column = (expr.raw_axis(k, _product(extents)) for k, extents in enumerate(parts))
    places = (*poly.delinear(row, parts[0]), *poly.delinear(column, parts[1]))
    axes = {n: places[n.attr] for n in expr.walk(value) if n.op == "axis"}
    sums = {n: expr.load(len(call.params), (expr.index(0),), n.dtype) for n in expr.walk(value) if n.op == "hole"}
    offset = result.offset
    for place, stride in zip(places, result.strides, strict=True):
        offset = offset + place * stride
    stored = expr.substitute(poly.simplify_inside(expr.substitute(value, axes)), sums)
    store = Store(result.buffer, poly.simplify(offset), stored)
    kernel = Kernel((*call.params, Param(accumulator)), (row, column), (store,), call.sizes)
    printer = KernelPrinter(OPENCL_C, linearise(kernel, Schedule(("parallel", "parallel")), 64))
    names = {row: "row", column: "column"}
    for axis in printer.program.grid:
        printer.define(axis.var, names[axis.axis])
    printer.block(printer.program.prologue)
    printer.block(printer.program.body)
    *buffers, total = (f"{printer.pointer(k)} b{k}" for k in range(len(kernel.params)))
    head = f"static inline void ID(finish)(PARAMS, long row, long column, {total})"
    text = "\n".join((head, "{", *printer.lines, "}", ""))
    declared = ", ".join(OPENCL_C.space + buffer for buffer in buffers)
    sizes = "".join(f", i64 s{k}" for k in range(call.sizes))
    passed = [*(f"b{k}" for k in range(len(buffers))), *(f"s{k}" for k in range(call.sizes))]
    macros = {"BUFFERS": declared, "AND_SIZES": sizes, "PARAMS": declared + sizes, "ARGUMENTS": ", ".join(passed)}
    return Finish(text, frozenset(printer.used), value.op == "hole", macros)


def _value(call: Call, accumulator: DType, caps: Caps) -> Expr:
    """What is stored, as an expression of the sum."""
    total = expr.hole(accumulator)
    epilogue = expr.cast(total, call.results[0].dtype) if call.epilogue is None else call.epilogue
    legal = legalise_expr(epilogue, caps)
    assert not isinstance(legal, Refusal), f"the epilogue of {call.prim} is not legal: {legal}"
    holes = {node: expr.cast(total, node.dtype) for node in expr.walk(legal) if node.op == "hole"}
    return expr.substitute(legal, holes)


def _product(extents: tuple[Expr, ...]) -> Expr:
    total = expr.index(1)
    for extent in extents:
        total = total * extent
    return poly.simplify(total)
