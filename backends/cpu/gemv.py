"""A float32 row times a matrix: one pass over the matrix at the memory's speed, on the calling thread.

BLAS splits such a product among threads, of which two are no faster here than one, and far slower where a core is
shared: each product then waits for the other thread to be scheduled.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache

import numpy as np

from omniop.backends.codegen.llvm_ir import Code, Loop, Module, Value, const, index
from omniop.backends.cpu import jit
from omniop.opset.dtype import FLOAT32, INT64

ROWS, COLUMNS = 8, 4
"""Of the matrix, that one turn of the inner loop reads."""
MIN_ELEMENTS = 1 << 13
"""Below, BLAS keeps to one thread."""
MAX_CPUS = 2
"""With more of them, BLAS's threads read faster than one."""

_F32 = np.dtype(np.float32)
_ARGUMENTS = [Value(f"%{name}", INT64) for name in ("inner", "outer", "stride")]

Body = Callable[[Code, Value], None]


def takes(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> bool:
    """Whether `gemv` does ``out = a @ b``."""
    return (
        a.ndim == b.ndim == 2
        and len(a) == 1
        and b.size >= MIN_ELEMENTS
        and a.dtype == b.dtype == out.dtype == _F32
        and a.strides[1] == b.itemsize
        and out.flags.c_contiguous
        and _order(b) is not None
        and _cpus() <= MAX_CPUS
    )


def gemv(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
    """``out[1, N] = a[1, K] @ b[K, N]`` for what `takes` says yes to."""
    order = _order(b)
    assert order is not None
    function = _functions()[order]
    function(a.ctypes.data, b.ctypes.data, out.ctypes.data, *b.shape, max(b.strides) // b.itemsize)


def _order(b: np.ndarray) -> str | None:
    """How the matrix lies in memory."""
    down, across = b.strides
    if across == b.itemsize and down >= b.shape[1] * b.itemsize:
        return "rows"
    return "columns" if down == b.itemsize and across >= b.shape[0] * b.itemsize else None


@cache
def _cpus() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@cache
def _functions() -> dict[str, Callable[..., None]]:
    """``function(x, matrix, y, K, N, elements from line to line)`` by the matrix's order; each built once a process."""
    return {"rows": _built("gemv_rows", print_rows), "columns": _built("gemv_columns", print_columns)}


def _built(name: str, printer: Callable[[Module, str], None]) -> Callable[..., None]:
    module = Module(jit.host_target())
    printer(module, name)
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    return jit.build_text(str(module), name, [pointer] * 3 + [number] * 3)


# The functions' text --------------------------------------------------------------------------------------------------


def print_rows(module: Module, name: str) -> None:
    """y += x[k] * row k, several rows at a time: y stays in the cache, and rows are read as they lie."""
    code = Code(module)
    lanes = 2 * module.target.vector_bits // 32
    rows, columns, stride = _ARGUMENTS

    def add_rows(count: int) -> Body:
        def body(inside: Code, k: Value) -> None:
            factors = [_load(inside, "%x", _plus(inside, k, r)) for r in range(count)]
            starts = [inside.mul(_plus(inside, k, r), stride) for r in range(count)]

            def add_to(width: int) -> Body:
                def step(deep: Code, n: Value) -> None:
                    total = _load(deep, "%y", n, width)
                    for factor, start in zip(factors, starts, strict=True):
                        total = _fma(deep, factor, _load(deep, "%w", deep.add(start, n), width), total)
                    _store(deep, total, "%y", n)

                return step

            done = _count(inside, index(0), columns, lanes, add_to(lanes))
            _count(inside, done, columns, 1, add_to(1))

        return body

    zero = const(0.0, FLOAT32)
    _count(code, index(0), columns, 1, lambda inside, n: _store(inside, zero, "%y", n))
    done = _count(code, index(0), rows, ROWS, add_rows(ROWS))
    _count(code, done, rows, 1, add_rows(1))
    _define(module, name, code)


def print_columns(module: Module, name: str) -> None:
    """y[n] = x . column n, several columns at a time, with a sum for each lane."""
    code = Code(module)
    lanes = 2 * module.target.vector_bits // 32
    rows, columns, stride = _ARGUMENTS

    def dot(count: int) -> Body:
        def body(inside: Code, n: Value) -> None:
            starts = [inside.mul(_plus(inside, n, c), stride) for c in range(count)]
            done, sums = index(0), [const(0.0, FLOAT32, lanes)] * count
            for width in (lanes, 1):
                loop = Loop(inside, deep := Code(module), [done, *sums])
                k, *totals = loop.carried
                end = _plus(deep, k, width)
                loop.test(deep.compare("sle", end, rows))
                x = _load(deep, "%x", k, width)
                totals = [
                    _fma(deep, x, _load(deep, "%w", deep.add(start, k), width), total)
                    for start, total in zip(starts, totals, strict=True)
                ]
                done, *sums = loop.close([end, *totals])
                if width > 1:
                    sums = [_total(inside, s) for s in sums]
            for c, value in enumerate(sums):
                _store(inside, value, "%y", _plus(inside, n, c))

        return body

    done = _count(code, index(0), columns, COLUMNS, dot(COLUMNS))
    _count(code, done, columns, 1, dot(1))
    _define(module, name, code)


def _define(module: Module, name: str, code: Code) -> None:
    pointers = ", ".join(f"ptr noalias %{p}" for p in ("x", "w", "y"))
    numbers = ", ".join(map(str, _ARGUMENTS))
    text = [f"define void @{name}({pointers}, {numbers}) {{", "entry:", *code.lines, "  ret void", "}"]
    module.functions[name] = "\n".join(text)


def _count(code: Code, first: Value, end: Value, step: int, body: Body) -> Value:
    """``body`` at ``first``, ``first + step``, ... while whole steps are left; gives where it ended."""
    loop = Loop(code, inside := Code(code.module), [first])
    (place,) = loop.carried
    following = _plus(inside, place, step)
    loop.test(inside.compare("sle", following, end))
    body(inside, place)
    return loop.close([following])[0]


def _plus(code: Code, value: Value, number: int) -> Value:
    return code.add(value, index(number))


def _load(code: Code, pointer: str, offset: Value, lanes: int = 1) -> Value:
    value = Value("", FLOAT32, lanes)
    return Value(code.let(f"load {value.type}, ptr {code.element(pointer, FLOAT32, offset)}, align 4"), FLOAT32, lanes)


def _store(code: Code, value: Value, pointer: str, offset: Value) -> None:
    code.do(f"store {value}, ptr {code.element(pointer, FLOAT32, offset)}, align 4")


def _fma(code: Code, a: Value, b: Value, c: Value) -> Value:
    return code.intrinsic("fmuladd", a, b, c)


def _total(code: Code, value: Value) -> Value:
    """All lanes added up, in halves."""
    while value.lanes > 1:
        half = value.lanes // 2
        value = code.op("fadd", code.shuffle(value, range(half)), code.shuffle(value, range(half, 2 * half)))
    return value
