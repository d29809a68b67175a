"""Kernels to machine code in this process, by way of LLVM: no compiler on the user's machine.

`build` prints kernels as LLVM IR (`omniop.backends.codegen.llvm_kernel`), compiles them for this very CPU and links
them in memory. Objects are kept on disk under the kernel's content, so that a second process prints and compiles
nothing.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from omniop.backends import codegen
from omniop.backends.codegen.llvm_ir import Module, Target
from omniop.backends.codegen.llvm_signature import Printed, covers
from omniop.backends.compile_cache import CompileCache, cache_key
from omniop.backends.cpu import elf
from omniop.backends.cpu.host import host
from omniop.backends.cpu.image import Image, Mapped
from omniop.opset import expr, poly
from omniop.opset.errors import DeviceError
from omniop.opset.kernel import Kernel

if TYPE_CHECKING:
    from omniop.backends.cpu.compiler import Compiler

_ENTRY = "kernel"

_ARGUMENTS = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p)
"""Of what works on ranges of points (`recording.Record`): kernels, which ignore the last one, and others."""

Name = tuple[str, str]
"""Of a function: the key of its object file, and its symbol there."""

Archive = Image | tuple[bytes, ...]
"""Object files to be kept: linked, or as they are where `elf` does not link them."""


class _Library(Protocol):
    """Code in memory, as long as this object lives."""

    def __getitem__(self, symbol: str) -> int:
        """The address of a function."""


class MachineCode:
    """A function in memory, called with numbers and addresses; ``address`` is valid as long as this object lives.

    ``key`` names it on the disk, ``symbol`` in its object file.
    """

    def __init__(self, key: str, symbol: str, library: _Library, arguments: Sequence[Any] = _ARGUMENTS) -> None:
        self.key = key
        self.symbol = symbol
        self.address: int = library[symbol]
        self._library = library
        self.function: Callable[..., int] = ctypes.CFUNCTYPE(ctypes.c_int64, *arguments)(self.address)
        """Gives what the code does, where it gives an int64."""

    def __call__(self, *arguments: Any) -> int:
        return self.function(*arguments)


class CompiledKernel:
    """``kernel(buffers, sizes, begin, end)``: runs the points ``begin .. end``, without the GIL.

    ``buffers`` is the address of an array of buffer addresses, ``sizes`` of an array of int64. `points(sizes)` says
    how many points there are; ranges begin at a multiple of ``grain`` and end at one or at the last point, and
    different ranges may run at the same time unless ``serial``. ``weight``: rough number of machine operations for a
    point.

    ``address``: the C function ``int64_t (void **buffers, int64_t *sizes, int64_t begin, int64_t end)``, valid
    as long as this object lives. It returns the number of points, and only that when ``end`` is negative. Of a kernel
    without sizes it wants ``printed.numbers`` in their place.
    """

    def __init__(self, printed: Printed, code: MachineCode) -> None:
        self.printed = printed
        self.grain = printed.grain
        self.serial = printed.serial
        self.weight = printed.weight
        self.code = code
        self.address = code.address
        self._numbers = (ctypes.c_int64 * len(printed.numbers))(*printed.numbers)

    def __reduce__(self) -> tuple[Any, ...]:
        return CompiledKernel, (self.printed, self.code)

    def points(self, sizes: int) -> int:
        """The number of points for the sizes at this address."""
        return self.code(None, self._sizes(sizes), 0, -1, None)

    def __call__(self, buffers: int, sizes: int, begin: int, end: int) -> None:
        self.code(buffers, self._sizes(sizes), begin, end, None)

    def _sizes(self, sizes: int) -> int:
        return ctypes.addressof(self._numbers) if self._numbers else sizes


def reach(kernel: Kernel) -> bool:
    """Whether `build` takes the kernel."""
    return covers(kernel)


def build(kernels: Sequence[Kernel], target: Target | None = None) -> list[CompiledKernel]:
    """Compiled kernels, in order; one that this process has already is shared.

    ``target``: another width of vectors than this CPU's, for experiments; the code runs on this CPU all the same.
    Raises DeviceError, naming the kernel, when it cannot be compiled or linked.
    """
    return _engine().compiled(kernels, target or host_target())


def build_printed(
    name: str, printer: Callable[..., None], *parameters: object, target: Target | None = None
) -> MachineCode:
    """The function ``name`` that ``printer(module, *parameters)`` adds to a module, for arguments as of kernels.

    It is printed when the disk does not have it: what it depends on are the sources of `codegen` and of the printer's
    module, the target, and ``parameters``, by their repr. Raises DeviceError.
    """
    return build_module({name: _ARGUMENTS}, printer, *parameters, target=target)[name]


def build_module(
    functions: Mapping[str, Sequence[Any]],
    printer: Callable[..., None],
    *parameters: object,
    target: Target | None = None,
) -> dict[str, MachineCode]:
    """`build_printed` for several functions of one module, by name, with their arguments of ctypes."""
    return _engine().functions(functions, printer, target or host_target(), parameters)


def identity() -> str:
    """What code from elsewhere has to be made by, to run here: the compiler, the CPU and our sources."""
    return _engine().identity


def archive(keys: Iterable[str]) -> Archive | None:
    """Object files from the disk, by their keys; None when one is gone."""
    return _engine().archive(keys)


def restored(functions: Sequence[Name], kept: Archive) -> list[MachineCode]:
    """Functions of an archive, called as kernels are. Raises DeviceError."""
    return _engine().restored(functions, kept)


def rest() -> None:
    """Let go of the compiler's memory, if it was loaded, until it is needed again."""
    _engine().rest()


