"""Matrix products against numpy's in float64, at shapes and strides that end badly: our kernels, and a library."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cuda_contracts import LibraryDriver, Product, bias_relu_residual, normal
from cuda_work import launch

from omniop.backends.base import KernelTable, No, OpContext, TensorType
from omniop.backends.cuda.device import CAPS, CudaDevice
from omniop.backends.cuda.launch import EMULATOR
from omniop.opset import dtype as dtypes
from omniop.opset import expr
from omniop.opset.dtype import DType
from omniop.opset.expr import Expr
from omniop.opset.kernel import Call

SHAPES = [
    *((1, 1, 1), (1, 1, 77), (1, 33, 5), (33, 1, 40), (3, 100, 17), (7, 5, 1), (5, 37, 129), (64, 64, 64)),
    *((65, 67, 43), (130, 63, 16), (4, 4, 300)),
]


def matrices(m: int, n: int, k: int, layout: str) -> tuple[np.ndarray, np.ndarray]:
    """``layout``: for each operand n, or t for one that lies transposed."""
    a = normal(m, k) if layout[0] == "n" else normal(k, m).T
    b = normal(k, n) if layout[1] == "n" else normal(n, k).T
    return a, b


@pytest.mark.parametrize("symbolic", [True, False], ids=["symbolic", "static"])
@pytest.mark.parametrize("layout", ["nn", "nt", "tn", "tt"])
def test_shapes(device: CudaDevice, layout: str, symbolic: bool) -> None:
    shapes = SHAPES if symbolic else [SHAPES[4], SHAPES[8]]
    products = [Product(*matrices(*shape, layout), symbolic=symbolic) for shape in shapes]
    runs = device.build([p.legal(device) for p in products])
    for p, run in zip(products, runs, strict=True):
        c = launch(device, run, p.arrays, p.sizes)[2]
        np.testing.assert_allclose(c, p.exact(), rtol=1e-5, atol=1e-5 * p.a.shape[-1] ** 0.5, err_msg=str(p.a.shape))


def strided() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Views that only strides tell."""
    heads = normal(2, 9, 3, 8).transpose(0, 2, 1, 3)
    return {
        "batch of two axes": (normal(2, 3, 5, 7), normal(2, 3, 7, 4)),
        "heads": (heads, normal(2, 9, 3, 8).transpose(0, 2, 3, 1)),
        "one b for all": (normal(2, 3, 5, 7), np.broadcast_to(normal(7, 4), (2, 3, 7, 4))),
        "one a for all": (np.broadcast_to(normal(5, 7), (3, 5, 7)), normal(3, 7, 4)),
        "one row for all": (np.broadcast_to(normal(1, 7), (5, 7)), normal(7, 4)),
        "one number": (np.broadcast_to(normal(1), (6, 9)), np.broadcast_to(normal(1), (9, 70))),
        "backwards": (normal(6, 70)[::-1, ::-1], normal(70, 5)[:, ::-1]),
        "every third": (normal(6, 70)[1:, 2::3], normal(30, 40)[5:28, 3::2]),
        "overlapping": (np.lib.stride_tricks.sliding_window_view(normal(20), 7), normal(7, 3)),
        "single rows": (normal(4, 1, 6), np.broadcast_to(normal(6, 3), (4, 6, 3))),
    }


@pytest.mark.parametrize("name", strided())
def test_strides(device: CudaDevice, name: str) -> None:
    p = Product(*strided()[name])
    np.testing.assert_allclose(p.run(device), p.exact(), rtol=1e-5, atol=1e-5)


DTYPES = [
    ("float64", "float64", "float64", "float64"),
    ("float16", "float16", "float32", "float16"),
    ("float16", "float16", "float32", "float32"),
    ("bfloat16", "bfloat16", "float32", "bfloat16"),
    ("float8_e4m3fn", "float8_e5m2", "float32", "float32"),
    ("int8", "int8", "int32", "int32"),
    ("uint8", "int8", "int32", "int32"),
    ("int4", "int8", "int32", "int32"),
    ("int32", "int32", "int32", "int32"),
    ("uint64", "uint64", "uint64", "uint64"),
    ("int64", "int64", "int64", "int64"),
    ("uint32", "uint32", "uint32", "uint32"),
]


