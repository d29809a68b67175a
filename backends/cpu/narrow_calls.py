"""Calls on narrow elements: products, and convolutions that count from a zero point, by `narrow`."""

from __future__ import annotations

from math import prod

from omniop.backends.array_eval import size_names
from omniop.backends.codegen.llvm_dot import Dot, kind_of
from omniop.backends.cpu import fused
from omniop.backends.cpu.kept import Later
from omniop.backends.cpu.launch import CompiledLaunch
from omniop.backends.cpu.narrow import Narrow, columns_of
from omniop.backends.cpu.narrow_depthwise import NarrowDepthwise, taps_of
from omniop.backends.cpu.panels import record_of
from omniop.backends.cpu.products import convolution, matrix_product, step_through
from omniop.backends.cpu.program import RecordedWork
from omniop.backends.cpu.recording import Recording
from omniop.backends.cpu.views import Window
from omniop.backends.cpu.windows import Geometry
from omniop.opset import expr
from omniop.opset.dtype import BFLOAT16
from omniop.opset.kernel import Call

MAX_SPACE = 3
"""Dims of space of a convolution."""


def kind(call: Call) -> Dot | None:
    """The kind of product that the call is, whatever its sizes; None when it is none of these."""
    if call.prim not in ("contract", "conv", "integer_conv"):
        return None
    left, right = (v.dtype for v in call.operands[:2])
    if call.prim == "contract":
        found = kind_of(left, right)
        return found if found is not None and call.attr("accumulate") is found.sums else None
    if call.prim == "conv" and left is not BFLOAT16:  # convolutions of bytes wrap in bytes
        return None
    image, weights, *_ = call.operands
    numbers = [*weights.shape[1:], *weights.strides[1:]]
    if len(image.shape) - 2 > MAX_SPACE or any(n.op != "const" for n in numbers):
        return None
    values = [n.attr for n in numbers]
    linear = step_through(values[: len(values) // 2], values[len(values) // 2 :]) is not None
    return kind_of(right, left) if linear else None


def writes_itself(call: Call, kind: Dot) -> bool:
    """Whether tiles can go into the result as they are."""
    view = call.results[0]
    plain = call.epilogue is None and view.dtype is kind.sums and fused.is_dense(view)
    return plain and not is_depthwise(call)


def is_depthwise(call: Call) -> bool:
    """Whether each channel of a convolution has a window of its own, or several."""
    if call.prim != "integer_conv":
        return False
    image, (_, depth, *_), group = call.operands[0].shape, call.operands[1].shape, call.attr("group")
    return group > 1 and expr.is_const(depth, 1) and expr.is_const(image[1], group)


def reads_image(call: Call) -> bool:
    """Whether a convolution reads its image where it lies, whatever the sizes: along its lines."""
    return call.prim == "contract" or expr.is_const(call.operands[0].strides[-1], 1)


class NarrowCall(RecordedWork):
    """``epilogue``: the kernel of `fused.block_kernel`, if it needs one; ``image``: that of `fused.copy_kernel` for
    images that it cannot read as they lie."""

    def __init__(self, call: Call, kind: Dot, epilogue: CompiledLaunch | None, image: CompiledLaunch | None) -> None:
        super().__init__()
        self._call = Later.of(call)
        self._by_lines = call.prim != "contract" and not fused.pixels_are_one_run(call)
        self._kind = kind
        self._image = image
        self._epilogue = None if epilogue is None else epilogue.kernel

    def record(self, sizes: tuple[int, ...]) -> Recording:
        call = self._call()
        names = size_names(sizes)
        x, y, *zero = (Window(v, names) for v in call.operands)
        result = Window(call.results[0], names)
        copied = 0
        if call.prim == "contract":
            a, b = x, y
            product = matrix_product(a, b, result, columns_of(x.shape[-1], self._kind))
            found: Narrow | NarrowDepthwise = Narrow(product, self._kind)
        else:
            copied = 0 if x.strides[-1] == 1 else prod(x.shape) * self._kind.right.itemsize
            a, b = y, x.contiguous(len(call.params)) if copied else x
            geometry = Geometry.of(call, a.shape[2:])
            point = (zero[0].buffer, zero[0].start) if zero else None
            taps = taps_of(self._kind, geometry, a) if is_depthwise(call) else None
            if taps is not None and point is not None:
                found = NarrowDepthwise(b, a, result, geometry, taps, self._by_lines, point)
            else:
                most = columns_of(prod(a.shape[1:]), self._kind)
                product = convolution(b, a, result, geometry, call.attr("group"), self._by_lines, most)
                found = Narrow(product, self._kind, zero=point)
        work = record_of(found, (a, b, result), self._epilogue, sizes, len(call.params))
        if not copied:
            return Recording((work,))
        assert self._image is not None
        return Recording((*self._image.record(sizes).records, work), copied)
