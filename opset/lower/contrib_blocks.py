"""com.microsoft: weights packed in 2, 4 or 8 bits, in blocks that have a scale and a zero point each.

They stay packed on the device, and are unpacked where they are read.
"""

from __future__ import annotations

from dataclasses import dataclass

from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.contrib import DOMAIN
from omniop.opset.definitions import Tensor
from omniop.opset.dtype import UINT8, DType
from omniop.opset.errors import ModelError
from omniop.opset.expr import Expr
from omniop.opset.lower.common import at_most, axis_of, require_equal, require_rank, require_shape
from omniop.opset.lower.windows import ceil_div
from omniop.opset.lowering import Node, lowering
from omniop.opset.sym import Dim, as_expr, product

FEW_ROWS = 4
"""Up to so many rows of A the weights are unpacked for each, which reads them once; for more, once into a buffer."""


def packed_at(t: Tensor, bits: int, lead: tuple[Expr, ...], place: Expr) -> Expr:
    """Element ``place`` along the last axis of uint8 ``t``, whose bytes hold 8 / bits each, the lowest bits first."""
    per_byte = 8 // bits
    if per_byte == 1:
        return t.at(*lead, place)
    shift = expr.cast(place % per_byte * bits, UINT8)
    return expr.binary("shr", t.at(*lead, place // per_byte), shift) & ((1 << bits) - 1)


def _bits(node: Node) -> int:
    bits: int = node.attr("bits", 4)
    if bits not in (2, 4, 8):
        raise node.unsupported(f"{bits} bits; 2, 4 and 8 would work")
    return bits


@lowering("MatMulNBits", domain=DOMAIN)
def matmul_nbits(
    node: Node,
    a: Tensor,
    b: Tensor,
    scales: Tensor,
    zeros: Tensor | None = None,
    groups: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor:
    """a [..., K], b [N, blocks, bytes], scales [N, blocks], zeros [N, bytes] packed like b or [N, blocks] of floats."""
    if groups is not None:
        raise node.unsupported("input 'g_idx', which is deprecated; it works without")
    if node.attr("weight_prepacked", 0):
        raise node.unsupported(f"weight_prepacked {node.attr('weight_prepacked')}, a device's own layout; 0 would work")
    depth, columns = node.attr("K"), node.attr("N")
    require_equal(node, a.shape[-1], depth, "columns of A against K")
    weights = _Weights.of(node, b, scales, zeros, p.accumulator(a.dtype))
    rows = product(a.shape[:-1])
    flat = p.reshape(a, [rows, depth])
    if at_most(rows, FEW_ROWS):
        y = _few_rows(flat, weights)
    else:
        unpacked = p.map_of([columns, depth], weights.at, folds=False)
        y = p.contract(p.cast(flat, weights.wide), p.transpose(unpacked, (1, 0)))
    if bias is not None:
        y = p.elementwise(lambda e, c: e + expr.cast(c, e.dtype), y, bias)
    return p.reshape(p.cast(y, a.dtype), [*a.shape[:-1], columns])


@dataclass(frozen=True)
class _Weights:
    """[columns, depth] as `matmul_nbits` has them; ``wide`` is the dtype to compute in."""

    packed: Tensor
    scales: Tensor
    zeros: Tensor | None
    bits: int
    block: int
    wide: DType

    @classmethod
    def of(cls, node: Node, b: Tensor, scales: Tensor, zeros: Tensor | None, wide: DType) -> _Weights:
        """Raises ModelError when the shapes do not fit the attributes."""
        bits, block, columns = _bits(node), node.attr("block_size"), node.attr("N")
        blocks = -(-node.attr("K") // block)
        require_shape(node, b, [columns, blocks, block * bits // 8], "B")
        if zeros is not None:
            width = -(-blocks * bits // 8) if zeros.dtype is UINT8 else blocks
            zeros = _per_block(node, zeros, columns, width, "zero_points")
        return cls(b, _per_block(node, scales, columns, blocks, "scales"), zeros, bits, block, wide)

    def zero(self, n: Expr, group: Expr) -> Expr:
        if self.zeros is None:
            return expr.const(1 << (self.bits - 1), self.wide)
        packed = self.zeros.dtype is UINT8
        own = packed_at(self.zeros, self.bits, (n,), group) if packed else self.zeros.at(n, group)
        return expr.cast(own, self.wide)

    def scale(self, n: Expr, group: Expr) -> Expr:
        return expr.cast(self.scales.at(n, group), self.wide)

    def at(self, n: Expr, k: Expr) -> Expr:
        """The weight of column n at depth k."""
        group = k // self.block
        value = expr.cast(packed_at(self.packed, self.bits, (n, group), k % self.block), self.wide)
        return (value - self.zero(n, group)) * self.scale(n, group)


def _few_rows(a: Tensor, weights: _Weights) -> Tensor:
    """The product byte by byte: what a byte holds is unpacked with constant shifts, and scaled once for each byte."""
    rows, depth = a.shape
    columns, blocks, width = weights.packed.shape
    bits, wide, per_byte = weights.bits, weights.wide, 8 // weights.bits
    whole = isinstance(depth, int) and depth % weights.block == 0

    def term(m: Expr, n: Expr, group: Expr, place: Expr) -> Expr:
        byte, zero = weights.packed.at(n, group, place), weights.zero(n, group)
        total = expr.const(0.0, wide)
        for j in range(per_byte):
            k = group * weights.block + place * per_byte + j
            own = a.at(m, k, guard=None if whole else k < as_expr(depth))
            number = expr.binary("shr", byte, j * bits) & ((1 << bits) - 1)
            total = total + expr.cast(own, wide) * (expr.cast(number, wide) - zero)
        return total * weights.scale(n, group)

    return p.reduce_of([rows, columns], [blocks, width], "add", term)


def _per_block(node: Node, t: Tensor, columns: int, width: int, what: str) -> Tensor:
    """[columns, width], of which older models have one axis made."""
    require_equal(node, product(t.shape), columns * width, f"elements of {what}")
    return p.reshape(t, [columns, width])


_GATHER_ZEROS = {"uint8": True, "uint4": False, "int4": False}
"""The dtypes of quantized data; whether, left out, the zero point is the middle of the range."""


@lowering("GatherBlockQuantized", domain=DOMAIN)
def gather_block_quantized(
    node: Node, data: Tensor, indices: Tensor, scales: Tensor, zeros: Tensor | None = None
) -> Tensor:
    """Gather along ``gather_axis``, dequantized; zeros where an index is out of range. In uint8 data and zero points
    the last axis is packed."""
    if data.dtype.name not in _GATHER_ZEROS:
        raise node.unsupported(f"data of {data.dtype}; {', '.join(_GATHER_ZEROS)} would work")
    packed = data.dtype is UINT8
    bits = _bits(node) if packed else 8
    axis = axis_of(node, node.attr("gather_axis"), data.rank)
    blocked = axis_of(node, node.attr("quantize_axis"), data.rank)
    block = node.attr("block_size")
    if axis == blocked:
        raise ModelError(f"{node.label}: gather_axis and quantize_axis are both {axis}")
    shape: list[Dim] = [*data.shape[:-1], data.shape[-1] * (8 // bits)]
    expected = [ceil_div(d, block) if k == blocked else d for k, d in enumerate(shape)]
    require_rank(node, scales, data.rank)
    require_shape(node, scales, expected, "scales")
    wide = p.accumulator(scales.dtype)
    middle = 1 << (bits - 1) if _GATHER_ZEROS[data.dtype.name] else 0

    def element(*i: Expr) -> Expr:
        place = expr.index(indices.at(*i[axis : axis + indices.rank]))
        extent = as_expr(data.shape[axis])
        place = expr.select(place < 0, place + extent, place)
        valid = (place >= 0) & (place < extent)
        at = [*i[:axis], expr.select(valid, place, 0), *i[axis + indices.rank :]]
        group = [a // block if k == blocked else a for k, a in enumerate(at)]
        value = expr.cast(packed_at(data, bits, tuple(at[:-1]), at[-1]), wide)
        if zeros is None:
            zero = expr.const(middle, wide)
        else:
            zero = expr.cast(packed_at(zeros, bits, tuple(group[:-1]), group[-1]), wide)
        result = (value - zero) * expr.cast(scales.at(*group), wide)
        return expr.cast(expr.select(valid, result, 0), scales.dtype)

    return p.map_of([*shape[:axis], *indices.shape, *shape[axis + 1 :]], element)