@pytest.mark.parametrize(("a", "b", "accumulate", "result"), DTYPES)
def test_dtypes(device: CudaDevice, a: str, b: str, accumulate: str, result: str) -> None:
    """Sums are taken in the accumulator and rounded once."""
    sums, kind = dtypes.of_name(accumulate), dtypes.of_name(result)
    p = Product(normal(9, 37, dtype=a), normal(37, 70, dtype=b), sums, kind)
    c, exact = p.run(device), p.exact()
    if kind.is_int:
        np.testing.assert_array_equal(c, exact.astype(kind.numpy))
    else:
        eps = float(
            np.finfo(np.float32).eps if kind.bits == 32 else 2.0 ** {"float16": -11, "bfloat16": -8}.get(result, -50)
        )
        np.testing.assert_allclose(c.astype(np.float64), exact, rtol=2 * eps, atol=40 * float(np.finfo(sums.numpy).eps))


def test_integers_wrap(device: CudaDevice) -> None:
    a, b = np.full((3, 5), 2**30, np.int32), np.full((5, 4), 3, np.int32)
    np.testing.assert_array_equal(Product(a, b, dtypes.INT32).run(device), a @ b)


# Epilogues ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("batch", "symbolic"), [((), True), ((2,), False), ((2, 3), True), ((2, 3), False), ((1, 3), True)], ids=str
)
def test_epilogue(device: CudaDevice, batch: tuple[int, ...], symbolic: bool) -> None:
    a, b, bias, residual = normal(*batch, 7, 19), normal(*batch, 19, 66), normal(66), normal(*batch, 7, 66)
    p = Product(a, b, epilogue=bias_relu_residual, extra=(bias, residual), symbolic=symbolic)
    np.testing.assert_allclose(p.run(device), np.maximum(p.exact() + bias, 0) + residual, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_narrow_epilogue_rounds_each_step(device: CudaDevice, dtype: str) -> None:
    kind = dtypes.of_name(dtype)
    a, b, bias = normal(5, 3, dtype=dtype), normal(3, 6, dtype=dtype), normal(6, dtype=dtype)

    def add(call: Call) -> Expr:
        return expr.hole(kind) + expr.load(3, (expr.axis(1, call.results[0].shape[1]),), kind)

    c = Product(a, b, epilogue=add, extra=(bias,)).run(device)
    once = (a.astype(np.float32) @ b.astype(np.float32)).astype(kind.numpy)
    np.testing.assert_array_equal(c, (once.astype(np.float32) + bias.astype(np.float32)).astype(kind.numpy))


def test_an_epilogue_of_another_dtype(device: CudaDevice) -> None:
    p = Product(normal(5, 3), normal(3, 6), result=dtypes.BOOL, epilogue=lambda _: expr.hole(dtypes.FLOAT32) < 0.5)
    np.testing.assert_array_equal(p.run(device), p.exact() < 0.5)


# What is accepted -----------------------------------------------------------------------------------------------------


def asked(a: DType, b: DType, accumulate: DType) -> OpContext:
    operands = (TensorType(a, (2, 2)), TensorType(b, (2, 2)))
    return OpContext("contract", operands, (TensorType(accumulate, (2, 2)),), {"accumulate": accumulate}, CAPS)


def test_accepts(one_device: CudaDevice) -> None:
    for a, b, accumulate, _ in DTYPES:
        assert one_device.accepts(asked(*map(dtypes.of_name, (a, b, accumulate)))), (a, b, accumulate)
    for dtype, accumulate in ((dtypes.COMPLEX64, dtypes.FLOAT32), (dtypes.INT8, dtypes.INT8), (dtypes.FLOAT16,) * 2):
        answer = one_device.accepts(asked(dtype, dtype, accumulate))
        assert isinstance(answer, No)
        assert answer.code == "contract-dtype"
        assert str(accumulate) in answer.detail
    assert one_device.accepts_epilogue("contract")
    assert not one_device.accepts_epilogue("conv")


# A vendor library -----------------------------------------------------------------------------------------------------


@pytest.fixture
def library(one_device: CudaDevice) -> tuple[CudaDevice, LibraryDriver]:
    """Comes after ``one_device``, which skips where there is no emulator."""
    driver = LibraryDriver()
    return CudaDevice(driver, EMULATOR, KernelTable()), driver


@pytest.mark.parametrize("layout", ["nn", "nt", "tn", "tt"])
def test_the_library_multiplies(library: tuple[CudaDevice, LibraryDriver], layout: str) -> None:
    device, driver = library
    for shape in SHAPES:
        p = Product(*matrices(*shape, layout))
        np.testing.assert_allclose(p.run(device), p.exact(), rtol=1e-5, atol=1e-4, err_msg=str(shape))
    assert len(driver.products) == len(SHAPES)
    assert driver.loads == []


@pytest.mark.parametrize(
    ("name", "products", "batch"),
    [
        ("batch of two axes", 1, 6), ("heads", 2, 3), ("one b for all", 1, 1), ("one a for all", 1, 3),
        ("one row for all", 0, 0), ("one number", 0, 0), ("backwards", 0, 0), ("every third", 0, 0),
        ("overlapping", 0, 0), ("single rows", 1, 1),
    ],
)  # fmt: skip
def test_strides_the_library_takes(
    library: tuple[CudaDevice, LibraryDriver], name: str, products: int, batch: int
) -> None:
    """Our kernel is compiled only for the others."""
    device, driver = library
    p = Product(*strided()[name])
    np.testing.assert_allclose(p.run(device), p.exact(), rtol=1e-5, atol=1e-5)
    assert [gemm.batch for gemm in driver.products] == [batch] * products
    assert len(driver.loads) == (products == 0)


@pytest.mark.parametrize(
    ("dtype", "accumulate", "result", "taken", "finished"),
    [
        ("float64", "float64", "float64", True, False),
        ("float16", "float32", "float16", True, False),
        ("bfloat16", "float32", "float32", True, False),
        ("float32", "float32", "float64", True, True),
        ("float32", "float64", "float32", False, False),
        ("int8", "int32", "int32", False, False),
    ],
)
def test_dtypes_the_library_takes(
    library: tuple[CudaDevice, LibraryDriver], dtype: str, accumulate: str, result: str, taken: bool, finished: bool
) -> None:
    """A result that it cannot write is made of its sums."""
    device, driver = library
    sums, kind = dtypes.of_name(accumulate), dtypes.of_name(result)
    p = Product(normal(6, 7, dtype=dtype), normal(7, 5, dtype=dtype), sums, kind)
    np.testing.assert_allclose(p.run(device).astype(np.float64), p.exact(), rtol=1e-3, atol=1e-3)
    assert [gemm.result for gemm in driver.products] == [accumulate if finished else result] * taken
    assert [name.split("_")[0] for name in driver.loads] == (["loops"] * finished if taken else ["contract"])


@pytest.mark.parametrize("name", ["heads", "one b for all", "backwards"])
def test_an_epilogue_after_the_library(library: tuple[CudaDevice, LibraryDriver], name: str) -> None:
    device, driver = library
    a, b = strided()[name]
    bias, residual = normal(b.shape[-1]), normal(*a.shape[:-1], b.shape[-1])
    p = Product(a, b, epilogue=bias_relu_residual, extra=(bias, residual))
    wanted = np.maximum(p.exact() + bias, 0) + residual
    (run,) = device.build([p.legal(device)])
    for _ in range(2):
        np.testing.assert_allclose(launch(device, run, p.arrays, p.sizes)[2], wanted, rtol=1e-5, atol=1e-5)
    assert bool(driver.products) == (name != "backwards")


def test_a_narrow_epilogue_after_the_library(library: tuple[CudaDevice, LibraryDriver]) -> None:
    test_a_narrow_epilogue_rounds_each_step(library[0], "bfloat16")
    (gemm,) = library[1].products
    assert (gemm.dtype, gemm.result) == ("bfloat16", "float32")


def test_products_too_many_for_the_library(library: tuple[CudaDevice, LibraryDriver]) -> None:
    """One launch of ours instead of many calls."""
    device, driver = library
    heads = [normal(70, 2, 3, 4).transpose(0, 2, 1, 3) for _ in range(2)]
    arguments: Any = (heads[0], heads[1].swapaxes(2, 3))
    p = Product(*arguments)
    np.testing.assert_allclose(p.run(device), p.exact(), rtol=1e-5, atol=1e-5)
    assert driver.products == []
