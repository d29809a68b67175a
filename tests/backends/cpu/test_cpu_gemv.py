"""A row times a matrix, in compiled code."""

from __future__ import annotations

import llvmlite.binding as llvm
import numpy as np
import pytest

import omniop
from omniop.backends.codegen import llvm_gemv
from omniop.backends.codegen.llvm_ir import Module, Target
from omniop.backends.cpu import blas, gemv, matmul
from tests.gate.case import model

SHAPES = [(3, 4096), (576, 1537), (577, 33), (1, 9000), (9000, 1), (101, 99), (64, 192)]
"""(K, N): whole vectors and blocks, and ends of each kind."""


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@pytest.fixture(autouse=True)
def _one_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gemv, "_cpus", lambda: 1)


@pytest.mark.parametrize("order", ["rows", "columns"])
@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("shape", SHAPES)
def test_against_float64(shape: tuple[int, int], padding: int, order: str) -> None:
    """Also when the matrix is a part of a wider one. Nothing is written outside of the result."""
    k, n = shape
    lines, length = (k, n) if order == "rows" else (n, k)
    matrix = normal(lines, length + padding)[:, :length]
    b = matrix if order == "rows" else matrix.T
    a = normal(1, k, seed=1)
    around = np.full(n + 2, 7, np.float32)
    out = around[1:-1].reshape(1, n)
    assert gemv.takes(a, b, out) or b.size < gemv.MIN_ELEMENTS
    gemv.gemv(a, b, out)
    np.testing.assert_allclose(out, a.astype(np.float64) @ b, rtol=1e-4, atol=1e-4)
    assert around[[0, -1]].tolist() == [7, 7]


def test_what_it_leaves_to_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, out = normal(1, 128), normal(128, 128), np.zeros((1, 128), np.float32)
    assert gemv.takes(a, b, out)
    assert gemv.takes(a, b.T, out)
    assert not gemv.takes(normal(2, 128), b, np.empty((2, 128), np.float32))
    assert not gemv.takes(a, normal(128, 256)[:, ::2], out)
    assert not gemv.takes(a, b[::-1], out)
    assert not gemv.takes(a[:, :8], b[:8, :8], out[:, :8])
    assert not gemv.takes(*(x.astype(np.float64) for x in (a, b, out)))
    assert gemv.takes(a[None], b[None], out[None])
    assert not gemv.takes(np.stack([a, a]), np.stack([b, b]), np.stack([out, out]))
    assert not gemv.takes(a[None], np.stack([b, b]), np.stack([out, out]))
    monkeypatch.setattr(gemv, "_cpus", lambda: gemv.MAX_CPUS + 1)
    assert not gemv.takes(a, b, out)


def test_matmul_hands_it_over(monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    monkeypatch.setattr(gemv, "gemv", lambda *arrays: done.append(arrays))
    a, b, out = normal(1, 128), normal(128, 128), np.empty((1, 128), np.float32)
    matmul.matmul(a, b, out)
    assert len(done) == 1


def test_not_a_number_goes_through() -> None:
    a, b, out = normal(1, 128), normal(128, 128), np.empty((1, 128), np.float32)
    b[5, 7], b[6, 8] = np.nan, np.inf
    gemv.gemv(a, b, out)
    assert np.isnan(out[0, 7])
    assert np.isinf(out[0, 8])
    assert np.isfinite(np.delete(out[0], [7, 8])).all()


@pytest.mark.parametrize("bits", [128, 256, 512])
def test_text_for_every_width(bits: int) -> None:
    module = Module(Target(bits))
    llvm_gemv.print_rows(module, "rows")
    llvm_gemv.print_columns(module, "columns")
    with llvm.parse_assembly(str(module)) as parsed:
        parsed.verify()


def test_axes_of_one_element_stand_before_it() -> None:
    """As a recurrence of one direction has one."""
    a, b, out = normal(1, 1, 1, 130), normal(1, 1, 130, 67), np.zeros((1, 1, 1, 67), np.float32)
    for matrix in (b, normal(1, 1, 67, 130).swapaxes(-1, -2)):
        assert gemv.takes(a, matrix, out)
        matmul.matmul(a, matrix, out)
        np.testing.assert_allclose(out, a.astype(np.float64) @ matrix, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("dtype", "held"), [("float", False), ("double", True)])
@pytest.mark.parametrize("rows", ["1", "R"])
def test_blas_is_held_to_its_threads_only_where_it_works(
    rows: str, dtype: str, held: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To find the libraries that numpy calls takes longer than a small model."""
    entered: list[int] = []
    monkeypatch.setattr(blas._limit, "enter", entered.append)
    monkeypatch.setattr(blas._limit, "leave", lambda: None)
    text = f"g ({dtype}[{rows}, 128] x, {dtype}[128, 256] w) => ({dtype}[{rows}, 256] y) {{ y = MatMul (x, w) }}"
    session = omniop.load(model(text), device="cpu")
    x, w = (a.astype(np.float64 if dtype == "double" else np.float32) for a in (normal(1, 128), normal(128, 256)))
    np.testing.assert_allclose(session.run({"x": x, "w": w})["y"], x @ w, rtol=1e-4, atol=1e-4)
    assert bool(entered) == held
