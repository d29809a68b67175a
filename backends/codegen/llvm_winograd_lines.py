"""The matrices of `winograd` as LLVM IR, multiplied with lines of values, most of which then have two readers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction

from omniop.backends.codegen.llvm_flow import fma
from omniop.backends.codegen.llvm_ir import Code, Value, const
from omniop.backends.codegen.winograd import Winograd

Square = list[list[Value]]
Line = Callable[[Code, Winograd, Sequence[Value]], list[Value]]


def both_ways(code: Code, winograd: Winograd, line: Line, columns: Square) -> Square:
    """Columns and then rows; ``columns[x][y]`` becomes ``result[y][x]``."""
    done = [line(code, winograd, column) for column in columns]
    return [line(code, winograd, [column[y] for column in done]) for y in range(len(done[0]))]


def image_line(code: Code, winograd: Winograd, x: Sequence[Value]) -> list[Value]:
    """``B' x``. The polynomials of a point and its opposite share their even powers, and differ in the sign of the odd
    ones."""
    rows = winograd.image
    result = [_sum(code, rows[0], x)]
    for k, point in enumerate(winograd.points):
        row = rows[1 + 2 * k]
        even = _sum(code, [c if j % 2 == 0 else Fraction(0) for j, c in enumerate(row)], x)
        odd = _sum(code, [c / point if j % 2 else Fraction(0) for j, c in enumerate(row)], x)
        result += [_sum(code, (1, point), (even, odd)), _sum(code, (1, -point), (even, odd))]
    return [*result, _sum(code, rows[-1], x)]


def pixel_line(code: Code, winograd: Winograd, x: Sequence[Value]) -> list[Value]:
    """``A' x``. Even powers take the sum of what belongs to a point and to its opposite, odd ones the difference."""
    pairs = [(x[1 + 2 * k], x[2 + 2 * k]) for k in range(len(winograd.points))]
    sides = [[code.op(way, one, other) for one, other in pairs] for way in ("fadd", "fsub")]
    return [
        _sum(code, (row[0], *row[1:-1:2], row[-1]), (x[0], *sides[k % 2], x[-1]))
        for k, row in enumerate(winograd.pixels)
    ]


def filter_line(code: Code, winograd: Winograd, x: Sequence[Value]) -> list[Value]:
    """``G x``. Rows of a point and its opposite share what `image_line`'s do."""
    rows = winograd.filter
    result = [_sum(code, rows[0], x)]
    for k in range(len(winograd.points)):
        row = rows[1 + 2 * k]
        even, odd = (_sum(code, [c if j % 2 == half else 0 for j, c in enumerate(row)], x) for half in (0, 1))
        result += [code.op("fadd", even, odd), code.op("fsub", even, odd)]
    return [*result, _sum(code, rows[-1], x)]


def _sum(code: Code, factors: Sequence[Fraction | int], terms: Sequence[Value]) -> Value:
    """Of products, the smallest factors last."""
    wanted = sorted(((c, x) for c, x in zip(factors, terms, strict=True) if c), key=lambda t: (t[0] != 1, -abs(t[0])))
    factor, total = wanted[0]
    if factor != 1:
        total = code.op("fmul", total, const(float(factor), total.dtype))
    for factor, term in wanted[1:]:
        if abs(factor) == 1:
            total = code.op("fadd" if factor == 1 else "fsub", total, term)
        else:
            total = fma(code, term, const(float(factor), total.dtype), total)
    return total
