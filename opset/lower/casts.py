"""Changing the element type: by value, or by the bits."""

from __future__ import annotations

import ml_dtypes

from omniop.opset import dtype as dtypes
from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.definitions import Tensor
from omniop.opset.dtype import FLOAT32, INT32, STRING, UINT8, UINT32, DType
from omniop.opset.expr import Expr
from omniop.opset.lower.common import choice
from omniop.opset.lowering import Node, Value, lowering

_OLD_NAMES = {"FLOAT": "float32", "DOUBLE": "float64"}
"""TensorProto names, as Cast-1 has them, that are not ours in capitals."""

_SATURATING = (
    dtypes.FLOAT8E4M3FN,
    dtypes.FLOAT8E4M3FNUZ,
    dtypes.FLOAT8E5M2,
    dtypes.FLOAT8E5M2FNUZ,
)

_INFINITE = (dtypes.FLOAT8E5M2,)
"""Those that hold an infinity, which a saturating cast makes the largest number, also from the type to itself."""


@lowering("Cast")
def cast(node: Node, x: Tensor) -> Tensor:
    to = node.attr("to")
    target = dtypes.of_name(_OLD_NAMES.get(to, to.lower())) if isinstance(to, str) else dtypes.of_onnx(to)
    return _cast(node, x, target)


@lowering("CastLike")
def cast_like(node: Node, x: Tensor, like: Value) -> Tensor:
    return _cast(node, x, like.dtype)


def _cast(node: Node, x: Tensor, target: DType) -> Tensor:
    if STRING in (x.dtype, target):
        raise node.unsupported(f"a cast from {x.dtype} to {target} belongs on the host")
    saturates = target in _SATURATING and bool(node.attr("saturate", 1))
    if target is x.dtype and not (saturates and target in _INFINITE):
        return x
    if target is dtypes.FLOAT8E8M0:
        thresholds, saturate = choice(node, "round_mode", ROUND_UP_FROM, "up"), bool(node.attr("saturate", 1))
        return p.elementwise(lambda e: to_e8m0(e, *thresholds, saturate), x)
    if target in _SATURATING and x.dtype.kind != "b":
        return p.elementwise(lambda e: to_float8(e, target, saturates), x)
    if target.is_int and target.bits < 8 and x.dtype.is_float:
        return p.cast(p.cast(x, INT32), target)  # the suite wraps what is out of range, as from an integer
    return p.cast(x, target)


def to_float8(x: Expr, target: DType, saturate: bool) -> Expr:
    """To an 8-bit float; out of range gives the largest number, or else infinity (NaN where the type has none)."""
    wide = x if x.dtype.is_float and x.dtype.bits >= 32 else expr.cast(x, FLOAT32)
    if saturate:
        limit = float(ml_dtypes.finfo(target.numpy).max)  # type: ignore[no-untyped-call]
        wide = expr.minimum(expr.maximum(wide, -limit), limit)
    return expr.cast(wide, target)


ROUND_UP_FROM = {"up": (1, 0x400001), "nearest": (0x400000, 0x600000), "down": (1 << 23, 1 << 23)}
"""The least fraction bits of a float32 that round to the next power of two: of a normal number, and of a subnormal
one, whose bit 22 is the least power of two that there is."""


def to_e8m0(x: Expr, normal: int, subnormal: int, saturate: bool) -> Expr:
    """A power of two near a positive number: float32's biased exponent, rounded by what the fraction holds."""
    bits = expr.bitcast(expr.cast(x, FLOAT32), UINT32)
    exponent, fraction = expr.alu("shr", bits, expr.const(23, UINT32)) & 0xFF, bits & 0x7FFFFF
    threshold = expr.select(exponent.eq(0), expr.const(subnormal, UINT32), normal)
    rounded = expr.select(fraction >= threshold, exponent + 1, exponent)
    if saturate:
        rounded = expr.minimum(rounded, 0xFE)
        rounded = expr.select(exponent.eq(0xFF) & fraction.ne(0), 0xFF, rounded)
    else:
        rounded = expr.select(exponent.eq(0xFF) | (exponent.eq(0) & (fraction < 0x400000)), 0xFF, rounded)
    return expr.bitcast(expr.cast(rounded, UINT8), dtypes.FLOAT8E8M0)


@lowering("BitCast")
def bit_cast(node: Node, x: Tensor) -> Tensor:
    target = dtypes.of_onnx(node.attr("to"))
    return p.elementwise(lambda e: expr.bitcast(e, target), x)
