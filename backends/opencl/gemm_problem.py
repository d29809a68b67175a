"""The numbers of a matrix product in one run: strides, a batch of two axes, and which operand is which."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import prod


@dataclass(frozen=True)
class Matrix:
    """Where elements lie: an offset, and the strides of the batch axes, of a row and of a column."""

    offset: int
    batch: tuple[int, ...]
    row: int
    column: int

    def transposed(self) -> Matrix:
        return replace(self, row=self.column, column=self.row)

    def at(self, place: Sequence[int]) -> Matrix:
        """Of the batch axes, the first ones at ``place``."""
        offset = self.offset + sum(i * s for i, s in zip(place, self.batch, strict=False))
        return replace(self, offset=offset, batch=self.batch[len(place) :])


@dataclass(frozen=True)
class Problem:
    """c[batch] = a[batch] (m x k) times b[batch] (k x n), at least 1 element each.

    ``flipped``: a and b are swapped, and c is the transpose of the result. ``first``: place of the first product in the
    whole batch.
    """

    batch: tuple[int, ...]
    m: int
    n: int
    k: int
    a: Matrix
    b: Matrix
    c: Matrix
    flipped: bool = False
    first: int = 0

    def flip(self) -> Problem:
        return replace(
            self,
            m=self.n,
            n=self.m,
            a=self.b.transposed(),
            b=self.a.transposed(),
            c=self.c.transposed(),
            flipped=not self.flipped,
        )

    def merged(self) -> Problem:
        """With as few batch axes as its strides allow; an axis that b does not have becomes rows of a."""
        problem = self._without(*(k for k, extent in enumerate(self.batch) if extent == 1))
        while problem.batch and problem._rows_continue():
            problem = problem._with_more_rows()
        for k in reversed(range(len(problem.batch) - 1)):
            if problem._continues(k):
                problem = problem._joined(k)
        return problem

    def _matrices(self) -> tuple[Matrix, Matrix, Matrix]:
        return self.a, self.b, self.c

    def _rows_continue(self) -> bool:
        """The last batch axis goes on where the rows end."""
        below = self.m == 1 or all(x.batch[-1] == x.row * self.m for x in (self.a, self.c))
        return below and self.b.batch[-1] == 0

    def _with_more_rows(self) -> Problem:
        """Its last batch axis as rows. The stride of a single row said nothing."""
        merged = replace(self._without(len(self.batch) - 1), m=self.m * self.batch[-1])
        if self.m > 1:
            return merged
        a, c = (replace(x, row=old.batch[-1]) for x, old in ((merged.a, self.a), (merged.c, self.c)))
        return replace(merged, a=a, c=c)

    def _continues(self, k: int) -> bool:
        return all(x.batch[k] == x.batch[k + 1] * self.batch[k + 1] for x in self._matrices())

    def _joined(self, k: int) -> Problem:
        batch = (*self.batch[:k], self.batch[k] * self.batch[k + 1], *self.batch[k + 2 :])
        a, b, c = (replace(x, batch=(*x.batch[:k], *x.batch[k + 1 :])) for x in self._matrices())
        return replace(self, batch=batch, a=a, b=b, c=c)

    def _without(self, *axes: int) -> Problem:
        kept = [k for k in range(len(self.batch)) if k not in axes]
        a, b, c = (replace(x, batch=tuple(x.batch[k] for k in kept)) for x in self._matrices())
        return replace(self, batch=tuple(self.batch[k] for k in kept), a=a, b=b, c=c)

    def launches(self) -> Iterator[Problem]:
        """Problems of exactly two batch axes that add up to this one."""
        outer, inner = self.batch[:-2], self.batch[-2:]
        padding = (0,) * (2 - len(inner))
        for place in product(*map(range, outer)):
            linear = 0
            for i, extent in zip(place, outer, strict=True):
                linear = linear * extent + i
            matrices = (x.at(place) for x in self._matrices())
            a, b, c = (replace(x, batch=(*padding, *x.batch)) for x in matrices)
            batch = (*(1 for _ in padding), *inner)
            yield replace(self, batch=batch, a=a, b=b, c=c, first=linear * prod(inner))

    def dense(self) -> Problem:
        """With an ``a`` that is one row after the other."""
        return replace(self, a=Matrix(0, (self.batch[1] * self.m * self.k, self.m * self.k), self.k, 1))

    def packed(self, rows: int = 0, columns: int = 0, dense: bool = False, panels: int = 0) -> bytes:
        """The kernels' ``Gemm`` struct (gemm.h)."""
        matrices = (v for x in self._matrices() for v in (x.offset, *x.batch, x.row, x.column))
        numbers = (self.m, self.n, self.k, *matrices, self.batch[-1], self.first, self.flipped)
        return _STRUCT.pack(*map(int, (*numbers, rows, columns, dense, panels)))


_STRUCT = struct.Struct("<25q")
