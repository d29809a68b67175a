"""One OpenCL device: memory, and work built in batches."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from omniop.backends.base import Answer, Buffer, Device, KernelTable, No, OpContext, Runnable
from omniop.backends.opencl import contract, conv, probe
from omniop.backends.opencl.driver import opencl
from omniop.backends.opencl.launch import BoundKernel, Launch, Scratch
from omniop.backends.opencl.loops import print_loops
from omniop.backends.opencl.printed import Printed
from omniop.backends.opencl.programs import Compiler, Text
from omniop.opset.errors import DeviceError
from omniop.opset.kernel import Kernel, Work


class OpenCLDevice(Device):
    """See the module. Commands of all threads go to one in-order queue."""

    def __init__(self, name: str, device: Any, kernels: KernelTable) -> None:
        cl = opencl()
        self.name = name
        self.handle = device
        self.caps = probe.caps(device)
        self.fingerprint = probe.fingerprint(device)
        self.kernels = kernels
        self.profile = probe.profile(device)
        context = cl.Context([device])
        self._context = context
        self._queue = cl.CommandQueue(context, device)
        self._scratch = Scratch(self.alloc)
        identity = (device.platform.version, device.version, *vars(self.fingerprint).values(), self.profile.machine)
        self._compiler = Compiler(context, self.profile.options, identity)
        self._shared_kernels: dict[str, dict[str, BoundKernel]] = {}
        self._sharing = threading.Lock()

    # Memory -----------------------------------------------------------------------------------------------------------

    def alloc(self, nbytes: int) -> Buffer:
        cl = opencl()
        if nbytes > self.profile.max_alloc:
            limit = self.profile.max_alloc
            raise DeviceError(f"{self.name} cannot hold {nbytes} bytes in one buffer; at most {limit}")
        try:
            buffer = cl.Buffer(self._context, cl.mem_flags.READ_WRITE, nbytes)
            if not self.profile.cpu:
                self._commit(buffer)
        except (cl.MemoryError, cl.LogicError, cl.RuntimeError) as error:
            raise DeviceError(
                f"{self.name} has no memory left for {nbytes} bytes (of {self.profile.memory}): {error}"
            ) from None
        return buffer

    def _commit(self, buffer: Buffer) -> None:
        """Drivers of discrete devices allocate on first use; without this, a launch would be what fails."""
        cl = opencl()
        cl.enqueue_migrate_mem_objects(self._queue, [buffer], cl.mem_migration_flags.CONTENT_UNDEFINED)

    def h2d(self, buffer: Buffer, array: np.ndarray) -> None:
        self._copy(buffer, _bytes(array))

    def d2h(self, array: np.ndarray, buffer: Buffer) -> None:
        self._copy(_bytes(array), buffer)

    def _copy(self, target: Any, source: Any) -> None:
        cl = opencl()
        try:
            cl.enqueue_copy(self._queue, target, source, is_blocking=True)
        except cl.Error as error:
            raise DeviceError(f"{self.name} failed while copying or in the work before: {error}") from None

    def copy(self, target: Buffer, source: Buffer, nbytes: int) -> None:
        cl = opencl()
        try:
            cl.enqueue_copy(self._queue, target, source, byte_count=nbytes)
        except cl.Error as error:
            raise DeviceError(f"{self.name} cannot copy {nbytes} bytes: {error}") from None

    def sync(self) -> None:
        cl = opencl()
        try:
            self._queue.finish()
        except cl.Error as error:
            raise DeviceError(f"{self.name} failed while running work: {error}") from None

    # Work -------------------------------------------------------------------------------------------------------------

    def accepts(self, op: OpContext) -> Answer:
        if op.op == "contract":
            return contract.accepts(op)
        if op.op == "conv":
            return conv.accepts(op, self.profile)
        return No("expands", f"{self.name} runs {op.op} by its expansion")

    def accepts_epilogue(self, prim: str) -> bool:
        return prim in ("contract", "conv")

    def build(self, works: Sequence[Work]) -> list[Runnable]:
        made = [self._print(work, f"k{number}") for number, work in enumerate(works)]
        printed = [p for p in made if isinstance(p, Printed)]
        kernels = self._compile(*(p.text for p in printed if not p.shared))
        for p in printed:
            if p.shared:
                kernels.update(self._shared(p.text))
        return [p.bind(kernels) if isinstance(p, Printed) else p for p in made]

    def _shared(self, text: Text) -> dict[str, BoundKernel]:
        """Compiled by itself, once for all templates of a process; the binary serves other models too."""
        with self._sharing:
            if text.tag not in self._shared_kernels:
                self._shared_kernels[text.tag] = self._compile(text)
            return self._shared_kernels[text.tag]

    def _print(self, work: Work, name: str) -> Printed | Runnable:
        """What has to be compiled; a tuned kernel of somebody else's comes ready to run."""
        if isinstance(work, Kernel):
            return print_loops(work, self.profile, name, self._compile, self._scratch)
        if work.prim == "contract":
            return contract.print_contract(work, self.caps, self.profile, self._scratch)
        if work.prim == "conv":
            return conv.print_conv(work, self.caps, self.profile, self._scratch)
        if work.prim.startswith("kernel:"):
            return self.kernels.named(work.prim.removeprefix("kernel:")).make(self, work)
        raise DeviceError(f"{self.name} was given {work.describe()}, which it did not accept")

    def _compile(self, *texts: Text) -> dict[str, BoundKernel]:
        if not texts:
            return {}
        labels = {text.tag: f"{self.name}: {text.label}" for text in texts}
        return {
            name: BoundKernel(kernel, self._queue, labels[name.rpartition("_")[2]])
            for name, kernel in self._compiler.build(texts).items()
        }

    def run_text(self, text: Text, buffers: Sequence[Buffer], items: int) -> None:
        """Compile and launch a hand-written kernel named by its tag once, over ``items`` work items."""
        bound = self._compile(text)[text.tag]
        bound.launch(buffers, Launch(bound, (), (items,)))


def _bytes(array: np.ndarray) -> np.ndarray:
    """The memory of a C-contiguous array; drivers' bindings know numpy's own dtypes only."""
    return array.reshape(-1).view(np.uint8)
