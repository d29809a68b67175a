"""The compiled functions of `team`."""

from __future__ import annotations

import ctypes
import platform
import re
import sys
from functools import cache
from typing import Any

from omniop.backends.codegen.llvm_ir import Module
from omniop.backends.cpu import jit
from omniop.backends.cpu.team.direct_text import DIRECT
from omniop.backends.cpu.team.job_text import JOBS
from omniop.backends.cpu.team.program_text import NOBODY, PROGRAM
from omniop.backends.cpu.team.words import SETTINGS, ArrayWord, CallWord, DirectWord, NumpyByte, RecordWord, Word
from omniop.backends.cpu.team.worker_text import WORKERS

_WORDS = (Word, CallWord, RecordWord, DirectWord, ArrayWord, NumpyByte)
_PAUSES = {"x86_64": "@llvm.x86.sse2.pause()", "aarch64": "@llvm.aarch64.isb(i32 15)"}
"""What a loop that watches does in between, by machine."""

_FUTEX = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "ppc64le": 221, "s390x": 238}
"""The number of Linux's system call, by machine."""


def available() -> bool:
    """Whether workers can sleep here."""
    return sys.platform == "linux" and platform.machine() in _FUTEX


@cache
def functions() -> dict[str, jit.MachineCode]:
    """``program(call)``, ``direct(block)``, and where workers can sleep ``worker(control, number)`` and
    ``stop(control)``; ``control`` is the address of the block of memory."""
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    wanted: dict[str, list[Any]] = {"program": [pointer], "direct": [pointer]}
    texts = [PROGRAM, DIRECT, NOBODY]
    if available():
        wanted |= {"worker": [pointer, number], "stop": [pointer]}
        texts = [PROGRAM, DIRECT, JOBS, WORKERS]
    return jit.build_module(wanted, print_team, _filled_in("\n".join(texts), platform.machine()))


def print_team(module: Module, text: str) -> None:
    module.functions["program"] = text


def _filled_in(text: str, machine: str) -> str:
    """With words and settings in place of their names."""
    pause = _PAUSES.get(machine)
    names: dict[str, object] = {**{w.name: int(w) for kind in _WORDS for w in kind}, **SETTINGS}
    names |= {"PAUSE": f"call void {pause}" if pause else "", "FUTEX": _FUTEX.get(machine, 0)}
    declared = f"\ndeclare void {pause.replace('i32 15', 'i32')}\n" if pause else ""
    return re.sub(r"\b[A-Z_]{3,}\b", lambda found: str(names[found[0]]), text) + declared
