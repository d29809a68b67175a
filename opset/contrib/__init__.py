"""Operators that ONNX does not define but models use: their schemas, as ONNX Runtime 1.32 has them, in tables.

ONNX Runtime's contrib operators, https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md: of the
domain ``com.microsoft``, and the few that it has in ONNX's own. The lowerings are `omniop.opset.lower.contrib_*`.
"""

from __future__ import annotations

from omniop.opset.contrib import arithmetic, attention, quantized
from omniop.opset.contrib.signature import DOMAIN, NUMBERS

__all__ = ["DOMAIN", "NUMBERS", "SCHEMAS"]

SCHEMAS = (*arithmetic.SCHEMAS, *attention.SCHEMAS, *quantized.SCHEMAS)
