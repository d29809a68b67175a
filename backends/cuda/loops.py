"""Loop kernels: printed by the shared code generator, launched over the points of their grid.

Offsets are computed in 32 bits; sizes or buffers that need more get a second version, compiled when they first come.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from omniop.backends.base import Runnable
from omniop.backends.codegen.c_like import Source
from omniop.backends.codegen.cuda_c import CUDA_C
from omniop.backends.codegen.indexing import fits32
from omniop.backends.codegen.schedule import Target
from omniop.backends.cuda.compiler import NAME, Text, named
from omniop.backends.cuda.driver import DeviceBuffer, LoadedKernel
from omniop.backends.cuda.launch import PlannedWork, Printed, Step, Toolkit
from omniop.opset.kernel import Kernel

_ELEMENTS = 1 << 31
"""Buffers of so many need 64-bit offsets."""

_ATOMIC_BITS = frozenset((32, 64))


def print_loops(kernel: Kernel, kit: Toolkit) -> Printed:
    """``kernel`` is legal for the device."""
    target = Target(kit.profile.lanes, _ATOMIC_BITS)

    def version(bits: int) -> tuple[Source, Text]:
        source = CUDA_C.print_kernel(kernel, NAME, index_bits=bits, target=target)
        return source, named("loops", kernel.describe(), source.text, source.uses)

    def wide() -> LoadedKernel:
        _, again = version(64)
        return kit.compiler.build([again])[again.name]

    source, text = version(32)

    def bind(kernels: Mapping[str, LoadedKernel]) -> Runnable:
        return PlannedWork(_Planner(kernel, source, kit, kernels[text.name], wide))

    return Printed((text,), bind)


class _Planner:
    """From sizes to the launch."""

    def __init__(
        self,
        kernel: Kernel,
        source: Source,
        kit: Toolkit,
        narrow: LoadedKernel,
        wide: Callable[[], LoadedKernel],
    ) -> None:
        self._params = kernel.params
        self._fits = fits32(kernel)
        self._source = source
        self._threads = source.local_size or kit.profile.block
        self._driver = kit.driver
        self._narrow = narrow
        self._make_wide = wide
        self._wide: LoadedKernel | None = None
        self._lock = threading.Lock()

    def __call__(self, sizes: tuple[int, ...], buffers: Sequence[DeviceBuffer]) -> Sequence[Step]:
        blocks = -(-self._source.global_size(sizes) // self._threads)
        if blocks <= 0:
            return ()
        return (Step(self._driver, self._version(sizes, buffers), blocks, self._threads, sizes),)

    def _version(self, sizes: tuple[int, ...], buffers: Sequence[DeviceBuffer]) -> LoadedKernel:
        small = all(b.nbytes < _ELEMENTS * p.dtype.itemsize for b, p in zip(buffers, self._params, strict=True))
        if small and self._fits(sizes):
            return self._narrow
        with self._lock:
            self._wide = self._wide or self._make_wide()
            return self._wide
