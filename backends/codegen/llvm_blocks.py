"""Blocks of a result: its sums stand in scratch memory, in the cache, until the epilogue's kernel has read them.

What works by blocks is called as kernels are, ``i64 name(ptr buffers, ptr context, i64 begin, i64 end, ptr scratch)``,
with a context in place of sizes: a table of int64 numbers and addresses that begins with `Head`. Scratch memory begins
with the epilogue's buffers, of which the last is the block, and then come its size arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from omniop.backends.codegen.llvm_flow import address, each, word
from omniop.backends.codegen.llvm_ir import Code, Module, Value, index
from omniop.opset.dtype import INT64


class Head(IntEnum):
    """How a context begins: which buffers the operands and the result are in, where they begin there, in bytes, and how
    many bytes of scratch memory the work wants."""

    A_BUFFER = 0
    A_START = 1
    B_BUFFER = 2
    B_START = 3
    C_BUFFER = 4
    C_START = 5
    SCRATCH = 6


class BlockSize(IntEnum):
    """Size arguments of an epilogue that differ from block to block, behind the call's own; then come the batch's
    places. The value of (row, y, x) of a block stands at ``row * BLOCK_ROW + y * COUNT_X + x``."""

    ROW = 0
    Z = 1
    Y = 2
    X = 3
    ROWS = 4
    COUNT_Y = 5
    COUNT_X = 6
    BLOCK_ROW = 7
    PLACES = 8


@dataclass(frozen=True)
class Epilogue:
    """``kernel``: the address of its function, as a number; 0 for none. ``size_table``: the call's own sizes."""

    kernel: Value
    size_table: str
    size_count: Value
    buffer_count: Value
    sizes: str
    """Scratch memory for all sizes."""
    block: str

    @classmethod
    def told(cls, code: Code, fields: type[IntEnum], sizes: str, block: str) -> Epilogue:
        """The one that a context's words EPILOGUE, SIZES, SIZE_COUNT and BUFFER_COUNT tell."""
        names = ("EPILOGUE", "SIZE_COUNT", "BUFFER_COUNT")
        kernel, count, buffers = (word(code, "%context", fields[name]) for name in names)
        return cls(kernel, address(code, "%context", fields["SIZES"]), count, buffers, sizes, block)

    def prepare(self, code: Code) -> None:
        """Buffers and sizes that are the same for all blocks, in scratch memory."""
        _copy(code, "%buffers", "%scratch", self.buffer_count)
        last = code.element("%scratch", INT64, self.buffer_count)
        code.do(f"store ptr {self.block}, ptr {last}, align 8")
        _copy(code, self.size_table, self.sizes, self.size_count)

    def exists(self, code: Code) -> Value:
        return code.compare("ne", self.kernel, index(0))

    def run(self, code: Code, values: Mapping[int, Value], places: str, place_count: Value) -> None:
        """The kernel on a block; ``places``: a table with those of the batch."""
        own = code.element(self.sizes, INT64, self.size_count)
        for number, value in values.items():
            code.do(f"store {value}, ptr {code.element(own, INT64, index(number))}, align 8")
        _copy(code, places, code.element(own, INT64, index(BlockSize.PLACES)), place_count)
        function = code.let(f"inttoptr {self.kernel} to ptr")
        arguments = f"ptr %scratch, ptr {self.sizes}, i64 0"
        points = code.let(f"call i64 {function}({arguments}, i64 -1)")
        code.do(f"call i64 {function}({arguments}, i64 {points})")


def _copy(code: Code, source: str, target: str, count: Value) -> None:
    """Numbers or addresses."""

    def one(inside: Code, k: Value) -> None:
        inside.do(f"store {word(inside, source, k)}, ptr {inside.element(target, INT64, k)}, align 8")

    each(code, index(0), count, 1, one)


def function_table(module: Module, name: str, functions: Sequence[str]) -> None:
    """A constant with the addresses of functions."""
    members = ", ".join(f"ptr @{f}" for f in functions)
    module.functions[name] = f"@{name} = internal constant [{len(functions)} x ptr] [{members}]"


def call_of(code: Code, table: str, number: Value, pointers: Sequence[str], numbers: Sequence[Value] = ()) -> None:
    """A call of a table's function."""
    function = address(code, code.let(f"getelementptr ptr, ptr @{table}, i64 {number.text}"), 0)
    code.do(f"call void {function}({', '.join([*(f'ptr {p}' for p in pointers), *map(str, numbers)])})")


def define_entry(module: Module, name: str, code: Code) -> None:
    """Adds the function ``name``, whose body ``code`` finds ``%a``, ``%b``, ``%c``, ``%scratch``, ``%begin`` and
    ``%end``."""
    head = Code(module)
    for buffer, start, pointer in (
        (Head.A_BUFFER, Head.A_START, "%a"),
        (Head.B_BUFFER, Head.B_START, "%b"),
        (Head.C_BUFFER, Head.C_START, "%c"),
    ):
        whole = head.let(f"load ptr, ptr {head.element('%buffers', INT64, word(head, '%context', buffer))}, align 8")
        head.do(f"{pointer} = getelementptr i8, ptr {whole}, i64 {word(head, '%context', start).text}")
    first = f"define i64 @{name}(ptr %buffers, ptr %context, i64 %begin, i64 %end, ptr %scratch) nounwind {{"
    lines = [first, "entry:", *head.lines, "  br label %work", "work:", *code.lines, "  ret i64 0", "}"]
    module.functions[name] = "\n".join(lines)
