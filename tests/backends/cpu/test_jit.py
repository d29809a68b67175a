"""The CPU's compiler: what it takes, what it keeps, and that threads may share it."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest

from omniop.backends.codegen import llvm_kernel
from omniop.backends.cpu import elf, jit
from omniop.backends.cpu.compiler import Compiler
from omniop.opset import dtype as dtypes
from omniop.opset import expr
from omniop.opset.dtype import BFLOAT16, COMPLEX64, FLOAT32, INT64, DType
from omniop.opset.errors import DeviceError
from omniop.opset.kernel import Kernel, Param, Store
from tests.gate.case import model


def scaled(factor: float, dtype: DType = FLOAT32, extent: int | None = None) -> Kernel:
    """``y = x * factor`` over one axis."""
    i = expr.raw_axis(0, expr.size("s0") if extent is None else expr.index(extent))
    value = expr.load(0, (i,), dtype) * factor
    return Kernel((Param(dtype), Param(dtype, written=True)), (i,), (Store(1, i, value),), 1)


def run(compiled: jit.CompiledKernel, x: np.ndarray) -> np.ndarray:
    y = np.zeros_like(x)
    buffers, sizes = np.array([x.ctypes.data, y.ctypes.data]), np.array([x.size])
    compiled(buffers.ctypes.data, sizes.ctypes.data, 0, compiled.points(sizes.ctypes.data))
    return y


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> jit._Engine:
    """A compiler with nothing cached."""
    monkeypatch.setenv("OMNIOP_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("OMNIOP_CACHE", raising=False)
    return jit._Engine()


@pytest.mark.parametrize("dtype", [BFLOAT16, COMPLEX64, dtypes.FLOAT8E4M3FN, dtypes.INT4], ids=str)
def test_reach_refuses_dtypes_that_llvm_lacks(dtype: DType) -> None:
    i = expr.raw_axis(0, expr.index(8))
    copy = Kernel((Param(dtype), Param(dtype, True)), (i,), (Store(1, i, expr.load(0, (i,), dtype)),))
    assert not jit.reach(copy)
    assert jit.reach(scaled(2.0))


def test_equal_kernels_are_compiled_once() -> None:
    first, second, other = jit.build([scaled(3.0), scaled(3.0), scaled(4.0)])
    assert first is second
    assert other is not first
    x = np.arange(37, dtype=np.float32)
    np.testing.assert_array_equal(run(first, x), x * 3)
    np.testing.assert_array_equal(run(other, x), x * 4)


def test_content_tells_kernels_apart() -> None:
    kernels = [
        scaled(1.5),
        scaled(float("nan")),
        scaled(0.0),
        scaled(-0.0),
        scaled(1.5, dtypes.FLOAT64),
        scaled(1.5, extent=7),
    ]
    assert len({jit.content(k) for k in kernels}) == len(kernels)
    assert jit.content(scaled(1.5)) == jit.content(scaled(1.5))


def transposed(rows: int, columns: int, apart: int) -> Kernel:
    """``y[j * apart + i] = 2 * x[i * columns + j]``."""
    i, j = expr.axis(0, rows), expr.axis(1, columns)
    value = expr.load(0, (i * columns + j,), FLOAT32) * 2.0
    return Kernel((Param(FLOAT32), Param(FLOAT32, True)), (i, j), (Store(1, j * apart + i, value),))


SHAPES = {
    "whole squares": ((64, 96, 64), (128, 192, 130), (96, 64, 100)),
    "what is left over": ((5, 67, 7), (9, 130, 9), (17, 101, 20)),
    "one axis": ((1, 19, 5), (1, 300, 9)),
}


@pytest.mark.parametrize("shapes", SHAPES.values(), ids=SHAPES)
def test_kernels_of_other_extents_and_strides_share_code(shapes: Sequence[tuple[int, int, int]]) -> None:
    compiled = jit.build([transposed(*shape) for shape in shapes])
    assert len({kernel.code.key for kernel in compiled}) == 1
    for (rows, columns, apart), kernel in zip(shapes, compiled, strict=True):
        x = np.random.default_rng(0).standard_normal((rows, columns)).astype("f")
        y, expected = np.full((2, columns, apart), np.nan, "f")
        expected[:, :rows] = 2 * x.T
        buffers = np.array([x.ctypes.data, y.ctypes.data])
        points = kernel.points(0)
        middle = points // 2 // kernel.grain * kernel.grain
        for begin, end in ((middle, points), (0, middle)):
            kernel(buffers.ctypes.data, 0, begin, end)
        np.testing.assert_array_equal(y, expected)


def test_a_place_that_is_looked_up_keeps_its_guard() -> None:
    i = expr.axis(0, 5)
    place = expr.load(0, (i,), INT64)
    value = expr.load(1, (place,), FLOAT32, guard=expr.alu("and", place >= 0, place < 7), other=-1.0)
    (kernel,) = jit.build([Kernel((Param(INT64), Param(FLOAT32), Param(FLOAT32, True)), (i,), (Store(2, i, value),))])
    places, x, y = np.array([6, -1, 0, 7, 3]), np.arange(7, dtype="f"), np.zeros(5, "f")
    buffers = np.array([places.ctypes.data, x.ctypes.data, y.ctypes.data])
    kernel(buffers.ctypes.data, 0, 0, kernel.points(0))
    assert y.tolist() == [6, -1, 0, -1, 3]


def test_a_choice_by_place_is_not_shared() -> None:
    i, j = expr.axis(0, 3), expr.axis(1, 5)
    value = expr.select(i < j, expr.load(0, (i,), FLOAT32), expr.load(1, (j,), FLOAT32))
    (kernel,) = jit.build(
        [Kernel((Param(FLOAT32),) * 2 + (Param(FLOAT32, True),), (i, j), (Store(2, i * 5 + j, value),))]
    )
    x, y, found = np.arange(3, dtype="f"), -np.arange(5, dtype="f"), np.zeros((3, 5), "f")
    buffers = np.array([x.ctypes.data, y.ctypes.data, found.ctypes.data])
    kernel(buffers.ctypes.data, 0, 0, kernel.points(0))
    np.testing.assert_array_equal(found, np.where(np.triu(np.ones((3, 5)), 1) > 0, x[:, None], y))


def test_points_and_grain() -> None:
    i, j = expr.raw_axis(0, expr.size("s0")), expr.raw_axis(1, expr.size("s1"))
    k = expr.raw_axis(2, expr.size("s1"))
    at, along = i * expr.size("s1") + j, i * expr.size("s1") + k
    total = expr.reduce("add", (k,), (expr.load(0, (along,), FLOAT32),))
    params = (Param(FLOAT32), Param(FLOAT32, True))
    rows = Kernel(params, (i, j), (Store(1, at, expr.load(0, (at,), FLOAT32) / total),), 2)
    flat = Kernel(params, (i, j), (Store(1, at, expr.load(0, (at,), FLOAT32) + 1.0),), 2)
    sizes = np.array([3, 50])
    by_row, by_element = jit.build([rows, flat])
    assert by_row.points(sizes.ctypes.data) == 3
    assert by_row.grain == 1
    assert by_element.points(sizes.ctypes.data) == 150
    assert by_element.grain > 1
    assert by_row.weight > by_element.weight > 0
    assert not by_row.serial


def test_combining_stores_are_serial() -> None:
    i = expr.raw_axis(0, expr.index(8))
    store = Store(1, i % 2, expr.load(0, (i,), FLOAT32), combine="add")
    (compiled,) = jit.build([Kernel((Param(FLOAT32), Param(FLOAT32, True)), (i,), (store,))])
    assert compiled.serial


def test_a_new_process_compiles_nothing(engine: jit._Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.arange(21, dtype=np.float32)
    engine.compiled([scaled(5.0)], jit.host_target())

    def never(*_: object) -> str:
        raise AssertionError("printed a kernel that is in the cache")

    monkeypatch.setattr(llvm_kernel, "print_kernel", never)
    (again,) = jit._Engine().compiled([scaled(5.0)], jit.host_target())
    np.testing.assert_array_equal(run(again, x), x * 5)


def test_every_process_asks_the_disk_alike(tmp_path: Path) -> None:
    program = """if True:
        from omniop.backends.codegen.llvm_attention import PACK_ENTRY, print_pack
        from omniop.backends.codegen.llvm_ir import Target
        from omniop.backends.cpu import jit

        jit.build_printed(PACK_ENTRY, print_pack, target=Target(128, narrow=frozenset(("pmaddwd", "vpdpbusd"))))
    """
    environment = {**os.environ, "OMNIOP_CACHE_DIR": str(tmp_path), "OMNIOP_CACHE": "1"}
    kept = set()
    for seed in range(4):  # of the order of sets
        subprocess.run([sys.executable, "-c", program], env={**environment, "PYTHONHASHSEED": str(seed)}, check=True)
        kept.add(len(list(tmp_path.rglob("*.bin"))))
    assert len(kept) == 1


def test_a_kernel_that_llvm_refuses(engine: jit._Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(kernel: Kernel, module: jit.Module, name: str) -> llvm_kernel.Printed:
        module.functions[name] = "define void @kernel( nonsense"
        return llvm_kernel.Printed(name, 1, False, 1.0)

    monkeypatch.setattr(llvm_kernel, "print_kernel", broken)
    with pytest.raises(DeviceError, match=r"kernel \(0\[i0\] \* 6.0\)"):
        engine.compiled([scaled(6.0)], jit.host_target())


def test_a_broken_object_is_told_by_its_kernel(engine: jit._Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects are linked together; the one that cannot be is found."""
    whole = Compiler.object
    monkeypatch.setattr(
        Compiler, "object", lambda self, text, symbols: b"?" if "401C0000" in text else whole(self, text, symbols)
    )
    with pytest.raises(DeviceError, match=r"kernel \(0\[i0\] \* 7.0\)"):
        engine.compiled([scaled(6.0), scaled(7.0), scaled(8.0)], jit.host_target())


