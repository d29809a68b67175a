"""Matrix products to test: Calls of the prim on numpy views, and the emulator with a vendor library of numpy's."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from cuda_work import launch

from omniop.backends.cuda.device import CudaDevice
from omniop.backends.cuda.driver import DeviceBuffer, Gemm
from omniop.backends.cuda.emulator import EmuDriver
from omniop.opset import dtype as dtypes
from omniop.opset import expr
from omniop.opset.dtype import DType
from omniop.opset.expr import Expr
from omniop.opset.kernel import Call, Param, View
from omniop.opset.legalise import legalise_expr


@dataclass
class Product:
    """``a @ b`` from where the arrays lie in their bases; an epilogue may load from params 3, 4, ...: ``extra``.

    ``symbolic``: extents, strides and offsets above 1 are size arguments, one each, so that one kernel takes them all.
    """

    a: np.ndarray
    b: np.ndarray
    accumulate: DType = dtypes.FLOAT32
    result: DType | None = None
    epilogue: Callable[[Call], Expr] | None = None
    extra: Sequence[np.ndarray] = ()
    symbolic: bool = True
    sizes: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.c = np.zeros((*self.a.shape[:-1], self.b.shape[-1]), (self.result or dtypes.of_numpy(self.a.dtype)).numpy)
        self.arrays = [_root(self.a), _root(self.b), self.c, *self.extra]
        a, b, c = (self._view(k, x) for k, x in enumerate((self.a, self.b, self.c)))
        params = tuple(Param(dtypes.of_numpy(x.dtype), k == 2) for k, x in enumerate(self.arrays))
        self.call = Call("contract", params, (a, b), (c,), (("accumulate", self.accumulate),), len(self.sizes))
        if self.epilogue is not None:
            self.call = Call(**{**vars(self.call), "epilogue": self.epilogue(self.call)})

    def _number(self, number: int) -> Expr:
        if not self.symbolic or number in (0, 1):
            return expr.index(number)
        self.sizes.append(number)
        return expr.size(f"{expr.SCALAR}s{len(self.sizes) - 1}")

    def _view(self, buffer: int, array: np.ndarray) -> View:
        offset = array.__array_interface__["data"][0] - _root(array).__array_interface__["data"][0]
        shape, strides = (tuple(self._number(n) for n in numbers) for numbers in (array.shape, _strides(array)))
        return View(buffer, dtypes.of_numpy(array.dtype), shape, strides, self._number(offset // array.itemsize))

    def legal(self, device: CudaDevice) -> Call:
        if self.call.epilogue is None:
            return self.call
        tail = legalise_expr(self.call.epilogue, device.caps)
        assert isinstance(tail, Expr)
        return Call(**{**vars(self.call), "epilogue": tail})

    def run(self, device: CudaDevice) -> np.ndarray:
        (run,) = device.build([self.legal(device)])
        return launch(device, run, self.arrays, self.sizes)[2]

    def exact(self) -> np.ndarray:
        """In float64."""
        result: np.ndarray = self.a.astype(np.float64) @ self.b.astype(np.float64)
        return result


def _strides(array: np.ndarray) -> list[int]:
    """In elements; 0 where one element says nothing."""
    return [s // array.itemsize if n > 1 else 0 for s, n in zip(array.strides, array.shape, strict=True)]


def _root(array: Any) -> np.ndarray:
    while array.base is not None:
        array = array.base
    assert isinstance(array, np.ndarray)
    return array


def normal(*shape: int, dtype: str = "float32") -> np.ndarray:
    """Reproducible numbers; small whole ones for integers."""
    values = np.random.default_rng(sum(shape)).standard_normal(shape)
    kind = dtypes.of_name(dtype)
    if kind.is_int:
        values = np.abs(np.rint(values)) if kind.kind == "u" else np.rint(values * 2).clip(-8, 7)
    return values.astype(kind.numpy)


def bias_relu_residual(call: Call) -> Expr:
    """``max(sum + bias[column], 0) + residual[batch, row, column]``"""
    shape = call.results[0].shape
    axes = [expr.axis(k, extent) for k, extent in enumerate(shape)]
    place = axes[0]
    for axis, extent in zip(axes[1:], shape[1:], strict=True):
        place = place * extent + axis
    total = expr.hole(dtypes.FLOAT32) + expr.load(3, (axes[-1],), dtypes.FLOAT32)
    return expr.maximum(total, 0.0) + expr.load(4, (place,), dtypes.FLOAT32)


class LibraryDriver(EmuDriver):
    """The emulator with a matrix library: numpy on the buffers' memory."""

    def __init__(self) -> None:
        super().__init__()
        self.products: list[Gemm] = []
        self.loads: list[str] = []

    def load(self, source: str, names: Sequence[str]) -> Any:
        self.loads += names
        return super().load(source, names)

    @property
    def gemm(self) -> Any:
        return self._multiply

    def _multiply(self, gemm: Gemm, a: DeviceBuffer, b: DeviceBuffer, c: DeviceBuffer) -> None:
        self.products.append(gemm)
        wide = np.float64 if gemm.dtype == "float64" else np.float32
        left, right = (
            self._matrices(buffer, gemm.dtype, offset, stride, ld, sizes, transposed, gemm.batch).astype(wide)
            for buffer, offset, stride, ld, sizes, transposed in (
                (a, gemm.offset_a, gemm.stride_a, gemm.lda, (gemm.m, gemm.k), gemm.transpose_a),
                (b, gemm.offset_b, gemm.stride_b, gemm.ldb, (gemm.k, gemm.n), gemm.transpose_b),
            )
        )
        sizes = gemm.m, gemm.n
        target = self._matrices(
            c, gemm.result or gemm.dtype, gemm.offset_c, gemm.stride_c, gemm.ldc, sizes, False, gemm.batch
        )
        target[...] = left @ right

    @staticmethod
    def _matrices(
        buffer: DeviceBuffer, dtype: str, offset: int, stride: int, ld: int, sizes: Any, transposed: bool, batch: int
    ) -> np.ndarray:
        rows, columns = sizes[::-1] if transposed else sizes
        assert ld >= columns
        kind = np.dtype(dtypes.of_name(dtype).numpy)
        memory = (ctypes.c_char * buffer.nbytes).from_address(buffer.address)
        flat = np.frombuffer(memory, kind)[offset:]
        assert (batch - 1) * stride + (rows - 1) * ld + columns <= flat.size
        strides = tuple(s * kind.itemsize for s in (stride, ld, 1))
        found = np.lib.stride_tricks.as_strided(flat, (batch, rows, columns), strides)
        return found.swapaxes(1, 2) if transposed else found
