"""Epilogues on CPU devices: a kernel of their own, run over a product's sums.

By itself the epilogue is vectorised along work items, which the end of a tile is not: it runs as fast or faster, and
the product's kernel is one for all epilogues, compiled once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from omniop.backends.base import Caps, Runnable
from omniop.backends.codegen.indexing import host_function
from omniop.backends.opencl.finish import of_sum
from omniop.backends.opencl.launch import BoundKernel, Scratch
from omniop.backends.opencl.printed import Printed
from omniop.opset import expr, poly
from omniop.opset.dtype import DType
from omniop.opset.kernel import Call, Kernel, Param, Store, View
from omniop.opset.legalise import stored_params


def print_apart(
    call: Call,
    accumulator: DType,
    caps: Caps,
    make: Callable[[Call], Runnable],
    print_kernel: Callable[[Kernel], Printed],
    sums: Scratch,
) -> Printed:
    """``call`` as a product that ``make`` makes runnable, and its epilogue as a kernel."""
    result = call.results[0]
    axes = tuple(expr.axis(k, extent) for k, extent in enumerate(result.shape))
    offset = result.offset
    for axis, stride in zip(axes, result.strides, strict=True):
        offset = offset + axis * stride
    in_place = result.dtype is accumulator
    number, params = len(call.params), (*call.params, Param(accumulator, True))
    stored = (*stored_params(call, caps), params[-1])
    total = replace(result, buffer=number) if in_place else _dense(number, accumulator, result.shape)
    place = poly.simplify(offset) if in_place else poly.linear(axes, result.shape)
    product = make(replace(call, params=params, results=(total,), epilogue=None))
    assert call.epilogue is not None
    value = of_sum(call.epilogue, expr.load(number, (place,), accumulator), caps)
    value = expr.substitute(value, {n: axes[n.attr] for n in expr.walk(value) if n.op == "axis"})
    store = Store(result.buffer, poly.simplify(offset), value)
    kernel = Kernel(stored, tuple(a for a in axes if a.op == "axis"), (store,), call.sizes)
    printed = print_kernel(kernel)
    elements = host_function([poly.linear(tuple(e - 1 for e in result.shape), result.shape) + 1])

    def bind(kernels: Mapping[str, BoundKernel]) -> Runnable:
        last = printed.bind(kernels)

        def over_the_result(buffers: Sequence[Any], sizes: Sequence[int]) -> None:
            every = [*buffers, buffers[result.buffer]]
            product(every, sizes)
            last(every, sizes)

        def over_sums(buffers: Sequence[Any], sizes: Sequence[int]) -> None:
            with sums.lock:
                every = [*buffers, sums.take(elements(sizes)[0] * accumulator.itemsize)]
                product(every, sizes)
                last(every, sizes)

        return over_the_result if in_place else over_sums

    return Printed(printed.text, bind)


def _dense(buffer: int, dtype: DType, shape: tuple[expr.Expr, ...]) -> View:
    strides: list[expr.Expr] = []
    step = expr.index(1)
    for extent in reversed(shape):
        strides.append(step)
        step = poly.simplify(step * extent)
    return View(buffer, dtype, shape, tuple(reversed(strides)), expr.index(0))
