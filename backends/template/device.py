"""The device: its memory, and how each kind of work becomes something that runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from omniop.backends.base import Answer, Buffer, Caps, Device, Fingerprint, KernelTable, No, OpContext, Runnable
from omniop.opset import dtype as dtypes
from omniop.opset import expr
from omniop.opset.errors import DeviceError
from omniop.opset.kernel import Call, Kernel, Work


class TemplateDevice(Device):
    """One piece of hardware. Methods may be called from several threads."""

    def __init__(self, name: str) -> None:
        self.name = name
        # What the hardware can load, store and compute in. Start small: kernels are rewritten into what you declare
        # (float16 held in integers and computed in float32, say), and nodes that cannot be are refused with a reason.
        # loops=True: you compile loop programs. loops=False: you call an array library (omniop.backends.array_device).
        plain = frozenset((dtypes.BOOL, dtypes.UINT8, dtypes.INT32, dtypes.INT64, dtypes.FLOAT32))
        self.caps = Caps(storage=plain, compute=plain, max_buffers=16, loops=True)
        # Tuning records and test results are kept under this: read it from the driver.
        self.fingerprint = Fingerprint(vendor="template", name="template", arch="none", driver="none")
        # Hand-written kernels; empty until the general route works.
        self.kernels = KernelTable()
        # By kind of work, in the order in which to write them.
        self.builders: dict[str, Callable[[Any], Runnable]] = {
            "map": self.unimplemented,  # stores over axes that may run in any order
            "reduce": self.unimplemented,  # the same, with reduces inside the expressions
            "scatter": self.unimplemented,  # stores at computed places: guarded, combining
            "sequence": self.unimplemented,  # a sequential axis: stores in order, values carried from step to step
            "call": self.unimplemented,  # what `accepts` said yes to
        }

    # 1. Memory --------------------------------------------------------------------------------------------------------

    def alloc(self, nbytes: int) -> Buffer:
        """Any handle; the memory is freed with it. Replace: this is host memory."""
        return bytearray(nbytes)

    def h2d(self, buffer: Buffer, array: np.ndarray) -> None:
        buffer[: array.nbytes] = array.tobytes()

    def d2h(self, array: np.ndarray, buffer: Buffer) -> None:
        """Comes after all work launched before."""
        array.reshape(-1).view(np.uint8)[...] = np.frombuffer(buffer, np.uint8, array.nbytes)

    # 2. Work ----------------------------------------------------------------------------------------------------------

    def build(self, works: Sequence[Work]) -> list[Runnable]:
        """All the work of a model at once: print everything, then compile in one go."""
        return [self.builders[kind_of(work)](work) for work in works]

    def unimplemented(self, work: Work) -> Runnable:
        raise DeviceError(f"{self.name}: not implemented: {kind_of(work)} ({work.describe()})")

    # 3. What to take whole --------------------------------------------------------------------------------------------

    def accepts(self, op: OpContext) -> Answer:
        """Say yes to "contract", "conv", "sort", ... as you write them; until then they come as kernels."""
        return No("expands", f"{self.name} has no {op.op} of its own yet")

    def accepts_epilogue(self, prim: str) -> bool:
        """Whether what follows a prim (bias, activation) may come with it, as `kernel.Call.epilogue`."""
        return False


def kind_of(work: Work) -> str:
    """Which part of the contract a piece of work needs."""
    if isinstance(work, Call):
        return "call"
    assert isinstance(work, Kernel)
    if work.seq is not None:
        return "sequence"
    if any(s.combine is not None or s.guard is not None for s in work.stores):
        return "scatter"
    return "reduce" if any(node.op == "reduce" for node in expr.walk(*work.roots())) else "map"
