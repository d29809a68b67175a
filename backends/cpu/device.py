"""The CPU as a device: host memory, kernels by LLVM, what they do not do by numpy."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from omniop.backends.base import (
    Answer,
    Buffer,
    Device,
    Direct,
    Fingerprint,
    HostArray,
    KernelTable,
    Launched,
    OpContext,
    Runnable,
    Sequenced,
)
from omniop.backends.cpu import jit, kept
from omniop.backends.cpu.caps import CAPS
from omniop.backends.cpu.direct import direct
from omniop.backends.cpu.host import cpuinfo, host
from omniop.backends.cpu.launch import build_kernels
from omniop.backends.cpu.memory import HostBuffer, Scratch
from omniop.backends.cpu.program import Program
from omniop.backends.cpu.sequence import sequence
from omniop.backends.cpu.team.cpus import default_threads
from omniop.backends.cpu.team.workers import team
from omniop.opset.dtype import DType
from omniop.opset.errors import DeviceError
from omniop.opset.kernel import Call, Kernel, Work, tuned_kernel

if TYPE_CHECKING:
    from omniop.backends.cpu.calls import PlannedCall


ATTENTION = "attention"
MANY = 16
"""Works in a batch, after which the compiler rests: to let go of its memory and find it again takes 4 ms."""


class CpuDevice(Device):
    """See the module. A launch is done when it returns."""

    def __init__(self, kernels: KernelTable) -> None:
        self.name = "cpu"
        self.caps = CAPS
        self.fingerprint = fingerprint()
        self.kernels = kernels
        self._scratch = Scratch()

    # Memory -----------------------------------------------------------------------------------------------------------

    def alloc(self, nbytes: int) -> Buffer:
        try:
            return HostBuffer(nbytes)
        except MemoryError:
            raise DeviceError(f"{self.name} has no memory left for {nbytes} bytes") from None

    def h2d(self, buffer: Buffer, array: np.ndarray) -> None:
        buffer.bytes[: array.nbytes] = array.reshape(-1).view(np.uint8)

    def d2h(self, array: np.ndarray, buffer: Buffer) -> None:
        array.reshape(-1).view(np.uint8)[...] = buffer.bytes[: array.nbytes]

    def borrow(self, array: np.ndarray) -> Buffer | None:
        return HostBuffer.over(array) if array.flags.aligned else None

    def lend(self, buffer: Buffer, shape: tuple[int, ...], dtype: DType) -> np.ndarray | None:
        count = math.prod(shape)
        return buffer.typed(dtype)[:count].reshape(shape)

    def copy(self, target: Buffer, source: Buffer, nbytes: int) -> None:
        target.bytes[:nbytes] = source.bytes[:nbytes]

    # Work -------------------------------------------------------------------------------------------------------------

    def accepts(self, op: OpContext) -> Answer:
        from omniop.backends.cpu import attention, calls  # here and below: a plan from the disk needs none of them

        return attention.accepts(op) if op.op == ATTENTION else calls.accepts(op)

    def accepts_epilogue(self, prim: str) -> bool:
        if (name := tuned_kernel(prim)) is not None:
            return self.kernels.named(name).epilogue
        from omniop.backends.cpu.calls import PRIMS

        return prim == ATTENTION or (prim in PRIMS and PRIMS[prim].epilogue)

    def build(self, works: Sequence[Work]) -> list[Runnable]:
        plans = self._planned([w for w in works if isinstance(w, Call) and not _is_special(w)])
        kernels = [w for w in works if isinstance(w, Kernel)]
        kernels += [k for plan in plans.values() for k in plan.kernels]
        built = dict(zip(kernels, build_kernels(kernels), strict=True))
        runnables: list[Runnable] = []
        for work in works:
            if isinstance(work, Kernel):
                runnables.append(built[work])
            elif work in plans:
                runnables.append(plans[work].runnable(built))
            elif work.prim == ATTENTION:
                from omniop.backends.cpu.attention import AttentionCall

                runnables.append(AttentionCall(work, self.caps))
            elif work.tuned is not None:
                runnables.append(self.kernels.named(work.tuned).make(self, work))
        if len(works) >= MANY:
            jit.rest()
        return runnables

    def _planned(self, works: Sequence[Call]) -> dict[Call, PlannedCall]:
        if not works:
            return {}
        from omniop.backends.cpu.calls import PlannedCall

        return {work: PlannedCall(work, self.caps, self._scratch) for work in works}

    @property
    def precisions(self) -> frozenset[str]:  # type: ignore[override]  # what the processor has
        return frozenset(("bf16",)) if "vdpbf16ps" in jit.host_target().narrow else frozenset()

    @property
    def threads(self) -> int:
        return default_threads()

    def keep_calm(self) -> None:
        team().calm = True

    def keep(self, runs: Sequence[Runnable]) -> bytes:
        jit.rest()  # what a run has to compile is there when its plan is kept
        return kept.keep(runs, self._scratch)

    def restore(self, runs: bytes) -> Sequence[Runnable | None]:
        return kept.restore(runs, self._scratch)

    def sequence(self, launches: Sequence[Launched], threads: int | None = None) -> Sequenced:
        return sequence(launches, threads)

    def direct(
        self, run: Sequenced, table: Sequence[Buffer], feeds: Sequence[HostArray], outputs: Sequence[HostArray]
    ) -> Direct | None:
        return direct(run, table, feeds, outputs) if isinstance(run, Program) else None


def _is_special(call: Call) -> bool:
    """Whether it is no prim of `calls`."""
    return call.prim == ATTENTION or call.tuned is not None


def fingerprint() -> Fingerprint:
    """The processor as the system and LLVM call it, its vectors, and the libraries that do the work."""
    known = cpuinfo()
    vendor = known.get("vendor_id") or platform.system()
    vendor = {"AuthenticAMD": "AMD", "GenuineIntel": "Intel"}.get(vendor, vendor)
    name = known.get("model name") or platform.processor() or platform.machine()  # these two may run a program
    libraries = f"llvmlite {host().llvmlite}, numpy {np.__version__}"
    return Fingerprint(vendor, name, f"{host().name}, {jit.host_target().vector_bits} bits", libraries)
