"""A float32 row times a matrix in LLVM IR: ``void name(ptr x, ptr matrix, ptr y, i64 K, i64 N, i64 stride)``, with the
elements from line to line of the matrix."""

from __future__ import annotations

from omniop.backends.codegen.llvm_flow import Body, count, fma, load, plus, store
from omniop.backends.codegen.llvm_ir import Code, Loop, Module, Value, const, index
from omniop.opset.dtype import FLOAT32, INT64

ROWS, COLUMNS = 8, 4
"""Of the matrix, that one turn of the inner loop reads."""

_ARGUMENTS = [Value(f"%{name}", INT64) for name in ("inner", "outer", "stride")]


def print_rows(module: Module, name: str) -> None:
    """y += x[k] * row k, several rows at a time: y stays in the cache, and rows are read as they lie."""
    code = Code(module)
    lanes = 2 * module.target.vector_bits // 32
    rows, columns, stride = _ARGUMENTS

    def add_rows(taken: int) -> Body:
        def body(inside: Code, k: Value) -> None:
            factors = [load(inside, "%x", plus(inside, k, r)) for r in range(taken)]
            starts = [inside.mul(plus(inside, k, r), stride) for r in range(taken)]

            def add_to(width: int) -> Body:
                def step(deep: Code, n: Value) -> None:
                    total = load(deep, "%y", n, width)
                    for factor, start in zip(factors, starts, strict=True):
                        total = fma(deep, factor, load(deep, "%w", deep.add(start, n), width), total)
                    store(deep, total, "%y", n)

                return step

            done = count(inside, index(0), columns, lanes, add_to(lanes))
            count(inside, done, columns, 1, add_to(1))

        return body

    zero = const(0.0, FLOAT32)
    count(code, index(0), columns, 1, lambda inside, n: store(inside, zero, "%y", n))
    done = count(code, index(0), rows, ROWS, add_rows(ROWS))
    count(code, done, rows, 1, add_rows(1))
    _define(module, name, code)


def print_columns(module: Module, name: str) -> None:
    """y[n] = x . column n, several columns at a time, with a sum for each lane."""
    code = Code(module)
    lanes = 2 * module.target.vector_bits // 32
    rows, columns, stride = _ARGUMENTS

    def dot(taken: int) -> Body:
        def body(inside: Code, n: Value) -> None:
            starts = [inside.mul(plus(inside, n, c), stride) for c in range(taken)]
            done, sums = index(0), [const(0.0, FLOAT32, lanes)] * taken
            for width in (lanes, 1):
                loop = Loop(inside, deep := Code(module), [done, *sums])
                k, *totals = loop.carried
                end = plus(deep, k, width)
                loop.test(deep.compare("sle", end, rows))
                x = load(deep, "%x", k, width)
                totals = [
                    fma(deep, x, load(deep, "%w", deep.add(start, k), width), total)
                    for start, total in zip(starts, totals, strict=True)
                ]
                done, *sums = loop.close([end, *totals])
                if width > 1:
                    sums = [_total(inside, s) for s in sums]
            for c, value in enumerate(sums):
                store(inside, value, "%y", plus(inside, n, c))

        return body

    done = count(code, index(0), columns, COLUMNS, dot(COLUMNS))
    count(code, done, columns, 1, dot(1))
    _define(module, name, code)


def _define(module: Module, name: str, code: Code) -> None:
    pointers = ", ".join(f"ptr noalias %{p}" for p in ("x", "w", "y"))
    numbers = ", ".join(map(str, _ARGUMENTS))
    text = [f"define void @{name}({pointers}, {numbers}) {{", "entry:", *code.lines, "  ret void", "}"]
    module.functions[name] = "\n".join(text)


def _total(code: Code, value: Value) -> Value:
    """All lanes added up, in halves."""
    while value.lanes > 1:
        half = value.lanes // 2
        value = code.op("fadd", code.shuffle(value, range(half)), code.shuffle(value, range(half, 2 * half)))
    return value


PRINTERS = {"gemv_rows": print_rows, "gemv_columns": print_columns}
"""By how the matrix lies in memory."""
