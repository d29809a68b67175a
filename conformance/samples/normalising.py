"""Normalisations, recurrences and attention."""

from __future__ import annotations

from typing import Any

import numpy as np

from omniop.conformance.samples.drawing import Values, normal, uniform
from omniop.conformance.samples.op import Found, Input, Op, samples


@samples("BatchNormalization")
def batch_normalization(op: Op) -> Found:
    for dtype in op.dtypes():
        for shape in ((2, 3), (2, 3, 4), (1, 5, 3, 7), (2, 1, 2, 2, 3)):
            c = shape[1]
            rest = normal(dtype, c), normal(dtype, c), normal(dtype, c), uniform(dtype, (c,), 0.5, 2)
            yield op(normal(dtype, *shape), *rest)
            yield op(normal(dtype, *shape), *rest, epsilon=0.1)
            if op.has("training_mode"):
                yield op(normal(dtype, *shape), *rest, training_mode=1, momentum=0.7, count=3)


@samples("InstanceNormalization")
def instance_normalization(op: Op) -> Found:
    for dtype in op.dtypes():
        for shape in ((2, 3, 4), (1, 5, 3, 7), (2, 1, 9)):
            yield op(normal(dtype, *shape), normal(dtype, shape[1]), normal(dtype, shape[1]))
            yield op(normal(dtype, *shape), normal(dtype, shape[1]), normal(dtype, shape[1]), epsilon=0.1)


@samples("LayerNormalization RMSNormalization")
def layer_normalization(op: Op) -> Found:
    for dtype in op.dtypes():
        for shape, axis in (((2, 7), -1), ((2, 3, 65), -1), ((2, 3, 4), 1), ((4, 3), 0), ((3, 515), -1)):
            scale = normal(dtype, *shape[axis:])
            yield op(normal(dtype, *shape), scale, axis=axis, outputs=(dtype,))
            yield op(normal(dtype, *shape), scale, axis=axis, epsilon=0.1, outputs=(dtype,))
            if op.name == "LayerNormalization":
                yield op(normal(dtype, *shape), scale, normal(dtype, *shape[axis:]), axis=axis, outputs=(dtype,))
                yield op(normal(dtype, *shape), scale, axis=axis, outputs=(dtype, "float32", "float32"))
        yield op.runs(*([normal(dtype, n, 9), normal(dtype, 9)] for n in (3, 1, 8, 3)), outputs=(dtype,))


@samples("GroupNormalization")
def group_normalization(op: Op) -> Found:
    for dtype in op.dtypes():
        for shape, groups in (((2, 4, 3), 2), ((1, 6, 3, 5), 3), ((2, 4, 2, 2), 1), ((2, 4, 5), 4)):
            size = groups if op.version < 21 else shape[1]
            yield op(normal(dtype, *shape), normal(dtype, size), normal(dtype, size), num_groups=groups)
            yield op(normal(dtype, *shape), normal(dtype, size), normal(dtype, size), num_groups=groups, epsilon=0.1)


@samples("MeanVarianceNormalization")
def mean_variance(op: Op) -> Found:
    for dtype in op.dtypes():
        yield op(normal(dtype, 2, 3, 4, 5))
        yield op(normal(dtype, 2, 3, 4), axes=[1])
        yield op(normal(dtype, 2, 3, 4), axes=[0, 2])


_GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}


@samples("RNN GRU LSTM")
def recurrent(op: Op) -> Found:
    gates = _GATES[op.name]
    for dtype in op.dtypes():
        for direction, count in (("forward", 1), ("reverse", 1), ("bidirectional", 2)):
            for length, batch, size, hidden in ((4, 2, 3, 5), (1, 1, 2, 2), (5, 3, 4, 3)):
                weights = uniform(dtype, (count, gates * hidden, size), -0.7, 0.7)
                again = uniform(dtype, (count, gates * hidden, hidden), -0.7, 0.7)
                start = normal(dtype, length, batch, size), weights, again
                bias = uniform(dtype, (count, 2 * gates * hidden), -0.5, 0.5)
                state = uniform(dtype, (count, batch, hidden), -0.9, 0.9)
                all_of: dict[str, Any] = {"hidden_size": hidden, "direction": direction}
                outputs = (dtype,) * (3 if op.name == "LSTM" else 2)
                yield op(*start, outputs=outputs, **all_of)
                yield op(*start, bias, outputs=outputs, **all_of)
                lengths = np.resize(np.array([length, 1]), batch).astype(np.int32)
                if dtype != "float64":  # ONNX Runtime, which alone heeds lengths and clips, has no LSTM of float64
                    yield op(*start, bias, lengths, outputs=outputs, tag="lengths", **all_of)
                    yield op(*start, bias, outputs=outputs, clip=0.4, **all_of)
                states = (state, state) if op.name == "LSTM" else (state,)
                yield op(*start, bias, None, *states, outputs=outputs, tag="state", **all_of)
                if op.name == "LSTM":
                    holes = uniform(dtype, (count, 3 * hidden), -0.5, 0.5)
                    yield op(*start, bias, None, *states, holes, outputs=outputs, tag="peepholes", **all_of)
                    if dtype != "float64":
                        yield op(*start, bias, outputs=outputs, input_forget=1, **all_of)
                if op.name == "GRU":
                    yield op(*start, bias, outputs=outputs, linear_before_reset=1, **all_of)
                yield op(*start, bias, outputs=("", *outputs[1:]), **all_of)
        if op.has("layout"):
            first = (
                normal(dtype, 2, 4, 3),
                uniform(dtype, (1, gates * 5, 3), -1, 1),
                uniform(dtype, (1, gates * 5, 5), -1, 1),
            )
            yield op(*first, outputs=outputs, hidden_size=5, layout=1)


