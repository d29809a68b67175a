"""Every kind of kernel that the device tests run, as printed for a GPU, through the real compiler."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import pytest
from cuda_contracts import Product, bias_relu_residual, normal
from cuda_work import KERNELS, legal

from omniop.backends.base import KernelTable
from omniop.backends.cuda import nvrtc
from omniop.backends.cuda.device import CudaDevice
from omniop.backends.cuda.driver import DeviceProperties, Driver, LoadedKernel
from omniop.backends.cuda.launch import EMULATOR, GPU, Profile
from omniop.opset import dtype as dtypes
from omniop.opset.kernel import Work

pytestmark = pytest.mark.skipif(nvrtc.why_unavailable() is not None, reason=str(nvrtc.why_unavailable()))

PRODUCTS = {
    "float32": Product(normal(5, 70), normal(70, 6)),
    "static": Product(normal(2, 65, 67), normal(2, 67, 40), symbolic=False),
    "transposed": Product(normal(70, 5).T, normal(6, 70).T),
    "float64": Product(normal(5, 7, dtype="float64"), normal(7, 6, dtype="float64"), dtypes.FLOAT64),
    "float16": Product(normal(5, 7, dtype="float16"), normal(7, 6, dtype="float16")),
    "bfloat16": Product(normal(5, 7, dtype="bfloat16"), normal(7, 6, dtype="bfloat16")),
    "int8": Product(normal(5, 7, dtype="int8"), normal(7, 6, dtype="int8"), dtypes.INT32, dtypes.INT32),
    "epilogue": Product(
        normal(2, 3, 5, 7), normal(2, 3, 7, 6), epilogue=bias_relu_residual, extra=(normal(6), normal(2, 3, 5, 6))
    ),
}


@dataclass(frozen=True)
class _Unloaded:
    name: str


class PrintingDriver:
    """Keeps sources instead of compiling them."""

    name = "cuda:printed"
    gemm = None
    properties = DeviceProperties("none", (9, 0), 132, 1 << 36, 1 << 16, "none")

    def __init__(self) -> None:
        self.sources: list[str] = []

    def load(self, source: str, names: Sequence[str]) -> Mapping[str, LoadedKernel]:
        self.sources.append(source)
        return {name: _Unloaded(name) for name in names}


@functools.cache
def printed(profile: Profile, products: bool) -> str:
    """The source of all works, in one."""
    driver = PrintingDriver()
    device = CudaDevice(cast(Driver, driver), replace(profile, batch=4096), KernelTable())
    works: list[Work] = [p.legal(device) for p in PRODUCTS.values()]
    device.build(works if products else [legal(kernel, device) for kernel in KERNELS.values()])
    (source,) = driver.sources
    return source


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
def test_loops_compile(arch: str) -> None:
    """Without spills; rows are shared by the threads of a block, through shared memory."""
    stats = nvrtc.compile(printed(GPU, False), arch).kernels
    assert len(stats) == len(KERNELS)
    for kernel in stats.values():
        assert kernel.registers <= 64
        assert kernel.spill_stores == kernel.spill_loads == kernel.stack == 0
    assert sorted(k.shared for k in stats.values() if k.shared) == [1024, 1024, 1024, 2048]


@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("profile", [GPU, EMULATOR], ids=["shared", "alone"])
def test_products_compile(profile: Profile, arch: str) -> None:
    """Without spills, with room for two blocks of 256 threads on a multiprocessor."""
    stats = nvrtc.compile(printed(profile, True), arch).kernels
    assert len(stats) == len(PRODUCTS)
    for kernel in stats.values():
        assert kernel.registers <= 128
        assert kernel.spill_stores == kernel.spill_loads == kernel.stack == 0
        assert (kernel.shared > 0) == profile.shared
