"""A GGUF file of the llama architecture written as ONNX: plain ai.onnx ops, and a KV cache as inputs and outputs.

With ``d`` for embedding_length, per layer (Touvron et al. 2023, https://arxiv.org/abs/2302.13971):

    x += Attention(RMSNormalization(x))  # grouped queries, rotary positions
    x += down(swish(gate(h)) * up(h)) for h = RMSNormalization(x)

The graph's names are those that exporters to ONNX use: ``input_ids`` [batch, sequence], ``past_key_values.N.key`` and
``.value`` [batch, heads, past, head size], ``logits`` [batch, sequence, vocabulary], ``present.N.key`` and ``.value``
[batch, heads, past + sequence, head size].
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
from onnx import TensorProto, helper

OPSET = 24
_ALIGNMENT = 4096


@dataclass(frozen=True)
class Config:
    """Sizes of a llama."""

    layers: int
    heads: int
    kv_heads: int
    head_size: int
    context: int
    epsilon: float
    rope_base: float

    @classmethod
    def of_gguf(cls, metadata: Mapping[str, Any]) -> Config:
        """From a GGUF file's metadata. Raises ValueError for another architecture."""
        if (found := metadata.get("general.architecture")) != "llama":
            raise ValueError(f"the architecture is {found!r}, and 'llama' is needed")
        heads = metadata["llama.attention.head_count"]
        return cls(
            layers=metadata["llama.block_count"],
            heads=heads,
            kv_heads=metadata["llama.attention.head_count_kv"],
            head_size=metadata["llama.embedding_length"] // heads,
            context=metadata["llama.context_length"],
            epsilon=metadata["llama.attention.layer_norm_rms_epsilon"],
            rope_base=metadata["llama.rope.freq_base"],
        )


def save(metadata: Mapping[str, Any], tensor: Callable[[str], np.ndarray], path: Path) -> None:
    """Write the model to ``path``, and its weights beside it, one at a time.

    ``metadata``: a GGUF file's; what it says of the tokenizer goes into the model's own, as JSON. ``tensor`` gives
    float32 weights by their GGUF name; a matrix is [outputs, inputs]. Raises ValueError for another architecture.
    """
    with open(path.with_name(path.name + ".data"), "wb") as data:
        model = _Writer(Config.of_gguf(metadata), tensor, data).model()
    texts = {key: json.dumps(value) for key, value in metadata.items() if key.startswith("tokenizer.")}
    helper.set_model_props(model, texts)
    onnx.save(model, path)


