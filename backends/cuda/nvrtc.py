"""CUDA C to machine code through NVRTC, which needs neither a GPU nor a driver.

So every kernel can be checked anywhere for what only the real compiler knows: that it compiles, how many registers it
takes, whether it spills, whether its products became matrix instructions.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from omniop.backends.compile_cache import CompileCache, cache_key
from omniop.backends.cuda.prelude import complete
from omniop.opset.errors import DeviceError

# Products and sums contract only where a kernel says fma; division and square root are IEEE's, as is NVRTC's default.
_OPTIONS = ("--std=c++17", "--fmad=false", "--ptxas-options=-v")
_INSTALL = "pip install 'omniop[nvrtc]'"


@dataclass(frozen=True)
class KernelStats:
    """What the assembler said of one kernel. Sizes are in bytes."""

    registers: int
    spill_stores: int
    spill_loads: int
    stack: int
    shared: int
    matrix_instructions: int


@dataclass(frozen=True)
class Compiled:
    """A compiled source: ``image`` is what a driver loads, a cubin (or PTX, where ``arch`` is a ``compute_`` one)."""

    arch: str
    image: bytes
    ptx: str
    log: str

    @functools.cached_property
    def kernels(self) -> Mapping[str, KernelStats]:
        """The statistics of each kernel by name; empty for a ``compute_`` arch, which is assembled by the driver."""
        return dict(_statistics(self.log, self.ptx))


def why_unavailable() -> str | None:
    """Why NVRTC cannot be used here, or None when it can."""
    try:
        _library()
        _include_directory()
    except DeviceError as error:
        return str(error)
    return None


def compile(source: str, arch: str = "sm_80") -> Compiled:
    """Compiles ``source``, after the prelude, for ``arch`` (``sm_80``, ``sm_90a``, ``compute_90``), or finds it cached.

    Raises DeviceError with the compiler's log when it does not compile, or with the reason when there is no NVRTC.
    """
    library, text = _library(), complete(source)
    options = (*_OPTIONS, f"--gpu-architecture={arch}", f"--include-path={_include_directory()}")
    cache, key = _cache(), cache_key("nvrtc", _version(), *options, text)
    stored = cache.get(key)
    if stored is not None:
        return _unpack(arch, stored)
    compiled = _compile(library, text, arch, options)
    cache.put(key, _pack(compiled))
    return compiled


def arch_for(compute_capability: tuple[int, int]) -> str:
    """The arch to compile for so that a GPU of this capability runs it at its best.

    Machine code runs on later minor versions of its major one; a GPU newer than NVRTC gets PTX, for its driver.
    """
    major, minor = compute_capability
    wanted = 10 * major + minor
    known = _check(_library(), _library().nvrtcGetSupportedArchs())
    same_major = [arch for arch in known if arch // 10 == major and arch <= wanted]
    if not same_major:
        return f"compute_{max(arch for arch in known if arch <= wanted)}"
    # sm_90a has Hopper's own matrix instructions, and runs on nothing else.
    return "sm_90a" if wanted == 90 else f"sm_{max(same_major)}"


# The library ----------------------------------------------------------------------------------------------------------


@functools.cache
def _library() -> ModuleType:
    """``cuda.bindings.nvrtc`` with its shared library loaded. Raises DeviceError."""
    try:
        from cuda.bindings import nvrtc
    except ImportError as error:
        raise DeviceError(f"NVRTC needs cuda-bindings ({error}): {_INSTALL}") from error
    try:
        nvrtc.nvrtcVersion()
    except Exception as error:  # the type differs between releases of cuda-bindings
        raise DeviceError(f"the library NVRTC does not load ({error}): {_INSTALL}") from error
    return nvrtc


@functools.cache
def _version() -> str:
    return ".".join(str(number) for number in _check(_library(), _library().nvrtcVersion(), many=True))


@functools.cache
def _include_directory() -> Path:
    """Where ``cuda_fp16.h`` is: in NVIDIA's wheels, else in an installed toolkit. Raises DeviceError."""
    wheels = importlib.util.find_spec("nvidia")
    roots = [Path(root) for root in (wheels.submodule_search_locations or ())] if wheels else []
    candidates = [root / name / "include" for root in roots for name in ("cu13", "cuda_runtime")]
    candidates += [Path(os.environ[name]) / "include" for name in ("CUDA_HOME", "CUDA_PATH") if name in os.environ]
    candidates.append(Path("/usr/local/cuda/include"))
    for candidate in candidates:
        if (candidate / "cuda_fp16.h").exists():
            return candidate
    raise DeviceError(f"NVRTC finds no CUDA headers: {_INSTALL}, or set CUDA_HOME")


