"""Element types: ONNX's, by the names numpy and ml_dtypes give them.

A `DType` is a value: two of the same name are the same object. Storage is one element per ``itemsize`` bytes;
4- and 2-bit integers are held one to a byte on devices, as ml_dtypes holds them on the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class DType:
    """One element type.

    ``kind``: ``b`` bool, ``i`` signed, ``u`` unsigned, ``f`` floating, ``c`` complex, ``s`` string (host only).
    ``bits`` is the width of a value; ``onnx`` the TensorProto.DataType number.
    """

    name: str
    kind: str
    bits: int
    onnx: int

    @property
    def itemsize(self) -> int:
        """Bytes of one stored element."""
        return max(1, self.bits // 8)

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    @property
    def is_int(self) -> bool:
        return self.kind in "iu"

    @property
    def is_signed(self) -> bool:
        return self.kind in "if"

    @cached_property
    def numpy(self) -> np.dtype:
        """The numpy (or ml_dtypes) dtype of host arrays."""
        import numpy

        if self.kind == "s":
            return numpy.dtype(object)
        if hasattr(numpy, self.name):
            return numpy.dtype(self.name)
        import ml_dtypes  # few models need it

        return numpy.dtype(getattr(ml_dtypes, self.name, None) or self.name)

    def __repr__(self) -> str:
        return self.name

    def __reduce__(self) -> str | tuple[object, ...]:
        return (of_name, (self.name,))


BOOL = DType("bool", "b", 8, 9)
INT8 = DType("int8", "i", 8, 3)
INT16 = DType("int16", "i", 16, 5)
INT32 = DType("int32", "i", 32, 6)
INT64 = DType("int64", "i", 64, 7)
UINT8 = DType("uint8", "u", 8, 2)
UINT16 = DType("uint16", "u", 16, 4)
UINT32 = DType("uint32", "u", 32, 12)
UINT64 = DType("uint64", "u", 64, 13)
FLOAT16 = DType("float16", "f", 16, 10)
BFLOAT16 = DType("bfloat16", "f", 16, 16)
FLOAT32 = DType("float32", "f", 32, 1)
FLOAT64 = DType("float64", "f", 64, 11)
COMPLEX64 = DType("complex64", "c", 64, 14)
COMPLEX128 = DType("complex128", "c", 128, 15)
STRING = DType("string", "s", 8, 8)
FLOAT8E4M3FN = DType("float8_e4m3fn", "f", 8, 17)
FLOAT8E4M3FNUZ = DType("float8_e4m3fnuz", "f", 8, 18)
FLOAT8E5M2 = DType("float8_e5m2", "f", 8, 19)
FLOAT8E5M2FNUZ = DType("float8_e5m2fnuz", "f", 8, 20)
FLOAT8E8M0 = DType("float8_e8m0fnu", "f", 8, 24)
FLOAT4E2M1 = DType("float4_e2m1fn", "f", 4, 23)
UINT4 = DType("uint4", "u", 4, 21)
INT4 = DType("int4", "i", 4, 22)
UINT2 = DType("uint2", "u", 2, 25)
INT2 = DType("int2", "i", 2, 26)
FLOAT6E2M3 = DType("float6_e2m3fn", "f", 6, 27)
FLOAT6E3M2 = DType("float6_e3m2fn", "f", 6, 28)

ALL = tuple(value for value in globals().values() if isinstance(value, DType))
_BY_NAME = {dtype.name: dtype for dtype in ALL}
_BY_ONNX = {dtype.onnx: dtype for dtype in ALL}


def of_name(name: str) -> DType:
    """The dtype called ``name`` ("float32", "bfloat16", ...). Raises KeyError."""
    return _BY_NAME[name]


def of_onnx(number: int) -> DType:
    """The dtype of a TensorProto.DataType number. Raises KeyError."""
    return _BY_ONNX[number]


def of_numpy(dtype: np.dtype | type) -> DType:
    """The dtype of a host array; object and str arrays are strings. Raises KeyError."""
    import numpy

    dtype = numpy.dtype(dtype)
    return STRING if dtype.kind in "OUST" else _BY_NAME[dtype.name]
