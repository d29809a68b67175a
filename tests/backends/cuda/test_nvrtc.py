"""NVRTC: every source that the emulator runs is also what the real compiler accepts, for both architectures."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from cuda_sources import ALL, SAXPY, SOFTMAX, TENSOR_CORE

from omniop.backends.cuda import nvrtc
from omniop.opset.errors import DeviceError

needs_nvrtc = pytest.mark.skipif(nvrtc.why_unavailable() is not None, reason=str(nvrtc.why_unavailable()))

SPILLS = """
extern "C" __global__ void __launch_bounds__(1024) spills(float* x, int n) {
    float held[160];
    for (int i = 0; i < 160; i++) held[i] = x[i * 1024 + threadIdx.x];
    for (int j = 0; j < n; j++) {
        _Pragma("unroll") for (int i = 0; i < 160; i++) held[i] = held[i] * held[(i * 7 + 3) % 160] + x[j];
    }
    for (int i = 0; i < 160; i++) x[i * 1024 + threadIdx.x] = held[i];
}
"""


@needs_nvrtc
@pytest.mark.parametrize("arch", ["sm_80", "sm_90a"])
@pytest.mark.parametrize("name", ALL)
def test_what_the_emulator_runs_compiles(name: str, arch: str) -> None:
    compiled = nvrtc.compile(ALL[name], arch)
    assert compiled.arch == arch
    assert compiled.image.startswith(b"\x7fELF")
    assert compiled.kernels
    for kernel, stats in compiled.kernels.items():
        assert f"void {kernel}(" in ALL[name] or f") {kernel}(" in ALL[name]
        assert 0 < stats.registers <= 255
        assert stats.spill_stores == stats.spill_loads == 0
        assert (stats.matrix_instructions > 0) == (name == "tensor_core")


@needs_nvrtc
def test_statistics() -> None:
    stats = nvrtc.compile(SPILLS + SOFTMAX + TENSOR_CORE).kernels
    assert set(stats) == {"spills", "softmax", "product"}
    assert stats["spills"].spill_stores > 0
    assert stats["spills"].spill_loads > 0
    assert stats["spills"].stack > 0
    assert stats["spills"].registers == 64  # what 1024 threads leave each
    assert stats["softmax"].shared == 512
    assert stats["softmax"].spill_stores == 0
    assert stats["product"].matrix_instructions > 0
    assert stats["softmax"].matrix_instructions == 0


@needs_nvrtc
def test_products_and_sums_do_not_contract() -> None:
    assert "fma.rn" not in nvrtc.compile(SAXPY).ptx
    assert "fma.rn" in nvrtc.compile(SAXPY.replace("a * x[i] + y[i]", "fmaf(a, x[i], y[i])")).ptx


@needs_nvrtc
def test_an_error_names_the_line_of_the_source() -> None:
    with pytest.raises(DeviceError, match=r'for sm_80 (.|\n)*kernel\.cu\(4\): error: .*"nonsense"'):
        nvrtc.compile(SAXPY.replace("if (i < n)", "nonsense;"))


@needs_nvrtc
def test_a_source_is_compiled_once(monkeypatch: pytest.MonkeyPatch) -> None:
    source = SAXPY + "// compiled once"
    first = nvrtc.compile(source)

    def fail(*_: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(nvrtc, "_compile", fail)
    again = nvrtc.compile(source)
    assert again == first
    assert again.kernels == first.kernels
    with pytest.raises(AssertionError):
        nvrtc.compile(source, "sm_90a")


@needs_nvrtc
@pytest.mark.parametrize(
    ("capability", "arch"),
    [
        ((8, 0), "sm_80"),
        ((8, 9), "sm_89"),
        ((9, 0), "sm_90a"),
        ((12, 0), "sm_120"),
        ((12, 9), "sm_121"),
        ((99, 0), None),
    ],
)
def test_the_arch_for_a_gpu(capability: tuple[int, int], arch: str | None) -> None:
    chosen = nvrtc.arch_for(capability)
    assert chosen == arch if arch else chosen.startswith("compute_")
    compiled = nvrtc.compile(SAXPY, chosen)
    assert compiled.image.startswith(b"\x7fELF") == bool(arch)
    assert bool(compiled.kernels) == bool(arch)


def test_without_the_bindings_it_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    nvrtc._library.cache_clear()
    try:
        assert "omniop[nvrtc]" in str(nvrtc.why_unavailable())
        with pytest.raises(DeviceError, match="cuda-bindings"):
            nvrtc.compile(SAXPY)
    finally:
        nvrtc._library.cache_clear()


@needs_nvrtc
def test_without_headers_it_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "exists", lambda _: False)
    nvrtc._include_directory.cache_clear()
    try:
        assert "CUDA headers" in str(nvrtc.why_unavailable())
    finally:
        nvrtc._include_directory.cache_clear()
