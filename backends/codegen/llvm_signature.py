"""What is told of a kernel in LLVM IR apart from its text, so that one from a cache needs no printer."""

from __future__ import annotations

from dataclasses import dataclass

from omniop.backends.codegen.llvm_ir import TYPES
from omniop.opset import expr
from omniop.opset.kernel import Kernel

_NODES = frozenset(("const", "size", "axis", "load", "alu", "cast", "bitcast", "select", "reduce", "carry"))


def covers(kernel: Kernel) -> bool:
    """Whether the dialect can print the kernel: all of them, as long as every dtype is one of LLVM's."""
    known = all(n.dtype in TYPES and n.op in _NODES for n in expr.walk(*kernel.roots()))
    return known and all(p.dtype in TYPES for p in kernel.params)


@dataclass(frozen=True)
class Printed:
    """What a caller of the function has to know.

    ``grain``: ranges begin at a multiple of it, and end at one or with the last point. ``serial``, ``weight``: see
    `Nest`. ``numbers``: what the function wants for sizes, where the kernel has none.
    """

    name: str
    grain: int
    serial: bool
    weight: float
    numbers: tuple[int, ...] = ()
