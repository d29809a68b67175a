"""The prim ``contract``: by the vendor library where its strides allow, else by a kernel of our own, which takes any.

The library computes sums alone: an epilogue, or a result that it cannot write, is a second kernel over its sums.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence

from omniop.backends.base import YES, Answer, No, OpContext, Runnable
from omniop.backends.codegen.product import Product, ProductNumbers
from omniop.backends.cuda.contract_text import (
    ALONE_TILE,
    SHARED_TILE,
    THREADS,
    contract_text,
    term,
    value,
)
from omniop.backends.cuda.driver import DeviceBuffer, Gemm, LoadedKernel
from omniop.backends.cuda.launch import Do, PlannedWork, Printed, Step, Toolkit
from omniop.backends.cuda.loops import print_loops
from omniop.backends.cuda.vendor_gemm import gemms, into_rows
from omniop.opset import dtype as dtypes
from omniop.opset import expr, poly
from omniop.opset.dtype import DType
from omniop.opset.expr import Expr
from omniop.opset.kernel import Call, Kernel, Param, Store
from omniop.opset.legalise import stored_params

_LIBRARY = {
    dtypes.FLOAT16: dtypes.FLOAT32,
    dtypes.BFLOAT16: dtypes.FLOAT32,
    dtypes.FLOAT32: dtypes.FLOAT32,
    dtypes.FLOAT64: dtypes.FLOAT64,
}
"""Operands that the vendor library multiplies, and what it adds in."""

Multiply = Callable[[Gemm, DeviceBuffer, DeviceBuffer, DeviceBuffer], None]


def accepts(op: OpContext) -> Answer:
    """Sums in 32 or 64 bits, of whatever converts to them."""
    accumulator: DType = op.attrs["accumulate"]
    if accumulator not in op.caps.compute or accumulator.bits < 32:
        return No("contract-dtype", f"sums in {accumulator} have no kernel")
    for operand in op.inputs:
        if operand is None or not isinstance(term(operand.dtype, accumulator, op.caps), Expr):
            return No("contract-dtype", f"{operand and operand.dtype} with sums in {accumulator} has no kernel")
    return YES


def print_contract(call: Call, kit: Toolkit) -> Printed:
    """With a vendor library, our own kernel is compiled when first needed."""
    own = contract_text(call, kit.caps, kit.profile.shared)
    if kit.driver.gemm is None or not _library_adds(call):
        return Printed((own,), lambda kernels: PlannedWork(_OwnPlanner(call, kit, lambda: kernels[own.name])))
    planner = _OwnPlanner(call, kit, functools.cache(lambda: kit.compiler.build([own])[own.name]))
    if _library_writes(call):
        return Printed((), lambda _: PlannedWork(_LibraryPlanner(call, kit.driver.gemm, planner)))
    finish = print_loops(_finish(call, kit), kit)

    def bind(kernels: Mapping[str, LoadedKernel]) -> Runnable:
        return PlannedWork(_ScratchPlanner(call, kit, planner, finish.bind(kernels)))

    return Printed(finish.texts, bind)


def _library_adds(call: Call) -> bool:
    a, b = call.operands
    return a.dtype is b.dtype and _LIBRARY.get(a.dtype) is call.attr("accumulate")


def _library_writes(call: Call) -> bool:
    return call.epilogue is None and call.results[0].dtype in (call.operands[0].dtype, call.attr("accumulate"))


def _finish(call: Call, kit: Toolkit) -> Kernel:
    """A map from sums, row-major in one more buffer, to the result."""
    result, sums = call.results[0], Param(call.attr("accumulate"))
    axes = tuple(expr.axis(k, extent) for k, extent in enumerate(result.shape))
    total = expr.load(len(call.params), (poly.linear(axes, result.shape),), sums.dtype)
    root = value(call, kit.caps)
    root = expr.substitute(root, {n: total for n in expr.walk(root) if n.op == "hole"})
    offset = result.offset
    for axis, stride in zip(axes, result.strides, strict=True):
        offset = offset + axis * stride
    store = Store(result.buffer, poly.simplify(offset), root)
    return Kernel((*stored_params(call, kit.caps), sums), axes, (store,), call.sizes)


class _OwnPlanner:
    """From sizes to a launch of our own kernel."""

    def __init__(self, call: Call, kit: Toolkit, kernel: Callable[[], LoadedKernel]) -> None:
        self.numbers = ProductNumbers(call, Product)
        self._kit = kit
        self._kernel = kernel

    def __call__(self, sizes: tuple[int, ...], buffers: Sequence[DeviceBuffer]) -> Sequence[Do]:
        product = self.numbers(sizes)
        shared = self._kit.profile.shared
        tile = SHARED_TILE if shared else ALONE_TILE
        tiles = product.batches * -(-product.m // tile) * -(-product.n // tile)
        threads = THREADS if shared else self._kit.profile.block
        blocks = tiles if shared else -(-tiles // threads)
        return (Step(self._kit.driver, self._kernel(), blocks, threads, sizes),) if blocks > 0 else ()


class _LibraryPlanner:
    """From sizes to calls of the library that write the result, or to our own kernel."""

    def __init__(self, call: Call, multiply: Multiply | None, own: _OwnPlanner) -> None:
        assert multiply is not None
        self._places = [view.buffer for view in (*call.operands, call.results[0])]
        self._dtypes = str(call.operands[0].dtype), str(call.results[0].dtype)
        self._multiply = multiply
        self._own = own

    def __call__(self, sizes: tuple[int, ...], buffers: Sequence[DeviceBuffer]) -> Sequence[Do]:
        found = gemms(self._own.numbers(sizes), *self._dtypes)
        return self._own(sizes, buffers) if found is None else [self._step(gemm) for gemm in found]

    def _step(self, gemm: Gemm) -> Do:
        a, b, c = self._places
        return lambda buffers: self._multiply(gemm, buffers[a], buffers[b], buffers[c])


class _ScratchPlanner:
    """From sizes to calls of the library, and a kernel that makes the result of its sums."""

    def __init__(self, call: Call, kit: Toolkit, own: _OwnPlanner, finish: Runnable) -> None:
        self._places = [view.buffer for view in call.operands]
        self._sums: DType = call.attr("accumulate")
        self._dtypes = str(call.operands[0].dtype), str(self._sums)
        self._kit = kit
        self._own = own
        self._finish = finish

    def __call__(self, sizes: tuple[int, ...], buffers: Sequence[DeviceBuffer]) -> Sequence[Do]:
        product = into_rows(self._own.numbers(sizes))
        found = gemms(product, *self._dtypes)
        if found is None:
            return self._own(sizes, buffers)
        nbytes = product.batches * product.m * product.n * self._sums.itemsize
        return (functools.partial(self._run, found, nbytes, sizes),)

    def _run(self, found: Sequence[Gemm], nbytes: int, sizes: tuple[int, ...], buffers: Sequence[DeviceBuffer]) -> None:
        driver = self._kit.driver
        assert driver.gemm is not None
        a, b = (buffers[place] for place in self._places)
        sums = driver.alloc(nbytes)  # each run its own: the pool gives it out again in the order of the queue
        for gemm in found:
            driver.gemm(gemm, a, b, sums)
        self._finish((*buffers, sums), sizes)
