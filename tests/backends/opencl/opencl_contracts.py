"""Matrix products to test: a Call of the prim, and what numpy makes of it in float64."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from omniop.backends.base import Buffer
from omniop.backends.opencl.device import OpenCLDevice
from omniop.opset import dtype as dtypes
from omniop.opset import expr
from omniop.opset.dtype import DType
from omniop.opset.expr import Expr
from omniop.opset.kernel import Call, Param, View


@dataclass
class Sizes:
    """Numbers as size arguments, so that nothing about a shape is known when kernels are made (and few are made)."""

    values: list[int] = field(default_factory=list)
    symbolic: bool = True

    def __call__(self, number: int) -> Expr:
        if not self.symbolic:
            return expr.index(number)
        self.values.append(number)
        return expr.size(f"{expr.SCALAR}s{len(self.values) - 1}")


def view(buffer: int, dtype: DType, array: np.ndarray, base: np.ndarray, sizes: Sizes) -> View:
    """Where ``array`` lies in the memory of ``base``."""
    offset = array.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    return View(
        buffer,
        dtype,
        tuple(map(sizes, array.shape)),
        tuple(sizes(s // array.itemsize) for s in array.strides),
        sizes(offset // array.itemsize),
    )


def upload(device: OpenCLDevice, array: np.ndarray) -> Buffer:
    buffer = device.alloc(max(1, array.nbytes))
    device.h2d(buffer, np.ascontiguousarray(array))
    return buffer


def contract(
    device: OpenCLDevice,
    a: np.ndarray,
    b: np.ndarray,
    accumulate: DType = dtypes.FLOAT32,
    result: DType | None = None,
    epilogue: Expr | None = None,
    extra: Sequence[np.ndarray] = (),
    symbolic: bool = True,
) -> np.ndarray:
    """a x b on the device, from where the views lie in their bases; an epilogue may load from params 3, 4, ..."""
    sizes = Sizes(symbolic=symbolic)
    a_base, b_base = (x if x.base is None else _root(x) for x in (a, b))
    dtype = result or dtypes.of_numpy(a.dtype)
    c = np.zeros((*a.shape[:-1], b.shape[-1]), (epilogue.dtype if epilogue is not None else dtype).numpy)
    arrays = (a_base, b_base, c, *extra)
    call = Call(
        "contract",
        tuple(Param(dtypes.of_numpy(x.dtype), written=x is c) for x in arrays),
        (view(0, dtypes.of_numpy(a.dtype), a, a_base, sizes), view(1, dtypes.of_numpy(b.dtype), b, b_base, sizes)),
        (view(2, dtypes.of_numpy(c.dtype), c, c, sizes),),
        (("accumulate", accumulate),),
        len(sizes.values),
        epilogue,
    )
    (run,) = device.build([call])
    buffers = [upload(device, x) for x in arrays]
    run(buffers, sizes.values)
    device.d2h(c, buffers[2])
    return c


def _root(array: Any) -> np.ndarray:
    while array.base is not None:
        array = array.base
    assert isinstance(array, np.ndarray)
    return array


def normal(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    """Reproducible numbers; integers for integer dtypes."""
    generator = np.random.default_rng(sum(shape))
    values = generator.standard_normal(shape)
    return (values * 8 if np.dtype(dtype).kind in "iu" else values).astype(dtype)
