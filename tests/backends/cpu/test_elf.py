"""Object files linked by omniop: the code does what it does when LLVM links it, or it is refused."""

from __future__ import annotations

import ctypes
import math
import platform
from collections.abc import Mapping

import numpy as np
import pytest

from omniop.backends.cpu import elf
from omniop.backends.cpu.compiler import Compiler
from omniop.backends.cpu.image import Image, Mapped
from omniop.opset.errors import DeviceError

pytestmark = pytest.mark.skipif(
    platform.system() != "Linux" or platform.machine() != "x86_64", reason="objects of other machines are left to LLVM"
)

CONSTANTS = """
    define double @f(double %x) {
      %scaled = fmul double %x, 0x400921FB54442D18
      %wide = insertelement <8 x double> <double 1.0, double 2.0, double 3.0, double 4.0,
                                          double 5.0, double 6.0, double 7.0, double 8.0>, double %scaled, i32 3
      %sum = call double @llvm.vector.reduce.fadd.v8f64(double 0.0, <8 x double> %wide)
      ret double %sum
    }
    declare double @llvm.vector.reduce.fadd.v8f64(double, <8 x double>)"""
CALLS = """
    define double @f(double %x) { %s = call double @sin(double %x) %c = call double @cos(double %x)
      %t = fmul double %c, 2.0 %r = fadd double %s, %t ret double %r }
    declare double @sin(double)
    declare double @cos(double)"""
TABLE = """
    @steps = private constant [2 x ptr] [ptr @up, ptr @down]
    define double @up(double %x) { %y = fadd double %x, 1.0 ret double %y }
    define double @down(double %x) { %y = fsub double %x, 1.0 ret double %y }
    define double @f(double %x) {
      %late = fcmp ogt double %x, 10.0
      %k = zext i1 %late to i64
      %at = getelementptr ptr, ptr @steps, i64 %k
      %step = load ptr, ptr %at
      %y = call double %step(double %x)
      ret double %y
    }"""
WRITTEN = """
    @total = internal global double 1.0
    define double @f(double %x) { %t = load double, ptr @total %y = fadd double %x, %t
      store double %y, ptr @total ret double %y }"""
ELSEWHERE = """
    @environ = external global ptr
    define ptr @f() { %p = load ptr, ptr @environ ret ptr %p }"""
THREADS = """
    @mine = internal thread_local global i64 7
    define i64 @f() { %p = call ptr @llvm.threadlocal.address.p0(ptr @mine) %v = load i64, ptr %p ret i64 %v }
    declare ptr @llvm.threadlocal.address.p0(ptr)"""


@pytest.fixture(scope="module")
def compiler() -> Compiler:
    return Compiler()


def call(library: Mapped | Mapping[str, int], symbol: str, x: float) -> float:
    found: float = ctypes.CFUNCTYPE(ctypes.c_double, ctypes.c_double)(library[symbol])(x)
    return found


@pytest.mark.parametrize("text", [CONSTANTS, CALLS, TABLE], ids=["constants", "calls", "addresses"])
def test_code_does_what_it_does_when_llvm_links_it(compiler: Compiler, text: str) -> None:
    code = compiler.object(text, {"f": "f"})
    mine, theirs = Mapped(elf.link([code])), compiler.linked([code], ["f"])
    for x in (0.0, 0.5, 11.0, -3.25):
        assert call(mine, "f", x) == call(theirs, "f", x)
    assert call(mine, "f", 11.0) != call(mine, "f", 0.5)


def test_files_share_an_image_and_no_names_but_those_that_are_called(compiler: Compiler) -> None:
    files = [compiler.object(t, {"f": f"f{k}"}) for k, t in enumerate((CONSTANTS, CALLS, TABLE, CALLS))]
    image = elf.link(files)
    assert sorted(image.functions) == ["f0", "f1", "f2", "f3"]
    assert sorted(image.imports) == ["cos", "sin"]
    mapped = Mapped(image)
    assert call(mapped, "f1", 0.3) == call(mapped, "f3", 0.3) == math.sin(0.3) + 2 * math.cos(0.3)
    assert call(mapped, "f2", 11.0) == 10.0


def test_an_image_runs_wherever_it_lies(compiler: Compiler) -> None:
    image = elf.link([compiler.object(TABLE, {"f": "f"})])
    first, second = Mapped(image), Mapped(image)
    assert first["f"] != second["f"]
    assert call(first, "f", 1.0) == call(second, "f", 1.0) == 2.0


@pytest.mark.parametrize(
    ("text", "why"),
    [(WRITTEN, "written to"), (ELSEWHERE, "kind"), (THREADS, "section")],
    ids=["variables", "data of other libraries", "thread-local data"],
)
def test_what_kernels_do_not_hold_is_refused(compiler: Compiler, text: str, why: str) -> None:
    code = compiler.object(text, {"f": "f"})
    with pytest.raises(elf.Unlinkable, match=why):
        elf.link([code])


def test_what_is_no_object_file_is_refused(compiler: Compiler) -> None:
    code = compiler.object(CALLS, {"f": "f"})
    other = bytearray(code)
    other[18] = 183  # of AArch64
    for bad in (b"", b"?", code[:40], code[:-100], bytes(200), bytes(other)):
        with pytest.raises(elf.Unlinkable):
            elf.link([bad])


def test_damaged_object_files_are_refused_or_linked_but_nothing_else(compiler: Compiler) -> None:
    """They are not run: files from the disk carry a digest."""
    code = np.frombuffer(compiler.object(TABLE, {"f": "f"}), np.uint8)
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(500):
        bad = code.copy()
        bad[random.integers(0, bad.size, 4)] = random.integers(0, 256, 4)
        try:
            elf.link([bad.tobytes()])
        except elf.Unlinkable:
            refused += 1
    assert 0 < refused


def test_an_import_that_nothing_has_is_told() -> None:
    with pytest.raises(DeviceError, match="no_such_function"):
        Mapped(Image(bytes(64), {}, (), {"no_such_function": 8}))
