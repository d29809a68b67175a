"""What the CPU's kernels store and compute."""

from __future__ import annotations

from omniop.backends.base import Caps
from omniop.opset import dtype as dtypes

_COMPUTE = frozenset(d for d in dtypes.ALL if d.kind in "biu" and d.bits >= 8) | {dtypes.FLOAT32, dtypes.FLOAT64}
CAPS = Caps(storage=_COMPUTE | {dtypes.FLOAT16}, compute=_COMPUTE, max_buffers=64)
