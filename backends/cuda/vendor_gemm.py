"""The vendor library's matrix products that one of ours comes to, where it does.

The library takes row-major matrices, transposed or not, and a batch of one axis.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from math import prod

from omniop.backends.codegen.product import Matrix, Product
from omniop.backends.cuda.driver import Gemm

_MOST_PRODUCTS = 64
"""More calls of the library cost more than one launch of our kernel."""
_MOST = (1 << 31) - 1
"""Of what the library counts in 32 bits."""


def gemms(product: Product, dtype: str, result: str) -> list[Gemm] | None:
    """The library's products that add up to this one, in the order of the batch; None when there are none."""
    product = product.merged()
    if _leading(product.c, product.m, product.n) is None:
        product = product.flipped()
    m, n, k = product.m, product.n, product.k
    a, b, ldc = _operand(product.a, m, k), _operand(product.b, k, n), _leading(product.c, m, n)
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
        first = [x.at(place).offset for x in product.matrices]
        made.append(replace(every, offset_a=first[0], offset_b=first[1], offset_c=first[2]))
    return made


def into_rows(product: Product) -> Product:
    """The same product with a result that lies row-major from 0."""
    extents = (*product.batch, product.m, product.n)
    strides = [prod(extents[k + 1 :]) for k in range(len(extents))]
    return replace(product, c=Matrix(0, tuple(strides[:-2]), strides[-2], strides[-1]))


def _leading(matrix: Matrix, rows: int, columns: int) -> int | None:
    """The distance of rows, where columns are neighbours and rows do not overlap. One of either fits anything."""
    neighbours = columns == 1 or matrix.column == 1
    distance = columns if rows == 1 else matrix.row
    return distance if neighbours and columns <= distance <= _MOST else None


def _operand(matrix: Matrix, rows: int, columns: int) -> tuple[int, bool] | None:
    """Its leading distance, and whether the library has to transpose it; None when it cannot read it."""
    distance = _leading(matrix, rows, columns)
    if distance is not None:
        return distance, False
    distance = _leading(matrix.transposed(), columns, rows)
    return None if distance is None else (distance, True)
