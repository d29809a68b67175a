"""Inputs and outputs bound to a session ahead of its runs. Values are in host memory, whatever the device."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from omniop.opset import dtype as dtypes
from omniop.opset.errors import FeedError

if TYPE_CHECKING:
    from omniop.ort.session import InferenceSession

HOST = "cpu"


class OrtValue:
    """A feed or a result: an array, a list or a dict, in host memory.

    ``device_type`` is taken as onnxruntime takes it and changes nothing: a device gets a copy when a run needs one.
    """

    def __init__(self, value: Any) -> None:
        self._value = value

    @staticmethod
    def ortvalue_from_numpy(array: np.ndarray, device_type: str = HOST, device_id: int = 0) -> OrtValue:
        """A value on the memory of ``array``."""
        return OrtValue(np.asarray(array))

    @staticmethod
    def ortvalue_from_shape_and_type(
        shape: Sequence[int], element_type: Any = np.float32, device_type: str = HOST, device_id: int = 0
    ) -> OrtValue:
        """A tensor to be written to; ``element_type`` is numpy's or a TensorProto.DataType number."""
        return OrtValue(np.zeros(tuple(shape), numpy_dtype(element_type)))

    def numpy(self) -> np.ndarray:
        """The tensor. Raises FeedError for a sequence or a map."""
        if not isinstance(self._value, np.ndarray):
            raise FeedError(f"the value is no tensor but a {type(self._value).__name__}")
        return self._value

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def value(self) -> Any:
        return self._value

    def shape(self) -> list[int]:
        return list(self.numpy().shape)

    def element_type(self) -> int:
        """The TensorProto.DataType number."""
        return dtypes.of_numpy(self.numpy().dtype).onnx

    def data_type(self) -> str:
        """As `NodeArg.type`: ``tensor(float)``."""
        from omniop.ort.session import tensor_type_text

        return tensor_type_text(self.element_type())

    def device_name(self) -> str:
        return HOST

    def data_ptr(self) -> int:
        return int(self.numpy().ctypes.data)

    def tensor_size_in_bytes(self) -> int:
        return self.numpy().nbytes

    def has_value(self) -> bool:
        return self._value is not None

    def is_tensor(self) -> bool:
        return isinstance(self._value, np.ndarray)

    def is_tensor_sequence(self) -> bool:
        return isinstance(self._value, list) and all(isinstance(v, np.ndarray) for v in self._value)

    def update_inplace(self, array: np.ndarray) -> None:
        """Write another array of this shape and dtype into the tensor's memory. Raises FeedError for any other."""
        mine = self.numpy()
        if array.shape != mine.shape or array.dtype != mine.dtype:
            raise FeedError(
                f"update_inplace: an array of {mine.dtype} {list(mine.shape)} is needed, "
                f"this is {array.dtype} {list(array.shape)}"
            )
        mine[...] = array


def plain(value: Any) -> Any:
    """What a feed holds: the content of an OrtValue, anything else as it is."""
    return value.value() if isinstance(value, OrtValue) else value


def numpy_dtype(element_type: Any) -> np.dtype:
    """Of a numpy type or a TensorProto.DataType number. Raises FeedError."""
    try:
        return dtypes.of_onnx(element_type).numpy if isinstance(element_type, int) else np.dtype(element_type)
    except (KeyError, TypeError):
        raise FeedError(f"{element_type!r} is no element type") from None


class IOBinding:
    """Feeds and targets kept for several runs; made by `InferenceSession.io_binding`.

    Bound arrays are read when a run starts, so what is written to them before it counts.
    """

    def __init__(self, session: InferenceSession) -> None:
        self.session = session
        self._feeds: dict[str, Any] = {}
        self._targets: dict[str, np.ndarray | None] = {}
        self._results: list[OrtValue] = []

    # Inputs -----------------------------------------------------------------------------------------------------------

    def bind_cpu_input(self, name: str, arr_on_cpu: Any) -> None:
        self._feeds[self._known(name, self.session.input_names(), "input")] = arr_on_cpu

    def bind_ortvalue_input(self, name: str, ortvalue: OrtValue) -> None:
        self.bind_cpu_input(name, ortvalue)

    def bind_input(
        self, name: str, device_type: str, device_id: int, element_type: Any, shape: Sequence[int], buffer_ptr: int
    ) -> None:
        """Host memory by its address, which has to stay valid until the runs are done."""
        self.bind_cpu_input(name, _memory_at(name, device_type, element_type, shape, buffer_ptr))

    def clear_binding_inputs(self) -> None:
        self._feeds.clear()

    def synchronize_inputs(self) -> None:
        """Nothing is under way between runs."""

    # Outputs ----------------------------------------------------------------------------------------------------------

    def bind_output(
        self,
        name: str,
        device_type: str = HOST,
        device_id: int = 0,
        element_type: Any = None,
        shape: Sequence[int] | None = None,
        buffer_ptr: int | None = None,
    ) -> None:
        """Ask for an output: in memory of its own, or written to host memory at ``buffer_ptr``."""
        target = None
        if buffer_ptr is not None:
            if element_type is None or shape is None:
                raise FeedError(f"output {name!r}: element_type and shape go with buffer_ptr")
            target = _memory_at(name, device_type, element_type, shape, buffer_ptr)
        self._targets[self._known(name, self.session.output_names(), "output")] = target

    def bind_ortvalue_output(self, name: str, ortvalue: OrtValue) -> None:
        """Have an output written to the tensor's memory."""
        self._targets[self._known(name, self.session.output_names(), "output")] = ortvalue.numpy()

    def clear_binding_outputs(self) -> None:
        self._targets.clear()

    def synchronize_outputs(self) -> None:
        """Outputs are there when a run returns."""

    def get_outputs(self) -> list[OrtValue]:
        """Of the last run, in the order in which they were bound."""
        return list(self._results)

    def copy_outputs_to_cpu(self) -> list[Any]:
        return [value.value() for value in self._results]

    # A run ------------------------------------------------------------------------------------------------------------

    def feeds(self) -> Mapping[str, Any]:
        return self._feeds

    def targets(self) -> list[str]:
        return list(self._targets)

    def deliver(self, results: Sequence[Any]) -> None:
        """Take the outputs of a run. Raises FeedError when one does not fit the memory that it is bound to."""
        delivered: list[OrtValue] = []
        for (name, target), result in zip(self._targets.items(), results, strict=True):
            if target is None:
                delivered.append(OrtValue(result))
                continue
            if result.shape != target.shape or result.dtype != target.dtype:
                raise FeedError(
                    f"output {name!r} is {result.dtype} {list(result.shape)}, "
                    f"and bound to memory for {target.dtype} {list(target.shape)}"
                )
            target[...] = result
            delivered.append(OrtValue(target))
        self._results = delivered

    def _known(self, name: str, names: Sequence[str], kind: str) -> str:
        if name not in names:
            raise FeedError(f"the model has no {kind} {name!r}; it has: {', '.join(names) or 'none'}")
        return name


def _memory_at(name: str, device_type: str, element_type: Any, shape: Sequence[int], address: int) -> np.ndarray:
    if device_type != HOST:
        raise FeedError(f"{name!r}: memory of {device_type} cannot be bound by its address; bind an array on the host")
    dtype, extents = numpy_dtype(element_type), tuple(int(n) for n in shape)
    memory = (ctypes.c_uint8 * (int(np.prod(extents, dtype=np.int64)) * dtype.itemsize)).from_address(address)
    return np.ctypeslib.as_array(memory).view(dtype).reshape(extents)
