"""One OpenCL device: memory, and work built in batches."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from omniop.backends.base import Answer, Buffer, Device, KernelTable, No, OpContext, Runnable
from omniop.backends.opencl import contract, conv, probe
from omniop.backends.opencl.apart import print_apart
from omniop.backends.opencl.driver import opencl
from omniop.backends.opencl.launch import BoundKernel, Launch, Scratch
from omniop.backends.opencl.loops import print_loops
from omniop.backends.opencl.printed import Printed
from omniop.backends.opencl.programs import Compiler, Text, tag_of
from omniop.opset.errors import DeviceError
from omniop.opset.kernel import Call, Kernel, Work
from omniop.opset.prims import accumulator


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
        self._scratch, self._sums = Scratch(self.alloc), Scratch(self.alloc)
        identity = (device.platform.version, device.version, *vars(self.fingerprint).values(), self.profile.machine)
        self._compiler = Compiler(context, self.profile.options, identity)
        self._kernels: dict[str, dict[str, BoundKernel]] = {}
        """By the tag of their text."""
        self._compiling = threading.Lock()

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
        made = [self._print(work) for work in works]
        kernels = self._compiled(*(p.text for p in made if isinstance(p, Printed)))
        return [p.bind(kernels) if isinstance(p, Printed) else p for p in made]

    def _compiled(self, *texts: Text) -> dict[str, BoundKernel]:
        """The kernels of ``texts`` by name; each text is compiled once in a process, the new ones together."""
        with self._compiling:
            new = {text.tag: text for text in texts if text.tag not in self._kernels}
            if new:
                made = self._compile(*new.values())
                for tag in new:
                    self._kernels[tag] = {name: kernel for name, kernel in made.items() if tag_of(name) == tag}
            return {name: kernel for text in texts for name, kernel in self._kernels[text.tag].items()}

    def _print(self, work: Work) -> Printed | Runnable:
        """What has to be compiled with others; the rest comes ready to run."""
        if isinstance(work, Kernel):
            return self._loops(work)
        if work.epilogue is not None and self.profile.cpu:
            total = work.attr("accumulate") if work.prim == "contract" else accumulator(work.operands[0].dtype)
            return print_apart(work, total, self.caps, self._product, self._loops, self._sums)
        return self._product(work)

    def _loops(self, kernel: Kernel) -> Printed:
        return print_loops(kernel, self.profile, self._compiled, self._scratch)

    def _product(self, work: Call) -> Runnable:
        if work.prim == "contract":
            return contract.make_contract(work, self.caps, self.profile, self._compiled, self._scratch)
        if work.prim == "conv":
            return conv.make_conv(work, self.caps, self.profile, self._compiled, self._scratch)
        if work.tuned is not None:
            return self.kernels.named(work.tuned).make(self, work)
        raise DeviceError(f"{self.name} was given {work.describe()}, which it did not accept")

    def _compile(self, *texts: Text) -> dict[str, BoundKernel]:
        labels = {text.tag: f"{self.name}: {text.label}" for text in texts}
        return {
            name: BoundKernel(kernel, self._queue, labels[tag_of(name)])
            for name, kernel in self._compiler.build(texts).items()
        }

    def run_text(self, text: Text, buffers: Sequence[Buffer], items: int) -> None:
        """Compile and launch a hand-written kernel named by its tag once, over ``items`` work items."""
        bound = self._compile(text)[text.tag]
        bound.launch(buffers, Launch(bound, (), (items,)))


def _bytes(array: np.ndarray) -> np.ndarray:
    """The memory of a C-contiguous array; drivers' bindings know numpy's own dtypes only."""
    return array.reshape(-1).view(np.uint8)
