"""The device side of array libraries: memory as flat byte arrays, work through `array_eval`.

A subclass gives ``ops`` (an `ArrayOps`) and ``contract``; it may take structured prims by adding methods to ``prims``.
The memory methods here serve libraries that share numpy's arrays; others override alloc, h2d, d2h and ``typed``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from omniop.backends.array_eval import ArrayOps, KernelEvaluator, size_names, view_of
from omniop.backends.base import YES, Answer, Buffer, Caps, Device, KernelTable, No, OpContext, Runnable
from omniop.opset import expr
from omniop.opset.dtype import DType
from omniop.opset.errors import DeviceError
from omniop.opset.expr import Expr
from omniop.opset.kernel import Call, Kernel, Param, Store, Work
from omniop.opset.legalise import stored_params

Array = Any
PrimMethod = Callable[[Any, Call, Sequence[Array]], Sequence[Array]]
"""``method(device, call, operands) -> results``, shaped as the call's result views."""


class ArrayDevice(Device):
    """See the module."""

    ops: ArrayOps
    prims: ClassVar[Mapping[str, PrimMethod]] = {}
    """Structured prims it takes whole."""

    def __init__(self, name: str, caps: Caps) -> None:
        self.name = name
        self.caps = caps
        self.kernels = KernelTable()

    @abstractmethod
    def contract(self, call: Call, a: Array, b: Array) -> Array:
        """Batched matrix product of strided arrays, in the call's accumulator dtype."""

    # Memory -----------------------------------------------------------------------------------------------------------

    def alloc(self, nbytes: int) -> Buffer:
        try:
            return np.empty(nbytes, np.uint8)
        except MemoryError:
            raise DeviceError(f"{self.name} has no memory left for {nbytes} bytes") from None

    def h2d(self, buffer: Buffer, array: np.ndarray) -> None:
        buffer[: array.nbytes] = array.reshape(-1).view(np.uint8)

    def d2h(self, array: np.ndarray, buffer: Buffer) -> None:
        array.reshape(-1).view(np.uint8)[...] = buffer[: array.nbytes]

    def typed(self, buffer: Buffer, dtype: DType) -> Array:
        """A buffer as a flat array of ``dtype``."""
        return buffer[: len(buffer) // dtype.itemsize * dtype.itemsize].view(dtype.numpy)

    # Work -------------------------------------------------------------------------------------------------------------

    def accepts(self, op: OpContext) -> Answer:
        if op.op == "contract" or op.op in self.prims:
            return YES
        return No("expands", f"{self.name} runs {op.op} by its expansion")

    def accepts_epilogue(self, prim: str) -> bool:
        return prim == "contract" or prim in self.prims

    def build(self, works: Sequence[Work]) -> list[Runnable]:
        return [self.build_kernel(w) if isinstance(w, Kernel) else self.build_call(w) for w in works]

    def build_kernel(self, kernel: Kernel) -> Runnable:
        evaluator = KernelEvaluator(kernel, self.ops)

        def run(buffers: Sequence[Buffer], sizes: Sequence[int]) -> None:
            evaluator([self.typed(b, p.dtype) for b, p in zip(buffers, kernel.params, strict=True)], sizes)

        return run

    def build_call(self, call: Call) -> Runnable:
        if call.tuned is not None:
            return self.kernels.named(call.tuned).make(self, call)
        finish = None if call.epilogue is None else self._epilogue(call)
        stored = [p.dtype for p in stored_params(call, self.caps)]

        def run(buffers: Sequence[Buffer], sizes: Sequence[int]) -> None:
            arrays = [self.typed(b, d) for b, d in zip(buffers, stored, strict=True)]
            names = size_names(sizes)
            operands = [view_of(v, arrays, names, self.ops) for v in call.operands]
            if call.prim == "contract":
                results: Sequence[Array] = [self.contract(call, *operands)]
            else:
                results = self.prims[call.prim](self, call, operands)
            if finish is not None:
                finish(results[0], arrays, sizes)
                return
            for value, view in zip(results, call.results, strict=True):
                self.ops.assign(view_of(view, arrays, names, self.ops), self.ops.cast(value, view.dtype))

        return run

    def _epilogue(self, call: Call) -> Callable[[Array, Sequence[Array], Sequence[int]], None]:
        """The epilogue as a kernel of its own that reads the prim's value from one more buffer."""
        assert call.epilogue is not None
        view = call.results[0]
        holes = [n for n in expr.walk(call.epilogue) if n.op == "hole"]
        axes = tuple(expr.axis(k, d) for k, d in enumerate(view.shape))
        place, target = expr.index(0), view.offset
        for a, d, s in zip(axes, view.shape, view.strides, strict=True):
            place, target = place * d + a, target + a * s
        dtype = holes[0].dtype
        loads: dict[Expr, Expr] = {h: expr.load(len(call.params), (place,), dtype) for h in holes}
        value = expr.substitute(call.epilogue, loads)
        kernel = Kernel(
            (*stored_params(call, self.caps), Param(dtype)), axes, (Store(view.buffer, target, value),), call.sizes
        )
        evaluator = KernelEvaluator(kernel, self.ops)

        def finish(result: Array, arrays: Sequence[Array], sizes: Sequence[int]) -> None:
            flat = self.ops.reshape(self.ops.cast(result, dtype), (-1,))
            evaluator([*arrays, flat], sizes)

        return finish
