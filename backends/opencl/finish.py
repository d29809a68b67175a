"""What happens to a sum before it is stored, printed as a function that a hand-written kernel calls: a conversion, or
the epilogue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from omniop.backends.base import Caps
from omniop.backends.codegen.c_helpers import memory_name
from omniop.backends.codegen.c_like import KernelPrinter
from omniop.backends.codegen.linearise import linearise
from omniop.backends.codegen.opencl_c import OPENCL_C
from omniop.backends.codegen.schedule import Schedule
from omniop.opset import expr, poly
from omniop.opset.dtype import DType
from omniop.opset.expr import Expr
from omniop.opset.kernel import Call, Kernel, Param, Store
from omniop.opset.legalise import Refusal, legalise_expr, stored_params


@dataclass(frozen=True)
class Finish:
    """``text`` defines what ``finish.cl`` calls for a sum; ``uses`` are the dialect's helpers in it.

    ``macros``: the arguments that every kernel of the call begins with, declared as ``BUFFERS`` and ``AND_SIZES``
    (something may come between) or both as ``PARAMS``, passed on as ``ARGUMENTS``. ``buffers``: the call's params that
    these are, ``first`` and ``second`` the names of its operands among them, ``sizes`` whether size arguments follow.
    """

    text: str
    uses: frozenset[str]
    macros: dict[str, str]
    buffers: tuple[int, ...]
    first: str
    second: str
    sizes: bool


def finish(call: Call, accumulator: DType, caps: Caps) -> Finish:
    """Of the matrix product ``call``. Without an epilogue only dtypes are in the text: one serves all such products."""
    return _plain(call, accumulator, caps) if call.epilogue is None else _epilogue(call, accumulator, caps)


def _plain(call: Call, accumulator: DType, caps: Caps) -> Finish:
    """``ID(store)(to, sum)`` converts to what the result's dtype is in memory."""
    result, zero = call.results[0], expr.index(0)
    total = expr.load(3, (zero,), accumulator)
    value = of_sum(expr.cast(expr.hole(accumulator), result.dtype), total, caps)
    params = (*(Param(view.dtype) for view in call.operands), Param(result.dtype, True), Param(accumulator))
    printer = _printed(Kernel(params, (), (Store(2, zero, value),)), {})
    *buffers, to, source = (f"{printer.pointer(k)} b{k}" for k in (0, 1, 2, 2, 3))
    head = f"static inline void ID(store)({OPENCL_C.space}{to}, {source})"
    text = "\n".join((head, "{", *printer.lines, "}", ""))
    declared = ", ".join(OPENCL_C.space + buffer for buffer in buffers)
    macros = {"BUFFERS": declared, "AND_SIZES": "", "PARAMS": declared, "ARGUMENTS": "b0, b1, b2", "PLAIN": "1"}
    macros |= {"RESULT": "b2", "TC": memory_name(result.dtype), "DIRECT": str(int(result.dtype is accumulator))}
    places = tuple(view.buffer for view in (*call.operands, result))
    return Finish(text, frozenset(printer.used), macros, places, "b0", "b1", sizes=False)


def _epilogue(call: Call, accumulator: DType, caps: Caps) -> Finish:
    """Rows count through all of the result's axes but the last, so that a kernel need not know what they are made of.
    The sum comes to the function ``ID(finish)`` as one more buffer."""
    assert call.epilogue is not None
    result, total = call.results[0], expr.load(len(call.params), (expr.index(0),), accumulator)
    rows, columns = result.shape[:-1], result.shape[-1]
    row, column = expr.raw_axis(0, _product(rows)), expr.raw_axis(1, columns)
    places = (*poly.delinear(row, rows), column)
    value = of_sum(call.epilogue, total, caps)
    axes = {n: places[n.attr] for n in expr.walk(value) if n.op == "axis"}
    offset = result.offset
    for place, stride in zip(places, result.strides, strict=True):
        offset = offset + place * stride
    stored = poly.simplify_inside(expr.substitute(value, axes))
    into = Store(result.buffer, poly.simplify(offset), stored)
    factors = {view.buffer for view in call.operands}  # which the kernel itself loads, as what they are
    legal = zip(call.params, stored_params(call, caps), strict=True)
    params = (own if k in factors else stored for k, (own, stored) in enumerate(legal))
    kernel = Kernel((*params, Param(accumulator)), (row, column), (into,), call.sizes)
    printer = _printed(kernel, {row: "row", column: "column"})
    *buffers, source = (f"{printer.pointer(k)} b{k}" for k in range(len(kernel.params)))
    head = f"static inline void ID(finish)(PARAMS, long row, long column, {source})"
    text = "\n".join((head, "{", *printer.lines, "}", ""))
    declared = ", ".join(OPENCL_C.space + buffer for buffer in buffers)
    sizes = "".join(f", i64 s{k}" for k in range(call.sizes))
    passed = ", ".join((*(f"b{k}" for k in range(len(buffers))), *(f"s{k}" for k in range(call.sizes))))
    macros = {"BUFFERS": declared, "AND_SIZES": sizes, "PARAMS": declared + sizes, "ARGUMENTS": passed}
    macros |= {"PLAIN": "0", "DIRECT": "0"}
    first, second = (f"b{view.buffer}" for view in call.operands)
    return Finish(text, frozenset(printer.used), macros, tuple(range(len(buffers))), first, second, sizes=True)


def _printed(kernel: Kernel, names: Mapping[Expr, str]) -> KernelPrinter:
    """The statements of one point of ``kernel``, whose axes have ``names``."""
    printer = KernelPrinter(OPENCL_C, linearise(kernel, Schedule(("parallel",) * len(kernel.axes)), 64))
    for axis in printer.program.grid:
        printer.define(axis.var, names[axis.axis])
    printer.block(printer.program.prologue)
    printer.block(printer.program.body)
    return printer


def of_sum(value: Expr, total: Expr, caps: Caps) -> Expr:
    """What is stored, as a legal expression: ``value`` with ``total``, converted, where its hole is."""
    legal = legalise_expr(value, caps)
    assert not isinstance(legal, Refusal), f"an epilogue is not legal: {legal}"
    return expr.substitute(legal, {n: expr.cast(total, n.dtype) for n in expr.walk(legal) if n.op == "hole"})


def _product(extents: tuple[Expr, ...]) -> Expr:
    total = expr.index(1)
    for extent in extents:
        total = total * extent
    return poly.simplify(total)
