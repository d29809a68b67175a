"""A matrix product in numbers, for one run: where its operands lie, and as few batch axes as that allows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Generic, Self, TypeVar

from omniop.backends.codegen.indexing import host_function
from omniop.opset.kernel import Call


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
class Product:
    """``c[batch] = a[batch] (m x k) times b[batch] (k x n)``; at least one element each."""

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

    def flipped(self) -> Self:
        """The same product of the transposes."""
        a, b, c = (x.transposed() for x in self.matrices)
        return replace(self, m=self.n, n=self.m, a=b, b=a, c=c)

    def merged(self) -> Self:
        """With as few batch axes as its strides allow; an axis that b does not have becomes rows of a."""
        product = self._without(*(k for k, extent in enumerate(self.batch) if extent == 1))
        while product.batch and product._rows_continue():
            product = product._with_more_rows()
        for k in reversed(range(len(product.batch) - 1)):
            if all(x.batch[k] == x.batch[k + 1] * product.batch[k + 1] for x in product.matrices):
                product = product._joined(k)
        return product

    def _rows_continue(self) -> bool:
        """The last batch axis goes on where the rows end."""
        below = self.m == 1 or all(x.batch[-1] == x.row * self.m for x in (self.a, self.c))
        return below and self.b.batch[-1] == 0

    def _with_more_rows(self) -> Self:
        """Its last batch axis as rows. The stride of a single row said nothing."""
        merged = replace(self._without(len(self.batch) - 1), m=self.m * self.batch[-1])
        if self.m > 1:
            return merged
        a, c = (replace(x, row=old.batch[-1]) for x, old in ((merged.a, self.a), (merged.c, self.c)))
        return replace(merged, a=a, c=c)

    def _joined(self, axis: int) -> Self:
        """With batch axis ``axis`` and the next as one."""
        extent = self.batch[axis] * self.batch[axis + 1]
        return replace(self._without(axis), batch=(*self.batch[:axis], extent, *self.batch[axis + 2 :]))

    def _without(self, *axes: int) -> Self:
        kept = [k for k in range(len(self.batch)) if k not in axes]
        a, b, c = (replace(x, batch=tuple(x.batch[k] for k in kept)) for x in self.matrices)
        return replace(self, batch=tuple(self.batch[k] for k in kept), a=a, b=b, c=c)


P = TypeVar("P", bound=Product)


class ProductNumbers(Generic[P]):
    """The views of a ``contract`` as the numbers of a product, for given sizes."""

    def __init__(self, call: Call, kind: type[P]) -> None:
        views = (*call.operands, call.results[0])
        self._kind = kind
        self._numbers = host_function([x for view in views for x in (view.offset, *view.shape, *view.strides)])
        self._rank = len(call.results[0].shape)

    def __call__(self, sizes: tuple[int, ...]) -> P:
        numbers = iter(self._numbers(sizes))
        (_, a), (b_shape, b), (shape, c) = (self._matrix(numbers) for _ in range(3))
        return self._kind(shape[:-2], shape[-2], shape[-1], b_shape[-2], a, b, c)

    def _matrix(self, numbers: Iterator[int]) -> tuple[tuple[int, ...], Matrix]:
        offset = next(numbers)
        shape = tuple(next(numbers) for _ in range(self._rank))
        strides = tuple(next(numbers) for _ in range(self._rank))
        return shape, Matrix(offset, strides[:-2], strides[-2], strides[-1])