def print_add(module: jit.Module, name: str, number: int) -> None:
    module.functions[name] = f"""define void @{name}(ptr %at) {{
      %was = load i64, ptr %at
      %is = add i64 %was, {number}
      store i64 %is, ptr %at
      ret void
    }}"""


def test_a_function_is_printed_once_for_its_parameters(engine: jit._Engine) -> None:
    printed: list[int] = []

    def add(number: int) -> int:
        def printer(module: jit.Module, name: str, number: int) -> None:
            printed.append(number)
            print_add(module, name, number)

        function = engine.functions({"add": [ctypes.c_void_p]}, printer, jit.host_target(), ("add", number))["add"]
        value = ctypes.c_int64(1)
        function(ctypes.addressof(value))
        return value.value

    assert [add(2), add(3), add(2)] == [3, 4, 3]
    assert printed == [2, 3]


def test_llvm_links_what_omniop_does_not(engine: jit._Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(files: object) -> None:
        raise elf.Unlinkable("objects of another machine")

    monkeypatch.setattr(elf, "link", refuse)
    x = np.arange(21, dtype=np.float32)
    (compiled,) = engine.compiled([scaled(9.0)], jit.host_target())
    np.testing.assert_array_equal(run(compiled, x), x * 9)
    name = compiled.code.key, compiled.code.symbol
    kept = engine.archive([name[0]])
    assert isinstance(kept, tuple)
    (again,) = engine.restored([name], kept)
    np.testing.assert_array_equal(run(jit.CompiledKernel(compiled.printed, again), x), x * 9)


def test_a_process_that_finds_all_on_the_disk_does_not_load_llvm(tmp_path: Path) -> None:
    program = """if True:
        import sys
        import numpy as np
        import omniop
        session = omniop.load(sys.argv[1], device="cpu")
        print(session.run({"x": np.arange(24, dtype=np.float32).reshape(1, 24)})["y"].sum())
        print("llvmlite" in sys.modules)
    """
    onnx.save(model("g (float[1, 24] x) => (float[1, 24] y) { a = Tanh (x) y = Softmax (a) }"), tmp_path / "m.onnx")
    environment = {**os.environ, "OMNIOP_CACHE_DIR": str(tmp_path / "cache"), "OMNIOP_CACHE": "1"}
    said = [
        subprocess.run(
            [sys.executable, "-c", program, tmp_path / "m.onnx"], env=environment, check=True, capture_output=True
        ).stdout.split()
        for _ in range(2)
    ]
    assert said[0][0] == said[1][0]
    assert [loaded for _, loaded in said] == [b"True", b"False"]


def test_threads_build_and_launch_at_once() -> None:
    x = np.arange(1000, dtype=np.float32)

    def work(k: int) -> bool:
        (compiled,) = jit.build([scaled(float(k % 5))])
        return all((run(compiled, x) == x * (k % 5)).all() for _ in range(20))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(20)))


