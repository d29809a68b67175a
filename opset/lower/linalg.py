"""Matrix products: MatMul, Gemm, Einsum, Det."""

from __future__ import annotations

from collections.abc import Sequence

from omniop.opset import expr
from omniop.opset import prims as p
from omniop.opset.definitions import Tensor
from omniop.opset.dtype import DType
from omniop.opset.errors import ModelError
from omniop.opset.expr import Expr
from omniop.opset.lower.common import is_number, real, require_equal
from omniop.opset.lowering import Node, lowering
from omniop.opset.sym import Dim, as_expr, product


@lowering("MatMul")
def matmul_op(node: Node, a: Tensor, b: Tensor) -> Tensor:
    if a.rank == 0 or b.rank == 0:
        raise ModelError(f"{node.label}: shapes {list(a.shape)} and {list(b.shape)}; a matrix product takes no scalars")
    return matmul(a, b)


def matmul(a: Tensor, b: Tensor, dtype: DType | None = None, accumulate: DType | None = None) -> Tensor:
    """numpy.matmul into ``dtype`` (default: a's), with sums as `prims.contract` keeps them. One big product where the
    right operand is a single matrix."""
    if a.rank == 1:
        result = matmul(p.unsqueeze(a, [0]), b, dtype, accumulate)
        return p.squeeze(result, [-2 if b.rank > 1 else 0])
    if b.rank == 1:
        return p.squeeze(matmul(a, p.unsqueeze(b, [1]), dtype, accumulate), [-1])
    if a.rank >= b.rank and all(isinstance(d, int) and d == 1 for d in b.shape[:-2]):
        rows = p.reshape(a, [product(a.shape[:-1]), a.shape[-1]])
        result = p.contract(rows, p.reshape(b, b.shape[-2:]), dtype, accumulate)
        return p.reshape(result, [*a.shape[:-1], b.shape[-1]])
    return p.contract(a, b, dtype, accumulate)


@lowering("Gemm")
def gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """alpha * op(A) * op(B) + beta * C, rounded once."""
    if a.rank != 2 or b.rank != 2:
        raise ModelError(f"{node.label}: A and B are matrices, got shapes {list(a.shape)} and {list(b.shape)}")
    alpha, beta = node.attr("alpha", 1.0), node.attr("beta", 1.0)
    a = p.transpose(a, (1, 0)) if node.attr("transA") else a
    b = p.transpose(b, (1, 0)) if node.attr("transB") else b
    if beta == 0:
        c = None
    if alpha == 1 and c is None:
        return p.contract(a, b)
    # whole factors leave integers exact; others are applied in floating point
    whole = float(alpha).is_integer() and float(beta).is_integer()
    wide = p.accumulator(a.dtype) if a.dtype.is_float or whole else real(a.dtype)
    y = p.contract(a, b, p.accumulator(a.dtype))

    def epilogue(e: Expr, *addend: Expr) -> Expr:
        result = _scaled(expr.cast(e, wide), alpha)
        for x in addend:
            result = result + _scaled(expr.cast(x, wide), beta)
        return expr.cast(result, a.dtype)

    return p.elementwise(epilogue, y) if c is None else p.elementwise(epilogue, y, c)


def _scaled(x: Expr, factor: float) -> Expr:
    return x if factor == 1 else x * factor


# Einsum ---------------------------------------------------------------------------------------------------------------

Label = str | int
"""A letter of the equation, or the number of an ellipsis dim, counted from the right."""

Labels = tuple[Label, ...]


@lowering("Einsum")
def einsum(node: Node, *xs: Tensor) -> Tensor:
    """Operands are joined from left to right, each pair by one product; what nobody needs later is summed early."""
    terms, output = _parse(node, node.attr("equation"), xs)
    operands = [_diagonal(node, x, labels) for x, labels in zip(xs, terms, strict=True)]
    result, labels = operands[0]
    for k in range(1, len(operands)):
        needed = {*output, *(label for _, later in operands[k + 1 :] for label in later)}
        result, labels = _join((result, labels), operands[k], needed)
    result, labels = _summed(result, labels, set(output))
    return p.transpose(result, [labels.index(label) for label in output])