class _Writer:
    """Nodes and initialisers as they come."""

    def __init__(self, config: Config, tensor: Callable[[str], np.ndarray], data: BinaryIO) -> None:
        self._config = config
        self._tensor = tensor
        self._data = data
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[TensorProto] = []

    def model(self) -> onnx.ModelProto:
        c = self._config
        embedding = self._external("embedding", self._tensor("token_embd.weight"))
        vocabulary, _ = self._initializers[-1].dims
        x = self._node("Gather", [embedding, "input_ids"], "embed")
        rotation = self._rotation()
        inputs, outputs = [_value("input_ids", TensorProto.INT64, ["batch", "sequence"])], []
        outputs.append(_value("logits", TensorProto.FLOAT, ["batch", "sequence", vocabulary]))
        for layer in range(c.layers):
            x = self._feed_forward(layer, self._attention(layer, x, rotation))
            for part in ("key", "value"):
                for values, name, length in ((inputs, "past_key_values", "past"), (outputs, "present", "total")):
                    shape = ["batch", c.kv_heads, length, c.head_size]
                    values.append(_value(f"{name}.{layer}.{part}", TensorProto.FLOAT, shape))
        x = self._normalised("norm", x, "output_norm.weight")
        unembedding = self._node("Transpose", [embedding], "unembedding", perm=[1, 0])  # the weights are tied
        self._node("MatMul", [x, unembedding], "logits")
        graph = helper.make_graph(self._nodes, "llama", inputs, outputs, self._initializers)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="omniop-examples")

    def _rotation(self) -> list[str]:
        """Cosines and sines [batch, sequence, head size / 2] of the new tokens' positions, which follow the past's."""
        c = self._config
        rates = c.rope_base ** (-np.arange(0, c.head_size, 2) / c.head_size)
        angles = np.arange(c.context)[:, None] * rates
        past = self._node("Shape", ["past_key_values.0.key"], "past", start=2, end=3)
        new = self._node("Shape", ["input_ids"], "sequence", start=1, end=2)
        total = self._node("Add", [past, new], "total")
        scalars = [self._node("Squeeze", [n], f"{n}_scalar") for n in (past, total)]
        counted = self._node("Range", [*scalars, self._small("one", np.array(1))], "counted")
        shape = self._node("Shape", ["input_ids"], "shape")
        positions = self._node("Expand", [counted, shape], "position_ids")
        caches = [self._external(f"{f.__name__}_cache", f(angles).astype(np.float32)) for f in (np.cos, np.sin)]
        return [self._node("Gather", [cache, positions], cache.removesuffix("_cache")) for cache in caches]

    def _attention(self, layer: int, x: str, rotation: Sequence[str]) -> str:
        c, own = self._config, f"layers.{layer}.attention"
        h = self._normalised(f"{own}.norm", x, f"blk.{layer}.attn_norm.weight")
        query, key, value = (self._linear(f"{own}.{p}", h, f"blk.{layer}.attn_{p}.weight") for p in "qkv")
        # GGUF has the rows of a llama's query and key in pairs that turn together.
        query, key = (
            self._node("RotaryEmbedding", [t, *rotation], f"{own}.rotated_{p}", num_heads=heads, interleaved=1)
            for t, p, heads in ((query, "q", c.heads), (key, "k", c.kv_heads))
        )
        past = [f"past_key_values.{layer}.{part}" for part in ("key", "value")]
        present = [f"present.{layer}.{part}" for part in ("key", "value")]
        inputs = [query, key, value, "", *past]
        y = self._node(*("Attention", inputs, own, present), q_num_heads=c.heads, kv_num_heads=c.kv_heads, is_causal=1)
        return self._node("Add", [x, self._linear(f"{own}.o", y, f"blk.{layer}.attn_output.weight")], f"{own}.sum")

    def _feed_forward(self, layer: int, x: str) -> str:
        own = f"layers.{layer}.mlp"
        h = self._normalised(f"{own}.norm", x, f"blk.{layer}.ffn_norm.weight")
        gate, up = (self._linear(f"{own}.{p}", h, f"blk.{layer}.ffn_{p}.weight") for p in ("gate", "up"))
        product = self._node("Mul", [self._node("Swish", [gate], f"{own}.swish"), up], f"{own}.product")
        return self._node(
            "Add", [x, self._linear(f"{own}.down", product, f"blk.{layer}.ffn_down.weight")], f"{own}.sum"
        )

    def _normalised(self, name: str, x: str, weight: str) -> str:
        scale = self._small(f"{name}.weight", self._tensor(weight))
        return self._node("RMSNormalization", [x, scale], name, epsilon=self._config.epsilon)

    def _linear(self, name: str, x: str, weight: str) -> str:
        return self._node("MatMul", [x, self._external(f"{name}.weight", self._tensor(weight).T)], name)

    def _node(
        self, op_type: str, inputs: Sequence[str], name: str, more_outputs: Sequence[str] = (), **attributes: Any
    ) -> str:
        """Add a node; gives its first output, which has its name."""
        self._nodes.append(helper.make_node(op_type, inputs, [name, *more_outputs], name, **attributes))
        return name

    def _small(self, name: str, array: np.ndarray) -> str:
        self._initializers.append(onnx.numpy_helper.from_array(array, name))
        return name

    def _external(self, name: str, array: np.ndarray) -> str:
        """An initialiser whose data goes to the file beside the model."""
        start = -(-self._data.tell() // _ALIGNMENT) * _ALIGNMENT
        self._data.seek(start)
        np.ascontiguousarray(array, "<f4").tofile(self._data)
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=array.shape)
        tensor.data_location = TensorProto.EXTERNAL
        where = {"location": Path(self._data.name).name, "offset": start, "length": array.size * 4}
        tensor.external_data.extend(onnx.StringStringEntryProto(key=k, value=str(v)) for k, v in where.items())
        self._initializers.append(tensor)
        return name


def _value(name: str, dtype: int, shape: Sequence[int | str]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)
