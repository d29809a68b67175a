"""Values at run time: numpy arrays on the host, tensors on a device, lists (sequences), dicts (maps) and None (an empty
optional)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from omniop.backends.base import Buffer, Device
from omniop.opset.dtype import DType


@dataclass(eq=False, repr=False)
class DeviceTensor:
    """A row-major tensor in a buffer of a device.

    ``dims``: an int where the dim is the same for all shapes, None where it is not.
    """

    device: Device
    buffer: Buffer
    shape: tuple[int, ...]
    dtype: DType
    dims: tuple[int | None, ...]
    fresh: bool = False
    """Made by this run, in memory that is nobody else's."""

    def numpy(self) -> np.ndarray:
        """A copy on the host."""
        array = np.empty(self.shape, self.dtype.numpy)
        if array.size:
            self.device.d2h(array, self.buffer)
        return array


RuntimeValue = Any
"""np.ndarray | DeviceTensor | list[RuntimeValue] | Mapping[int | str, float | int | str] | None."""


def to_host(value: RuntimeValue) -> Any:
    """The value with every tensor as a numpy array."""
    if isinstance(value, DeviceTensor):
        return value.numpy()
    if isinstance(value, list):
        return [to_host(v) for v in value]
    return value


def signature(value: RuntimeValue) -> tuple[object, ...]:
    """What a template is traced for: kind, dtype, rank and the dims that never change."""
    if isinstance(value, DeviceTensor):
        return ("device", value.device.name, value.dtype.name, value.dims)
    if isinstance(value, np.ndarray):
        return ("host", value.dtype, value.ndim)
    return (type(value).__name__,)
