"""What convolutions take on one core, in seconds: what decides between ways to compute one.

The figures are of a Zen 4 core, as measured. What they decide hangs on their ratios, which differ less from CPU to CPU.
"""

from __future__ import annotations

from dataclasses import dataclass

from omniop.backends.codegen.winograd import TAPS, Winograd

SECONDS_PER_FLOP = 1 / 110e9
SECONDS_PER_BYTE = 1 / 30e9
"""Of weights, which come from memory."""
SECONDS_PER_ELEMENT = 1.4e-10
"""Of a tile or a filter, transformed: a load, a store, and its share of the sums, a vector at a time."""
SECONDS_PER_BYTE_HELD = 2e-11
"""What a run may take longer for each byte that the session then need not hold: 20 milliseconds for a gigabyte ..."""
HELD_FREELY = 12 << 20
"""... of filters that take more than so many."""


def direct_seconds(pixels: int, depth: int, filters: int, weights: int) -> float:
    """A sum of ``depth`` products for each of ``pixels * filters``; ``weights`` are float32."""
    return 2 * pixels * depth * filters * SECONDS_PER_FLOP + 4 * weights * SECONDS_PER_BYTE


@dataclass(frozen=True)
class WinogradCost:
    """Of so many ``tiles``, ``channels`` and ``filters``, which are transformed in each run (``anew``) or once."""

    winograd: Winograd
    tiles: int
    channels: int
    filters: int
    anew: bool = False

    @property
    def transforms(self) -> float:
        """Of the image."""
        return self.tiles * self.winograd.products * self.channels * SECONDS_PER_ELEMENT

    @property
    def products(self) -> float:
        """With pixels made of them."""
        weights = self.winograd.products * self.channels * self.filters
        pixels = self.tiles * self.winograd.products * self.filters * SECONDS_PER_ELEMENT
        if self.anew:
            taps = TAPS**2 * self.channels * self.filters
            return direct_seconds(self.tiles, 1, weights, taps) + pixels + weights * SECONDS_PER_ELEMENT
        return direct_seconds(self.tiles, 1, weights, weights) + pixels

    @property
    def seconds(self) -> float:
        return self.transforms + self.products

    @property
    def rent(self) -> float:
        """What transformed filters have to spare, in seconds, for the memory that they take beyond the given ones."""
        weights = self.channels * self.filters
        if self.anew or 4 * self.winograd.products * weights <= HELD_FREELY:
            return 0.0
        return 4 * (self.winograd.products - TAPS**2) * weights * SECONDS_PER_BYTE_HELD