@samples("Attention")
def attention(op: Op) -> Found:
    for dtype in op.dtypes("T1"):
        for batch, heads, kv, q, k, size in ((1, 1, 1, 3, 3, 4), (2, 4, 2, 5, 7, 8), (1, 2, 2, 1, 9, 16)):
            query = normal(dtype, batch, heads, q, size)
            key, value = normal(dtype, batch, kv, k, size), normal(dtype, batch, kv, k, size + 2)
            yield op(query, key, value, outputs=(dtype,))
            yield op(query, key, value, outputs=(dtype,), is_causal=1)
            yield op(query, key, value, outputs=(dtype,), scale=0.3, softcap=2.0)
            yield op(query, key, value, normal(dtype, q, k), outputs=(dtype,))
            yield op(query, key, value, normal("bool", batch, 1, q, k), outputs=(dtype,)) if q > 1 else None
            for kind in op.dtypes("U", kinds="iu") if dtype == "float32" and q == 3 else ():
                yield op(query, key, value, uniform(kind, (q, k), 0, 3), outputs=(dtype,), tag=kind)
            past = normal(dtype, batch, kv, 2, size), normal(dtype, batch, kv, 2, size + 2)
            yield op(query, key, value, None, *past, outputs=(dtype, dtype, dtype))
            flat = (normal(dtype, batch, s, n * d) for s, n, d in ((q, heads, size), (k, kv, size), (k, kv, size + 2)))
            yield op(*flat, outputs=(dtype,), q_num_heads=heads, kv_num_heads=kv)
            if op.version >= 25:
                yield op(query, key, value, outputs=(dtype,), is_causal=1, left_window_size=1)


@samples("LinearAttention")
def linear_attention(op: Op) -> Found:
    for dtype in op.dtypes("T"):
        for heads, rule in ((1, "linear"), (2, "linear"), (2, "gated"), (2, "delta"), (2, "gated_delta")):
            packed = normal(dtype, 2, 3, heads * 4)
            extra: list[Input] = [None, None, None]
            if rule.startswith("gated"):
                extra[1] = uniform(dtype, (2, 3, heads), -1.0, 0.0)
            if rule.endswith("delta"):
                extra[2] = uniform(dtype, (2, 3, heads), 0, 1)
            attributes: dict[str, Any] = {"q_num_heads": heads, "kv_num_heads": heads, "update_rule": rule}
            yield op(packed, packed, packed, *extra, outputs=(dtype, dtype), **attributes)


@samples("RotaryEmbedding")
def rotary_embedding(op: Op) -> Found:
    for dtype in op.dtypes("T"):
        for interleaved in (0, 1):
            caches = uniform(dtype, (9, 4), -1, 1), uniform(dtype, (9, 4), -1, 1)
            positions = np.array([[0, 1, 2], [4, 8, 3]])
            yield op(normal(dtype, 2, 5, 3, 8), *caches, positions, interleaved=interleaved)
            yield op(normal(dtype, 2, 3, 16), *caches, positions, interleaved=interleaved, num_heads=2)
            part: tuple[Values, ...] = (uniform(dtype, (2, 3, 2), -1, 1), uniform(dtype, (2, 3, 2), -1, 1))
            yield op(normal(dtype, 2, 5, 3, 8), *part, interleaved=interleaved, rotary_embedding_dim=4)


@samples("FlexAttention", "ai.onnx.preview")
def flex_attention(op: Op) -> Found:
    for dtype in op.dtypes("T1"):
        for batch, heads, kv, q, k, size in ((1, 1, 1, 3, 3, 4), (2, 4, 2, 5, 7, 8)):
            query = normal(dtype, batch, heads, q, size)
            key, value = normal(dtype, batch, kv, k, size), normal(dtype, batch, kv, k, size + 2)
            yield op(query, key, value)
            yield op(query, key, value, scale=0.25)
