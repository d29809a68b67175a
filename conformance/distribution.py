"""Judging a random draw by its distribution: any draw that fits is right, whoever's generator made it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

TAIL = 1e-9
"""A draw is refused when one at least as far out has a smaller probability than this."""

DRAWS = 64
"""Draws of an unseeded model: enough for each element's frequency to tell."""


def judge_draws(draw: Callable[[], Any], example: np.ndarray, chances: np.ndarray, *, seeded: bool) -> str | None:
    """Why what ``draw`` gives are not Bernoulli draws with these ``chances``, or None where they may be.

    A draw has the dtype and shape of ``example`` and holds zeros and ones. The number of ones must fit, by the exact
    tails of the binomial distribution: of each element over the draws, and of all together. A seed makes every draw
    the same, so a ``seeded`` model is judged by one.
    """
    p = np.asarray(chances, np.float64).reshape(-1)
    draws = 1 if seeded else DRAWS
    ones = np.zeros(p.size, np.int64)
    for _ in range(draws):
        array = np.asarray(draw())
        if array.dtype != example.dtype or array.shape != example.shape:
            return f"{array.dtype.name} {list(array.shape)}, expected {example.dtype.name} {list(example.shape)}"
        if (strange := array[~np.isin(array, (0, 1))]).size:
            return f"a draw holds {strange[0]}, which is neither 0 nor 1"
        ones += array.reshape(-1).astype(np.int64)
    for index, (count, chance) in enumerate(zip(ones.tolist(), p.tolist(), strict=True)):
        if tail([chance] * draws, count) < TAIL:
            return f"element {index} is 1 in {count} of {draws} draws, its probability is {chance:.3g}"
    if tail(p.tolist() * draws, int(ones.sum())) < TAIL:
        return f"{ones.sum()} ones in {draws} draws of {p.size} elements, {p.sum() * draws:.1f} would fit"
    return None


def tail(chances: Sequence[float], count: int) -> float:
    """Twice the smaller tail at ``count`` successes of independent trials (Poisson's binomial distribution)."""
    counts = np.ones(1)
    for chance in chances:
        counts = np.append(counts * (1 - chance), 0.0) + np.append(0.0, counts * chance)
    return 2 * min(math.fsum(counts[: count + 1]), math.fsum(counts[count:]))
