"""Runs printed kernels: C through the C compiler and ctypes, OpenCL C on a CPU runtime, CUDA C on the emulator."""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import shutil
import subprocess
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from omniop.backends.codegen.c_like import Source
from omniop.backends.codegen.cuda_c import CUDA_C
from omniop.backends.codegen.opencl_c import OPENCL_C
from omniop.backends.codegen.plain_c import PLAIN_C
from omniop.backends.codegen.schedule import Target
from omniop.opset.kernel import Kernel

Launch = Callable[[str, Sequence[np.ndarray], Sequence[int]], None]


class PlainRunner:
    """Kernels as C functions; a launch is cut into two ranges, as two threads would have it."""

    dialect = PLAIN_C
    index_bits = 64
    target = Target(atomic_bits=frozenset())

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._units = 0

    def build(self, sources: Sequence[Source]) -> Launch:
        self._units += 1
        text, library = self._folder / f"u{self._units}.c", self._folder / f"u{self._units}.so"
        text.write_text(self.dialect.unit(sources))
        flags = ["-std=c99", "-Wall", "-Werror", "-Wno-unused", "-O1", "-ffp-contract=off", "-shared", "-fPIC"]
        subprocess.run(["cc", *flags, "-o", library, text, "-lm"], check=True)
        functions = ctypes.CDLL(str(library))
        points = {s.name: s.points for s in sources}

        def launch(name: str, arrays: Sequence[np.ndarray], sizes: Sequence[int]) -> None:
            buffers = (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))
            numbers = (ctypes.c_int64 * max(1, len(sizes)))(*sizes)
            count = points[name](sizes)
            for begin, end in ((0, count // 2), (count // 2, count)):
                getattr(functions, name)(buffers, numbers, ctypes.c_int64(begin), ctypes.c_int64(end))

        return launch


class OpenCLRunner:
    """Kernels on the first CPU device."""

    dialect = OPENCL_C
    index_bits = 32
    target = Target(atomic_bits=frozenset((32, 64)))

    def __init__(self, cl: Any) -> None:
        self._cl = cl
        devices = [d for p in cl.get_platforms() for d in p.get_devices() if d.type & cl.device_type.CPU]
        if not devices:
            pytest.skip("no OpenCL CPU device")
        self._context = cl.Context(devices[:1])
        self._queue = cl.CommandQueue(self._context)

    def build(self, sources: Sequence[Source]) -> Launch:
        cl = self._cl
        options = ["-cl-std=CL1.2", "-cl-fp32-correctly-rounded-divide-sqrt"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", cl.CompilerWarning)  # remarks of the vectoriser
            program = cl.Program(self._context, self.dialect.unit(sources)).build(options, cache_dir=False)
        kernels = {s.name: (s, cl.Kernel(program, s.name)) for s in sources}
        flags = cl.mem_flags.READ_WRITE | cl.mem_flags.COPY_HOST_PTR

        def launch(name: str, arrays: Sequence[np.ndarray], sizes: Sequence[int]) -> None:
            source, kernel = kernels[name]
            buffers = [cl.Buffer(self._context, flags, hostbuf=a) for a in arrays]
            local = source.local_size or 16
            groups = -(-source.global_size(sizes) // local)
            kernel(self._queue, (groups * local,), (local,), *buffers, *map(np.int64, sizes))
            for array, buffer in zip(arrays, buffers, strict=True):
                cl.enqueue_copy(self._queue, array, buffer)

        return launch


class CudaRunner:
    """Kernels on the emulated device, whose memory and barriers are checked."""

    dialect = CUDA_C
    index_bits = 32
    target = Target(atomic_bits=frozenset((32, 64)))

    def __init__(self) -> None:
        from omniop.backends.cuda import emulator

        if reason := emulator.why_unavailable():
            pytest.skip(reason)
        self._driver = emulator.EmuDriver("shuffled")

    def build(self, sources: Sequence[Source]) -> Launch:
        driver = self._driver
        kernels = driver.load(self.dialect.unit(sources), [s.name for s in sources])
        by_name = {s.name: s for s in sources}

        def launch(name: str, arrays: Sequence[np.ndarray], sizes: Sequence[int]) -> None:
            source = by_name[name]
            local = source.local_size or 16
            grid = -(-source.global_size(sizes) // local)
            buffers = [driver.alloc(a.nbytes) for a in arrays]
            for buffer, array in zip(buffers, arrays, strict=True):
                driver.h2d(buffer, array)
            driver.launch(kernels[name], (grid,), (local,), [*buffers, *map(np.int64, sizes)])
            for array, buffer in zip(arrays, buffers, strict=True):
                driver.d2h(array, buffer)

        return launch


Runner = PlainRunner | OpenCLRunner | CudaRunner


def _find_runtime(folder: Path) -> None:
    """Make a runtime that pip installed visible to the loader."""
    try:
        files = importlib.metadata.files("intel-opencl-rt") or []
    except importlib.metadata.PackageNotFoundError:
        return
    library = next((str(f.locate()) for f in files if f.name == "libintelocl.so"), None)
    if library is not None and "OCL_ICD_VENDORS" not in os.environ:
        (folder / "cpu.icd").write_text(os.path.realpath(library) + "\n")
        os.environ["OCL_ICD_VENDORS"] = str(folder)


@pytest.fixture(scope="session", autouse=True)
def _private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMNIOP_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", params=["c", "opencl", "cuda"])
def runner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    folder = tmp_path_factory.mktemp(request.param)
    if request.param == "c":
        if shutil.which("cc") is None:
            pytest.skip("no C compiler")
        yield PlainRunner(folder)
        return
    if request.param == "cuda":
        yield CudaRunner()
        return
    cl = pytest.importorskip("pyopencl")
    _find_runtime(folder)
    yield OpenCLRunner(cl)


Run = Callable[..., None]


@pytest.fixture
def run(runner: Runner) -> Run:
    """``run(kernel, *arrays, sizes=(), **options of print_kernel)`` on arrays, which the kernel writes to."""

    def run(kernel: Kernel, *arrays: np.ndarray, sizes: Sequence[int] = (), **options: Any) -> None:
        options = {"index_bits": runner.index_bits, "target": runner.target, **options}
        launch = runner.build([runner.dialect.print_kernel(kernel, "k", **options)])
        launch("k", arrays, sizes)

    return run
