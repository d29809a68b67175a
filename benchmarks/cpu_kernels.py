"""The CPU's kernels beside ONNX Runtime's: one node a model, one thread, both in turns.

    OPENBLAS_NUM_THREADS=1 python -m benchmarks.cpu_kernels          # all groups
    OPENBLAS_NUM_THREADS=1 python -m benchmarks.cpu_kernels conv     # one

Times are medians of process CPU time; ``times`` above 1 means that omniop is faster.
"""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
from onnx import ModelProto, helper, numpy_helper

import omniop

SECONDS = 0.6
"""Of runs of each engine."""


@dataclass(frozen=True)
class Case:
    """One node, maybe with a ReLU behind it; ``weights`` are constants behind the input ``x``."""

    name: str
    op: str
    x: tuple[int, ...]
    weights: tuple[tuple[int, ...], ...] = ()
    attributes: dict[str, Any] = field(default_factory=dict)
    relu: bool = False

    def model(self) -> ModelProto:
        rng = np.random.default_rng(0)
        names = [f"w{k}" for k in range(len(self.weights))]
        constants = [
            numpy_helper.from_array((rng.standard_normal(shape) * 0.1).astype("f"), name)
            for name, shape in zip(names, self.weights, strict=True)
        ]
        nodes = [helper.make_node(self.op, ["x", *names], ["y" if not self.relu else "z"], **self.attributes)]
        if self.relu:
            nodes.append(helper.make_node("Relu", ["z"], ["y"]))
        x = helper.make_tensor_value_info("x", 1, self.x)
        graph = helper.make_graph(nodes, "case", [x], [helper.make_tensor_value_info("y", 1, None)], constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)


