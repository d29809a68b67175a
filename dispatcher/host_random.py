"""Random draws on the host, by numpy's generator: what records of ONNX's draws can be compared with.

Most are onnx.reference's own. Without a seed, each run draws anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from omniop.dispatcher.host_ops import HOST_FORMS, HOST_OPS, by_reference, host_op, one_element
from omniop.dispatcher.values import RuntimeValue, to_host
from omniop.opset import dtype as dtypes
from omniop.opset.errors import ExecutionError

if TYPE_CHECKING:
    from omniop.dispatcher.graph import NodeInfo

for _name in ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli"):
    HOST_OPS["", _name] = by_reference


def _generator(info: NodeInfo) -> np.random.RandomState:
    seed = info.attributes.get("seed")
    return np.random.RandomState(None if seed is None else int(seed))


@host_op("Multinomial")
def multinomial(runner: Any, info: NodeInfo, inputs: Sequence[RuntimeValue], env: Any, report: Any) -> list[Any]:
    """Log-probabilities [batch, classes], which need not be normalised, to class numbers [batch, sample_size].

    A class is drawn where a uniform number falls into its share of the probabilities laid end to end.
    """
    logits = to_host(inputs[0])
    if logits.ndim != 2 or not logits.shape[1]:
        raise ExecutionError(f"{info.label}: shape {list(logits.shape)}; [batch, classes] is needed")
    count = info.attributes.get("sample_size", 1)
    wide = logits.astype(np.float64)
    ends = np.cumsum(np.exp(wide - wide.max(1, keepdims=True)), 1)
    places = _generator(info).uniform(0.0, 1.0, (len(ends), count)) * ends[:, -1:]
    drawn = np.array([np.searchsorted(row, at, "right") for row, at in zip(ends, places, strict=True)])
    dtype = dtypes.of_onnx(info.attributes.get("dtype", dtypes.INT32.onnx)).numpy
    return [drawn.reshape(len(ends), count).astype(dtype)]


def training_dropout(runner: Any, info: NodeInfo, inputs: Sequence[RuntimeValue], env: Any, report: Any) -> list[Any]:
    """Elements kept where numpy's draw is at least the ratio, and scaled up by as much as is lost on average."""
    x = to_host(inputs[0])
    given = inputs[1] if len(inputs) > 1 else None
    ratio = 0.5 if given is None else float(one_element(given, info))
    if not 0 <= ratio < 1:
        raise ExecutionError(f"{info.label}: a ratio of {ratio}; at least 0 and below 1 is needed")
    kept = _generator(info).uniform(0.0, 1.0, x.shape) >= ratio
    return [(kept * x.astype(np.float64) / (1.0 - ratio)).astype(x.dtype), kept][: len(info.outputs)]


HOST_FORMS["", "Dropout"] = training_dropout
