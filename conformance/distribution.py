"""Judging a random draw by its distribution: any draw that fits is right, whoever's generator made it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from omniop.conformance.samples.drawing import limits_of

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
        if reason := _unlike(array, example):
            return reason
        if (strange := array[~np.isin(array, (0, 1))]).size:
            return f"a draw holds {strange[0]}, which is neither 0 nor 1"
        ones += array.reshape(-1).astype(np.int64)
    for index, (count, chance) in enumerate(zip(ones.tolist(), p.tolist(), strict=True)):
        if tail([chance] * draws, count) < TAIL:
            return f"element {index} is 1 in {count} of {draws} draws, its probability is {chance:.3g}"
    if tail(p.tolist() * draws, int(ones.sum())) < TAIL:
        return f"{ones.sum()} ones in {draws} draws of {p.size} elements, {p.sum() * draws:.1f} would fit"
    return None


def judge_values(draw: Callable[[], Any], example: np.ndarray, draws: tuple[Any, ...]) -> str | None:
    """Why what ``draw`` gives is not drawn from ``draws`` (the distribution's name, its parameters, and whether a seed
    is given), or None where it may be: Kolmogorov and Smirnov's test against the distribution function, with the bound
    that Dvoretzky, Kiefer, Wolfowitz and Massart give it, at `TAIL`."""
    name, first, second, seeded = draws
    array = np.asarray(draw())
    if reason := _unlike(array, example):
        return reason
    if not seeded and array.size > 1 and np.array_equal(array, np.asarray(draw())):
        return "two draws without a seed are equal"
    values = np.sort(array.astype(np.float64).reshape(-1))
    if name == "uniform":
        below = np.clip((values - first) / (second - first), 0, 1)
        if values[0] < first or values[-1] > second:
            return f"a draw of {values[0]:.6g} to {values[-1]:.6g} leaves [{first:g}, {second:g}]"
    else:
        below = np.array([0.5 * math.erfc((first - x) / (second * math.sqrt(2))) for x in values])
    steps = np.arange(values.size + 1) / values.size
    apart = max(np.abs(steps[1:] - below).max(), np.abs(below - steps[:-1]).max())
    bound = math.sqrt(-math.log(TAIL / 2) / (2 * values.size))
    if apart > bound:
        return f"{values.size} draws are {apart:.3f} apart from the {name} distribution, {bound:.3f} would fit"
    return None


def judge_choices(draw: Callable[[], Any], example: np.ndarray, logits: np.ndarray) -> str | None:
    """Why the rows of what ``draw`` gives are not class numbers with the probabilities softmax(logits)."""
    array = np.asarray(draw())
    if reason := _unlike(array, example):
        return reason
    weights = np.exp(logits.astype(np.float64))
    for row, chances in zip(array, weights / weights.sum(-1, keepdims=True), strict=True):
        counts = np.bincount(row, minlength=chances.size) if row.min() >= 0 else np.zeros(0, np.int64)
        if counts.size != chances.size:
            return f"classes {row.min()} to {row.max()}, there are {chances.size}"
        spread = np.sqrt(row.size * chances * (1 - chances))
        off = np.abs(counts - row.size * chances) / spread
        if off.max() > _SIGMAS:
            k = int(off.argmax())
            return f"class {k} is drawn {counts[k]} of {row.size} times, its probability is {chances[k]:.3g}"
    return None


def judge_mask(x: np.ndarray, output: np.ndarray, mask: np.ndarray, ratio: float) -> str | None:
    """Why ``output`` is not ``x`` with a share of ``ratio`` dropped by ``mask`` and the rest scaled up."""
    wide = np.where(mask, x.astype(np.float64) / (1 - ratio), 0).astype(x.dtype)
    if output.dtype != x.dtype or mask.dtype != bool or output.shape != x.shape or mask.shape != x.shape:
        return f"{output.dtype.name} {list(output.shape)} and {mask.dtype.name} {list(mask.shape)}"
    if not np.allclose(output.astype(np.float64), wide.astype(np.float64), rtol=float(limits_of(x.dtype).eps), atol=0):
        return "what is kept is not scaled by 1 / (1 - ratio), or what is dropped is not 0"
    dropped = int((~mask).sum())
    if abs(dropped - ratio * x.size) > _SIGMAS * math.sqrt(x.size * ratio * (1 - ratio)):
        return f"{dropped} of {x.size} are dropped, {ratio:g} of them would fit"
    return None


_SIGMAS = 6.2
"""A normal variable is as far out with a probability of about `TAIL`."""


def _unlike(array: np.ndarray, example: np.ndarray) -> str | None:
    if array.dtype == example.dtype and array.shape == example.shape:
        return None
    return f"{array.dtype.name} {list(array.shape)}, expected {example.dtype.name} {list(example.shape)}"


def tail(chances: Sequence[float], count: int) -> float:
    """Twice the smaller tail at ``count`` successes of independent trials (Poisson's binomial distribution)."""
    counts = np.ones(1)
    for chance in chances:
        counts = np.append(counts * (1 - chance), 0.0) + np.append(0.0, counts * chance)
    return 2 * min(math.fsum(counts[: count + 1]), math.fsum(counts[count:]))
