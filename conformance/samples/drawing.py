"""How an input of a sample is drawn: its dtype, its shape, and what its elements are like.

A `Values` is small and says nothing of data; `Values.draw` makes the array from a generator, so that listing the
samples draws nothing, and a case is the same on every machine and in every order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from omniop.opset import dtype as dtypes

Shape = tuple[int, ...]

WORDS = ("", "a", "B", "omni op", "Ünï", "日本語", "a,b,c", "-3.5", "12", "the quick brown fox", "NaN", "zz")
"""Strings that are drawn: empty, of several scripts, numbers, with separators."""


@dataclass(frozen=True)
class Values:
    """An array to be drawn. ``kind`` is one of `KINDS`; ``low`` and ``high`` bound the kinds that have bounds."""

    dtype: str
    shape: Shape
    kind: str = "normal"
    low: float = 0.0
    high: float = 1.0

    def draw(self, random: np.random.Generator) -> np.ndarray:
        """The array, of the numpy (or ml_dtypes) dtype of ``dtype``."""
        found = dtypes.of_name(self.dtype)
        if found.kind == "s":
            return np.array([WORDS[k] for k in random.integers(len(WORDS), size=self.shape).flat], object).reshape(
                self.shape
            )
        with np.errstate(all="ignore"):
            return _cast(KINDS[self.kind](self, random), found)


def normal(dtype: str, *shape: int) -> Values:
    """Floats around zero, small integers, either bool, words: what most samples are of."""
    return Values(dtype, shape)


def uniform(dtype: str, shape: Shape, low: float, high: float) -> Values:
    """Between two bounds, the upper one not among them."""
    return Values(dtype, shape, "uniform", low, high)


def special(dtype: str, *shape: int) -> Values:
    """NaN, infinities, zeros of both signs, the largest and smallest numbers, over and over; integers' ends."""
    return Values(dtype, shape, "special")


def wide(dtype: str, *shape: int) -> Values:
    """All of an integer's range; floats of every magnitude between 2^-12 and 2^12 (less where the dtype has less)."""
    return Values(dtype, shape, "wide")


def powers(dtype: str, *shape: int) -> Values:
    """1/2, 1 and 2: their products are exact."""
    return Values(dtype, shape, "powers")


def distinct(dtype: str, *shape: int) -> Values:
    """No two elements equal, where the dtype has as many values; in random order."""
    return Values(dtype, shape, "distinct")


def index(dtype: str, shape: Shape, size: int, *, negative: bool = True) -> Values:
    """Indices into an axis of ``size``, counted from its end, too, if ``negative``."""
    return Values(dtype, shape, "whole", -size if negative else 0, size)


# -- kinds -----------------------------------------------------------------------------------------------------------


def _normal(values: Values, random: np.random.Generator) -> Any:
    found = dtypes.of_name(values.dtype)
    match found.kind:
        case "b":
            return random.random(values.shape) < 0.5
        case "c":
            return random.normal(size=values.shape) + 1j * random.normal(size=values.shape)
        case "f":
            return random.normal(size=values.shape) * 1.5
    low, high = _range(found)
    return random.integers(max(low, -9), min(high, 9), size=values.shape, endpoint=True)


def _uniform(values: Values, random: np.random.Generator) -> Any:
    if dtypes.of_name(values.dtype).kind in "iu":
        return _whole(values, random)
    return random.uniform(values.low, values.high, values.shape)


def _whole(values: Values, random: np.random.Generator) -> Any:
    return random.integers(int(values.low), int(values.high), size=values.shape)


def _wide(values: Values, random: np.random.Generator) -> Any:
    found = dtypes.of_name(values.dtype)
    if found.kind in "bc":
        return _normal(values, random)
    if found.kind == "f":
        limit = min(12.0, np.log2(float(limits_of(found.numpy).max)) - 1)
        sizes = 2 ** random.uniform(-limit, limit, values.shape)
        return sizes * random.choice((-1.0, 1.0), values.shape)
    low, high = _range(found)
    return random.integers(low, high, size=values.shape, endpoint=True, dtype=np.int64 if low else np.uint64)


def _special(values: Values, random: np.random.Generator) -> Any:
    found = dtypes.of_name(values.dtype)
    size = int(np.prod(values.shape, dtype=np.int64))
    if found.kind in "bc":
        return _normal(values, random)
    if found.kind == "f":
        limits = limits_of(found.numpy)
        largest = [float(limits.max), float(limits.min), float(limits.tiny)]
        few: Any = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, -2.5, 3.0, *largest])
    else:
        low, high = _range(found)
        few = np.array([low, high, 0, 1, high - 1, low + 1], np.int64 if low else np.uint64)
    return np.resize(np.roll(few, int(random.integers(few.size))), size).reshape(values.shape)


def _powers(values: Values, random: np.random.Generator) -> Any:
    return random.choice((0.5, 1.0, 2.0), values.shape)


def _distinct(values: Values, random: np.random.Generator) -> Any:
    size = int(np.prod(values.shape, dtype=np.int64))
    found = dtypes.of_name(values.dtype)
    start = 0
    if found.kind in "if":
        start = -(size // 2)
    return (random.permutation(size) + start).reshape(values.shape)


KINDS: Mapping[str, Callable[[Values, np.random.Generator], Any]] = {
    **{"normal": _normal, "uniform": _uniform, "whole": _whole, "wide": _wide},
    **{"special": _special, "distinct": _distinct, "powers": _powers},
}


def _range(found: dtypes.DType) -> tuple[int, int]:
    if found.kind == "u":
        return 0, 2**found.bits - 1
    return -(2 ** (found.bits - 1)), 2 ** (found.bits - 1) - 1


def limits_of(dtype: np.dtype[Any]) -> Any:
    """What numpy's finfo says, of ml_dtypes' floats too."""
    import ml_dtypes

    return ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]


def _cast(array: Any, found: dtypes.DType) -> np.ndarray:
    """To the dtype; a float that it has no room for becomes its largest, and not what a cast would make of it."""
    array = np.asarray(array)
    if found.kind == "f" and array.dtype.kind in "fiu":
        limits = limits_of(found.numpy)
        wide = array.astype(np.float64)
        low = float(limits.tiny) if found.name == "float8_e8m0fnu" else float(limits.min)
        bounded = np.where(np.isfinite(wide), np.clip(wide, low, float(limits.max)), wide)
        return np.asarray(bounded.astype(found.numpy))
    return np.asarray(array.astype(found.numpy))
