"""What code for bfloat16 makes of float32: powers that are good enough to be rounded, and numbers rounded."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import ml_dtypes
import numpy as np
import pytest

from omniop.backends.codegen import llvm_dot, llvm_math, llvm_vector
from omniop.backends.codegen.llvm_blocks import Head, define_entry
from omniop.backends.codegen.llvm_flow import argument, each
from omniop.backends.codegen.llvm_ir import Code, Module, Target, Value
from omniop.backends.cpu import jit
from omniop.opset.dtype import FLOAT32, UINT16, DType

TARGETS = {"host": jit.host_target(), "plain": Target(256, frozenset((32, 64)))}
RANDOM = np.random.default_rng(5)
NORMAL = float(np.finfo("f").tiny)


def print_powers(module: Module) -> None:
    """``powers``: c = exp(a)."""
    print_each(module, "powers", module.target.vector_bits // 32, FLOAT32, llvm_math.short_exp)


def print_rounding(module: Module) -> None:
    """``rounding``: c = bfloat16(a), four vectors at a time."""
    print_each(module, "rounding", module.target.vector_bits // 8, UINT16, llvm_dot.rounded)


def print_each(module: Module, name: str, lanes: int, result: DType, function: Callable[[Code, Value], Value]) -> None:
    """``name``: c = function(a) of float32, ``lanes`` at a time."""

    def some(code: Code, at: Value) -> None:
        x = llvm_vector.load(code, code.element("%a", FLOAT32, at), FLOAT32, lanes)
        llvm_vector.store(code, code.element("%c", result, at), function(code, x))

    code = Code(module, "work")
    each(code, argument("begin"), argument("end"), lanes, some)
    define_entry(module, name, code)


def run(code: jit.MachineCode, x: np.ndarray, result: np.ndarray) -> np.ndarray:
    context = np.zeros(len(Head), np.int64)
    context[[Head.B_BUFFER, Head.C_BUFFER]] = 1
    buffers = (ctypes.c_void_p * 2)(x.ctypes.data, result.ctypes.data)
    code(ctypes.addressof(buffers), context.ctypes.data, 0, len(x), 0)
    return result


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_powers(target: Target) -> None:
    edges = [0.0, -0.0, -87.3, -87.4, -87.9, -88.1, -104.0, -1e30, -np.inf, np.nan, -np.nan, -1e-40]
    odd = np.array([0x7FC00001, 0xFFFFFFFF], np.uint32).view("f")  # NaNs with something in them
    x = np.concatenate([np.array(edges, "f"), odd, -RANDOM.exponential(10, 1 << 14), np.linspace(-90, 0, 4082)])
    x = x.astype("f")
    found = run(jit.build_printed("powers", print_powers, target=target), x, np.empty_like(x)).astype("d")
    exact = np.exp(x.astype("d"))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(x))
    normal = exact >= NORMAL
    assert (np.abs(found - exact)[normal] <= 5e-6 * exact[normal]).all()
    assert (found[exact < NORMAL] <= NORMAL).all()
    np.testing.assert_array_equal(found[[0, 1, 8]], [1, 1, 0])


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_rounding(target: Target) -> None:
    """As a cast does; numbers below the normal ones may be 0."""
    x = RANDOM.integers(0, 1 << 32, 1 << 16, np.uint32).view("f")
    x[:9] = [0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, 1 + 2.0**-8, 1 + 3 * 2.0**-8, -1 - 2.0**-8]
    code = jit.build_printed("rounding", print_rounding, target=target)
    found = run(code, x, np.empty(len(x), np.uint16)).view(ml_dtypes.bfloat16)
    with np.errstate(all="ignore"):
        expected = x.astype(ml_dtypes.bfloat16)
    normal = ~(np.abs(x) < NORMAL)
    np.testing.assert_array_equal(found[normal].astype("f"), expected[normal].astype("f"))
    assert (np.abs(found[~normal].astype("d")) <= NORMAL).all()
