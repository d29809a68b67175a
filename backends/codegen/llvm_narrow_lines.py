"""Lines of narrow elements from an image, with what the padding covers filled in, as LLVM IR."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from omniop.backends.codegen import llvm_vector
from omniop.backends.codegen.llvm_flow import count, each, least, plus, when
from omniop.backends.codegen.llvm_ir import Code, Value, index
from omniop.opset.dtype import BOOL, UINT8, DType

ROW_BYTES = 64
"""What a line is written in: so much may be written behind its end."""


@dataclass(frozen=True)
class Lines:
    """Elements ``first + step * column`` of rows of ``width`` elements, which are ``apart`` bytes from each other;
    ``source`` is where the first element of the first row would lie. ``exists`` tells whether a row does, by number."""

    source: str
    first: Value
    width: Value
    step: Value
    apart: Value
    exists: Callable[[Code, Value], Value]

    def copy(self, code: Code, target: str, lines: Value, columns: Value, fill: Value) -> None:
        """So many columns of so many lines, one behind the other; the fill where there is no element."""
        masked = llvm_vector.has_masked(code, fill.dtype)

        def apart() -> None:
            def line(inside: Code, number: Value) -> None:
                each(inside, index(0), columns, 1, self._element(inside, target, columns, number, fill))

            each(code, index(0), lines, 1, line)

        def by_one() -> None:
            if masked:
                self._vectors(code, target, lines, columns, fill, 1)
            else:
                each(code, index(0), lines, 1, lambda inside, k: self._parts(inside, target, columns, k, fill))

        def further() -> None:
            two = code.compare("eq", self.step, index(2))
            if masked:
                when(code, two, lambda: self._vectors(code, target, lines, columns, fill, 2), apart)
            else:
                apart()

        when(code, code.compare("eq", self.step, index(1)), by_one, further)

    def _places(self, code: Code, target: str, columns: Value, number: Value, dtype: DType) -> tuple[str, str]:
        """Where a line comes from and where it goes."""
        source = code.element(self.source, UINT8, code.mul(number, self.apart))
        return source, code.element(target, dtype, code.mul(number, columns))

    def _element(
        self, code: Code, target: str, columns: Value, number: Value, fill: Value
    ) -> Callable[[Code, Value], None]:
        source, there = self._places(code, target, columns, number, fill.dtype)
        width = code.select(self.exists(code, number), self.width, index(0))

        def one(inside: Code, column: Value) -> None:
            ahead = inside.mul(column, self.step)
            known = inside.compare("ult", inside.add(self.first, ahead), width)
            pointer = inside.element(source, fill.dtype, ahead)
            value = inside.either(known, lambda: llvm_vector.load(inside, pointer, fill.dtype), lambda: fill)
            llvm_vector.store(inside, inside.element(there, fill.dtype, column), value)

        return one

    def _vectors(self, code: Code, target: str, lines: Value, columns: Value, fill: Value, every: int) -> None:
        """Under masks, which are the same for all lines: all elements, or every second one."""
        dtype = fill.dtype
        lanes = ROW_BYTES // dtype.itemsize
        last = code.intrinsic("smax", plus(code, columns, -lanes), index(0))
        filled = code.splat(fill, lanes)

        def part(outer: Code, place: Value) -> None:
            column = least(outer, place, last)  # a line shorter than a vector spills into the next one, which follows
            ahead = outer.mul(column, index(every))
            starts = [plus(outer, ahead, k * lanes) for k in range(every)]
            masks = [lanes_inside(outer, outer.add(self.first, start), self.width, lanes) for start in starts]

            def line(inside: Code, number: Value) -> None:
                source, there = self._places(inside, target, columns, number, dtype)
                there = inside.element(there, dtype, column)

                def copy() -> None:
                    values = []
                    for start, mask in zip(starts, masks, strict=True):
                        pointer = inside.element(source, dtype, start)
                        values.append(llvm_vector.masked_load(inside, pointer, mask, fill))
                    even = range(0, 2 * lanes, 2)
                    value = values[0] if every == 1 else inside.shuffle_two(values[0], values[1], even)
                    llvm_vector.store(inside, there, value)

                when(inside, self.exists(inside, number), copy, lambda: llvm_vector.store(inside, there, filled))

            each(outer, index(0), lines, 1, line)

        each(code, index(0), columns, lanes, part)

    def _parts(self, code: Code, target: str, columns: Value, number: Value, fill: Value) -> None:
        """Without masks: what comes before the row, the row, and what comes behind it."""
        dtype = fill.dtype
        lanes = code.module.target.vector_bits // dtype.bits
        source, there = self._places(code, target, columns, number, dtype)
        width = code.select(self.exists(code, number), self.width, index(0))

        def put(inside: Code, column: Value) -> None:
            llvm_vector.store(inside, inside.element(there, dtype, column), fill)

        def move(lanes: int) -> Callable[[Code, Value], None]:
            def some(inside: Code, column: Value) -> None:
                value = llvm_vector.load(inside, inside.element(source, dtype, column), dtype, lanes)
                llvm_vector.store(inside, inside.element(there, dtype, column), value)

            return some

        begin = least(code, code.intrinsic("smax", code.op("sub", index(0), self.first), index(0)), columns)
        end = least(code, code.intrinsic("smax", code.op("sub", width, self.first), begin), columns)
        each(code, index(0), begin, 1, put)
        each(code, count(code, begin, end, lanes, move(lanes)), end, 1, move(1))
        each(code, end, columns, 1, put)


def lanes_inside(code: Code, first: Value, width: Value, lanes: int) -> Value:
    """The lanes ``first + lane`` of which are at least 0 and below the width (at most 64 of them)."""
    return lanes_of(code, bits_inside(code, first, width, lanes), lanes)


def bits_inside(code: Code, first: Value, width: Value, lanes: int) -> Value:
    """`lanes_inside` as the bits of an int64."""
    low = least(code, code.intrinsic("smax", code.op("sub", index(0), first), index(0)), index(lanes))
    high = least(code, code.intrinsic("smax", code.op("sub", width, first), index(0)), index(lanes))
    return code.op("and", _ones_below(code, high), code.op("xor", _ones_below(code, low), index(-1)))


def lanes_of(code: Code, bits: Value, lanes: int) -> Value:
    """The lanes whose bits are set."""
    narrow = bits.text if lanes == 64 else code.let(f"trunc {bits} to i{lanes}")
    return Value(code.let(f"bitcast i{lanes} {narrow} to <{lanes} x i1>"), BOOL, lanes)


def _ones_below(code: Code, number: Value) -> Value:
    """So many ones; all 64 from 64 on."""
    shifted = code.op("xor", code.op("shl", index(-1), code.op("and", number, index(63))), index(-1))
    return code.select(code.compare("sge", number, index(64)), index(-1), shifted)
