"""Matrix products, Einsum and determinants against numpy."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from harness import check, random, run, same, traced

from omniop.opset.definitions import Structured
from omniop.opset.dtype import FLOAT32
from omniop.opset.errors import ModelError

SHAPES = [
    ((5,), (5,)),
    ((5,), (5, 3)),
    ((5,), (2, 5, 3)),
    ((4, 5), (5,)),
    ((2, 4, 5), (5,)),
    ((4, 5), (5, 3)),
    ((1, 1), (1, 1)),
    ((2, 3, 4, 5), (5, 3)),
    ((2, 3, 4, 5), (1, 5, 3)),
    ((4, 5), (2, 5, 3)),
    ((2, 1, 4, 5), (3, 5, 3)),
    ((0, 5), (5, 3)),
    ((4, 0), (0, 3)),
    ((2, 0, 5), (5, 3)),
]


@pytest.mark.parametrize(("left", "right"), SHAPES, ids=str)
def test_matmul_as_numpy(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    a, b = random(left), random(right, seed=1)
    same(run("MatMul", [a, b])[0], np.asarray(np.matmul(a, b)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.uint32, np.uint64])
def test_matmul_wraps_in_integers(dtype: Any) -> None:
    a = np.array([[np.iinfo(dtype).max, 2], [3, 5]], dtype)
    same(run("MatMul", [a, a])[0], np.matmul(a, a))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_narrow_floats_are_summed_in_float32(dtype: Any) -> None:
    a, b = np.ones((1, 4096), dtype), np.full((4096, 1), 1 / 4096, dtype)
    same(run("MatMul", [a, b])[0], np.ones((1, 1), dtype), rtol=0, atol=0)


def test_one_product_where_the_right_operand_is_a_matrix() -> None:
    _, tr = traced("MatMul", [((2, 3, 4), FLOAT32), ((4, 5), FLOAT32)])
    (product,) = [d for d in tr.definitions if isinstance(d, Structured)]
    assert [t.rank for t in product.operands] == [2, 2]


def test_matmul_refuses_scalars_and_other_inner_dims() -> None:
    with pytest.raises(ModelError, match="no scalars"):
        run("MatMul", [random(()), random((3,))])
    with pytest.raises(ModelError, match="columns meet"):
        run("MatMul", [random((2, 3)), random((4, 2))])


@pytest.mark.parametrize("addend", [None, (), (1,), (3,), (1, 3), (4, 1), (4, 3)], ids=str)
@pytest.mark.parametrize(
    "attrs",
    [{}, {"alpha": 0.5, "beta": -2.0}, {"transA": 1, "transB": 1}, {"beta": 0.0, "transB": 1}],
    ids=str,
)
def test_gemm_as_the_reference(addend: tuple[int, ...] | None, attrs: dict[str, Any]) -> None:
    a, b = random((4, 5)), random((5, 3), seed=1)
    a, b = a.T.copy() if attrs.get("transA") else a, b.T.copy() if attrs.get("transB") else b
    c = [] if addend is None else [random(addend, seed=2)]
    check("Gemm", [a, b, *c], atol=1e-5, **attrs)


def test_gemm_of_integers_with_factors() -> None:
    a, b, c = random((2, 3), np.int32), random((3, 2), np.int32, 1), random((2,), np.int32, 2)
    same(run("Gemm", [a, b, c], alpha=2.0, beta=-3.0)[0], 2 * (a @ b) - 3 * c)
    same(run("Gemm", [a, b], alpha=0.5)[0], (0.5 * (a @ b)).astype(np.int32))


def test_gemm_leaves_no_operation_for_factors_of_one() -> None:
    result, tr = traced("Gemm", [((2, 3), FLOAT32), ((3, 4), FLOAT32)], alpha=1.0, beta=1.0)
    assert result.definition is tr.definitions[-1]
    assert isinstance(result.definition, Structured)


EQUATIONS: list[tuple[str, list[tuple[int, ...]]]] = [
    ("ij,jk->ik", [(2, 3), (3, 4)]),
    ("ij,jk", [(2, 3), (3, 4)]),
    ("bij, bjk -> bik", [(2, 3, 4), (2, 4, 5)]),
    ("i,j->ij", [(3,), (4,)]),
    ("i,i", [(3,), (3,)]),
    ("ij,ij->", [(3, 4), (3, 4)]),
    ("ii->i", [(3, 3)]),
    ("ii", [(3, 3)]),
    ("...ii->...i", [(2, 3, 3)]),
    ("...ij,...jk->...ik", [(5, 2, 3), (3, 4)]),
    ("...ij,...jk", [(5, 1, 2, 3), (2, 3, 4)]),
    ("ij->ji", [(2, 3)]),
    ("ijk->j", [(2, 3, 4)]),
    ("ij,jk,kl->il", [(2, 3), (3, 4), (4, 5)]),
    ("bhqd,bhkd->bhqk", [(2, 3, 4, 5), (2, 3, 6, 5)]),
    ("bqhd,hde->bqe", [(2, 3, 4, 5), (4, 5, 6)]),
    ("ab,cd->abcd", [(2, 3), (4, 5)]),
    ("aab,bc->ac", [(2, 2, 3), (3, 4)]),
    ("i->", [(0,)]),
    ("ij,jk->ik", [(2, 0), (0, 3)]),
]


@pytest.mark.parametrize(("equation", "shapes"), EQUATIONS, ids=str)
def test_einsum_as_numpy(equation: str, shapes: list[tuple[int, ...]]) -> None:
    xs = [random(s, seed=k) for k, s in enumerate(shapes)]
    expected = np.asarray(np.einsum(equation.replace(" ", ""), *xs))
    same(run("Einsum", xs, equation=equation)[0], expected, rtol=1e-4, atol=1e-4)


def test_einsum_refuses_terms_that_do_not_fit() -> None:
    with pytest.raises(ModelError, match="does not fit"):
        run("Einsum", [random((2, 3))], equation="ijk->i")
    with pytest.raises(ModelError, match="2 terms for 1"):
        run("Einsum", [random((2, 3))], equation="ij,jk->ik")
    with pytest.raises(ModelError, match="'i' names"):
        run("Einsum", [random((2, 3))], equation="ii->i")


@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (2, 3, 5, 5), (3, 0, 0)], ids=str)
def test_determinants(shape: tuple[int, ...]) -> None:
    x = random(shape, np.float64)
    same(run("Det", [x])[0], np.asarray(np.linalg.det(x)), rtol=1e-9, atol=1e-12)


def test_determinant_of_singular_and_of_permuted_matrices() -> None:
    x = np.array([[[0, 2], [3, 0]], [[1, 2], [2, 4]], [[0, 0], [0, 0]]], np.float32)
    same(run("Det", [x])[0], np.array([-6, 0, 0], np.float32))
