"""A matrix product as our kernels are launched for it: a batch of two axes, and which operand is which."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import prod

from omniop.backends.codegen.product import Matrix, Product


@dataclass(frozen=True)
class Problem(Product):
    """``swapped``: a and b are swapped, and c is the transpose of the result. ``first``: place of the first product in
    the whole batch."""

    swapped: bool = False
    first: int = 0

    def flipped(self) -> Problem:
        return replace(super().flipped(), swapped=not self.swapped)

    def launches(self) -> Iterator[Problem]:
        """Problems of exactly two batch axes that add up to this one."""
        outer, inner = self.batch[:-2], self.batch[-2:]
        padding = (0,) * (2 - len(inner))
        for place in product(*map(range, outer)):
            linear = 0
            for i, extent in zip(place, outer, strict=True):
                linear = linear * extent + i
            matrices = (x.at(place) for x in self.matrices)
            a, b, c = (replace(x, batch=(*padding, *x.batch)) for x in matrices)
            batch = (*(1 for _ in padding), *inner)
            yield replace(self, batch=batch, a=a, b=b, c=c, first=linear * prod(inner))

    def dense(self) -> Problem:
        """With an ``a`` that is one row after the other."""
        return replace(self, a=Matrix(0, (self.batch[1] * self.m * self.k, self.m * self.k), self.k, 1))

    def packed(self, rows: int = 0, columns: int = 0, dense: bool = False, panels: int = 0) -> bytes:
        """The kernels' ``Gemm`` struct (gemm.h)."""
        matrices = (v for x in self.matrices for v in (x.offset, *x.batch, x.row, x.column))
        numbers = (self.m, self.n, self.k, *matrices, self.batch[-1], self.first, self.swapped)
        return _STRUCT.pack(*map(int, (*numbers, rows, columns, dense, panels)))


_STRUCT = struct.Struct("<25q")
