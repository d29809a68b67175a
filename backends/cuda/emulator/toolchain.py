"""Runs the C++ compiler, and loads what it made, through the shared compile cache."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from omniop.backends.compile_cache import CompileCache, cache_key
from omniop.opset.errors import DeviceError

_HERE = Path(__file__).parent
RUNTIME_SOURCE = _HERE / "runtime.cpp"

_COMMON_FLAGS = (
    "-std=c++17", "-w", "-pipe", "-fPIC", "-shared", "-fvisibility=hidden", "-fno-exceptions", "-fno-rtti",
    "-fmax-errors=8",
)  # fmt: skip
RUNTIME_FLAGS = (*_COMMON_FLAGS, "-O2")
# As on the device: integers wrap, memory has no types, nothing contracts unless the source says fma. No C++ library, no
# start-up files: linking is half of the cost of a small batch.
KERNEL_FLAGS = (
    *_COMMON_FLAGS, "-O1", "-march=native", "-ffp-contract=off", "-fwrapv", "-fno-strict-aliasing", "-fno-math-errno",
    "-fno-gnu-unique", "-fno-asynchronous-unwind-tables", "-nostdlib",
)  # fmt: skip
KERNEL_LIBRARIES = ("-lm", "-lgcc", "-lc")

_loaded: dict[str, ctypes.CDLL] = {}
_loaded_lock = threading.Lock()


def why_unavailable() -> str | None:
    """Why kernels cannot be compiled for the emulator here, or None when they can."""
    if sys.platform != "linux":
        return f"the CUDA emulator runs on Linux only, not on {sys.platform}"
    try:
        _compiler()
    except DeviceError as error:
        return str(error)
    return None


def library_key(*parts: str) -> str:
    """The key of a library that is made of ``parts`` here: by this compiler, for this CPU, with these headers."""
    return cache_key(_identity(), *parts)


def find(key: str) -> ctypes.CDLL | None:
    """The library of this key if this process has loaded it or the cache holds it."""
    with _loaded_lock:
        if key in _loaded:
            return _loaded[key]
    path = _cache().path(key)
    if path is None:
        return None
    try:
        return _remember(key, path)
    except OSError:  # evicted since, or on a file system that forbids running code
        return None


def compile(key: str, source: str, flags: tuple[str, ...], libraries: tuple[str, ...] = ()) -> ctypes.CDLL:
    """The library that ``source`` compiles to, loaded, and stored under ``key``.

    Raises DeviceError with the compiler's messages when it does not compile.
    """
    compiler = _compiler()
    with tempfile.TemporaryDirectory(prefix="omniop-emu-") as directory:
        output = Path(directory) / "library.so"
        command = [compiler, *flags, f"-I{_HERE}", "-x", "c++", "-", "-o", str(output), *libraries]
        environment = {**os.environ, "LC_ALL": "C"}
        done = subprocess.run(command, input=source, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            raise DeviceError(f"cuda:emu: {compiler} did not compile the source:\n{done.stderr[:4000]}")
        _cache().put(key, output.read_bytes())
        try:
            return _remember(key, output)  # stays mapped when its file goes
        except OSError as error:
            raise DeviceError(
                f"cuda:emu: compiled code does not load ({error}): set TMPDIR to where it may run"
            ) from error


def _remember(key: str, path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    with _loaded_lock:
        return _loaded.setdefault(key, library)


def _compiler() -> str:
    """The path of the C++ compiler. Raises DeviceError when there is none."""
    found = shutil.which(os.environ.get("CXX") or "g++")
    if found is None:
        raise DeviceError("the CUDA emulator needs a C++ compiler: install g++, or set CXX to its path")
    return found


@functools.cache
def _identity() -> str:
    """What compiled code depends on beside its source: this package, the compiler, and the CPU."""
    compiler = Path(os.path.realpath(_compiler()))
    status = compiler.stat()
    ours = sorted(file for file in _HERE.iterdir() if file.suffix in (".h", ".cpp", ".py"))
    return cache_key(
        *(file.read_bytes() for file in ours), str(compiler), str(status.st_size), str(status.st_mtime_ns), _cpu()
    )


def _cpu() -> str:
    """The CPU's model and instruction sets: code for ``native`` must not run on another."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in text.splitlines() if line.startswith(wanted)}))


@functools.cache
def _cache() -> CompileCache:
    return CompileCache("cuda-emu")
