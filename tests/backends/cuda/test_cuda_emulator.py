"""What the emulator reports that a GPU would not, and how it compiles."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from cuda_runner import Runner
from cuda_sources import REVERSE, SAXPY, SOFTMAX, SUM

from omniop.backends.cuda import emulator
from omniop.backends.cuda.driver import DeviceBuffer, Driver
from omniop.backends.cuda.emulator import driver as emulator_driver
from omniop.backends.cuda.emulator import toolchain
from omniop.backends.cuda.emulator.translate import Translation
from omniop.opset.errors import DeviceError


def kernel(body: str, parameters: str = "float* x", before: str = "") -> str:
    return f'{before}\nextern "C" __global__ void kernel({parameters}) {{ {body} }}'


# What is wrong with a kernel ------------------------------------------------------------------------------------------

FAULTY = {
    "some threads skip a barrier": (
        "if (threadIdx.x > 3) __syncthreads();",
        r"barrier divergence in block \(0, 0, 0\): of 64 threads 60 wait .* \(line 2\), .* 4 have returned",
    ),
    "threads are at different barriers": (
        "if (threadIdx.x > 3)\n__syncthreads(); else\n__syncthreads();",
        "64 wait at __syncthreads on different lines",
    ),
    "half of a warp is at a barrier": (
        "if (threadIdx.x < 16) __syncwarp(); else __syncthreads();",
        "48 wait at __syncthreads .* 16 at a warp operation",
    ),
    "lanes disagree about who takes part": (
        "x[0] = __shfl_sync(threadIdx.x % 2 ? 0xffffffffu : 0x7fffffffu, x[0], 0);",
        "warp divergence in block .* lane 0 is at line 2 with mask 7fffffff, lane 1 .* with mask ffffffff",
    ),
    "a lane names only others": (
        "if (threadIdx.x == 0) x[0] = __shfl_sync(2u, x[0], 1);",
        "mask leaves out the calling lane in block .*, thread \\(0, 0, 0\\)",
    ),
    "a write past the end": (
        "if (threadIdx.x == 5) x[64 + blockIdx.x] = 0;",
        r"illegal memory access in block \(0, 0, 0\), thread \(5, 0, 0\), 256 bytes .* argument 0, which has 256",
    ),
    "a read past the end": ("x[threadIdx.x] = x[threadIdx.x + 1];", r"thread \(63, 0, 0\), 256 bytes from the start"),
    "a read through a wild pointer": ("x[0] = *(float*)0x1230;", "illegal memory access .* bytes from the start of"),
    "a write just before the start": ("x[-1] = 1;", "a write outside of argument 0"),
    "a division by zero": ("x[0] = 7 / (int)(x[0] * 0);", "integer division by zero in block"),
    "a trap": ("if (threadIdx.x == 9) __trap();", r"__trap\(\) in block \(0, 0, 0\), thread \(9, 0, 0\)"),
    "a failed assert": ("assert(threadIdx.x < 63);", r"a failed assert\(threadIdx.x < 63\) in block .* thread \(63"),
}


@pytest.mark.parametrize("fault", FAULTY)
@pytest.mark.parametrize("alone", [True, False], ids=["plain", "cooperative"])
def test_faults_name_the_place(emulated: Runner, fault: str, alone: bool) -> None:
    body, message = FAULTY[fault]
    source = kernel(body if alone else f"__syncthreads(); {body}")
    with pytest.raises(DeviceError, match=f"cuda:emu: kernel 'kernel': .*{message}"):
        emulated.run(source, "kernel", (1,), (64,), [np.zeros(64, np.float32)])
    # The device goes on as if nothing had happened.
    test_a_launch_works(emulated)


def test_a_launch_works(emulated: Runner) -> None:
    x = np.ones((3, 200), np.float32)
    _, y = emulated.run(SOFTMAX, "softmax", (3,), (128,), [x, x, np.int32(200)])
    np.testing.assert_allclose(y, 1 / 200, rtol=1e-6)


def test_a_stack_that_overflows(emulator_runner: Runner) -> None:
    source = kernel("x[0] = deep(x, 0);", before="__device__ __noinline__ float deep(float* x, int n) {"
                    " float a[64]; a[n % 64] = x[0]; return n > 1000000 ? a[3] : deep(a, n + 1) + a[5]; }")  # fmt: skip
    with pytest.raises(DeviceError, match="illegal memory access"):
        emulator_runner.run(source, "kernel", (1,), (1,), [np.zeros(1, np.float32)])


def test_a_read_just_before_the_start_of_whole_pages(emulator_runner: Runner) -> None:
    with pytest.raises(DeviceError, match="-4 bytes from the start of argument 0"):
        emulator_runner.run(kernel("x[0] = x[-1];"), "kernel", (1,), (1,), [np.zeros(4096, np.float32)])


def test_a_missing_barrier_shows_in_some_order() -> None:
    source = REVERSE.replace("__syncthreads();", "")
    x = np.arange(64, dtype=np.int32)
    wrong = []
    for order in ("forward", "reverse", "shuffled"):
        _, y = Runner(emulator.EmuDriver(order)).run(source, "reverse", (1,), (64,), [x, x], shared_bytes=256)
        wrong.append((y != x[::-1]).any())
    assert any(wrong)


@pytest.mark.parametrize(
    "declaration",
    [
        "__shared__ float held[8];",
        "static __shared__ __align__(16) float other[2][3], held[4];",
        "__shared__ alignas(sizeof(float4)) float held[8];",
        "extern __shared__ float held[];",
        "extern __shared__ __align__(16) unsigned char bytes[]; float* held = (float*)bytes;",
    ],
)
def test_shared_memory_is_not_kept_between_blocks(emulated: Runner, declaration: str) -> None:
    body = f"{declaration} x[blockIdx.x] = held[3]; held[3] = 1;"
    (x,) = emulated.run(
        kernel(body), "kernel", (4,), (1,), [np.zeros(4, np.float32)], 32 if "extern" in declaration else 0
    )
    assert np.isnan(x).all()


def test_fresh_memory_is_not_zero(emulator_runner: Runner) -> None:
    result = np.zeros(100, np.float32)
    emulator_runner.driver.d2h(result, emulator_runner.driver.alloc(400))
    assert np.isnan(result).all()


def test_a_shuffle_from_a_lane_that_is_not_there_gives_a_nan(emulated: Runner) -> None:
    body = "x[threadIdx.x] = __shfl_down_sync(0xffffffffu, x[threadIdx.x], 1);"
    (x,) = emulated.run(kernel(body), "kernel", (1,), (20,), [np.arange(20, dtype=np.float32)])
    np.testing.assert_array_equal(x[:19], np.arange(1, 20))
    assert np.isnan(x[19])


def test_the_order_is_that_of_threads_and_blocks() -> None:
    source = kernel("x[atomicAdd((int*)counter, 1)] = blockIdx.x * 8 + threadIdx.x;", "float* x, int* counter")
    runs = {}
    for order, seed in (("forward", 0), ("reverse", 0), ("shuffled", 1), ("shuffled", 2)):
        args = [np.zeros(56, np.float32), np.zeros(1, np.int32)]
        x, _ = Runner(emulator.EmuDriver(order, seed)).run(source, "kernel", (7,), (8,), args)
        assert sorted(x.tolist()) == list(range(56))
        runs[order, seed] = x.tolist()
    assert runs["forward", 0] == list(range(56))
    assert runs["reverse", 0] == list(range(55, -1, -1))
    assert len({tuple(run) for run in runs.values()}) == 4


def test_grids_and_blocks_have_three_dimensions(emulated: Runner) -> None:
    body = """
        int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
        int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
        x[block * 30 + thread] = block * 1000 + threadIdx.z * 100 + threadIdx.y * 10 + threadIdx.x;"""
    (x,) = emulated.run(kernel(body), "kernel", (3, 2, 2), (2, 3, 5), [np.zeros((12, 5, 3, 2), np.float32)])
    b, z, y, t = np.indices((12, 5, 3, 2))
    np.testing.assert_array_equal(x, b * 1000 + z * 100 + y * 10 + t)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([np.float32(1)], "1 arguments were passed, the kernel takes 3"),
        ([np.zeros(1), np.float64(1), np.int64(1)], "argument 1 has 8 bytes, the kernel takes 4"),
    ],
)
def test_arguments_are_checked(emulator_runner: Runner, args: list[object], message: str) -> None:
    source = kernel("x[n] = a;", "float* x, float a, long long n")
    with pytest.raises(DeviceError, match=message):
        emulator_runner.run(source, "kernel", (1,), (1,), args)


def test_narrow_arguments(emulator_runner: Runner) -> None:
    source = kernel(
        "x[0] = a + b + c + d + (float)h;", "double* x, int8_t a, uint8_t b, int16_t c, const bool d, __half h"
    )
    args = [np.zeros(1), np.int8(-5), np.uint8(200), np.int16(-300), np.True_, np.float16(0.5)]
    (x,) = emulator_runner.run(source, "kernel", (1,), (1,), args)
    assert x[0] == -103.5


def test_too_much_static_shared_memory(emulator_runner: Runner) -> None:
    source = kernel("__shared__ float s[12288], t; s[0] = t = 1; x[0] = s[0];")
    with pytest.raises(DeviceError, match="49156 bytes of shared memory are declared, the limit is 49152"):
        emulator_runner.run(source, "kernel", (1,), (1,), [np.zeros(1, np.float32)])


def test_an_order_that_it_does_not_have() -> None:
    with pytest.raises(DeviceError, match="it has forward, reverse, shuffled"):
        emulator.EmuDriver("sideways")  # type: ignore[arg-type]


def test_launches_from_several_threads_do_not_mix(emulator_runner: Runner) -> None:
    def run(value: int) -> bool:
        x = np.full((4, 200), value, np.float64)
        totals = (emulator_runner.run(SUM, "sum", (4,), (64,), [x, np.zeros(1), np.int32(800)])[1] for _ in range(20))
        return all(total[0] == 800 * value for total in totals)

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(run, range(4)))


def test_fibers_without_assembly(monkeypatch: pytest.MonkeyPatch) -> None:
    flags = (*toolchain.RUNTIME_FLAGS, "-DEMU_PORTABLE_FIBERS")
    portable = toolchain.compile("portable", toolchain.RUNTIME_SOURCE.read_text(), flags)
    with monkeypatch.context() as patch:
        patch.setattr(toolchain, "find", lambda _: portable)
        emulator_driver._runtime.cache_clear()
        runner = Runner(emulator.EmuDriver("shuffled"))
    emulator_driver._runtime.cache_clear()
    x = np.arange(4096.0)
    _, total = runner.run(SUM, "sum", (3,), (256,), [x, np.zeros(1), np.int32(x.size)])
    assert total[0] == x.sum()
    with pytest.raises(DeviceError, match="illegal memory access"):
        runner.run(kernel("x[0] = x[1 << 17];"), "kernel", (1,), (1,), [np.zeros(1, np.float32)])
    test_a_launch_works(runner)


# Compiling ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def compilations(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sources that the compiler is started on."""
    started: list[str] = []
    compile_: Callable[..., object] = toolchain.compile

    def counted(key: str, source: str, *rest: object) -> object:
        started.append(source)
        return compile_(key, source, *rest)

    monkeypatch.setattr(toolchain, "compile", counted)
    return started


