"""Winograd's minimal filtering: the matrices of F(m x m, 3 x 3), which makes a tile of ``m * m`` pixels from
``(m + 2) * (m + 2)`` products where the definition takes ``9 * m * m``.

With ``d`` a tile of the image and ``g`` a filter, the pixels are ``A' ((G g G') * (B' d B)) A``, ``*`` element by
element and summed over channels: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", 2015. The
matrices are those of Toom and Cook: polynomials are evaluated at points and at infinity, multiplied there, and
interpolated; transposed, that filters.

Pixels of a tile share what goes into it: a number that is not finite reaches all of them, and not just those whose
windows hold it; so may the roundings of a large number's small neighbours.

How much of float32's precision is left hangs on the points alone: Barabasz et al., "Error Analysis and Improving the
Accuracy of Winograd Convolution", 2020. Textbooks take 0, 1, -1, 2, -2, for a short row of small integers. The points
here have the same symmetry, which is what makes a transform cheap, but lie where the powers of both stay near 1:
`Winograd.error_growth` says what that gains. All coefficients of the transforms that run are exact in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

TAPS = 3
"""Elements of a filter along an axis."""

Matrix = tuple[tuple[Fraction, ...], ...]


@dataclass(frozen=True)
class Winograd:
    """F(outputs, 3) along an axis. ``points``: those with an opposite; 0 and infinity are there beside them."""

    outputs: int
    points: tuple[Fraction, ...]

    def __post_init__(self) -> None:
        if self.size != 2 + 2 * len(self.points):
            raise ValueError(f"F({self.outputs}, {TAPS}) has {(self.size - 2) / 2:g} pairs of points")

    @property
    def name(self) -> str:
        return f"f{self.outputs}"

    @property
    def size(self) -> int:
        """Elements of a tile of the image along an axis, and of one of products."""
        return self.outputs + TAPS - 1

    @property
    def products(self) -> int:
        return self.size**2

    @cached_property
    def _finite(self) -> tuple[Fraction, ...]:
        """0, then each point with its opposite behind it."""
        return (Fraction(0), *(s * p for p in self.points for s in (1, -1)))

    @cached_property
    def image(self) -> Matrix:
        """B': a row for each point, of the polynomial that is 0 at all others; then that of all points."""
        rows = [_with_roots([q for q in self._finite if q != p]) for p in self._finite]
        return tuple((*row, *[Fraction(0)] * (self.size - len(row))) for row in [*rows, _with_roots(self._finite)])

    @cached_property
    def filter(self) -> Matrix:
        """G: powers of each point over what `image` makes of it; then the last power."""
        rows = []
        for p in self._finite:
            norm = _product([p - q for q in self._finite if q != p])
            rows.append(tuple(p**k / norm for k in range(TAPS)))
        return (*rows, _unit(TAPS))

    @cached_property
    def pixels(self) -> Matrix:
        """A': a column for each point, of its powers; then the last power."""
        last = _unit(self.outputs)
        return tuple((*(p**k for p in self._finite), last[k]) for k in range(self.outputs))

    @cached_property
    def error_growth(self) -> float:
        """How much larger the error of a pixel is, as a root of mean squares, than that of a direct sum in the same
        precision, for any number of channels.

        Roundings of the sums over channels make nearly all of it. With images and filters of independent elements, a
        sum's error is proportional to its value's deviation, and a pixel's is the sum of those of its products, each
        times its factors in A', along both axes alike. Measured for 16 to 1024 channels: within a tenth of this.
        """
        spread = [_square(b) * _square(g) for b, g in zip(self.image, self.filter, strict=True)]
        lines = [sum(a * a * s for a, s in zip(row, spread, strict=True)) / TAPS**2 for row in self.pixels]
        return float(sum(lines)) / self.outputs


def _square(row: tuple[Fraction, ...]) -> Fraction:
    """Sum of the squares."""
    return sum((c * c for c in row), Fraction(0))


def _with_roots(roots: tuple[Fraction, ...] | list[Fraction]) -> tuple[Fraction, ...]:
    """Coefficients, the constant one first, of the product of all ``x - root``."""
    result = [Fraction(1)]
    for root in roots:
        result = [low - root * high for low, high in zip([Fraction(0), *result], [*result, Fraction(0)], strict=True)]
    return tuple(result)


def _product(factors: list[Fraction]) -> Fraction:
    result = Fraction(1)
    for factor in factors:
        result *= factor
    return result


def _unit(length: int) -> tuple[Fraction, ...]:
    return (*[Fraction(0)] * (length - 1), Fraction(1))


F2 = Winograd(2, (Fraction(1),))
"""Off by 0.6 times what a direct sum is."""
F4 = Winograd(4, (Fraction(5, 8), Fraction(25, 16)))
"""Off by 1.6 times as much; by 3.6 times with the points of the textbook."""
