"""Strings that are moved, where onnx.reference cannot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from omniop.dispatcher.host_ops import HOST_FORMS, by_reference
from omniop.dispatcher.values import RuntimeValue, to_host

if TYPE_CHECKING:
    from omniop.dispatcher.graph import NodeInfo


def pad(runner: Any, info: NodeInfo, inputs: Sequence[RuntimeValue], env: Any, report: Any) -> list[Any]:
    """What negative pads cut off is gone before the others are added."""
    strings, pads, value, axes = [*map(to_host, inputs), None, None][:4]
    widths = np.zeros((strings.ndim, 2), np.int64)
    widths[slice(None) if axes is None else axes] = pads.reshape(2, -1).T
    kept = tuple(slice(max(-a, 0), n - max(-b, 0)) for (a, b), n in zip(widths.tolist(), strings.shape, strict=True))
    mode = info.attributes.get("mode", "constant")
    filler = {"constant_values": "" if value is None else value.item()} if mode == "constant" else {}
    return [np.pad(strings[kept], np.maximum(widths, 0), mode, **filler)]


def one_hot(runner: Any, info: NodeInfo, inputs: Sequence[RuntimeValue], env: Any, report: Any) -> list[Any]:
    """The places of the off and on values, and then these."""
    indices, depth, values = map(to_host, inputs)
    (places,) = by_reference(runner, info, [indices, depth, np.arange(2)], env, report)
    return [values[places]]


def resize(runner: Any, info: NodeInfo, inputs: Sequence[RuntimeValue], env: Any, report: Any) -> list[Any]:
    """The places of the nearest, and then what is there."""
    strings, *rest = map(to_host, inputs)
    numbered = np.arange(strings.size, dtype=np.float64).reshape(strings.shape)
    (places,) = by_reference(runner, info, [numbered, *rest], env, report)
    return [strings.reshape(-1)[places.astype(np.int64)]]


HOST_FORMS["", "Pad"] = pad
HOST_FORMS["", "Resize"] = resize
HOST_FORMS["", "OneHot"] = one_hot
