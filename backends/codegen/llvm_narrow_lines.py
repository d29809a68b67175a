"""Lines of narrow elements from an image, with what the padding covers filled in, as LLVM IR."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from omniop.backends.codegen import llvm_vector
from omniop.backends.codegen.llvm_flow import count, each, least, plus, when
from omniop.backends.codegen.llvm_ir import Code, Value, index
from omniop.opset.dtype import BOOL

ROW_BYTES = 64
"""What a line is written in: so much may be written behind its end."""


@dataclass(frozen=True)
class Line:
    """Elements ``first + step * column`` of a row of ``width`` elements, ``source`` being where the first one of them
    would lie."""

    source: str
    first: Value
    width: Value
    step: Value

    def copy(self, code: Code, target: str, columns: Value, fill: Value) -> None:
        """So many columns, the fill where there is no element."""
        masked = llvm_vector.has_masked(code, fill.dtype)
        by_one = self._vectors(code, target, columns, fill, 1) if masked else self._parts(code, target, columns, fill)
        by_two = self._vectors(code, target, columns, fill, 2)

        def apart() -> None:
            each(code, index(0), columns, 1, self._element(target, fill))

        def further() -> None:
            if masked:
                when(code, code.compare("eq", self.step, index(2)), by_two, apart)
            else:
                apart()

        when(code, code.compare("eq", self.step, index(1)), by_one, further)

    def _element(self, target: str, fill: Value) -> Callable[[Code, Value], None]:
        def one(code: Code, column: Value) -> None:
            ahead = code.mul(column, self.step)
            known = code.compare("ult", code.add(self.first, ahead), self.width)
            pointer = code.element(self.source, fill.dtype, ahead)
            value = code.either(known, lambda: llvm_vector.load(code, pointer, fill.dtype), lambda: fill)
            llvm_vector.store(code, code.element(target, fill.dtype, column), value)

        return one

    def _vectors(self, code: Code, target: str, columns: Value, fill: Value, every: int) -> Callable[[], None]:
        """Under masks: all elements, or every second one."""
        dtype = fill.dtype
        lanes = ROW_BYTES // dtype.itemsize
        last = code.intrinsic("smax", plus(code, columns, -lanes), index(0))

        def part(inside: Code, place: Value) -> None:
            column = least(inside, place, last)
            ahead = inside.mul(column, index(every))
            values = []
            for k in range(every):
                here = plus(inside, ahead, k * lanes)
                mask = lanes_inside(inside, inside.add(self.first, here), self.width, lanes)
                pointer = inside.element(self.source, dtype, here)
                values.append(llvm_vector.masked_load(inside, pointer, mask, fill))
            value = values[0] if every == 1 else inside.shuffle_two(values[0], values[1], range(0, 2 * lanes, 2))
            llvm_vector.store(inside, inside.element(target, dtype, column), value)

        def run() -> None:
            each(code, index(0), columns, lanes, part)

        return run

    def _parts(self, code: Code, target: str, columns: Value, fill: Value) -> Callable[[], None]:
        """Without masks: what comes before the row, the row, and what comes behind it."""
        dtype = fill.dtype
        lanes = code.module.target.vector_bits // dtype.bits

        def put(inside: Code, column: Value) -> None:
            llvm_vector.store(inside, inside.element(target, dtype, column), fill)

        def move(lanes: int) -> Callable[[Code, Value], None]:
            def some(inside: Code, column: Value) -> None:
                value = llvm_vector.load(inside, inside.element(self.source, dtype, column), dtype, lanes)
                llvm_vector.store(inside, inside.element(target, dtype, column), value)

            return some

        def run() -> None:
            begin = least(code, code.intrinsic("smax", code.op("sub", index(0), self.first), index(0)), columns)
            end = least(code, code.intrinsic("smax", code.op("sub", self.width, self.first), begin), columns)
            each(code, index(0), begin, 1, put)
            each(code, count(code, begin, end, lanes, move(lanes)), end, 1, move(1))
            each(code, end, columns, 1, put)

        return run


def lanes_inside(code: Code, first: Value, width: Value, lanes: int) -> Value:
    """The lanes ``first + lane`` of which are at least 0 and below the width, by shifting bits (at most 64 of them)."""
    low = least(code, code.intrinsic("smax", code.op("sub", index(0), first), index(0)), index(lanes))
    high = least(code, code.intrinsic("smax", code.op("sub", width, first), index(0)), index(lanes))
    bits = code.op("and", _ones_below(code, high), code.op("xor", _ones_below(code, low), index(-1)))
    narrow = bits.text if lanes == 64 else code.let(f"trunc {bits} to i{lanes}")
    return Value(code.let(f"bitcast i{lanes} {narrow} to <{lanes} x i1>"), BOOL, lanes)


def _ones_below(code: Code, number: Value) -> Value:
    """So many ones; all 64 from 64 on."""
    shifted = code.op("xor", code.op("shl", index(-1), code.op("and", number, index(63))), index(-1))
    return code.select(code.compare("sge", number, index(64)), index(-1), shifted)