@cache
def host_target() -> Target:
    """What the CPU this runs on offers."""
    return target_of(frozenset(host().features))


def target_of(features: frozenset[str]) -> Target:
    """What a CPU with these features, as LLVM calls them, offers."""
    bits = 512 if "avx512f" in features else 256 if "avx2" in features else 128
    narrow = frozenset(name for name, feature in _NARROW[bits].items() if feature in features)
    if bits == 512:
        return Target(bits, frozenset((8, 16, 32, 64) if "avx512bw" in features else (32, 64)), narrow=narrow)
    if bits == 256:
        return Target(bits, frozenset((32, 64)), "fma" in features, narrow)
    return Target(bits, fma="fma" in features or "neon" in features, narrow=narrow)


_NARROW = {
    512: {"vpdpbusd": "avx512vnni", "pmaddwd": "avx512bw", "vdpbf16ps": "avx512bf16", "packssdw": "avx512bw"},
    256: {"vpdpbusd": "avxvnni", "pmaddwd": "avx2", "packssdw": "avx2"},
    128: {"pmaddwd": "sse2", "packssdw": "sse2"},
}
"""For each width of vectors, the instructions of `Target.narrow`, and the feature that brings each."""


def content(kernel: Kernel) -> str:
    """A text that two kernels share only when they are equal."""
    numbers: dict[expr.Expr, int] = {}
    lines = []
    for node in expr.walk(*kernel.roots()):
        numbers[node] = len(numbers)
        lines.append(f"{node.op} {node.dtype} {[numbers[a] for a in node.args]} {node.attr!r}")

    def place(node: expr.Expr | None) -> int | None:
        return None if node is None else numbers[node]

    lines += [f"axes {[numbers[a] for a in kernel.axes]} seq {place(kernel.seq)} until {place(kernel.until)}"]
    lines += [f"error {kernel.error}"]
    lines += [f"param {p.dtype} {p.written}" for p in kernel.params]
    lines += [f"carry {c.dtype} {place(c.init)} {place(c.update)}" for c in kernel.carries]
    for s in kernel.stores:
        lines.append(f"store {s.buffer} {place(s.offset)} {place(s.value)} {place(s.guard)} {s.combine} {s.fault}")
    return "\n".join(lines)


