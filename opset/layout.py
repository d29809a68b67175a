"""Layouts: where a buffer keeps the elements of a tensor.

A `Layout` maps a logical index to an element offset. Any kernel reads and writes any layout through this map, so a
layout is a property of a planned buffer and not of a kernel. Row-major is the layout of feeds, results and constants.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from omniop.opset import expr, poly
from omniop.opset.expr import Expr


@dataclass(frozen=True)
class Layout:
    """Physical dims in order, each an axis or a part of one.

    ``order``: (axis, block, part): part "whole" with block 0, or for an axis split in blocks "outer" (index // block)
    and "inner" (index % block). NCHW16c is ``((0,0,"whole"), (1,16,"outer"), (2,0,"whole"), (3,0,"whole"),
    (1,16,"inner"))``. The last block of an axis is padded: its extra elements are undefined.
    """

    name: str
    order: tuple[tuple[int, int, str], ...] = ()

    def physical_shape(self, shape: tuple[Expr, ...]) -> tuple[Expr, ...]:
        """Extents of the physical dims."""
        if not self.order:
            return shape
        extents: dict[str, Callable[[Expr, int], Expr]] = {
            "whole": lambda d, b: d,
            "outer": lambda d, b: poly.simplify((d + (b - 1)) // b),
            "inner": lambda d, b: expr.index(b),
        }
        return tuple(extents[part](shape[axis], block) for axis, block, part in self.order)

    def size(self, shape: tuple[Expr, ...]) -> Expr:
        """Elements of the buffer."""
        result = expr.index(1)
        for extent in self.physical_shape(shape):
            result = result * extent
        return poly.simplify(result)

    def offset(self, index: tuple[Expr, ...], shape: tuple[Expr, ...]) -> Expr:
        """Element offset of a logical index."""
        if not self.order:
            return poly.linear(index, shape)
        places: dict[str, Callable[[Expr, int], Expr]] = {
            "whole": lambda i, b: i,
            "outer": lambda i, b: i // b,
            "inner": lambda i, b: i % b,
        }
        physical = tuple(places[part](index[axis], block) for axis, block, part in self.order)
        return poly.linear(physical, self.physical_shape(shape))

    def __str__(self) -> str:
        return self.name


ROW_MAJOR = Layout("row-major")


def blocked(rank: int, axis: int, block: int) -> Layout:
    """Row-major with ``axis`` split in blocks, the inner part last: ``blocked(4, 1, 16)`` is NCHW16c."""
    letters = "NCDHW"[:2] + "DHW"[5 - rank :] if 3 <= rank <= 5 else "".join(chr(97 + k) for k in range(rank))
    order = [(k, block if k == axis else 0, "outer" if k == axis else "whole") for k in range(rank)]
    return Layout(f"{letters}{block}{letters[axis].lower()}", (*order, (axis, block, "inner")))
