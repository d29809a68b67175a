"""Sliding windows: what the attributes of convolutions and pools say about where each output looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from omniop.opset.errors import ModelError
from omniop.opset.expr import Expr
from omniop.opset.lower.common import at_most
from omniop.opset.lowering import Node
from omniop.opset.sym import Dim, as_expr


@dataclass(frozen=True)
class Window:
    """A window over the last axes of a tensor; in ``pads`` the begins of all axes come before the ends."""

    kernel: tuple[Dim, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[Dim, ...]
    out: tuple[Dim, ...]
    """The dims of the output."""

    @property
    def geometry(self) -> dict[str, Any]:
        """The attributes that the prims ``conv`` and ``window_reduce`` share."""
        return {"strides": self.strides, "pads": self.pads, "dilations": self.dilations}

    def place(self, k: int, out: Expr, step: Expr) -> Expr:
        """Where along axis ``k`` element ``step`` of output place ``out``'s window lies; outside in the padding."""
        return out * self.strides[k] + step * self.dilations[k] - as_expr(self.begins[k])

    @property
    def begins(self) -> tuple[Dim, ...]:
        return self.pads[: len(self.kernel)]

    @property
    def ends(self) -> tuple[Dim, ...]:
        return self.pads[len(self.kernel) :]


def window_of(node: Node, spatial: Sequence[Dim], kernel: Sequence[Dim]) -> Window:
    """The node's window over dims ``spatial``: strides, dilations, pads or auto_pad, and ceil_mode.

    Raises ModelError when an attribute has the wrong length or the window is wider than what it slides over.
    """
    rank = len(spatial)
    if len(kernel) != rank:
        raise ModelError(f"{node.label}: a window of {len(kernel)} axes over {rank} spatial axes")
    strides, dilations = per_axis(node, "strides", rank, 1), per_axis(node, "dilations", rank, 1)
    widths = [dilation * (k - 1) + 1 for k, dilation in zip(kernel, dilations, strict=True)]
    auto = node.attr("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        out = [ceil_div(d, stride) for d, stride in zip(spatial, strides, strict=True)]
        total = [(o - 1) * s + w - d for o, s, w, d in zip(out, strides, widths, spatial, strict=True)]
        return Window(tuple(kernel), strides, dilations, split_pads(total, auto), tuple(out))
    pads = per_axis(node, "pads", 2 * rank, 0) if auto == "NOTSET" else (0,) * (2 * rank)
    ceil = bool(node.attr("ceil_mode", 0)) and auto == "NOTSET"
    out = []
    for k in range(rank):
        last = spatial[k] + pads[k] + pads[rank + k] - widths[k]  # the last place where a window fits
        if not at_most(0, last):
            raise ModelError(f"{node.label}: a window of {widths[k]} is wider than axis {k + 2} with its padding")
        size = last // strides[k] + 1
        if ceil:
            size = ceil_div(last, strides[k]) + 1
            # a window that would begin in the padding behind is left out; none does if a stride fits in before it
            fits = at_most(strides[k] + pads[rank + k], widths[k])
            if not fits and (size - 1) * strides[k] >= spatial[k] + pads[k]:
                size = size - 1
        out.append(size)
    return Window(tuple(kernel), strides, dilations, pads, tuple(out))


def ceil_div(a: Dim, b: int) -> Dim:
    return (a + b - 1) // b


def per_axis(node: Node, name: str, count: int, default: int) -> tuple[int, ...]:
    """An attribute with one int for each axis. Raises ModelError when it has another length."""
    values = tuple(node.attr(name) or (default,) * count)
    if len(values) != count:
        raise ModelError(f"{node.label}: attribute {name!r} has {len(values)} values where {count} are needed")
    return values


def split_pads(total: Sequence[Dim], auto: str) -> tuple[Dim, ...]:
    """Pads for SAME_UPPER (of an odd total more at the end) or SAME_LOWER; none where a total is negative."""
    amounts = [0 if at_most(t, 0) else t for t in total]
    small, large = [t // 2 for t in amounts], [t - t // 2 for t in amounts]
    return (*small, *large) if auto == "SAME_UPPER" else (*large, *small)