def _parse(node: Node, equation: str, xs: Sequence[Tensor]) -> tuple[list[Labels], Labels]:
    """The labels of each operand's axes, and of the output's."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(xs):
        raise ModelError(f"{node.label}: equation {equation!r} has {len(terms)} terms for {len(xs)} inputs")
    named = []
    for term, x in zip(terms, xs, strict=True):
        letters = len(term.replace("...", ""))
        if letters > x.rank or (letters < x.rank and "..." not in term):
            raise ModelError(f"{node.label}: term {term!r} of {equation!r} does not fit shape {list(x.shape)}")
        named.append(_labels(term, x.rank - letters))
    ellipsis = max((sum(isinstance(label, int) for label in labels) for labels in named), default=0)
    if arrow:
        return named, _labels(right, ellipsis)
    flat = [label for labels in named for label in labels if isinstance(label, str)]
    implicit = sorted(label for label in set(flat) if flat.count(label) == 1)
    return named, (*range(ellipsis - 1, -1, -1), *implicit)


def _labels(term: str, ellipsis: int) -> Labels:
    before, dots, after = term.partition("...")
    return (*before, *(range(ellipsis - 1, -1, -1) if dots else ()), *after)


def _diagonal(node: Node, x: Tensor, labels: Labels) -> tuple[Tensor, Labels]:
    """Axes that share a label, as one."""
    once = tuple(dict.fromkeys(labels))
    if len(once) == len(labels):
        return x, labels
    for axis, label in enumerate(labels):
        require_equal(node, x.shape[axis], x.shape[labels.index(label)], f"the dims that {label!r} names")
    shape = [x.shape[labels.index(label)] for label in once]
    return p.map_of(shape, lambda *i: x.at(*(i[once.index(label)] for label in labels))), once


def _summed(x: Tensor, labels: Labels, needed: set[Label]) -> tuple[Tensor, Labels]:
    axes = [axis for axis, label in enumerate(labels) if label not in needed]
    return p.reduce("add", x, axes), tuple(label for label in labels if label in needed)


def _join(left: tuple[Tensor, Labels], right: tuple[Tensor, Labels], needed: set[Label]) -> tuple[Tensor, Labels]:
    """Two operands as one: shared labels that are needed later are batch dims, the other shared ones are contracted."""
    a, a_labels = _summed(*left, needed | set(right[1]))
    b, b_labels = _summed(*right, needed | set(left[1]))
    shared = [label for label in a_labels if label in b_labels]
    batch = [label for label in shared if label in needed]
    inner = [label for label in shared if label not in needed]
    rows = [label for label in a_labels if label not in shared]
    columns = [label for label in b_labels if label not in shared]
    a = p.transpose(a, [a_labels.index(label) for label in (*batch, *rows, *inner)])
    b = p.transpose(b, [b_labels.index(label) for label in (*batch, *inner, *columns)])
    n, r = len(batch), len(rows)
    row_dims, column_dims = a.shape[n : n + r], b.shape[n + len(inner) :]
    common = p.broadcast_shapes(a.shape[n + r :], b.shape[n : n + len(inner)])
    a = p.broadcast_to(a, (*a.shape[: n + r], *common))
    b = p.broadcast_to(b, (*b.shape[:n], *common, *column_dims))
    if inner:
        depth = product(common)
        a = p.reshape(a, [*a.shape[:n], product(row_dims), depth])
        b = p.reshape(b, [*b.shape[:n], depth, product(column_dims)])
        result = p.contract(a, b)
    else:
        a = p.reshape(a, [*a.shape, *[1] * len(columns)])
        b = p.reshape(b, [*b.shape[:n], *[1] * r, *column_dims])
        result = p.mul(a, b)
    return p.reshape(result, [*result.shape[:n], *row_dims, *column_dims]), (*batch, *rows, *columns)


# Determinant ----------------------------------------------------------------------------------------------------------


@lowering("Det")
def det(node: Node, x: Tensor) -> Tensor:
    """Gaussian elimination with partial pivoting, one column a step; the product of the pivots."""
    if x.rank < 2:
        raise ModelError(f"{node.label}: a determinant needs a matrix, got shape {list(x.shape)}")
    n = x.shape[-1]
    require_equal(node, x.shape[-2], n, "a determinant is of square matrices")
    batch = x.shape[:-2]
    start = [p.cast(x, p.accumulator(x.dtype)), p.full(batch, 1, p.accumulator(x.dtype))]
    if is_number(n, 0):
        return p.cast(start[1], x.dtype)

    def eliminate(step: Dim, matrix: Tensor, result: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        k = as_expr(step)

        def candidate(*i: Expr) -> tuple[Expr, Expr]:
            *lead, row = i
            size = expr.alu("abs", matrix.at(*lead, row, k))
            return expr.select(row < k, expr.const(-1, size.dtype), size), row

        pivot = p.reduce_of(batch, [n], "argmax", candidate)

        def update(*i: Expr) -> Expr:
            *lead, row, column = i
            chosen = pivot.at(*lead)
            own = matrix.at(*lead, expr.select(row.eq(chosen), k, row), column)
            top, head = matrix.at(*lead, chosen, column), matrix.at(*lead, chosen, k)
            factor = matrix.at(*lead, expr.select(row.eq(chosen), k, row), k) / head
            below = expr.select(head.eq(0), own, own - factor * top)
            return expr.select(row.eq(k), top, expr.select(row < k, own, below))

        def times(*i: Expr) -> Expr:
            chosen = pivot.at(*i)
            head = matrix.at(*i, chosen, k)
            return result.at(*i) * expr.select(chosen.eq(k), head, -head)

        return [p.map_of(matrix.shape, update), p.map_of(batch, times)], []

    return p.cast(p.repeat(n, start, eliminate)[0][1], x.dtype)
