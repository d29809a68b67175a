"""The text of a matrix product: a struct that tells one Call's views, dtypes and epilogue, for ``kernels/contract.cu``.

Whatever is the same for all shapes is a constant in it, the rest is computed from the size arguments.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from importlib import resources

from omniop.backends.base import Caps
from omniop.backends.codegen.c_helpers import type_name
from omniop.backends.codegen.c_like import KernelPrinter
from omniop.backends.codegen.cuda_c import CUDA_C
from omniop.backends.codegen.linearise import linearise_expr
from omniop.backends.codegen.program import Operand, Program, Var
from omniop.backends.codegen.program import Store as StoreStmt
from omniop.backends.cuda.compiler import NAME, Text, named
from omniop.opset import expr, poly
from omniop.opset.dtype import INT64, DType
from omniop.opset.expr import Expr
from omniop.opset.kernel import Call, View
from omniop.opset.legalise import Refusal, legalise_expr, stored_params

THREADS = 256
"""Of a block that multiplies together."""
SHARED_TILE, ALONE_TILE = 64, 4
"""Rows and columns of the result that a block, or a thread alone, computes."""


_PLACE = expr.raw_axis(0, expr.size("elements"))
"""The offset of an element of an operand."""


def term(operand: DType, accumulator: DType, caps: Caps, buffer: int = 0) -> Expr | Refusal:
    """The element of an operand at `_PLACE` as a term of a sum."""
    return legalise_expr(expr.cast(expr.load(buffer, (_PLACE,), operand), accumulator), caps)


def value(call: Call, caps: Caps) -> Expr:
    """What is stored, as an expression of the sum, the hole. The epilogue is legal already."""
    total = expr.hole(call.attr("accumulate"))
    if call.epilogue is not None:
        holes = {node: expr.cast(total, node.dtype) for node in expr.walk(call.epilogue) if node.op == "hole"}
        return expr.substitute(call.epilogue, holes)
    result = legalise_expr(expr.cast(total, call.results[0].dtype), caps)
    assert not isinstance(result, Refusal), f"the result of {call.prim} is not legal: {result}"
    return result


def contract_text(call: Call, caps: Caps, shared: bool) -> Text:
    """One kernel; ``shared``: its blocks of `THREADS` multiply together, else every thread alone."""
    struct = _Struct(call, caps)
    name = f"{NAME}_problem"
    members, buffers, names = struct.members(), struct.arguments(), struct.names()
    way = "shared" if shared else "alone"
    body = "\n".join(
        (
            f"struct {name} {{",
            *(f"  {argument};" for argument in buffers),
            *(f"  {line}" for line in members),
            "};",
            f'extern "C" __global__ void __launch_bounds__({THREADS}) {NAME}({", ".join(buffers)}) {{',
            f"  const {name} p = {{{', '.join(names)}}};",
            f"  contract_{way}(p);",
            "}",
        )
    )
    return named("contract", call.describe(), body, frozenset(struct.uses), (_header(),))


@functools.cache
def _header() -> str:
    return resources.files("omniop.backends.cuda").joinpath("kernels", "contract.cu").read_text()


class _Struct:
    """Prints the struct's members, each a function of its own."""

    def __init__(self, call: Call, caps: Caps) -> None:
        self._call = call
        self._caps = caps
        program = Program(stored_params(call, caps), call.sizes, (), (), (), INT64)
        self._printer = KernelPrinter(CUDA_C, program)

    @property
    def uses(self) -> set[str]:
        return self._printer.used

    def names(self) -> list[str]:
        return [*(f"b{k}" for k in range(len(self._call.params))), *(f"s{k}" for k in range(self._call.sizes))]

    def arguments(self) -> list[str]:
        types = [self._printer.pointer(k) for k in range(len(self._call.params))] + ["i64"] * self._call.sizes
        return [f"{kind} {name}" for kind, name in zip(types, self.names(), strict=True)]

    def members(self) -> list[str]:
        call = self._call
        a, b = call.operands
        result = call.results[0]
        accumulator: DType = call.attr("accumulate")
        batch = expr.raw_axis(0, product(result.shape[:-2]))
        lines = [f"typedef {type_name(accumulator)} Sum;"]
        numbers = {"batches": batch.args[0], "m": result.shape[-2], "n": result.shape[-1], "k": a.shape[-1]}
        for letter, view in (("a", a), ("b", b)):
            lines += self._number(f"{letter}_first", _first(view, batch), (batch,))
            numbers |= {f"{letter}_row": view.strides[-2], f"{letter}_column": view.strides[-1]}
            element = term(view.dtype, accumulator, self._caps, view.buffer)
            assert not isinstance(element, Refusal), f"contract of {view.dtype} was not accepted"
            lines += self._function(type_name(accumulator), letter, (_PLACE,), element)
        for name, number in numbers.items():
            lines += self._number(name, number)
        return lines + self._finish(batch, result)

    def _number(self, name: str, number: Expr, axes: tuple[Expr, ...] = ()) -> list[str]:
        return self._function("i64", name, axes, poly.simplify(number))

    def _function(self, kind: str, name: str, axes: Sequence[Expr], root: Expr) -> list[str]:
        bound = {axis: Var(k, axis.dtype) for k, axis in enumerate(axes)}
        lines, (result,) = self._statements([root], bound)
        return [self._head(kind, name, bound), *lines, f"  return {self._printer.operand(result)};", "}"]

    def _finish(self, batch: Expr, result: View) -> list[str]:
        """Stores an element. The epilogue has an axis for each of the result's; here they are places in the batch."""
        row, column = expr.raw_axis(1, result.shape[-2]), expr.raw_axis(2, result.shape[-1])
        places = (*poly.delinear(batch, result.shape[:-2]), row, column)
        root = value(self._call, self._caps)
        root = expr.substitute(root, {n: places[n.attr] for n in expr.walk(root) if n.op == "axis"})
        offset = poly.simplify(_at(result, places))
        total = expr.hole(self._call.attr("accumulate"))
        bound = {node: Var(k, node.dtype) for k, node in enumerate((batch, row, column, total))}
        start, (place, stored) = self._statements([offset, root], bound)
        store = StoreStmt(result.buffer, place, stored, None, None, False, 0, offset)
        return [self._head("void", "finish", bound), *start, *self._print([store]), "}"]

    def _head(self, kind: str, name: str, bound: Mapping[Expr, Var]) -> str:
        arguments = ", ".join(f"{type_name(var.dtype)} v{var.number}" for var in bound.values())
        return f"__device__ inline {kind} {name}({arguments}) const {{"

    def _statements(self, roots: Sequence[Expr], bound: Mapping[Expr, Var]) -> tuple[list[str], tuple[Operand, ...]]:
        statements, operands = linearise_expr(roots, bound, 64, len(bound))
        return self._print(statements), operands

    def _print(self, statements: Sequence[object]) -> list[str]:
        printer, begin = self._printer, len(self._printer.lines)
        printer.block(statements)  # type: ignore[arg-type]
        return printer.lines[begin:]


def product(extents: Sequence[Expr]) -> Expr:
    total = expr.index(1)
    for extent in extents:
        total = total * extent
    return poly.simplify(total)


def _first(view: View, batch: Expr) -> Expr:
    """Where the matrix of a place in the batch begins."""
    places = poly.delinear(batch, view.shape[:-2])
    return _at(view, places)


def _at(view: View, places: Sequence[Expr]) -> Expr:
    """The offset at ``places`` along the view's first axes."""
    offset = view.offset
    for place, stride in zip(places, view.strides, strict=False):
        offset = offset + place * stride
    return offset
