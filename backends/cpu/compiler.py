"""LLVM, by llvmlite: LLVM IR to object files for this CPU, and these to code in memory.

Importing this module loads LLVM. `jit` does so when something has to be compiled.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping
from contextlib import suppress

import llvmlite
import llvmlite.binding as llvm

from omniop.backends.cpu.host import Host

# The default scheduler interleaves unrolled bodies until they spill: keep the order they were printed in. Behind the
# registers' allocation another one takes a twentieth of the time, for what the processor does by itself.
# Addresses are printed as loops want them: strength reduction only trades addressing modes for registers, slowly.
_OPTIONS = ("-enable-misched=false", "-disable-post-ra", "-pre-RA-sched=source", "-disable-lsr")
# LLVM tunes some x86 CPUs to 256-bit vectors for code that it vectorises itself; ours is explicit.
_EXTRA_FEATURES = ",-prefer-256-bit" if llvm.get_process_triple().startswith("x86") else ""
_MATHEMATICS = ("libm.so.6", "libm.dylib")
"""A library that kernels call, which most Pythons have loaded, by its names."""


def describe() -> Host:
    """This CPU and this compiler."""
    present = sorted(name for name, has in llvm.get_host_cpu_features().items() if has)
    options = " ".join((*_OPTIONS, _EXTRA_FEATURES))
    compiler = f"LLVM {llvm.llvm_version_info} {llvm.get_process_triple()} {options}"
    return Host(llvm.get_host_cpu_name(), tuple(present), llvmlite.__version__, compiler)


class Compiler:
    """To be used by one thread at a time. Methods raise RuntimeError or OSError for what LLVM does not take."""

    def __init__(self) -> None:
        for option in _OPTIONS:
            llvm.set_option("omniop", option)
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self._machine = _new_machine()
        self._linker: llvm.LLJIT | None = None
        self._libraries = 0

    def object(self, text: str, symbols: Mapping[str, str]) -> bytes:
        """An object file with the functions of a module that ``symbols`` names, under what it calls them."""
        with llvm.parse_assembly(text) as parsed:
            for function in parsed.functions:
                if function.name in symbols:
                    function.name = symbols[function.name]
                elif not function.is_declaration:
                    function.linkage = llvm.Linkage.internal
            parsed.verify()
            code: bytes = self._machine.emit_object(parsed)
        return code

    def linked(self, objects: Iterable[bytes], symbols: Iterable[str]) -> llvm.ResourceTracker:
        """Addresses of functions by symbol, valid as long as the result lives: for objects that are not `elf`'s."""
        if self._linker is None:
            self._linker = llvm.create_lljit_compiler(_new_machine(), use_jit_link=True)
            for name in _MATHEMATICS:
                with suppress(OSError):
                    ctypes.CDLL(name, mode=ctypes.RTLD_GLOBAL)
        builder = llvm.JITLibraryBuilder().add_current_process()
        for code in objects:
            builder.add_object_img(code)
        for symbol in symbols:
            builder.export_symbol(symbol)
        self._libraries += 1
        return builder.link(self._linker, f"library{self._libraries}")


def _new_machine() -> llvm.TargetMachine:
    features = llvm.get_host_cpu_features().flatten() + _EXTRA_FEATURES
    return llvm.Target.from_triple(llvm.get_process_triple()).create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features, opt=3, reloc="pic", codemodel="small"
    )
