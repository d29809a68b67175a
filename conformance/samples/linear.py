"""Products of matrices, and what is made of them: Gemm, Einsum, Det, attention's kin are elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np

from omniop.conformance.samples.drawing import normal, uniform
from omniop.conformance.samples.op import Found, Op, samples, spread

PRODUCTS = (
    ((2, 3), (3, 4)),
    ((1, 65), (65, 1)),
    ((3,), (3, 5)),
    ((4, 3), (3,)),
    ((5,), (5,)),
    ((2, 1, 3, 4), (5, 4, 2)),
    ((3, 2, 4), (4, 2)),
    ((17, 33), (33, 19)),
    ((0, 3), (3, 4)),
    ((2, 0), (0, 3)),
    ((64, 129), (129, 70)),
)


@samples("MatMul")
def matmul(op: Op) -> Found:
    for dtype in op.dtypes():
        for left, right in spread(op, dtype, PRODUCTS):
            yield op(normal(dtype, *left), normal(dtype, *right))
        yield op.runs(*([normal(dtype, n, 7), normal(dtype, 7, 5)] for n in (3, 1, 20, 3)))
    yield op(normal("float32", 2, 3), normal("float32", 4, 2), refused=True)


@samples("Gemm")
def gemm(op: Op) -> Found:
    for dtype in op.dtypes():
        ints = dtype in op.dtypes(kinds="iu")
        for a, b in ((0, 0), (0, 1), (1, 0), (1, 1)):
            left, right = (4, 7) if a else (7, 4), (5, 4) if b else (4, 5)
            for bias in ((5,), (7, 5), (7, 1), (), None):
                if bias is None and op.version < 11:
                    continue
                third = None if bias is None else normal(dtype, *bias)
                factors: dict[str, Any] = {} if ints else {"alpha": 0.5, "beta": 1.5}
                yield op(normal(dtype, *left), normal(dtype, *right), third, transA=a, transB=b, **factors)
        yield op(normal(dtype, 33, 65), normal(dtype, 65, 17), normal(dtype, 17))
    yield op(normal("float32", 2, 3), normal("float32", 4, 2), normal("float32", 2), refused=True)


@samples("Einsum")
def einsum(op: Op) -> Found:
    equations = (
        ("ij,jk->ik", (2, 3), (3, 4)),
        ("ij->ji", (2, 3)),
        ("ii->i", (3, 3)),
        ("ii", (3, 3)),
        ("i,i", (5,), (5,)),
        ("i,j->ij", (3,), (4,)),
        ("bij,bjk->bik", (2, 3, 4), (2, 4, 5)),
        ("...ij,...jk->...ik", (2, 1, 3, 4), (3, 4, 2)),
        ("bhqd,bhkd->bhqk", (1, 2, 3, 4), (1, 2, 5, 4)),
        ("ij->", (3, 4)),
        ("ab,cb,ad->cd", (2, 3), (4, 3), (2, 5)),
    )
    for dtype in op.dtypes():
        for equation, *shapes in spread(op, dtype, equations):
            total = equation in ("ii", "i,i", "ij->")  # one number, of which nothing may be left where signs differ
            drawn = (uniform(dtype, shape, 0.5, 3) if total else normal(dtype, *shape) for shape in shapes)
            yield op(*drawn, equation=equation)
    yield op(normal("float32", 2, 3), equation="ijk->i", refused=True)
    yield op(normal("float32", 2, 3), normal("float32", 4, 5), equation="ij,jk->ik", refused=True)


@samples("Det")
def det(op: Op) -> Found:
    for dtype in op.dtypes():
        for shape in ((1, 1), (2, 2), (5, 5), (3, 3, 3), (2, 1, 4, 4), (0, 2, 2)):
            yield op(normal(dtype, *shape))
        yield op(np.ones((3, 3)).astype("float32"), tag="singular")
    yield op(normal("float32", 2, 3), refused=True)


@samples("MatMulInteger")
def matmul_integer(op: Op) -> Found:
    for a in op.dtypes("T1"):
        for b in op.dtypes("T2"):
            for left, right in PRODUCTS:
                yield op(uniform(a, left, *_BYTE[a]), uniform(b, right, *_BYTE[b]), tag=b)
            yield op(uniform(a, (3, 9), *_BYTE[a]), uniform(b, (9, 4), *_BYTE[b]), normal(a), normal(b), tag=b)
            zeros = uniform(a, (3,), 0, 9), uniform(b, (4,), 0, 9)
            yield op(uniform(a, (3, 9), *_BYTE[a]), uniform(b, (9, 4), *_BYTE[b]), normal(a), zeros[1], tag=b)


_BYTE = {"int8": (-128, 128), "uint8": (0, 256)}


@samples("QLinearMatMul")
def qlinear_matmul(op: Op) -> Found:
    for dtype in op.dtypes("T1", kinds="f"):
        zero, one = uniform(dtype, (), 0, 0), uniform("float32", (), 0.1, 0.5)
        yield op(normal(dtype, 3, 7), one, zero, normal(dtype, 7, 4), one, zero, one, zero)
    names = [name for name in op.dtypes("T1") if name in _BYTE]
    for dtype in names:
        for scale in op.dtypes("TS") if "TS" in op.type_names else ("float32",):
            for left, right in (((2, 3), (3, 4)), ((2, 5, 9), (9, 4)), ((17, 33), (33, 9)), ((2, 2, 3), (2, 3, 5))):
                point = uniform(dtype, (), 0, 5)
                one = uniform(scale, (), 0.01, 0.1)
                a, b = uniform(dtype, left, *_BYTE[dtype]), uniform(dtype, right, *_BYTE[dtype])
                yield op(a, one, point, b, one, point, uniform(scale, (), 0.5, 1), point, tag=scale)
            columns = uniform(scale, (4,), 0.01, 0.1), uniform(dtype, (4,), 0, 5)
            a, b = uniform(dtype, (3, 7), *_BYTE[dtype]), uniform(dtype, (7, 4), *_BYTE[dtype])
            yield op(a, one, point, b, *columns, uniform(scale, (), 0.5, 1), point, tag=f"{scale}_columns")