@pytest.mark.parametrize("columns", [17, 33, 65, 67])
@pytest.mark.parametrize("dtype", [dtypes.INT8, dtypes.UINT16, dtypes.FLOAT16], ids=str)
def test_the_tail_of_a_row_that_is_narrowed_writes_nothing_behind_it(dtype: DType, columns: int) -> None:
    i, j = expr.raw_axis(0, expr.index(3)), expr.raw_axis(1, expr.index(columns))
    place = i * columns + j
    total = expr.reduce(
        "add", (k := expr.raw_axis(2, expr.index(columns)),), (expr.load(0, (i * columns + k,), FLOAT32),)
    )
    value = expr.cast(expr.cast(expr.load(0, (place,), FLOAT32) + total * 0.0, dtypes.INT32), dtype)
    kernel = Kernel((Param(FLOAT32), Param(dtype, written=True)), (i, j), (Store(1, place, value),))
    (compiled,) = jit.build([kernel])
    x = np.arange(3 * columns, dtype=np.float32) % 99
    y = np.full(3 * columns + 64, 77, dtype.numpy)
    buffers = np.array([x.ctypes.data, y.ctypes.data])
    compiled(buffers.ctypes.data, 0, 0, compiled.points(0))
    np.testing.assert_array_equal(y[: 3 * columns], x.astype(dtype.numpy))
    assert (y[3 * columns :] == 77).all()
