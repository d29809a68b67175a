"""com.microsoft's activations, products, convolutions, normalizations and shapes, against onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest
from contrib import Case, check, coins, f32, i32, normal
from evaluate import lower

from omniop.opset.errors import ModelError, UnsupportedError

G, B = normal(6), normal(6)
IDS = np.array([[0, 8, 3], [3, 2, 2]], np.int32)
SEGMENTS = np.array([[0, 0, 1], [1, 0, 1]], np.int32)
CONV = [normal(1, 4, 5, 6), normal(3, 4, 3, 3), normal(3), normal(1, 3, 5, 6)]
SUM = [True, False, False, True]

CASES = {
    "Gelu": Case("Gelu", [normal(3, 5)]),
    "Gelu-empty": Case("Gelu", [normal(0, 5)]),
    "FastGelu": Case("FastGelu", [normal(3, 5)]),
    "FastGelu-bias": Case("FastGelu", [normal(2, 3, 5), normal(5)]),
    "BiasGelu": Case("BiasGelu", [normal(2, 3, 5), normal(5)]),
    "QuickGelu": Case("QuickGelu", [normal(3, 5)], {"alpha": 1.3}),
    "FusedMatMul": Case("FusedMatMul", [normal(2, 3, 5), normal(5, 4)], {"alpha": 0.5}),
    "FusedMatMul-turned": Case("FusedMatMul", [normal(2, 5, 3), normal(4, 5)], {"transA": 1, "transB": 1}),
    "FusedMatMul-vector": Case("FusedMatMul", [normal(5), normal(5, 4)], {"transA": 1}),
    "FusedMatMul-batch": Case("FusedMatMul", [normal(4, 3, 5), normal(3, 5, 6)], {"transBatchA": 1}),
    "FusedMatMul-all": Case(
        "FusedMatMul",
        [normal(5, 3, 4), normal(6, 3, 5)],
        {"transBatchA": 1, "transA": 1, "transBatchB": 1, "transB": 1},
    ),
    "TransposeMatMul": Case("TransposeMatMul", [normal(2, 5, 3), normal(5, 4)], {"transA": 1, "alpha": 2.0}),
    "FusedGemm": Case("FusedGemm", [normal(3, 5), normal(5, 4)], {"activation": "Relu"}),
    "FusedGemm-alpha": Case(
        "FusedGemm",
        [normal(3, 5), normal(5, 4), normal(4)],
        {"activation": "LeakyRelu", "activation_alpha": 0.2, "alpha": 0.5, "beta": 2.0},
    ),
    "FusedConv": Case("FusedConv", CONV[:3], {"activation": "Relu"}),
    **{
        f"FusedConv-{name}": Case(
            "FusedConv", CONV, {"pads": [1, 1, 1, 1], "activation": name, **({"activation_params": at} if at else {})}
        )
        for name, at in {
            "Tanh": [],
            "Sigmoid": [],
            "LeakyRelu": [0.1],
            "Clip": [-0.5, 0.7],
            "HardSigmoid": [0.2, 0.5],
        }.items()
    },
    "Inverse": Case("Inverse", [normal(2, 5, 5)]),
    "Inverse-pivot": Case("Inverse", [f32([[0, 2], [1, 0]])]),
    "Inverse-1": Case("Inverse", [f32([[4]])]),
    "CDist": Case("CDist", [normal(4, 3), normal(5, 3)]),
    "CDist-root": Case("CDist", [normal(4, 3), normal(5, 3)], {"metric": "euclidean"}),
    "ExpandDims": Case("ExpandDims", [normal(2, 3), i32(1)]),
    "ExpandDims-last": Case("ExpandDims", [normal(2, 3), np.array(-1, np.int32)]),
    "GatherND": Case("GatherND", [normal(2, 3, 4), np.array([[0, 1], [1, 2]])]),
    "Pad": Case("Pad", [normal(2, 3), np.array([1, 0, 0, 2]), f32([0.5])]),
    "Pad-edge": Case("Pad", [normal(2, 3), np.array([1, 0, 0, 2])], {"mode": "edge"}),
    "Range": Case("Range", [f32(1), f32(5)]),
    "Range-step": Case("Range", [np.array(1), np.array(9), np.array(3)]),
    "Trilu": Case("Trilu", [normal(3, 4), np.array(1)], {"upper": 0}),
    "SkipLayerNormalization": Case("SkipLayerNormalization", [normal(2, 3, 6), normal(2, 3, 6), G, B, B], {}, SUM),
    "SkipLayerNormalization-2d": Case("SkipLayerNormalization", [normal(2, 3, 6), normal(3, 6), G]),
    "SkipLayerNormalization-1": Case("SkipLayerNormalization", [normal(2, 3, 6), normal(1, 3, 6), G, None, B]),
    "SkipSimplified": Case("SkipSimplifiedLayerNormalization", [normal(2, 3, 6), normal(2, 3, 6), G, B], {}, SUM),
    "SkipSimplified-2d": Case("SkipSimplifiedLayerNormalization", [normal(3, 6), normal(3, 6), G], {"epsilon": 1e-3}),
    "SimplifiedLayerNormalization": Case("SimplifiedLayerNormalization", [normal(2, 3, 6), G], domain=""),
    "SimplifiedLayerNormalization-axis": Case(
        "SimplifiedLayerNormalization", [normal(2, 3, 6), normal(3, 6)], {"axis": 1}, (True, True), domain=""
    ),
    "LayerNormalization-11": Case("LayerNormalization", [normal(2, 3, 6), G, B], domain="", opset=11),
    "Embed": Case(
        "EmbedLayerNormalization",
        [IDS, SEGMENTS, normal(9, 6), normal(5, 6), normal(2, 6), G, B, coins(2, 3)],
        {"epsilon": 1e-5},
        (True, True, True),
    ),
    "Embed-bare": Case(
        "EmbedLayerNormalization", [IDS, None, normal(9, 6), normal(5, 6), None, G, B], {}, (True, True)
    ),
    "Embed-placed": Case(
        "EmbedLayerNormalization",
        [IDS, None, normal(9, 6), normal(5, 6), None, G, B, None, i32(2, 1, 0).reshape(1, 3)],
        {},
        (True, True),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_as_onnxruntime(case: Case) -> None:
    check(case)


DEVICE_CASES = ["FastGelu-bias", "FusedMatMul-all", "FusedConv-Clip", "Inverse", "CDist", "SkipSimplified", "Embed"]


@pytest.mark.parametrize("name", DEVICE_CASES)
def test_on_devices(name: str, device: str) -> None:
    CASES[name].agrees(CASES[name].on(device), CASES[name].expected())


def test_bias_split_gelu() -> None:
    """onnxruntime has no kernel for CPUs: by its definition."""
    x, bias = normal(2, 3, 10), normal(10)
    left, right = np.split((x + bias).astype(np.float64), 2, -1)
    gate = Case("Gelu", [right.astype(np.float32)]).expected()[0]
    found = lower("BiasSplitGelu", 1, [x, bias], domain="com.microsoft")[0]
    np.testing.assert_allclose(found, left * gate, rtol=1e-4, atol=1e-5)


def test_statistics_of_skipped_normalizations() -> None:
    """onnxruntime leaves them empty on CPUs."""
    x, skip = normal(2, 3, 6), normal(2, 3, 6)
    total = (x + skip).astype(np.float64)
    _, mean, inverse = lower("SkipLayerNormalization", 1, [x, skip, G], {"epsilon": 1e-3}, 3, "com.microsoft")
    np.testing.assert_allclose(mean[..., 0], total.mean(-1), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(inverse[..., 0], 1 / np.sqrt(total.var(-1) + 1e-3), rtol=1e-4)
    _, _, root = lower("SkipSimplifiedLayerNormalization", 1, [x, skip, G], {"epsilon": 1e-3}, 3, "com.microsoft")
    np.testing.assert_allclose(root[..., 0], 1 / np.sqrt((total**2).mean(-1) + 1e-3), rtol=1e-4)


def test_what_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="activation 'swirl'; known: clip, relu, tanh"):
        Case("FusedConv", CONV[:2], {"activation": "Swirl"}).lowered(False)
    with pytest.raises(ModelError, match="Clip with 1 activation_params"):
        Case("FusedConv", CONV[:2], {"activation": "Clip", "activation_params": [1.0]}).lowered(False)
    with pytest.raises(ModelError, match="metric is 'cosine'; known are sqeuclidean, euclidean"):
        Case("CDist", [normal(2, 3), normal(2, 3)], {"metric": "cosine"}).lowered(False)
    with pytest.raises(ModelError, match="an inverse is of square matrices: 2 is not 3"):
        Case("Inverse", [normal(2, 3)]).lowered(False)
    with pytest.raises(IndexError, match="an index is outside its axis of 9"):
        Case("EmbedLayerNormalization", [IDS + 1, None, normal(9, 6), normal(5, 6), None, G, B]).lowered(False)
