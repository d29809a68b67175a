"""Loop kernels of CPU devices: over a space of up to three axes, and printed so that layers share their text.

Numbers that the compiler makes little use of (strides, extents, scales, bounds) become arguments once everything has
been decided with them known: fixed shapes and quantisation scales then compile one kernel, not one for each layer.
Divisors, small strides and the extents of short loops stay literal, and so do exponents: code is better for them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from omniop.backends.codegen.c_helpers import type_name
from omniop.backends.codegen.c_like import Dialect, KernelPrinter, name_of
from omniop.backends.codegen.program import Const, Let, Loop, Operand, Program
from omniop.opset.dtype import BOOL

_INTEGER = frozenset(("add", "sub", "mul", "min", "max", "lt", "le", "eq", "ne"))
_FLOAT = _INTEGER | {"div", "select"}
"""Operations for which code is about as good when a constant operand is not known."""

_SMALL = 8
"""Integers up to this stay: they tell neighbours from elements further away."""
_SHORT = 64
"""Loops up to this may be unrolled."""
_USUAL = (0.0, 1.0, -1.0)


class SpacePrinter(KernelPrinter):
    """The last axis is the launch's fastest, the one before it the next; all others share the third.

    ``numbers``: values of the arguments that follow the sizes, as `launch.numbers_from` takes them.
    """

    def __init__(self, dialect: Dialect, program: Program) -> None:
        super().__init__(dialect, program)
        self.numbers: list[int | bytes] = []
        self._free = False
        """Whether constants may become arguments where it prints now."""

    def open(self, head: str) -> None:
        """Loops inside a work item stay scalar: vectorising them crashes Intel's compiler where a guarded load feeds a
        logarithm, and it is along work items that vectors are wanted."""
        if head.startswith("for "):
            self.line("#pragma clang loop vectorize(disable)")
        super().open(head)

    def operand(self, x: Operand) -> str:
        return self._argument(x) if self._free and isinstance(x, Const) and _worth(x) else super().operand(x)

    def _argument(self, x: Const) -> str:
        kind, name = type_name(x.dtype), f"n{len(self.numbers)}"
        if x.dtype.is_float:
            self.more_arguments.append(f"{kind} {name}")
            with np.errstate(over="ignore"):
                self.numbers.append(np.asarray(x.value).astype(x.dtype.numpy).tobytes())
            return name
        self.more_arguments.append(f"i64 {name}")
        self.numbers.append(int(x.value))
        return f"({kind}){name}"

    def _freely(self, x: Operand) -> str:
        self._free, before = True, self._free
        text = self.operand(x)
        self._free = before
        return text

    def _let(self, let: Let) -> None:
        dtype = let.args[-1].dtype if let.args else let.var.dtype
        self._free = dtype is not BOOL and let.op in (_FLOAT if dtype.is_float else _INTEGER)
        super()._let(let)
        self._free = False

    def _fault(self, code: int) -> str:
        name = f"n{len(self.numbers)}"
        self.more_arguments.append(f"i64 {name}")
        self.numbers.append(code)
        return f"b{self.program.error}[0] = (i32){name};"

    def _grid(self) -> None:
        outer, inner = self.program.grid[:-2], self.program.grid[-2:]
        index = type_name(self.program.index)
        for place, axis in enumerate(reversed(inner)):
            self.line(f"const {index} {name_of(axis.var)} = ({index})get_global_id({place});")
            self.line(f"if ({name_of(axis.var)} >= {self._freely(axis.extent)}) return;")
        self._free = True
        self.decompose("get_global_id(2)", outer)
        self._free = False

    def _loop(self, loop: Loop) -> None:
        if isinstance(loop.extent, Const) and loop.extent.value > _SHORT:
            extent = self._temporary(loop.extent.dtype)
            self.define(extent, self._freely(loop.extent))
            loop = replace(loop, extent=extent)
        super()._loop(loop)


def _worth(x: Const) -> bool:
    """Whether layers of a model are likely to differ in it."""
    if x.dtype.is_float:
        return x.dtype.bits >= 32 and bool(np.isfinite(x.value)) and x.value not in _USUAL
    return abs(int(x.value)) > _SMALL
