"""Sliding windows: padding, and the prim ``window_reduce``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from omniop.backends.cpu.memory import Scratch
from omniop.backends.cpu.prefix import MONOIDS
from omniop.backends.reference.numpy_ops import cast
from omniop.opset import prims
from omniop.opset.dtype import of_numpy
from omniop.opset.kernel import Call

REDUCIBLE = (*MONOIDS, "and", "or")
_UFUNCS: dict[str, np.ufunc] = {**MONOIDS, "and": np.bitwise_and, "or": np.bitwise_or}


@dataclass(frozen=True)
class Geometry:
    """A window over the last axes of an array. ``pads`` are the begins of all axes, then the ends."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]

    @classmethod
    def of(cls, call: Call, kernel: Sequence[int]) -> Geometry:
        return cls(tuple(kernel), call.attr("strides"), call.attr("dilations"), call.attr("pads"))

    def without_last(self) -> Geometry:
        """The same over all axes but the last."""
        rank = len(self.kernel)
        pads = (*self.pads[: rank - 1], *self.pads[rank : 2 * rank - 1])
        return Geometry(self.kernel[:-1], self.strides[:-1], self.dilations[:-1], pads)

    def in_two_dims(self) -> Geometry:
        """One over the last axis as one over the last two."""
        if len(self.kernel) == 2:
            return self
        before, after = self.pads
        return Geometry((1, *self.kernel), (1, *self.strides), (1, *self.dilations), (0, before, 0, after))

    def reach(self, out: Sequence[int]) -> list[int]:
        """Extents of the padded array that windows at outputs of shape ``out`` touch."""
        parts = zip(out, self.strides, self.kernel, self.dilations, strict=True)
        return [(o - 1) * s + (k - 1) * d + 1 for o, s, k, d in parts]

    def padded(self, x: np.ndarray, out: Sequence[int], fill: Any, scratch: Scratch) -> np.ndarray:
        """``x`` with padding: itself (or a part of it) when windows stay inside, else one copy in scratch memory.

        The last windows may end before the declared padding does, or (ceil_mode) behind it.
        """
        rank = len(self.kernel)
        lead, extents, reach = x.shape[:-rank], x.shape[-rank:], self.reach(out)
        before = self.pads[:rank]
        if not any(before) and all(r <= d for r, d in zip(reach, extents, strict=True)):
            return x
        result = scratch.array("padded", (*lead, *reach), x.dtype)
        inner: list[slice] = [slice(None)] * len(lead)
        source: list[slice] = list(inner)
        for d, b, r in zip(extents, before, reach, strict=True):
            stop = max(0, min(b + d, r))
            inner.append(slice(min(max(b, 0), stop), stop))
            source.append(slice(max(-b, 0), max(-b, 0) + stop - min(max(b, 0), stop)))
        _fill_around(result, inner, fill)
        result[tuple(inner)] = x[tuple(source)]
        return result


def _fill_around(target: np.ndarray, inner: Sequence[slice], fill: Any) -> None:
    """Everything outside the box ``inner``, axis by axis."""
    box: list[slice] = [slice(None)] * target.ndim
    for axis, part in enumerate(inner):
        if part == slice(None):
            continue
        for side in (slice(0, part.start), slice(part.stop, None)):
            box[axis] = side
            target[tuple(box)] = fill
        box[axis] = part


def window_reduce(call: Call, operands: Sequence[np.ndarray], outs: Sequence[np.ndarray], scratch: Scratch) -> None:
    """Axis by axis, since a window is a product of ranges: a 3 x 3 one takes 6 operations and not 9."""
    (x,), (out,) = operands, outs
    monoid, dtype = call.attr("monoid"), of_numpy(x.dtype)
    geometry = Geometry.of(call, call.attr("kernel"))
    rank = len(geometry.kernel)
    value = geometry.padded(x, out.shape[-rank:], prims.identity(monoid, dtype), scratch)
    value = cast(value, prims.accumulator(dtype))
    target = out if out.dtype == value.dtype else None
    last = max((k for k in range(rank) if geometry.kernel[k] > 1), default=None)
    with np.errstate(all="ignore"):
        for k in range(rank):
            value = _along(value, k, geometry, out.shape, _UFUNCS[monoid], target if k == last else None)
    if value is not out:
        out[...] = cast(value, of_numpy(out.dtype))


def _along(
    x: np.ndarray, k: int, geometry: Geometry, shape: Sequence[int], ufunc: np.ufunc, into: np.ndarray | None
) -> np.ndarray:
    """``x`` reduced by the window's axis ``k``, for outputs of ``shape``; in ``into`` where that is given."""
    axis = x.ndim - len(geometry.kernel) + k
    stride, dilation = geometry.strides[k], geometry.dilations[k]
    box: list[slice] = [slice(None)] * x.ndim

    def tap(i: int) -> np.ndarray:
        box[axis] = slice(i * dilation, i * dilation + (shape[axis] - 1) * stride + 1, stride)
        return x[tuple(box)]

    if geometry.kernel[k] == 1:
        return tap(0)
    result: np.ndarray = ufunc(tap(0), tap(1), out=into)
    for i in range(2, geometry.kernel[k]):
        ufunc(result, tap(i), out=result)
    return result
