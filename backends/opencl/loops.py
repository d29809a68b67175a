"""Loop kernels: printed by the shared code generator, one work item for each point of their grid.

CPU devices vectorise along the fastest axis of a launch. They need an index that is that axis itself, in 64 bits: a
number to be divided, or cut to 32 bits, hides from them that neighbours are neighbours (10 times slower). Elsewhere a
launch has one axis, and offsets have 32 bits; sizes or buffers that need more get a second version of the kernel,
compiled when they first come.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from omniop.backends.base import Runnable
from omniop.backends.codegen.axes import refine, stride_of
from omniop.backends.codegen.c_helpers import type_name
from omniop.backends.codegen.c_like import KernelPrinter, Source, name_of
from omniop.backends.codegen.indexing import fits32, host_function
from omniop.backends.codegen.linearise import linearise
from omniop.backends.codegen.opencl_c import OPENCL_C
from omniop.backends.codegen.program import Program
from omniop.backends.codegen.schedule import Target, default_schedule
from omniop.backends.opencl.launch import BoundKernel, Launch, PlannedWork, Scratch, numbers_from
from omniop.backends.opencl.printed import Printed
from omniop.backends.opencl.probe import Profile
from omniop.backends.opencl.programs import Text
from omniop.opset import expr
from omniop.opset.kernel import Kernel

_ELEMENTS = 1 << 31
"""Buffers of so many need 64-bit offsets."""

_LONG, _SQUARE = 64, 16
"""Work items of a group along the fastest axis, where it has a second: as many as vectors like, or, so that a transpose
finds what it reads in the cache, as many as along the second."""

Compile = Callable[[Text], Mapping[str, BoundKernel]]


def print_loops(kernel: Kernel, profile: Profile, name: str, compile_one: Compile, scratch: Scratch) -> Printed:
    """``compile_one`` compiles a second version, if it comes to that."""
    if profile.cpu:
        return _print_for_cpu(kernel, profile, name, scratch)
    target = Target(profile.lanes, profile.atomic_bits)

    def printed(bits: int) -> tuple[Source, Text]:
        source = OPENCL_C.print_kernel(kernel, name, index_bits=bits, target=target)
        return source, Text(name, kernel.describe(), source.text, source.uses)

    source, text = printed(32)

    def bind(kernels: Mapping[str, BoundKernel]) -> Runnable:
        wide = _Later(lambda: compile_one(printed(64)[1])[name])
        return PlannedWork(_LinePlanner(kernel, source, profile.group, kernels[name], wide), scratch)

    return Printed(text, bind)


class _Later:
    """Made when it is first asked for, once."""

    def __init__(self, make: Callable[[], BoundKernel]) -> None:
        self._make = make
        self._made: BoundKernel | None = None
        self._lock = threading.Lock()

    def __call__(self) -> BoundKernel:
        with self._lock:
            if self._made is None:
                self._made = self._make()
            return self._made


class _LinePlanner:
    """From sizes to a launch along one axis."""

    def __init__(self, kernel: Kernel, source: Source, group: int, narrow: BoundKernel, wide: _Later) -> None:
        self._params = kernel.params
        self._fits = fits32(kernel)
        self._source = source
        self._group = source.local_size or group
        self._narrow = narrow
        self._wide = wide

    def __call__(self, sizes: tuple[int, ...], buffers: Sequence[Any]) -> tuple[Launch, ...]:
        small = all(b.size < _ELEMENTS * p.dtype.itemsize for b, p in zip(buffers, self._params, strict=True))
        kernel = self._narrow if small and self._fits(sizes) else self._wide()
        items = _up(self._source.global_size(sizes), self._group)
        return (Launch(kernel, numbers_from(len(self._params), sizes), (items,), (self._group,)),)


# CPU devices ----------------------------------------------------------------------------------------------------------


def _print_for_cpu(kernel: Kernel, profile: Profile, name: str, scratch: Scratch) -> Printed:
    refined = refine(kernel)
    schedule = default_schedule(refined, Target(1, profile.atomic_bits))
    program = linearise(refined, schedule, 64)
    printer = _SpacePrinter(OPENCL_C, program)
    text = Text(name, kernel.describe(), printer.kernel(name), frozenset(printer.used))
    across = _SQUARE if _transposes(refined, program) else _LONG

    def bind(kernels: Mapping[str, BoundKernel]) -> Runnable:
        return PlannedWork(_SpacePlanner(program, profile.group, across, kernels[name]), scratch)

    return Printed(text, bind)


def _transposes(kernel: Kernel, program: Program) -> bool:
    """Whether some load is contiguous along the axis before the last, and not along the last."""
    axes = [axis.axis for axis in program.grid[-2:]]
    if len(axes) < 2:
        return False
    for node in expr.walk(*kernel.roots()):
        if node.op == "load":
            before, last = (stride_of(node.args[0], axis) for axis in axes)
            contiguous = last is None or expr.is_const(last[0], 0) or expr.is_const(last[0], 1)
            if before and expr.is_const(before[0], 1) and not contiguous:
                return True
    return False


class _SpacePrinter(KernelPrinter):
    """The last axis is the launch's fastest, the one before it the next; all others share the third."""

    def open(self, head: str) -> None:
        """Loops inside a work item stay scalar: vectorising them crashes Intel's compiler where a guarded load feeds a
        logarithm, and it is along work items that vectors are wanted."""
        if head.startswith("for "):
            self.line("#pragma clang loop vectorize(disable)")
        super().open(head)

    def _grid(self) -> None:
        outer, inner = self.program.grid[:-2], self.program.grid[-2:]
        index = type_name(self.program.index)
        for place, axis in enumerate(reversed(inner)):
            self.line(f"const {index} {name_of(axis.var)} = ({index})get_global_id({place});")
            self.line(f"if ({name_of(axis.var)} >= {self.operand(axis.extent)}) return;")
        self.decompose("get_global_id(2)", outer)


class _SpacePlanner:
    """From sizes to a launch whose groups are as long as the fastest axis allows."""

    def __init__(self, program: Program, group: int, across: int, kernel: BoundKernel) -> None:
        self._params = len(program.params)
        self._extents = host_function(program.items)
        self._group = group
        self._across = across
        self._kernel = kernel

    def __call__(self, sizes: tuple[int, ...], buffers: Sequence[Any]) -> tuple[Launch, ...]:
        *outer, second, first = (1, 1, *self._extents(sizes))
        across = min(self._group if second == 1 else self._across, 1 << (first - 1).bit_length())
        along = min(self._group // across, second)
        third = 1
        for extent in outer:
            third *= extent
        space = (_up(first, across), _up(second, along), third)
        return (Launch(self._kernel, numbers_from(self._params, sizes), space, (across, along, 1)),)


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
