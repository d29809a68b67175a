"""One CUDA device: memory, and work built in batches. A driver below it is a GPU or the emulator."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from omniop.backends.base import Answer, Caps, Device, Fingerprint, KernelTable, No, OpContext, Runnable
from omniop.backends.cuda import contract
from omniop.backends.cuda.compiler import Compiler
from omniop.backends.cuda.contract import print_contract
from omniop.backends.cuda.driver import DeviceBuffer, Driver
from omniop.backends.cuda.launch import Printed, Profile, Toolkit
from omniop.backends.cuda.loops import print_loops
from omniop.opset import dtype as dtypes
from omniop.opset.errors import DeviceError
from omniop.opset.kernel import Kernel, Work

_COMPUTE = frozenset(d for d in dtypes.ALL if d.kind in "iu" and d.bits >= 8) | {
    dtypes.BOOL,
    dtypes.FLOAT32,
    dtypes.FLOAT64,
}
# A float16 is loaded, stored and converted. bfloat16 has no type in the dialect: legalise writes it out on the bits.
CAPS = Caps(storage=_COMPUTE | {dtypes.FLOAT16}, compute=_COMPUTE, max_buffers=24, loops=True, atomics=True)


class CudaDevice(Device):
    """See the module. Work of all threads goes to the driver's one queue, in the order it was asked for."""

    caps = CAPS

    def __init__(self, driver: Driver, profile: Profile, kernels: KernelTable, vendor: str = "NVIDIA") -> None:
        found = driver.properties
        major, minor = found.compute_capability
        self.name = driver.name
        self.fingerprint = Fingerprint(vendor, found.name, f"sm_{major}{minor}", found.driver_version)
        self.kernels = kernels
        self.driver = driver
        self._kit = Toolkit(driver, Compiler(driver, profile.batch), self.caps, profile)

    # Memory -----------------------------------------------------------------------------------------------------------

    def alloc(self, nbytes: int) -> DeviceBuffer:
        return self.driver.alloc(nbytes)

    def h2d(self, buffer: DeviceBuffer, array: np.ndarray) -> None:
        self.driver.h2d(buffer, array)

    def d2h(self, array: np.ndarray, buffer: DeviceBuffer) -> None:
        self.driver.d2h(array, buffer)

    def copy(self, target: DeviceBuffer, source: DeviceBuffer, nbytes: int) -> None:
        self.driver.d2d(target, source, nbytes)

    def sync(self) -> None:
        self.driver.synchronize()

    # Work -------------------------------------------------------------------------------------------------------------

    def accepts(self, op: OpContext) -> Answer:
        if op.op == "contract":
            return contract.accepts(op)
        return No("expands", f"{self.name} runs {op.op} by its expansion")

    def accepts_epilogue(self, prim: str) -> bool:
        return prim == "contract"

    def build(self, works: Sequence[Work]) -> list[Runnable]:
        printed = {work: self._print(work) for work in dict.fromkeys(works)}
        texts = [text for p in printed.values() if isinstance(p, Printed) for text in p.texts]
        kernels = self._kit.compiler.build(texts)
        ready = {work: p.bind(kernels) if isinstance(p, Printed) else p for work, p in printed.items()}
        return [ready[work] for work in works]

    def _print(self, work: Work) -> Printed | Runnable:
        """What has to be compiled; a tuned kernel of somebody else's comes ready to run."""
        if isinstance(work, Kernel):
            return print_loops(work, self._kit)
        if work.prim == "contract":
            return print_contract(work, self._kit)
        if work.tuned is not None:
            return self.kernels.named(work.tuned).make(self, work)
        raise DeviceError(f"{self.name} was given {work.describe()}, which it did not accept")
