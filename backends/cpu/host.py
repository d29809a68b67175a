"""This CPU and the compiler for it, as LLVM tells them; kept on the disk, because to ask LLVM is to load it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from omniop.backends.compile_cache import CompileCache, cache_key

_TELLING = ("vendor_id", "cpu family", "model", "model name", "stepping", "flags")
"""What Linux says of a processor that LLVM's answer follows from."""


@dataclass(frozen=True)
class Host:
    """``name``, ``features``: of the CPU, in LLVM's words. ``llvmlite``: its version. ``compiler``: what code depends
    on besides."""

    name: str
    features: tuple[str, ...]
    llvmlite: str
    compiler: str

    @property
    def identity(self) -> str:
        """The same where code may be exchanged."""
        return f"{self.name} {' '.join(self.features)} llvmlite {self.llvmlite} {self.compiler}"


@cache
def host() -> Host:
    """Of this process."""
    processor, package = cpuinfo(), _package()
    if not all(processor.get(key) for key in _TELLING) or package is None:
        return _asked()
    cache = CompileCache("cpu")
    key = cache_key("host", _source("host.py"), _source("compiler.py"), package, *map(processor.__getitem__, _TELLING))
    if (entry := cache.get(key)) is not None:
        kept = json.loads(entry)
        return Host(**{**kept, "features": tuple(kept["features"])})
    found = _asked()
    cache.put(key, json.dumps(asdict(found)).encode())
    return found


@cache
def cpuinfo() -> dict[str, str]:
    """What Linux says of the first processor; empty elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in lines}


def _asked() -> Host:
    from omniop.backends.cpu.compiler import describe

    return describe()


def _package() -> bytes | None:
    """What tells this llvmlite, with its LLVM, from others, without importing it."""
    spec = find_spec("llvmlite")
    if spec is None or spec.origin is None:
        return None
    try:
        return (Path(spec.origin).parent / "_version.py").read_bytes()
    except OSError:
        return None


def _source(name: str) -> bytes:
    return (Path(__file__).parent / name).read_bytes()
