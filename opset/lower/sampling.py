"""Reading a tensor between its elements."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from omniop.opset import expr
from omniop.opset.dtype import INT64
from omniop.opset.expr import Expr
from omniop.opset.prims import Tensor
from omniop.opset.sym import as_expr


def multilinear(x: Tensor, lead: Sequence[Expr], places: Sequence[Expr]) -> Expr:
    """``x`` at floating positions of its last axes, linear between the elements, 0 outside; in the positions' dtype."""
    wide = places[0].dtype
    lows = [expr.alu("floor", place) for place in places]
    shares = [place - low for place, low in zip(places, lows, strict=True)]
    extents = [as_expr(d) for d in x.shape[len(lead) :]]
    result: Expr | None = None
    for corner in product((0, 1), repeat=len(places)):
        at = [expr.cast(low, INT64) + step for low, step in zip(lows, corner, strict=True)]
        inside = [test for a, extent in zip(at, extents, strict=True) for test in (a >= 0, a < extent)]
        term = expr.cast(x.at(*lead, *at, guard=expr.all_of(inside)), wide)
        for share, step in zip(shares, corner, strict=True):
            term = term * (share if step else 1 - share)
        result = term if result is None else result + term
    assert result is not None
    return result
