"""Models as onnxruntime writes them: its rewriting makes operators of com.microsoft, and they give what its own do."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static

import omniop
from tests.gate.case import Feeds, model, normal
from tests.gate.models import bert, bert_feeds

ENGINE = ["CPUExecutionProvider"]
PICTURE = {"x": normal(2, 3, 9, 8)}
SEVEN_BITS = True
"""Of 8-bit weights onnxruntime saturates sums of two products at 16 bits, on CPUs without VNNI."""


def plain_bert(folder: Path) -> tuple[Path, Feeds]:
    path = folder / "bert.onnx"
    onnx.save(bert(), path)
    return path, bert_feeds(2, 7)


def quantized_bert(folder: Path) -> tuple[Path, Feeds]:
    source, feeds = plain_bert(folder)
    quantize_dynamic(source, folder / "int8.onnx", reduce_range=SEVEN_BITS)
    return folder / "int8.onnx", feeds


def quantized_convolutions(folder: Path) -> tuple[Path, Feeds]:
    """Conv, a residual Add, pools, LeakyRelu, Concat and a Gemm, each between quantizing and dequantizing."""
    proto = model(
        """net (float[N, 3, H, W] x) => (float[N, 4] y) {
            c = Conv <pads = [1, 1, 1, 1]> (x, w, b)
            l = LeakyRelu <alpha = 0.1> (c)
            d = Conv <pads = [1, 1, 1, 1]> (l, v)
            s = Add (d, l)
            p = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (s)
            j = Concat <axis = 1> (p, p)
            g = GlobalAveragePool (j)
            f = Flatten (g)
            y = Gemm (f, m, k)
        }""",
        w=normal(6, 3, 3, 3, seed=1),
        b=normal(6, seed=2),
        v=normal(6, 6, 3, 3, seed=3),
        m=normal(12, 4, seed=4),
        k=normal(4, seed=5),
    )
    source, target = folder / "net.onnx", folder / "qdq.onnx"
    onnx.save(proto, source)

    class Pictures(CalibrationDataReader):
        def __init__(self) -> None:
            self.rest = [PICTURE]

        def get_next(self) -> Feeds | None:
            return self.rest.pop() if self.rest else None

    quantize_static(source, target, Pictures(), quant_format=QuantFormat.QDQ, reduce_range=SEVEN_BITS)
    return target, PICTURE


MODELS: dict[str, tuple[Callable[[Path], tuple[Path, Feeds]], set[str]]] = {
    "bert": (plain_bert, {"FusedMatMul", "BiasGelu", "FusedGemm"}),
    "bert-int8": (quantized_bert, {"DynamicQuantizeMatMul", "MatMulIntegerToFloat", "SkipLayerNormalization"}),
    "convolutions-int8": (quantized_convolutions, {"QGemm", "QLinearGlobalAveragePool"}),
}


@pytest.mark.parametrize(("build", "made"), MODELS.values(), ids=MODELS)
def test_a_rewritten_model(build: Callable[[Path], tuple[Path, Feeds]], made: set[str], tmp_path: Path) -> None:
    logging.disable()
    source, feeds = build(tmp_path)
    logging.disable(logging.NOTSET)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "rewritten.onnx")
    expected = onnxruntime.InferenceSession(source, options, providers=ENGINE).run(None, feeds)
    rewritten = tmp_path / "rewritten.onnx"
    found = {n.op_type for n in onnx.load(rewritten).graph.node if n.domain == "com.microsoft"}
    assert made <= found
    session = omniop.load(rewritten, device="reference", fallback="error")
    for a, b in zip(session.run(feeds).values(), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
