"""Calls that run by panels: products and convolutions of float32, with their epilogues, by `products`."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Protocol

import numpy as np

from omniop.backends.array_eval import size_names
from omniop.backends.base import Runnable
from omniop.backends.codegen.llvm_blocks import Head
from omniop.backends.codegen.llvm_depthwise import MONOIDS
from omniop.backends.cpu import depthwise, fused
from omniop.backends.cpu.depthwise import Depthwise
from omniop.backends.cpu.jit import CompiledKernel, MachineCode
from omniop.backends.cpu.kept import Later
from omniop.backends.cpu.launch import CompiledLaunch
from omniop.backends.cpu.products import Product, convolution, matrix_product, step_through
from omniop.backends.cpu.program import RecordedWork
from omniop.backends.cpu.recording import Context, Record, Recording
from omniop.backends.cpu.views import Window
from omniop.backends.cpu.windows import Geometry
from omniop.opset import expr
from omniop.opset.dtype import FLOAT32
from omniop.opset.expr import Expr
from omniop.opset.kernel import Call, View

FEW = 4
"""Columns of a product, below which most of a panel would be idle."""
MAX_SCRATCH = 1 << 19
"""Bytes of scratch memory, which should stay in the second cache."""
MAX_SPACE = 3
"""Dims of space of a convolution."""


def suits(call: Call) -> bool | None:
    """Whether the call runs by panels: always, never, or (None) for some sizes, as `PanelCall` finds out."""
    if call.prim == "window_reduce":
        return _pools(call)
    if call.prim not in ("contract", "conv"):
        return False
    value = call.results[0].dtype if call.epilogue is None else fused.hole_dtype(call)
    if value is not FLOAT32 or any(v.dtype is not FLOAT32 for v in call.operands):
        return False
    if call.prim == "contract":
        *_, rows, columns = call.results[0].shape
        return _all(_above(rows, 1), _above(columns, FEW - 1))
    x, w = call.operands
    if len(x.shape) - 2 > MAX_SPACE:
        return False
    return _is_linear(w)


def _pools(call: Call) -> bool | None:
    """Whether it is pooling of images of channels; of lines that are not too long, which only the sizes tell."""
    (x,), rank = call.operands, len(call.attr("kernel"))
    value = call.results[0].dtype if call.epilogue is None else fused.hole_dtype(call)
    known = x.dtype is value is FLOAT32 and call.attr("monoid") in MONOIDS[1:]
    return None if known and len(x.shape) == rank + 2 and rank <= depthwise.MAX_SPACE else False


def _all(*answers: bool | None) -> bool | None:
    return False if False in answers else None if None in answers else True


def _above(number: Expr, limit: int) -> bool | None:
    return number.attr > limit if number.op == "const" else None


def _is_linear(weights: View) -> bool | None:
    numbers = [*weights.shape[1:], *weights.strides[1:]]
    if any(n.op != "const" for n in numbers):
        return None
    values = [n.attr for n in numbers]
    return step_through(values[: len(values) // 2], values[len(values) // 2 :]) is not None


def reads_image(call: Call) -> bool:
    """Whether a convolution reads its image where it lies, whatever the sizes: along its lines."""
    return call.prim == "contract" or expr.is_const(call.operands[0].strides[-1], 1)


def writes_itself(call: Call) -> bool:
    """Whether tiles can go into the result as they are."""
    view = call.results[0]
    plain = call.epilogue is None and view.dtype is FLOAT32 and fused.is_dense(view)
    return plain and not is_depthwise(call)


def is_depthwise(call: Call) -> bool:
    """Whether each channel of a convolution has a window of its own, or two."""
    if call.prim == "window_reduce":
        return True
    if call.prim != "conv" or len(call.operands[0].shape) - 2 > depthwise.MAX_SPACE:
        return False
    image, (filters, depth, *_), group = call.operands[0].shape, call.operands[1].shape, call.attr("group")
    few = filters.op == "const" and filters.attr <= 2 * group
    return group > 1 and few and expr.is_const(depth, 1) and expr.is_const(image[1], group)


class PanelCall(RecordedWork):
    """``epilogue``: the kernel of `fused.block_kernel`, if it needs one; ``image``: that of `fused.copy_kernel` for
    images that it cannot read as they lie; ``otherwise``: what runs sizes that are not for panels."""

    def __init__(
        self,
        call: Call,
        epilogue: CompiledLaunch | None,
        image: CompiledLaunch | None,
        otherwise: Runnable | None,
    ) -> None:
        super().__init__()
        self._call = Later.of(call)
        self._by_lines = call.prim != "contract" and not fused.pixels_are_one_run(call)
        self._image = image
        self._epilogue = None if epilogue is None else epilogue.kernel
        self._otherwise = Later.of(otherwise)

    def otherwise(self) -> Runnable | None:
        return self._otherwise()

    def record(self, sizes: tuple[int, ...]) -> Recording | None:
        call = self._call()
        names = size_names(sizes)
        x, *others = (Window(v, names) for v in call.operands)
        y = others[0] if others else x
        result = Window(call.results[0], names)
        if call.prim == "contract":
            if result.shape[-2] == 1 or result.shape[-1] < FEW:
                return None
            a, b, image = x, y, 0
            found: Product | Depthwise = matrix_product(x, y, result)
        else:
            if call.prim == "conv" and step_through(y.shape[1:], y.strides[1:]) is None:
                return None
            image = 0 if x.strides[-1] == 1 else prod(x.shape) * FLOAT32.itemsize
            a, b = y, x.contiguous(len(call.params)) if image else x
            wanted = _convolution(call, b, a, result, self._by_lines)
            if wanted is None:
                return None
            found = wanted
        work = record_of(found, (a, b, result), self._epilogue, sizes, len(call.params))
        if not image:
            return Recording((work,))
        assert self._image is not None
        return Recording((*self._image.record(sizes).records, work), image)


class Blocks(Protocol):
    """Work by blocks of the result, for one set of sizes."""

    @property
    def function(self) -> MachineCode: ...

    @property
    def points(self) -> int: ...

    @property
    def weight(self) -> float:
        """Nanoseconds of a point."""

    def context(
        self, epilogue: int, sizes: Sequence[int], buffers: int
    ) -> tuple[np.ndarray, tuple[np.ndarray | MachineCode, ...]]:
        """See `products.Product.context`."""


def record_of(
    work: Blocks,
    windows: Sequence[Window],
    epilogue: CompiledKernel | None,
    sizes: Sequence[int],
    buffers: int,
) -> Record:
    """``windows``: a, b and the result; ``sizes``, and how many ``buffers``: the call's own."""
    code = () if epilogue is None else (epilogue.code,)
    table, kept = work.context(*((code[0].address, sizes, buffers) if code else (0, (), 0)))
    for k, window in enumerate(windows):
        table[2 * k : 2 * k + 2] = window.buffer, window.start
    context = Context(table, (*kept, *code))
    return Record(work.function, context, work.points, weight=work.weight, scratch=int(table[Head.SCRATCH]))


def _convolution(call: Call, x: Window, w: Window, result: Window, by_lines: bool) -> Product | Depthwise | None:
    if call.prim == "window_reduce":
        geometry = Geometry.of(call, call.attr("kernel"))
        pool = Depthwise(x, x, result, geometry, 0, by_lines, call.attr("monoid"))
        return pool if pool.scratch <= MAX_SCRATCH else None
    geometry = Geometry.of(call, w.shape[2:])
    depthwise = is_depthwise(call)
    while not by_lines and _is_flat(x, w, result, geometry):
        x, w, result, geometry = x.without_last(), w.without_last(), result.without_last(), geometry.without_last()
    if depthwise:
        step = step_through(w.shape[1:], w.strides[1:])
        assert step is not None
        each = Depthwise(x, w, result, geometry, step, by_lines)
        if each.scratch <= MAX_SCRATCH:
            return each
    return convolution(x, w, result, geometry, call.attr("group"), by_lines)


def _is_flat(x: Window, w: Window, result: Window, geometry: Geometry) -> bool:
    """Whether the last axis of space has nothing to it."""
    rank = len(geometry.kernel)
    return rank > 1 and x.shape[-1] == w.shape[-1] == result.shape[-1] == 1 and geometry.pads[rank - 1] == 0
