"""A matrix product's numbers in one run, and the vendor library's products that it comes to, where it does.

The library takes row-major matrices, transposed or not, and a batch of one axis.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from omniop.backends.cuda.driver import Gemm

_MOST_PRODUCTS = 64
"""More calls of the library cost more than one launch of our kernel."""
_MOST = (1 << 31) - 1
"""Of what the library counts in 32 bits."""


@dataclass(frozen=True)
class Matrix:
    """Where elements lie: an offset, and the strides of the batch axes, of a row and of a column."""

    offset: int
    batch: tuple[int, ...]
    row: int
    column: int

    def transposed(self) -> Matrix:
        return replace(self, row=self.column, column=self.row)

    def leading(self, rows: int, columns: int) -> int | None:
        """The distance of rows, where columns are neighbours and rows do not overlap. One of either fits anything."""
        neighbours = columns == 1 or self.column == 1
        distance = columns if rows == 1 else self.row
        return distance if neighbours and columns <= distance <= _MOST else None

    def operand(self, rows: int, columns: int) -> tuple[int, bool] | None:
        """Its leading distance, and whether the library has to transpose it; None when it cannot read it."""
        distance = self.leading(rows, columns)
        if distance is not None:
            return distance, False
        distance = self.transposed().leading(columns, rows)
        return None if distance is None else (distance, True)


@dataclass(frozen=True)
class Product:
    """c[batch] = a[batch] (m x k) times b[batch] (k x n); at least one element each."""

    batch: tuple[int, ...]
    m: int
    n: int
    k: int
    a: Matrix
    b: Matrix
    c: Matrix

    @property
    def matrices(self) -> tuple[Matrix, Matrix, Matrix]:
        return self.a, self.b, self.c

    @property
    def batches(self) -> int:
        return prod(self.batch)

    def into_rows(self) -> Product:
        """The same product with a result that lies row-major from 0."""
        extents = (*self.batch, self.m, self.n)
        strides = [prod(extents[k + 1 :]) for k in range(len(extents))]
        return replace(self, c=Matrix(0, tuple(strides[:-2]), strides[-2], strides[-1]))

    def gemms(self, dtype: str, result: str) -> list[Gemm] | None:
        """The library's products that add up to this one, in the order of the batch; None when there are none."""
        product = self._merged()
        if product.c.leading(product.m, product.n) is None:
            product = product._flipped()
        m, n, k = product.m, product.n, product.k
        a, b, ldc = product.a.operand(m, k), product.b.operand(k, n), product.c.leading(m, n)
        outer, inner = product.batch[:-1], product.batch[-1:]
        if a is None or b is None or ldc is None:
            return None
        if prod(outer) > _MOST_PRODUCTS or max(m, n, k, *inner) > _MOST:
            return None
        a_step, b_step, c_step = (x.batch[-1] if inner else 0 for x in product.matrices)
        every = Gemm(
            dtype, m, n, k, a[0], b[0], ldc, prod(inner), a_step, b_step, c_step,
            transpose_a=a[1], transpose_b=b[1], result=result,
        )  # fmt: skip
        made = []
        for place in itertools.product(*map(range, outer)):
            first = [x.offset + _dot(place, x.batch) for x in product.matrices]
            made.append(replace(every, offset_a=first[0], offset_b=first[1], offset_c=first[2]))
        return made

    def _flipped(self) -> Product:
        """The same product of the transposes."""
        a, b, c = (x.transposed() for x in self.matrices)
        return replace(self, m=self.n, n=self.m, a=b, b=a, c=c)

    def _merged(self) -> Product:
        """With as few batch axes as its strides allow; an axis that b does not have becomes rows of a."""
        product = self
        for k in reversed(range(len(self.batch))):
            if product.batch[k] == 1:
                product = product._without(k)
        while product.batch and product._rows_go_on():
            product = product._with_more_rows()
        for k in reversed(range(len(product.batch) - 1)):
            extent = product.batch[k + 1]
            if all(x.batch[k] == x.batch[k + 1] * extent for x in product.matrices):
                joined = (*product.batch[:k], product.batch[k] * extent, *product.batch[k + 2 :])
                product = replace(product._without(k), batch=joined)
        return product

    def _rows_go_on(self) -> bool:
        """The last batch axis goes on where the rows end."""
        below = self.m == 1 or all(x.batch[-1] == x.row * self.m for x in (self.a, self.c))
        return below and self.b.batch[-1] == 0

    def _with_more_rows(self) -> Product:
        """Its last batch axis as rows. The stride of a single row said nothing."""
        product = replace(self._without(len(self.batch) - 1), m=self.m * self.batch[-1])
        if self.m > 1:
            return product
        a, c = (replace(x, row=old.batch[-1]) for x, old in ((product.a, self.a), (product.c, self.c)))
        return replace(product, a=a, c=c)

    def _without(self, axis: int) -> Product:
        a, b, c = (replace(x, batch=_drop(x.batch, axis)) for x in self.matrices)
        return replace(self, batch=_drop(self.batch, axis), a=a, b=b, c=c)


def _drop(values: tuple[int, ...], place: int) -> tuple[int, ...]:
    return (*values[:place], *values[place + 1 :])


def _dot(place: Sequence[int], strides: Sequence[int]) -> int:
    return sum(i * s for i, s in zip(place, strides, strict=False))
