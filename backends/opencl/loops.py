"""Loop kernels: printed by the shared code generator, one work item for each point of their grid.

CPU devices vectorise along the fastest axis of a launch. They need an index that is that axis itself, in 64 bits: a
number to be divided, or cut to 32 bits, hides from them that neighbours are neighbours (10 times slower). Elsewhere a
launch has one axis, and offsets have 32 bits; sizes or buffers that need more get a second version of the kernel,
compiled when they first come.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from omniop.backends.base import Runnable
from omniop.backends.codegen.axes import refine, stride_of
from omniop.backends.codegen.c_like import Source
from omniop.backends.codegen.indexing import fits32, host_function
from omniop.backends.codegen.linearise import linearise
from omniop.backends.codegen.opencl_c import OPENCL_C
from omniop.backends.codegen.partial_sums import in_parts
from omniop.backends.codegen.program import Program
from omniop.backends.codegen.schedule import Target, default_schedule
from omniop.backends.opencl.launch import BoundKernel, Launch, PlannedWork, Scratch, numbers_from
from omniop.backends.opencl.printed import Printed
from omniop.backends.opencl.probe import Profile
from omniop.backends.opencl.programs import Text
from omniop.backends.opencl.spaces import SpacePrinter
from omniop.opset import expr
from omniop.opset.kernel import Kernel

_ELEMENTS = 1 << 31
"""Buffers of so many need 64-bit offsets."""

_LONG, _SQUARE = 64, 16
"""Work items of a group along the fastest axis, where it has a second: as many as vectors like, or, so that a transpose
finds what it reads in the cache, as many as along the second."""

_NAME = "@"
"""Stands for a kernel's name until its text is known."""

Compile = Callable[[Text], Mapping[str, BoundKernel]]


def print_loops(kernel: Kernel, profile: Profile, compiled: Compile, scratch: Scratch) -> Printed:
    """``compiled`` gives the kernel of a second version, if it comes to that."""
    if profile.cpu:
        return _print_for_cpu(kernel, profile, scratch)
    target = Target(profile.lanes, profile.atomic_bits)

    def printed(bits: int) -> tuple[Source, Text]:
        source = OPENCL_C.print_kernel(kernel, _NAME, index_bits=bits, target=target)
        return source, _tagged(kernel, source.text, source.uses)

    source, text = printed(32)

    def wide() -> BoundKernel:
        other = printed(64)[1]
        return compiled(other)[other.tag]

    def bind(kernels: Mapping[str, BoundKernel]) -> Runnable:
        return PlannedWork(_LinePlanner(kernel, source, profile.group, kernels[text.tag], wide), scratch)

    return Printed(text, bind)


class _LinePlanner:
    """From sizes to a launch along one axis."""

    def __init__(
        self, kernel: Kernel, source: Source, group: int, narrow: BoundKernel, wide: Callable[[], BoundKernel]
    ) -> None:
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


def _print_for_cpu(kernel: Kernel, profile: Profile, scratch: Scratch) -> Printed:
    refined = refine(in_parts(kernel))
    schedule = default_schedule(refined, Target(1, profile.atomic_bits))
    program = linearise(refined, schedule, 64)
    printer = SpacePrinter(OPENCL_C, program)
    text = _tagged(kernel, printer.kernel(_NAME), frozenset(printer.used))
    across = _SQUARE if _transposes(refined, program) else _LONG

    def bind(kernels: Mapping[str, BoundKernel]) -> Runnable:
        planner = _SpacePlanner(program, printer.numbers, profile.group, across, kernels[text.tag])
        return PlannedWork(planner, scratch)

    return Printed(text, bind)


def _tagged(kernel: Kernel, body: str, uses: frozenset[str]) -> Text:
    """The text of a kernel that was printed as `_NAME`, named by what it says: equal ones are compiled once."""
    tag = f"k{hashlib.sha256(body.encode()).hexdigest()[:16]}"
    return Text(tag, kernel.describe(), body.replace(_NAME, tag), uses)


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


class _SpacePlanner:
    """From sizes to a launch whose groups are as long as the fastest axis allows."""

    def __init__(
        self, program: Program, numbers: Sequence[int | bytes], group: int, across: int, kernel: BoundKernel
    ) -> None:
        self._params = len(program.params)
        self._numbers = numbers
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
        numbers = numbers_from(self._params, (*sizes, *self._numbers))
        return (Launch(self._kernel, numbers, space, (across, along, 1)),)


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