def conv(name: str, channels: int, size: int, filters: int, kernel: int, stride: int = 1, group: int = 1) -> Case:
    pad = kernel // 2
    attributes = {"pads": [pad] * 4, "strides": [stride] * 2, "group": group}
    weights = ((filters, channels // group, kernel, kernel), (filters,))
    return Case(name, "Conv", (1, channels, size, size), weights, attributes, relu=True)


def attention(name: str, heads: int, queries: int, keys: int, groups: int = 0, **attributes: Any) -> Case:
    kept = (1, groups or heads, keys, 64)
    return Case(name, "Attention", (1, heads, queries, 64), (kept, kept), attributes)


GROUPS: dict[str, list[Case]] = {
    "gemm": [
        Case("bert projection", "MatMul", (128, 768), ((768, 768),)),
        Case("bert up, relu", "MatMul", (128, 768), ((768, 3072),), relu=True),
        Case("bert down", "MatMul", (128, 3072), ((3072, 768),)),
        Case("short sequence", "MatMul", (16, 384), ((384, 1536),), relu=True),
        Case("gemm, transposed", "Gemm", (64, 512), ((1000, 512), (1000,)), {"transB": 1}),
        Case("one row, a vocabulary", "MatMul", (1, 768), ((768, 50257),)),
        Case("one row", "Gemm", (1, 1280), ((1000, 1280), (1000,)), {"transB": 1}),
        Case("square", "MatMul", (768, 768), ((768, 768),)),
        Case("batched", "MatMul", (12, 128, 64), ((12, 64, 128),)),
        Case("ocr head", "MatMul", (40, 120), ((120, 6625),)),
    ],
    "attention": [
        attention("bert, vit", 12, 128, 128),
        attention("whisper", 6, 1500, 1500),
        attention("one token", 12, 1, 129),
        attention("one token, long cache", 12, 1, 2048),
        attention("shared heads, causal", 14, 128, 128, groups=2, is_causal=1),
    ],
    "conv": [
        conv("first 3x3/2", 3, 224, 32, 3, 2),
        conv("3x3 64@56", 64, 56, 64, 3),
        conv("3x3 128@28", 128, 28, 128, 3),
        conv("3x3 256@14", 256, 14, 256, 3),
        conv("3x3 512@7", 512, 7, 512, 3),
        conv("3x3/2 64@56", 64, 56, 128, 3, 2),
        conv("1x1 16->96@112", 16, 112, 96, 1),
        conv("1x1 96->24@56", 96, 56, 24, 1),
        conv("1x1 256->64@56", 256, 56, 64, 1),
        conv("1x1 512->2048@7", 512, 7, 2048, 1),
        conv("7x7/2 stem", 3, 224, 64, 7, 2),
        conv("grouped 3x3", 128, 28, 128, 3, 1, 4),
        Case("dilated 3x3", "Conv", (1, 64, 40, 40), ((64, 64, 3, 3), (64,)), {"dilations": [2, 2], "pads": [2] * 4}),
        Case("1d 5", "Conv", (1, 80, 400), ((256, 80, 5), (256,)), {"pads": [2, 2]}),
        Case("transposed 2x2/2", "ConvTranspose", (1, 24, 80, 80), ((24, 24, 2, 2), (24,)), {"strides": [2, 2]}),
    ],
    "depthwise": [
        conv("3x3 32@112", 32, 112, 32, 3, 1, 32),
        conv("3x3/2 96@112", 96, 112, 96, 3, 2, 96),
        conv("3x3 384@14", 384, 14, 384, 3, 1, 384),
        conv("5x5 240@28", 240, 28, 240, 5, 1, 240),
        conv("5x5/2 240@28", 240, 28, 240, 5, 2, 240),
        conv("3x3 960@7", 960, 7, 960, 3, 1, 960),
        conv("7x7 96@56", 96, 56, 96, 7, 1, 96),
    ],
    "pool": [
        Case(
            "max 3x3/2", "MaxPool", (1, 64, 112, 112), (), {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4}
        ),
        Case("max 2x2/2", "MaxPool", (1, 64, 56, 56), (), {"kernel_shape": [2, 2], "strides": [2, 2]}),
        Case("max 3x3", "MaxPool", (1, 64, 56, 56), (), {"kernel_shape": [3, 3], "pads": [1] * 4}),
        Case("average 3x3", "AveragePool", (1, 64, 56, 56), (), {"kernel_shape": [3, 3], "pads": [1] * 4}),
        Case("average 2x2/2", "AveragePool", (1, 64, 56, 56), (), {"kernel_shape": [2, 2], "strides": [2, 2]}),
        Case("global average", "GlobalAveragePool", (1, 512, 14, 14)),
    ],
}


def runs(case: Case) -> tuple[Callable[[], Any], Callable[[], Any]]:
    """The case by omniop and by ONNX Runtime."""
    model = case.model()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    theirs = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    ours = omniop.load(model, device="cpu", threads=1)
    x = np.random.default_rng(1).standard_normal(case.x).astype("f")
    return lambda: ours.run({"x": x})["y"], lambda: theirs.run(None, {"x": x})[0]


def paired(ours: Callable[[], Any], theirs: Callable[[], Any]) -> Iterator[tuple[float, float]]:
    """CPU seconds of both, in turns."""

    def timed(run: Callable[[], Any]) -> float:
        start = time.process_time()
        run()
        return time.process_time() - start

    for _ in range(3):
        ours(), theirs()
    end = time.perf_counter() + 2 * SECONDS
    while time.perf_counter() < end:
        yield timed(ours), timed(theirs)


def main() -> None:
    print(f"{'':28} {'omniop us':>10} {'ORT us':>10} {'times':>6}  apart")
    every = []
    for group in sys.argv[1:] or GROUPS:
        ratios = []
        for case in GROUPS[group]:
            ours, theirs = runs(case)
            got, wanted = ours(), theirs()
            apart = np.abs(got - wanted).max() / np.abs(wanted).max()
            a, b = (statistics.median(times) for times in zip(*paired(ours, theirs), strict=True))
            ratios.append(b / a)
            print(
                f"{group + ': ' + case.name:28} {a * 1e6:10.1f} {b * 1e6:10.1f} {b / a:6.2f}  {apart:.0e}", flush=True
            )
        every += ratios
        print(f"{group + ', geometric mean':28} {'':21} {math.exp(statistics.fmean(map(math.log, ratios))):6.2f}")
    print(f"{'all':28} {'':21} {math.exp(statistics.fmean(map(math.log, every))):6.2f}")


if __name__ == "__main__":
    main()
