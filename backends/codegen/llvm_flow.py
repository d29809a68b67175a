"""Control flow and float32 memory in LLVM IR, for functions that are written by hand and not printed from a kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from omniop.backends.codegen import llvm_vector
from omniop.backends.codegen.llvm_ir import Code, Loop, Module, Value, const, index, iota
from omniop.opset.dtype import FLOAT32, INT32, INT64

Body = Callable[[Code, Value], None]


def argument(name: str) -> Value:
    """An int64 argument of the function."""
    return Value(f"%{name}", INT64)


def define(module: Module, name: str, pointers: Sequence[str], numbers: Sequence[str], code: Code) -> None:
    """Adds ``void name(pointers, int64 numbers)``, whose body is ``code``."""
    arguments = ", ".join([*(f"ptr %{p}" for p in pointers), *(f"i64 %{n}" for n in numbers)])
    head = f"define void @{name}({arguments}) nounwind {{"
    module.functions[name] = "\n".join([head, "entry:", *code.lines, "  ret void", "}"])


def count(code: Code, first: Value, end: Value, step: int | Value, body: Body) -> Value:
    """``body`` at ``first``, ``first + step``, ... while whole steps are left; gives where it ended."""
    loop = Loop(code, inside := Code(code.module), [first])
    (place,) = loop.carried
    following = plus(inside, place, step)
    loop.test(inside.compare("sle", following, end))
    body(inside, place)
    return loop.close([following])[0]


def each(code: Code, first: Value, end: Value, step: int | Value, body: Body) -> Value:
    """``body`` at ``first``, ``first + step``, ... below ``end``, of which the last step may be a part of one; gives
    where it ended."""
    loop = Loop(code, inside := Code(code.module), [first])
    (place,) = loop.carried
    loop.test(inside.compare("slt", place, end))
    body(inside, place)
    return loop.close([plus(inside, place, step)])[0]


def when(code: Code, condition: Value, then: Callable[[], None], otherwise: Callable[[], None] = lambda: None) -> None:
    """One of two branches, which add to ``code``."""
    n = code.module.fresh()
    code.do(f"br {condition}, label %then{n}, label %else{n}")
    for block, run in ((f"then{n}", then), (f"else{n}", otherwise)):
        code.begin(block)
        run()
        code.do(f"br label %after{n}")
    code.begin(f"after{n}")


def plus(code: Code, value: Value, more: int | Value) -> Value:
    return code.add(value, index(more) if isinstance(more, int) else more)


def least(code: Code, a: Value, b: Value) -> Value:
    return code.intrinsic("smin", a, b)


def load(code: Code, pointer: str, offset: Value, lanes: int = 1) -> Value:
    return llvm_vector.load(code, code.element(pointer, FLOAT32, offset), FLOAT32, lanes)


def store(code: Code, value: Value, pointer: str, offset: Value) -> None:
    llvm_vector.store(code, code.element(pointer, FLOAT32, offset), value)


def word(code: Code, pointer: str, number: int | Value) -> Value:
    """An int64 of a table."""
    offset = index(number) if isinstance(number, int) else number
    return llvm_vector.load(code, code.element(pointer, INT64, offset), INT64)


def address(code: Code, pointer: str, number: int) -> str:
    """An address that stands in a table of int64."""
    return code.let(f"load ptr, ptr {code.element(pointer, INT64, index(number))}, align 8")


def lanes_below(code: Code, count: Value, lanes: int, first: int = 0) -> Value:
    """The lanes whose number, counted from ``first``, is below ``count`` (which is at most 2^31)."""
    left = code.convert("trunc", plus(code, count, -first), INT32)
    return code.compare("slt", iota(lanes), left)


def prefetch(code: Code, pointer: str) -> None:
    """Ask for a line that will be read soon, into the second cache."""
    code.module.declare("llvm.prefetch.p0", "void", ["ptr", "i32", "i32", "i32"])
    code.do(f"call void @llvm.prefetch.p0(ptr {pointer}, i32 0, i32 2, i32 1)")


def fma(code: Code, a: Value, b: Value, c: Value) -> Value:
    return code.intrinsic("fmuladd", a, b, c)


def zeros(lanes: int) -> Value:
    return const(0.0, FLOAT32, lanes)
