"""The C99 dialect: a kernel is a function over a range of its points.

    void name(void** buffers, const int64_t* sizes, int64_t begin, int64_t end)

It runs points ``begin`` to ``end - 1`` of the grid, so that a caller may deal ranges out to threads. There are no work
groups and no atomics: a kernel whose stores combine has one point. Build with -ffp-contract=off, link with libm; print
with 64 index bits, which a compiler vectorises best.
"""

from __future__ import annotations

from omniop.backends.codegen.c_like import Dialect, KernelPrinter
from omniop.opset.dtype import FLOAT32

_HEADER = """\
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
typedef int8_t i8; typedef int16_t i16; typedef int32_t i32; typedef int64_t i64;
typedef uint8_t u8; typedef uint16_t u16; typedef uint32_t u32; typedef uint64_t u64;
typedef float f32; typedef double f64;"""


class _Printer(KernelPrinter):
    def kernel(self, name: str) -> str:
        program = self.program
        if program.lanes > 1:
            raise ValueError("plain C has no work groups; take a schedule with 1 lane")
        for k in range(len(program.params)):
            self.line(f"{self.pointer(k)} b{k} = buffers[{k}];")
        for k in range(program.sizes):
            self.line(f"const i64 s{k} = sizes[{k}];")
        self.block(program.prologue)
        self._points()
        head = f"void {name}(void** buffers, const i64* sizes, i64 begin, i64 end)"
        return "\n".join((f"{head} {{", "  (void)buffers; (void)sizes;", *self.lines, "}"))

    def _points(self) -> None:
        """A loop over the range; along the last axis it is a plain counted loop, which a compiler can vectorise."""
        grid = self.program.grid
        outer, inner = grid[:-1], grid[-1:]
        if outer:
            extent = self.operand(inner[0].extent)
            self.open("for (i64 point = begin, run; point < end; point += run)")
            self.line(f"const i64 first = point % {extent};")
            self.line(f"run = {extent} - first < end - point ? {extent} - first : end - point;")
            self.decompose(f"(point / {extent})", outer)
            self.open("for (i64 place = first; place < first + run; ++place)")
        else:
            self.open("for (i64 place = begin; place < end; ++place)")
        self.decompose("place", inner)
        self.block(self.program.body)
        for _ in range(2 if outer else 1):
            self.shut()


PLAIN_C = Dialect(
    name="C",
    header=_HEADER,
    own={},
    function="static inline ",
    kernel="",
    group_kernel="",
    space="",
    local="",
    point="",
    group="",
    lane="",
    barrier="",
    suffix=lambda dtype: "f" if dtype is FLOAT32 else "",
    printer=_Printer,
)