def test_a_source_is_compiled_once(
    emulator_runner: Runner, compilations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SAXPY + "// compiled once"
    emulator_runner.driver.load(source, ["saxpy"])
    emulator_runner.driver.load(source, ["saxpy"])
    assert len(compilations) == 1
    monkeypatch.setattr(toolchain, "_loaded", {})  # as in another process
    kernels = emulator_runner.driver.load(source, ["saxpy"])
    assert len(compilations) == 1
    assert kernels["saxpy"].name == "saxpy"


def test_a_large_batch_is_compiled_in_parts(
    emulator_runner: Runner, compilations: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulator_driver.os, "sched_getaffinity", lambda _: {0, 1, 2})
    names = [f"k{i}" for i in range(96)]
    source = "\n".join(f'extern "C" __global__ void {name}(float* x) {{ x[0] = {i}; }}' for i, name in enumerate(names))
    kernels = emulator_runner.driver.load(source, names)
    assert len(compilations) == 3
    assert list(kernels) == names
    x, result = emulator_runner.driver.alloc(4), np.zeros(1, np.float32)
    for i in (0, 1, 50, 95):
        emulator_runner.driver.launch(kernels[names[i]], (1,), (1,), [x])
        emulator_runner.driver.d2h(result, x)
        assert result[0] == i


def test_without_a_compiler_it_is_unavailable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", str(tmp_path / "no-such-compiler"))
    assert "install g++" in str(emulator.why_unavailable())
    with pytest.raises(DeviceError, match=r"cuda:emu is not available: .*install g\+\+"):
        emulator.EmuDriver()


def test_where_code_may_not_run(emulator_runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str) -> None:
        raise OSError(f"{path}: failed to map segment from shared object")

    monkeypatch.setattr(toolchain.ctypes, "CDLL", refuse)
    for _ in range(2):  # the second time the cache has it
        with pytest.raises(DeviceError, match=r"failed to map segment .* set TMPDIR"):
            emulator_runner.driver.load(SAXPY + "// may not run", ["saxpy"])


def test_a_fault_of_another_thread_is_not_ours() -> None:
    script = """if True:
        import ctypes, faulthandler, threading
        import numpy as np
        from omniop.backends.cuda.emulator import EmuDriver
        faulthandler.enable()
        driver = EmuDriver()
        x = driver.alloc(4)
        source = 'extern "C" __global__ void spin(volatile int* x, int n) { for (int i = 0; i < n; i++) *x = i; }'
        kernel = driver.load(source, ["spin"])["spin"]
        threading.Timer(0.2, ctypes.string_at, [0]).start()
        driver.launch(kernel, (1,), (1,), [x, np.int32(2**31 - 1)])
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in done.stderr


def test_on_another_system_it_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain.sys, "platform", "win32")
    assert emulator.why_unavailable() == "the CUDA emulator runs on Linux only, not on win32"


def test_another_compiler_is_another_key(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = toolchain.library_key("x")
    other = tmp_path / "g++"
    shutil.copy(toolchain._compiler(), other)
    monkeypatch.setenv("CXX", str(other))
    toolchain._identity.cache_clear()
    assert toolchain.library_key("x") != before
    monkeypatch.undo()
    toolchain._identity.cache_clear()
    assert toolchain.library_key("x") == before


def test_memory_goes_back_with_the_last_reference(emulator_runner: Runner) -> None:
    def mappings() -> int:
        return len(Path("/proc/self/maps").read_text().splitlines())

    driver: Driver = emulator_runner.driver
    before = mappings()
    held = [driver.alloc(100) for _ in range(50)]
    assert mappings() >= before + 50
    driver.free(held[0])
    again: DeviceBuffer | None = driver.alloc(100)
    del held, again
    assert mappings() <= before + 5


# Which kernels need stacks --------------------------------------------------------------------------------------------

WAIT = "__device__ void wait() { __syncthreads(); }"
COOPERATIVE = {
    "a barrier": kernel("__syncthreads();"),
    "a shuffle": kernel("x[0] = __shfl_sync(~0u, x[0], 1);"),
    "shared memory": kernel("__shared__ float s[4]; s[0] = 1;"),
    "in a function": kernel("first();", before=f"{WAIT} __device__ void first() {{ wait(); }}"),
    "in a template": kernel("wait<4>();", before="template <int N = 4> __device__ void wait() { __syncwarp(); }"),
    "in a member": kernel("Tile t; t.wait();", before=f"struct Tile {{ int n; {WAIT} }};"),
    "in a macro": kernel("WAIT;", before="#define WAIT \\\n  __syncthreads()"),
    "in a lambda at file scope": kernel("wait();", before="__device__ auto wait = [](int n) { __syncthreads(); };"),
    "in a block of linkage": 'extern "C" { __global__ void kernel(float* x) { __syncthreads(); } }',
}  # fmt: skip
INDEPENDENT = {
    "plain": kernel("x[0] = 1;"),
    "in a comment": kernel("x[0] = 1; // __syncthreads()\n /* __shfl_sync */"),
    "in a string": kernel('printf("__syncthreads() { \\" {"); x[0] = 1;'),
    "in a function not called": kernel("x[0] = 1;", before=WAIT),
    "in another kernel": SOFTMAX + kernel("x[0] = 1;"),
    "a recursive function": kernel("x[0] = f(3);", before="__device__ int f(int n) { return n ? f(n - 1) : 0; }"),
}


@pytest.mark.parametrize("source", COOPERATIVE.values(), ids=COOPERATIVE)
def test_kernels_that_wait_are_cooperative(source: str) -> None:
    assert is_cooperative(source)


@pytest.mark.parametrize("source", INDEPENDENT.values(), ids=INDEPENDENT)
def test_kernels_that_never_wait_are_plain_loops(source: str) -> None:
    assert not is_cooperative(source)


def is_cooperative(source: str) -> bool:
    text = Translation(source).with_entries(["kernel"])
    entry = re.search(r"emu_sizes_kernel, \d+, (\d)\}", text)
    assert entry is not None
    return entry[1] == "1"


def test_shared_memory_of_a_called_function_is_poisoned(emulated: Runner) -> None:
    before = "template <class T> __device__ T* held() { __shared__ T s[4]; return s; }"
    body = "float* s = held<float>(); x[blockIdx.x] = s[1]; s[1] = 1;"
    (x,) = emulated.run(kernel(body, before=before), "kernel", (3,), (1,), [np.zeros(3, np.float32)])
    assert np.isnan(x).all()


def test_translation_keeps_lines(emulator_runner: Runner) -> None:
    source = kernel("\nextern __shared__\nfloat held[];\n__syncthreads();\nx[0] = no_such_name;")
    with pytest.raises(DeviceError, match=r"kernel\.cu:6:.*no_such_name"):
        emulator_runner.driver.load(source, ["kernel"])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("__shared__ float s[3];" + kernel("s[0] = 1;"), "shared memory is declared inside a function"),
        (kernel("HELD", before="#define HELD __shared__ float s[3];"), "not at file scope or by a macro"),
        (kernel("", "float& x"), "'kernel' has a parameter that cannot be passed: 'float& x'"),
        (kernel("", "float"), "cannot be passed: 'float'"),
        ('extern "C" __global__ void kernel(float* x) { if (x) {', "never closed"),
    ],
)
def test_what_is_not_translated(emulator_runner: Runner, source: str, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        emulator_runner.driver.load(source, ["kernel"])


def test_parameters_of_every_form(emulator_runner: Runner) -> None:
    parameters = (
        "const float *__restrict__ const x, Pair<int, 2> p, float const* y, unsigned long long int n, float (*q)"
    )
    source = kernel("n += p.v[1];", parameters, "template <class T, int N> struct Pair { T v[N]; };")
    with pytest.raises(DeviceError, match=re.escape("float (*q)")):
        emulator_runner.driver.load(source, ["kernel"])
    source = source.replace(", float (*q)", "")
    assert emulator_runner.driver.load(source, ["kernel"])["kernel"].name == "kernel"
