"""The bytes of a model's tensors: how many there must be, and the numpy arrays made of them.

A file states sizes; nothing is allocated before they are compared with the data that is there.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import prod

import numpy as np
import onnx_ir as ir
from onnx import TensorProto

from omniop.opset.errors import ModelError

# Where a TensorProto without raw_data keeps its elements, and how many entries an element takes; else int32_data.
_TYPED_FIELDS = {
    ir.DataType.COMPLEX64: ("float_data", 2),
    ir.DataType.COMPLEX128: ("double_data", 2),
    ir.DataType.DOUBLE: ("double_data", 1),
    ir.DataType.FLOAT: ("float_data", 1),
    ir.DataType.INT64: ("int64_data", 1),
    ir.DataType.UINT32: ("uint64_data", 1),
    ir.DataType.UINT64: ("uint64_data", 1),
}
# Packed in int32_data as they are in raw_data, several to a byte; one byte an entry.
_PACKED_WIDTHS = (2, 4)


def element_count(dims: Iterable[int], what: str) -> int:
    """Product of static dims, in Python's integers. Raises ModelError on a negative or symbolic one."""
    dims = tuple(dims)
    if not all(isinstance(d, int) and d >= 0 for d in dims):
        raise ModelError(f"{what} has the shape {list(dims)}, and a stored tensor needs non-negative dims")
    return prod(dims)


def data_type(number: int, what: str) -> ir.DataType:
    """A TensorProto.DataType number as the enum. Raises ModelError when ONNX has no such type, or it is UNDEFINED."""
    try:
        dtype = ir.DataType(number)
    except ValueError:
        raise ModelError(f"{what} has the element type {number}, which ONNX does not define") from None
    if dtype == ir.DataType.UNDEFINED:
        raise ModelError(f"{what} has no element type")
    return dtype


def packed_bytes(dtype: ir.DataType, count: int) -> int:
    """Bytes that ``count`` elements take in raw or external data; sub-byte types are packed."""
    return -(-count * dtype.bitwidth // 8)


def check_tensor(tensor: ir.TensorProtocol, what: str) -> None:
    """Compare the shape a tensor states with the data it holds.

    ``what`` opens the messages: ``initializer "w"``. External data is the business of `external_data`.
    Raises ModelError when they differ; allocates nothing.
    """
    if isinstance(tensor, ir.StringTensor):
        _expect(len(tensor.string_data()), element_count(tensor.shape.numpy(), what), "strings", what)
    elif isinstance(tensor, ir.TensorProtoTensor):
        _check_proto(tensor.raw, what)


def _check_proto(proto: TensorProto, what: str) -> None:
    dtype = data_type(proto.data_type, what)
    count = element_count(proto.dims, what)
    if proto.HasField("segment"):
        raise ModelError(f"{what} is stored in segments, which ONNX never specified")
    if proto.HasField("raw_data"):
        _expect(len(proto.raw_data), packed_bytes(dtype, count), "bytes", what)
        return
    field, entries = _TYPED_FIELDS.get(dtype, ("int32_data", 1))
    expected = packed_bytes(dtype, count) if dtype.bitwidth in _PACKED_WIDTHS else entries * count
    _expect(len(getattr(proto, field)), expected, f"entries of {field}", what)


def _expect(found: int, expected: int, unit: str, what: str) -> None:
    if found != expected:
        raise ModelError(f"{what} holds {found} {unit} where its shape and type need {expected}")


def tensor_array(tensor: ir.TensorProtocol, what: str = "a tensor") -> np.ndarray:
    """The elements as a numpy array of the tensor's shape: ml_dtypes for bfloat16, float8 and the sub-byte types
    (one element a byte), Python strings in an object array for strings.

    Not copied where the storage allows: treat it as read-only. It may be unaligned when the data is external.
    Raises ModelError when the data does not fit the stated shape and type.
    """
    check_tensor(tensor, what)
    try:
        if tensor.dtype == ir.DataType.STRING:
            return _string_array(tensor)
        return tensor.numpy()
    except (AssertionError, TypeError, ValueError) as e:
        raise ModelError(f"{what} cannot be read: {e}") from e


def _string_array(tensor: ir.TensorProtocol) -> np.ndarray:
    items = tensor.string_data() if isinstance(tensor, ir.StringTensor) else tensor.numpy().reshape(-1)
    # Bytes that are not UTF-8 survive a round trip: encode(errors="surrogateescape") gives them back.
    texts = [s.decode("utf-8", "surrogateescape") if isinstance(s, bytes) else str(s) for s in items]
    return np.array(texts, dtype=object).reshape(tuple(tensor.shape.numpy()))
