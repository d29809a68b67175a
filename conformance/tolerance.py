"""How near an output has to be, by operator and dtype, in one table with the reasons.

ONNX's own cases are judged as its own runner judges them, by a relative tolerance; ours in units in the last place
(ULP) of the output's dtype, against a result that was computed in float64 and rounded once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from omniop.conformance.samples.drawing import limits_of
from omniop.opset.dtype import DType

_BFLOAT16_RTOL = 2.0**-6
"""Two units in the last place of bfloat16, as onnx's own runner allows."""


@dataclass(frozen=True)
class Relative:
    """A float lies within ``atol + rtol * |expected|``, a bfloat16 with an ``rtol`` of at least 2^-6."""

    rtol: float
    atol: float

    def near(self, actual: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, str]:
        """Which elements are near, and the tolerance in words."""
        rtol = max(self.rtol, _BFLOAT16_RTOL) if expected.dtype.name == "bfloat16" else self.rtol
        distance, size, same = _apart(actual, expected)
        allowed = self.atol + rtol * np.where(np.isfinite(size), size, 0)
        return same | (distance <= allowed), f" (rtol {rtol:.3g}, atol {self.atol:.3g})"


@dataclass(frozen=True)
class Ulps:
    """A float lies within ``ulp`` units in the last place of the expected value, a unit being at least that of the
    smallest normal number (devices may flush what is smaller), or within ``scale`` units of the largest expected value
    of the output, which is what sums that cancel can be asked for. Everything but floats is equal."""

    ulp: float
    scale: float = 0.0
    coarse: bool = False
    """Units of a float64 are those of float32: the oracle has float32 inside."""

    def near(self, actual: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, str]:
        """Which elements are near, and the tolerance in words."""
        distance, size, same = _apart(actual, expected)
        told = f" ({self.ulp:g} ulp" + (f", {self.scale:g} of the largest)" if self.scale else ")")
        if self.ulp == 0 or not size.size:
            return same, told
        dtype = np.dtype(np.float32) if self.coarse and expected.dtype == np.float64 else expected.dtype
        finite = size[np.isfinite(size)]
        allowed = self.ulp * unit(size, dtype)
        if self.scale and finite.size:
            allowed = np.maximum(allowed, self.scale * unit(finite.max(), dtype))
        tiny = float(limits_of(expected.dtype).tiny)
        return same | (distance <= np.maximum(allowed, tiny)), told


Tolerance = Relative | Ulps


