"""Where the elements of a tensor stand that is read in another shape."""

from __future__ import annotations

from collections.abc import Sequence

from omniop.opset import expr, poly
from omniop.opset.dtype import INT64
from omniop.opset.expr import Expr
from omniop.opset.trace import current


def reshape_index(axes: Sequence[Expr], shape: tuple[Expr, ...], old: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """Indices into extents ``old`` of the element at ``axes`` of ``shape``, in row-major order.

    Runs of dims with equal products are taken apart alone, which keeps divisions few.
    """
    result: list[Expr] = []
    i = j = 0
    one = expr.const(1, INT64)
    while j < len(old):
        start_i, start_j = i, j
        left, right = (shape[i] if i < len(shape) else one), old[j]
        i, j = i + 1, j + 1
        while not poly.same(left, right):
            if i >= len(shape) and j >= len(old):
                break
            take_new = i < len(shape) and (j >= len(old) or not _covers(left, right))
            if take_new:
                left, i = poly.simplify(left * shape[i]), i + 1
            else:
                right, j = poly.simplify(right * old[j]), j + 1
        inside = poly.linear(tuple(axes[start_i:i]), shape[start_i:i])
        result.extend(poly.delinear(inside, old[start_j:j]))
    return tuple(result)


def _covers(left: Expr, right: Expr) -> bool:
    """Whether the new shape's run is already the longer one, by its value in this run."""
    env = current().env
    return env.hint(left) >= env.hint(right)
