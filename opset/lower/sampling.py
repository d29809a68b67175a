"""Reading a tensor between its elements: weights of the elements around a point, and their sum."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from omniop.opset import expr
from omniop.opset.definitions import Tensor
from omniop.opset.dtype import INT64
from omniop.opset.expr import Expr
from omniop.opset.sym import as_expr


class Tap(NamedTuple):
    """One element that takes part, along one axis; where ``inside`` is false it counts as 0."""

    weight: Expr
    place: Expr
    inside: Expr | None = None


def weighed(axes: Sequence[Sequence[Tap]], read: Callable[[tuple[Expr, ...], Expr | None], Expr]) -> Expr:
    """The sum over every combination of the axes' taps; ``read(places, inside)`` gives an element as a weight."""

    def along(k: int, places: tuple[Expr, ...], inside: list[Expr]) -> Expr:
        if k == len(axes):
            return read(places, expr.all_of(inside))
        return total(
            [
                along(k + 1, (*places, tap.place), inside if tap.inside is None else [*inside, tap.inside]) * tap.weight
                for tap in axes[k]
            ]
        )

    return along(0, (), [])


def total(terms: Sequence[Expr]) -> Expr:
    result = terms[0]
    for term in terms[1:]:
        result = result + term
    return result


def multilinear(x: Tensor, lead: Sequence[Expr], points: Sequence[Expr]) -> Expr:
    """``x`` at floating positions of its last axes, linear between the elements, 0 outside; in the positions' dtype."""
    axes = []
    for point, extent in zip(points, x.shape[len(lead) :], strict=True):
        low = expr.alu("floor", point)
        first, share = expr.cast(low, INT64), point - low
        pair = ((1 - share, first), (share, first + 1))
        axes.append([Tap(weight, place, within(place, as_expr(extent))) for weight, place in pair])
    return weighed(axes, lambda at, inside: expr.cast(x.at(*lead, *at, guard=inside), points[0].dtype))


def within(place: Expr, extent: Expr) -> Expr:
    return (place >= 0) & (place < extent)


def cubic_weight(distance: Expr, a: float) -> Expr:
    """Keys' cubic convolution kernel at a distance of at least 0: 0 from 2 on.

    R. G. Keys, "Cubic convolution interpolation for digital image processing", 1981, equation (4).
    """
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((distance * a - 5 * a) * distance + 8 * a) * distance - 4 * a
    return expr.select(distance <= 1.0, near, expr.select(distance < 2.0, far, 0.0))


def cubic_weights(share: Expr, a: float) -> list[Expr]:
    """Weights of the four elements around a point that lies ``share`` (0 to 1) behind the second of them."""
    near = [((a + 2) * t - (a + 3)) * t * t + 1 for t in (share, 1 - share)]
    far = [((t * a - 5 * a) * t + 8 * a) * t - 4 * a for t in (share + 1, 2 - share)]
    return [far[0], *near, far[1]]