@functools.cache
def _cache() -> CompileCache:
    return CompileCache("nvrtc")


def _check(library: ModuleType, answer: tuple[Any, ...], many: bool = False) -> Any:
    """The values of ``answer`` after its status. Raises DeviceError for a failure."""
    status, *values = answer
    if status != library.nvrtcResult.NVRTC_SUCCESS:
        raise DeviceError(f"NVRTC failed with {status.name}")
    return values if many else values[0] if values else None


def _compile(library: ModuleType, text: str, arch: str, options: tuple[str, ...]) -> Compiled:
    program = _check(library, library.nvrtcCreateProgram(text.encode(), b"kernel.cu", 0, [], []))
    try:
        (status,) = library.nvrtcCompileProgram(program, len(options), [option.encode() for option in options])
        log = _text(library, program, "ProgramLog")
        if status != library.nvrtcResult.NVRTC_SUCCESS:
            raise DeviceError(f"NVRTC did not compile the source for {arch} ({status.name}):\n{log}")
        ptx = _text(library, program, "PTX")
        image = ptx.encode() + b"\0" if arch.startswith("compute_") else _bytes(library, program, "CUBIN")
    finally:
        library.nvrtcDestroyProgram(program)
    return Compiled(arch, image, ptx, log)


def _bytes(library: ModuleType, program: Any, what: str) -> bytes:
    size = _check(library, getattr(library, f"nvrtcGet{what}Size")(program))
    data = bytes(size)
    _check(library, getattr(library, f"nvrtcGet{what}")(program, data))
    return data


def _text(library: ModuleType, program: Any, what: str) -> str:
    return _bytes(library, program, what).rstrip(b"\0").decode(errors="replace").strip()


# Cache entries: the lengths of log and PTX, then log, PTX and image ---------------------------------------------------

_LENGTHS = struct.Struct("<QQ")


def _pack(compiled: Compiled) -> bytes:
    log, ptx = compiled.log.encode(), compiled.ptx.encode()
    return _LENGTHS.pack(len(log), len(ptx)) + log + ptx + compiled.image


def _unpack(arch: str, data: bytes) -> Compiled:
    log_bytes, ptx_bytes = _LENGTHS.unpack_from(data)
    ptx_at = _LENGTHS.size + log_bytes
    image_at = ptx_at + ptx_bytes
    return Compiled(arch, data[image_at:], data[ptx_at:image_at].decode(), data[_LENGTHS.size : ptx_at].decode())


# What the assembler said ----------------------------------------------------------------------------------------------

_ENTRY = re.compile(r"Compiling entry function '(\w+)'")
_PTX_ENTRY = re.compile(r"^\s*(?:\.visible\s+)?\.entry\s+(\w+)", re.MULTILINE)
_MATRIX_INSTRUCTION = re.compile(r"\b(?:wmma\.mma|mma\.sync|wgmma\.mma_async)\b")
_NUMBERS = {
    "registers": re.compile(r"Used (\d+) registers"),
    "spill_stores": re.compile(r"(\d+) bytes spill stores"),
    "spill_loads": re.compile(r"(\d+) bytes spill loads"),
    "stack": re.compile(r"(\d+) bytes stack frame"),
    "shared": re.compile(r"(\d+) bytes smem"),
}


def _sections(pattern: re.Pattern[str], text: str) -> Iterator[tuple[str, str]]:
    """Each name that ``pattern`` finds, and the text from there to the next."""
    _, *rest = pattern.split(text)
    return zip(rest[::2], rest[1::2], strict=True)


def _statistics(log: str, ptx: str) -> Iterator[tuple[str, KernelStats]]:
    matrix = {name: len(_MATRIX_INSTRUCTION.findall(body)) for name, body in _sections(_PTX_ENTRY, ptx)}
    for name, said in _sections(_ENTRY, log):
        found = {what: pattern.search(said) for what, pattern in _NUMBERS.items()}
        numbers = {what: int(match[1]) if match else 0 for what, match in found.items()}
        yield name, KernelStats(**numbers, matrix_instructions=matrix.get(name, 0))