def _apart(actual: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances (NaN where either side is not finite), sizes of what is expected, and where both are the same."""
    one, other = actual.astype(np.float64), expected.astype(np.float64)
    with np.errstate(all="ignore"):
        finite = np.isfinite(one) & np.isfinite(other)
        distance = np.where(finite, np.abs(one - other), np.nan)
        same = (one == other) | (np.isnan(one) & np.isnan(other))
    return distance, np.abs(other), same


def unit(size: Any, dtype: np.dtype[Any]) -> Any:
    """One unit in the last place at each size."""
    limits = limits_of(dtype)
    with np.errstate(all="ignore"):
        exponent = np.floor(np.log2(np.maximum(np.where(np.isfinite(size), size, 0), float(limits.tiny))))
        return float(limits.eps) * 2.0**exponent


# -- the table -------------------------------------------------------------------------------------------------------

EXACT = Ulps(0)
"""Moves, comparisons, integers, and what IEEE 754 rounds correctly: any difference is a bug."""

_OPENCL: Mapping[str, float] = {
    **{"Div": 2.5, "Reciprocal": 2.5, "Mod": 0, "Sqrt": 3, "Exp": 3, "Log": 3, "Pow": 16, "Erf": 16},
    **{"Sin": 4, "Cos": 4, "Tan": 5, "Asin": 4, "Acos": 4, "Atan": 5},
    **{"Sinh": 4, "Cosh": 4, "Tanh": 5, "Asinh": 4, "Acosh": 4, "Atanh": 5, "Atan2": 6},
}
"""What OpenCL 3.0 asks of float32's functions, full profile (OpenCL C specification, relative error as ULPs): the
widest of the limits that conformant devices keep. In narrower dtypes they are computed in float32 and rounded."""

_ROUNDED = ("Div", "Sqrt")
"""Correctly rounded in float64, by the same specification."""

_COMPOSED: Mapping[str, tuple[float, float]] = {
    # A few roundings of an exponential, each below the limits above; 1 + erf and 1 + tanh cancel for negative x.
    **dict.fromkeys(("Sigmoid", "Softplus", "Mish", "Swish", "SwiGLU", "Elu", "Selu", "Celu", "Softsign"), (8, 1)),
    **dict.fromkeys(("Gelu", "HardSwish", "HardSigmoid", "LeakyRelu", "PRelu", "ThresholdedRelu", "Shrink"), (4, 2)),
    **dict.fromkeys(("Softmax", "LogSoftmax"), (8, 4)),
    # Sums of n terms in any order differ by up to n/2 roundings of their largest partial sum; n is small in samples,
    # but what is left of a sum that cancels may be a good deal smaller than its parts.
    **dict.fromkeys(("ReduceSum", "ReduceMean"), (8, 512)),
    **dict.fromkeys(("ReduceL1", "ReduceSumSquare", "ReduceL2", "ReduceProd"), (8, 8)),
    **dict.fromkeys(("ReduceLogSum", "ReduceLogSumExp", "CumSum", "CumProd", "Mean", "Sum", "Einsum"), (8, 8)),
    **dict.fromkeys(("MatMul", "Gemm", "Conv", "ConvTranspose", "DeformConv", "CausalConvWithState"), (8, 16)),
    **dict.fromkeys(("AveragePool", "GlobalAveragePool", "LpPool", "GlobalLpPool", "LRN", "RoiAlign"), (8, 8)),
    **dict.fromkeys(("AffineGrid", "Col2Im", "ScatterElements", "ScatterND"), (8, 16)),
    # A place is rounded before it is weighed: an error of the picture's slope times its rounding.
    **dict.fromkeys(("Resize", "GridSample"), (8, 128)),
    # A mean and a variance are taken off first: what is left carries the roundings of both.
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization", "LayerNormalization"), (8, 16)),
    **dict.fromkeys(("GroupNormalization", "RMSNormalization", "MeanVarianceNormalization"), (8, 16)),
    **dict.fromkeys(("LpNormalization", "RotaryEmbedding", "Dropout"), (8, 8)),
    **dict.fromkeys(("NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"), (8, 8)),
    # Several products and exponentials behind each other, in recurrences step after step.
    **dict.fromkeys(("Attention", "LinearAttention", "FlexAttention", "RNN", "GRU", "LSTM"), (16, 32)),
    **dict.fromkeys(("DFT", "STFT", "Det", "Inverse"), (16, 64)),
    **dict.fromkeys(("HannWindow", "HammingWindow", "BlackmanWindow", "MelWeightMatrix"), (8, 8)),
    # A step of int arithmetic on scales: one rounding of the scale's product.
    **dict.fromkeys(("DequantizeLinear", "Range"), (2, 2)),
    **dict.fromkeys(("Adagrad", "Adam", "Momentum", "Gradient"), (16, 16)),
    # ai.onnx.ml: float32 throughout, products and an exponential or a logistic function behind them.
    **dict.fromkeys(("LinearClassifier", "LinearRegressor", "SVMClassifier", "SVMRegressor"), (16, 64)),
    **dict.fromkeys(("Normalizer", "Scaler", "TreeEnsemble"), (4, 4)),
    # com.microsoft's, like ONNX's of their make; ONNX Runtime itself computes in float32 what is narrower.
    **dict.fromkeys(("BiasGelu", "FastGelu", "QuickGelu", "BiasSplitGelu"), (8, 2)),
    **dict.fromkeys(("FusedMatMul", "TransposeMatMul", "FusedGemm", "FusedConv", "MatMulNBits"), (8, 16)),
    **dict.fromkeys(("MatMulIntegerToFloat", "DynamicQuantizeMatMul", "CDist"), (8, 16)),
    **dict.fromkeys(("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), (16, 32)),
    **dict.fromkeys(("SimplifiedLayerNormalization", "EmbedLayerNormalization"), (16, 32)),
    **dict.fromkeys(("MultiHeadAttention", "GroupQueryAttention", "QAttention"), (16, 64)),
    **dict.fromkeys(("DynamicQuantizeLSTM", "QEmbedLayerNormalization"), (16, 64)),
}
"""ULPs of each value, and of the largest of its output."""


def tolerance_of(op: str) -> Tolerance:
    """How near the outputs of our cases for an operator (with its domain unless ai.onnx) have to be."""
    name = op.rpartition("::")[2]
    if name in _OPENCL:
        return Ulps(_OPENCL[name])
    if name in _COMPOSED:
        return Ulps(*_COMPOSED[name], coarse=name in _COARSE)
    return EXACT


def ulp_limit(function: str, dtype: DType) -> float:
    """How many units in the last place a function of the kernel IR (`omniop.opset.alu`) may be off its exact value.

    Half of one where it is rounded correctly, OpenCL's limits elsewhere, and one in dtypes rounded from float32.
    """
    name = function.capitalize()
    if name not in _OPENCL or (dtype.bits == 64 and name in _ROUNDED):
        return 0.5
    return float(_OPENCL[name]) if dtype.bits >= 32 else 1.0


def tolerance_of_function(function: str, dtype: DType) -> Tolerance:
    """The same against an expected value that was rounded."""
    limit = ulp_limit(function, dtype)
    return EXACT if limit <= 0.5 else Ulps(limit)


_COARSE = ("GridSample", "DeformConv", "Adam")
"""onnx.reference rounds places to float32, and the outcome of Adam where there is more than one tensor."""