def in_normal_form(kernel: Kernel) -> Kernel:
    """The kernel with the offsets that it loads from simplified, as the printer wants them to see their strides."""

    def load(node: expr.Expr) -> expr.Expr | None:
        if node.op != "load" or node.attr.guarded:
            return None
        return expr.load(node.attr.source, tuple(map(poly.simplify, node.args)), node.dtype)

    return replace(kernel, stores=tuple(replace(s, value=expr.rewrite(s.value, load)) for s in kernel.stores))


@cache
def _printer_sources() -> bytes:
    """The sources that an entry on the disk depends on besides the kernel."""
    here = Path(__file__)
    digest = hashlib.sha256(here.read_bytes() + here.with_name("compiler.py").read_bytes())
    for module in (codegen, expr):
        for path in sorted(Path(str(module.__file__)).parent.glob("*.py")):
            digest.update(path.read_bytes())
    return digest.digest()


@cache
def _source(file: str) -> bytes:
    return Path(file).read_bytes()


class _Engine:
    """What is compiled once in a process. LLVM is loaded when something is not on the disk, and entered by one thread
    at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._llvm: Compiler | None = None
        self._cache = CompileCache("cpu")
        self._kernels: weakref.WeakValueDictionary[str, CompiledKernel] = weakref.WeakValueDictionary()
        self._key_parts = (host().identity, _printer_sources())
        self.identity = cache_key(*self._key_parts)

    def _compiler(self) -> Compiler:
        if self._llvm is None:
            from omniop.backends.cpu.compiler import Compiler

            self._llvm = Compiler()
        return self._llvm

    def rest(self) -> None:
        if self._llvm is not None:
            from omniop.backends.cpu.resting import rest

            rest()

    def compiled(self, kernels: Sequence[Kernel], target: Target) -> list[CompiledKernel]:
        keys = [cache_key(*self._key_parts, _spelled(target), content(kernel)) for kernel in kernels]
        with self._lock:
            made = {key: found for key in keys if (found := self._kernels.get(key)) is not None}
            new = {key: kernel for key, kernel in zip(keys, kernels, strict=True) if key not in made}
            files: dict[Name, bytes] = {}
            entries = {key: self._entry(kernel, target, key, files) for key, kernel in new.items()}
            linked = self._linked(files, {name: new[key] for key, (_, name) in entries.items()})
            for key, (printed, name) in entries.items():
                made[key] = self._kernels[key] = CompiledKernel(printed, linked[name])
        return [made[key] for key in keys]

    def _entry(self, kernel: Kernel, target: Target, key: str, files: dict[Name, bytes]) -> tuple[Printed, Name]:
        """How to call the kernel, and its function, whose object file is added to ``files``."""
        entry = self._cache.get(key)
        if entry is not None:
            code, head = json.loads(entry)
            name = code, _symbol(code, _ENTRY)
            if self._found(name, files):
                return Printed(**{**head, "numbers": tuple(head["numbers"])}), name
        try:
            return self._compile(kernel, target, key, files)
        except RuntimeError as error:  # what llvmlite raises
            raise _refused(_text(kernel), error) from error

    def _found(self, name: Name, files: dict[Name, bytes]) -> bool:
        """Whether ``files`` have the function, as they do when the disk has."""
        if name not in files and (file := self._cache.get(name[0])) is not None:
            files[name] = file
        return name in files

    def _compile(self, kernel: Kernel, target: Target, key: str, files: dict[Name, bytes]) -> tuple[Printed, Name]:
        """As `_entry`; kernels that are printed alike share an object file."""
        from omniop.backends.codegen import llvm_kernel  # kernels that come from the cache need no printer

        module = Module(target)
        printed = llvm_kernel.print_kernel(in_normal_form(kernel), module, _ENTRY)
        text = str(module)
        code = cache_key(*self._key_parts, _spelled(target), text)
        name = code, _symbol(code, _ENTRY)
        if not self._found(name, files):
            files[name] = self._compiler().object(text, {_ENTRY: name[1]})
            self._cache.put(code, files[name])
        self._cache.put(key, json.dumps([code, asdict(printed)]).encode())
        return printed, name

    def functions(
        self,
        wanted: Mapping[str, Sequence[Any]],
        printer: Callable[..., None],
        target: Target,
        parameters: Sequence[object],
    ) -> dict[str, MachineCode]:
        source = _source(str(sys.modules[printer.__module__].__file__))
        key = cache_key(*self._key_parts, *wanted, _spelled(target), repr(parameters), source)
        symbols = {name: _symbol(key, name) for name in wanted}
        with self._lock:
            try:
                code = self._cache.get(key)
                if code is None:
                    module = Module(target)
                    printer(module, *parameters)
                    code = self._compiler().object(str(module), symbols)
                    self._cache.put(key, code)
                library = self._link([code], symbols.values())
            except (RuntimeError, OSError) as error:
                raise _refused(", ".join(wanted), error) from error
        return {name: MachineCode(key, symbols[name], library, arguments) for name, arguments in wanted.items()}

    def archive(self, keys: Iterable[str]) -> Archive | None:
        files = []
        for key in dict.fromkeys(keys):
            if (entry := self._cache.get(key)) is None:
                return None
            files.append(entry)
        try:
            return elf.link(files)
        except elf.Unlinkable:
            return tuple(files)

    def restored(self, functions: Sequence[Name], kept: Archive) -> list[MachineCode]:
        if not functions:
            return []
        with self._lock:
            try:
                library = Mapped(kept) if isinstance(kept, Image) else self._link(kept, [s for _, s in functions])
            except (RuntimeError, OSError) as error:
                raise _refused("a plan from the disk", error) from error
        return [MachineCode(key, symbol, library) for key, symbol in functions]

    def _linked(
        self, files: Mapping[Name, bytes], kernels: Mapping[Name, Kernel] | None = None
    ) -> dict[Name, MachineCode]:
        """Functions of object files: linked all at once, which takes a third of the time, and freed all at once, when
        the last one goes; one by one where that fails, to tell which of them does."""
        if not files:
            return {}
        try:
            library = self._link({key: file for (key, _), file in files.items()}.values(), [s for _, s in files])
        except (RuntimeError, OSError) as error:
            if len(files) == 1:
                (name,) = files
                raise _refused(_text(kernels[name]) if kernels else name[1], error) from error
            return {name: self._linked({name: file}, kernels)[name] for name, file in files.items()}
        return {name: MachineCode(*name, library) for name in files}

    def _link(self, objects: Iterable[bytes], symbols: Iterable[str]) -> _Library:
        """A library of object files, for the functions of theirs that are wanted."""
        files = tuple(objects)
        try:
            return Mapped(elf.link(files))
        except elf.Unlinkable:
            return self._compiler().linked(files, symbols)


def _spelled(target: Target) -> str:
    """The same in every process, each of which has an order of its own for sets of strings."""
    return repr([sorted(v) if isinstance(v, frozenset) else v for v in astuple(target)])


def _symbol(key: str, name: str) -> str:
    """A function's name in its object file, unlike that of any other's."""
    return f"{name}_{key[:32]}"


def _text(kernel: Kernel) -> str:
    return f"the kernel {kernel.describe()}"


def _refused(what: str, error: Exception) -> DeviceError:
    return DeviceError(f"cpu: LLVM does not take {what}: {error}")


_engine_lock = threading.Lock()
_engines: list[_Engine] = []


def _engine() -> _Engine:
    with _engine_lock:
        if not _engines:
            _engines.append(_Engine())
        return _engines[0]
