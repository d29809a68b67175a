"""The reference backend: numpy, plain, slow. What a prim means, in code.

It takes nothing whole: every structured prim reaches it expanded into map, contract and scatter.
"""

from __future__ import annotations

import numpy as np

from omniop.backends.array_device import ArrayDevice
from omniop.backends.base import Backend, Caps, Device, Fingerprint
from omniop.backends.reference.numpy_ops import NUMPY
from omniop.opset import dtype as dtypes
from omniop.opset.kernel import Call

_ALL = frozenset(d for d in dtypes.ALL if d.kind in "biuf")


class ReferenceDevice(ArrayDevice):
    """Host memory as bytes; kernels by `array_eval`, products by numpy in the accumulator's dtype."""

    ops = NUMPY

    def __init__(self) -> None:
        super().__init__("reference", Caps(storage=_ALL, compute=_ALL, max_buffers=64))
        self.fingerprint = Fingerprint("numpy", "reference", "any", np.__version__)

    def contract(self, call: Call, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        wide = call.attr("accumulate").numpy
        with np.errstate(all="ignore"):
            return np.matmul(a.astype(wide), b.astype(wide))


class ReferenceBackend(Backend):
    name = "reference"

    def devices(self) -> list[Device]:
        return [ReferenceDevice()]


BACKEND = ReferenceBackend()
