"""com.microsoft's operators on floats: activations, fused products, normalisations, attention."""

from __future__ import annotations

from typing import Any

import numpy as np

from omniop.conformance.samples.drawing import index, normal, uniform, wide
from omniop.conformance.samples.op import Found, Op, samples

_MS = "com.microsoft"
_SHAPES = ((7,), (3, 5), (2, 3, 65))


@samples("Gelu FastGelu QuickGelu", _MS)
def activation(op: Op) -> Found:
    for dtype in op.dtypes("T"):
        for shape in _SHAPES:
            yield op(normal(dtype, *shape))
            yield op(normal(dtype, *shape), normal(dtype, shape[-1])) if op.name == "FastGelu" else None
            yield op(normal(dtype, *shape), alpha=0.5) if op.name == "QuickGelu" else None
        yield op(uniform(dtype, (40,), -12, 12), tag="tails")


@samples("BiasGelu BiasSplitGelu", _MS)
def biased(op: Op) -> Found:
    for dtype in op.dtypes("T"):
        for shape in ((2, 3, 66), (1, 2, 8), (1, 1, 2)):
            yield op(normal(dtype, *shape), normal(dtype, shape[-1]))


@samples("FusedMatMul TransposeMatMul FusedGemm", _MS)
def product(op: Op) -> Found:
    for dtype in op.dtypes("T"):
        for a, b in ((0, 0), (0, 1), (1, 0), (1, 1)):
            left, right = (4, 7) if a else (7, 4), (5, 4) if b else (4, 5)
            yield op(normal(dtype, *left), normal(dtype, *right), transA=a, transB=b)
            if op.name == "FusedGemm":
                yield op(normal(dtype, *left), normal(dtype, *right), normal(dtype, 5), transA=a, transB=b, beta=0.5)
                kinds = ("Relu", "Tanh", "Sigmoid", "LeakyRelu") if dtype in op.dtypes("T", kinds="f") else ("Relu",)
                for kind in kinds:
                    yield op(normal(dtype, *left), normal(dtype, *right), transA=a, transB=b, activation=kind)
            else:
                yield op(normal(dtype, 2, *left), normal(dtype, *right), transA=a, transB=b, alpha=0.25)
                yield op(normal(dtype, 2, *left), normal(dtype, 2, *right), transA=a, transB=b)
        yield op(normal(dtype, 3, 2, 4), normal(dtype, 2, 4, 5), transBatchA=1)


@samples("FusedConv", _MS)
def fused_conv(op: Op) -> Found:
    for dtype in op.dtypes("T"):
        for kind in ("Relu", "Tanh", "Sigmoid"):
            yield op(normal(dtype, 1, 3, 6, 5), normal(dtype, 4, 3, 3, 3), normal(dtype, 4), activation=kind)
            z = normal(dtype, 1, 4, 6, 5)
            yield op(normal(dtype, 1, 3, 6, 5), normal(dtype, 4, 3, 3, 3), None, z, pads=[1, 1, 1, 1], activation=kind)
        yield op(
            *(normal(dtype, 1, 3, 6), normal(dtype, 4, 3, 3)), activation="LeakyRelu", activation_params=[0.3], tag="1d"
        )
        yield op(
            *(normal(dtype, 1, 3, 6, 6), normal(dtype, 4, 3, 3, 3)), activation="Clip", activation_params=[-0.5, 1.5]
        )


@samples("Inverse CDist ExpandDims Pad Range", _MS)
def algebra(op: Op) -> Found:
    for dtype in op.dtypes("T"):
        match op.name:
            case "Inverse":
                for shape in ((1, 1), (3, 3), (2, 4, 4)):
                    eye = np.eye(shape[-1]) * 4 + np.arange(np.prod(shape)).reshape(shape) % 3 * 0.5
                    yield op(eye.astype(dtype))
            case "CDist":
                for metric in ("sqeuclidean", "euclidean"):
                    yield op(normal(dtype, 5, 3), normal(dtype, 4, 3), metric=metric)
                    yield op(normal(dtype, 1, 65), normal(dtype, 7, 65), metric=metric)
            case "ExpandDims":
                for axis in (0, 1, -1, 2):
                    yield op(wide(dtype, 3, 4), np.array(axis, np.int32), tag=f"axis_{axis}")
            case "Pad":
                for mode in ("constant", "reflect", "edge"):
                    yield op(normal(dtype, 4, 5), pads=[1, 2, 0, 3], mode=mode)
                yield op(normal(dtype, 4, 5), np.array([1, 2, 0, 3]), normal(dtype, 1))
            case "Range":
                for start, limit, delta in ((0, 9, 2), (1, 10, 3), (9, 0, -2)):
                    yield op(
                        *(np.array(v).astype(dtype) for v in (start, limit, delta)), tag=f"{start}_{limit}_{delta}"
                    )
                yield op(np.array(2).astype(dtype), np.array(7).astype(dtype))


@samples("LayerNormalization SimplifiedLayerNormalization")
def before_17(op: Op) -> Found:
    """ONNX Runtime has both in ONNX's own domain, at version 1."""
    if op.version > 1:
        return
    for dtype in op.dtypes("T", kinds="f"):
        for shape in ((3, 5), (2, 3, 65)):
            yield op(normal(dtype, *shape), normal(dtype, shape[-1]), outputs=(dtype,), epsilon=0.01)


@samples("SkipLayerNormalization SkipSimplifiedLayerNormalization", _MS)
def skip(op: Op) -> Found:
    beta = op.name == "SkipLayerNormalization"
    for dtype in op.dtypes("T"):
        for shape in ((2, 3, 8), (1, 5, 65), (4, 6)):
            last = normal(dtype, shape[-1])
            x = normal(dtype, *shape), normal(dtype, *shape), last
            yield op(*x)
            yield op(*x, epsilon=0.1, beta=last) if beta else op(*x, epsilon=0.1)
            yield op(*x, bias=last, outputs=(dtype, "", "", dtype))
            yield op(normal(dtype, *shape), normal(dtype, *shape[1:]), last, tag="shared") if len(shape) == 3 else None


@samples("EmbedLayerNormalization", _MS)
def embed(op: Op) -> Found:
    for dtype in op.dtypes("T"):
        ids, segments = index("int32", (2, 5), 9, negative=False), index("int32", (2, 5), 2, negative=False)
        tables = normal(dtype, 9, 8), normal(dtype, 6, 8)
        ends = normal(dtype, 8), normal(dtype, 8)
        yield op(ids, segments, *tables, normal(dtype, 2, 8), *ends, outputs=(dtype, "int32"))
        yield op(ids, None, *tables, None, *ends, outputs=(dtype, "int32"))
        mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
        yield op(ids, segments, *tables, normal(dtype, 2, 8), *ends, mask, outputs=(dtype, "int32"), epsilon=0.01)
        yield op(ids, None, *tables, None, *ends, None, np.array([[0, 2, 4, 1, 5]], np.int32), outputs=(dtype, "int32"))


@samples("RotaryEmbedding", _MS)
def rotary(op: Op) -> Found:
    for dtype in op.dtypes("T"):
        for pairs in (0, 1):
            angles = uniform(dtype, (20, 4), -1, 1), uniform(dtype, (20, 4), -1, 1)
            spots = np.array([[4, 1, 2], [0, 3, 19]])
            yield op(normal(dtype, 2, 3, 16), np.array([4]), *angles, interleaved=pairs)
            yield op(normal(dtype, 2, 3, 16), spots, *angles, interleaved=pairs)
            yield op(normal(dtype, 2, 2, 3, 8), spots, *angles, interleaved=pairs)
            part: dict[str, Any] = {"num_heads": 2, "rotary_embedding_dim": 8}
            yield op(normal(dtype, 2, 3, 32), spots, *angles, interleaved=pairs, **part)


def _masks(queries: int, keys: int) -> dict[str, np.ndarray | None]:
    """In the forms that attention's mask has."""
    raw = np.array([[1] * (keys - 1) + [0], [0, 0] + [1] * (keys - 2)], np.int32)
    cube = (np.arange(2 * queries * keys).reshape(2, queries, keys) % 3 > 0).astype(np.int32)
    return {"none": None, "raw": raw, "lengths": np.array([keys - 1, 2], np.int32), "cube": cube}


@samples("Attention", _MS)
def attention(op: Op) -> Found:
    for dtype in op.dtypes("T"):
        x, w, bias = normal(dtype, 2, 4, 8), normal(dtype, 8, 24), normal(dtype, 24)
        two: dict[str, Any] = {"num_heads": 2}
        yield op(x, w, **two)
        yield op(x, w, scale=0.3, **two)
        yield op(x, w, bias, None, None, normal(dtype, 2, 2, 4, 4), **two)
        yield op(x, normal(dtype, 8, 22), normal(dtype, 22), qkv_hidden_sizes=[8, 8, 6], **two)
        for label, mask in _masks(4, 4).items():
            for causal in (0, 1):
                yield op(x, w, bias, mask, unidirectional=causal, tag=label, **two)
        for label, mask in _masks(4, 7).items():
            past = normal(dtype, 2, 2, 2, 3, 4)
            yield op(x, w, bias, mask, past, unidirectional=1, tag=f"past_{label}", outputs=(dtype, dtype), **two)


@samples("MultiHeadAttention", _MS)
def multi_head(op: Op) -> Found:
    for dtype in op.dtypes("T"):
        q, k, v = normal(dtype, 2, 4, 8), normal(dtype, 2, 5, 8), normal(dtype, 2, 5, 8)
        two: dict[str, Any] = {"num_heads": 2, "outputs": (dtype,)}
        yield op(q, k, v, **two)
        yield op(q, k, v, scale=0.7, **two)
        yield op(q, k, normal(dtype, 2, 5, 6), normal(dtype, 22), **two)
        yield op(q, k, v, None, None, normal(dtype, 2, 1, 4, 5), **two)
        yield op(q, q, q, unidirectional=1, tag="causal", **two)
        for label, mask in _masks(4, 5).items():
            yield op(q, k, v, None, mask, tag=label, **two)
        past = normal(dtype, 2, 2, 3, 4), normal(dtype, 2, 2, 3, 4)
        yield op(q, q, q, normal(dtype, 24), None, None, *past, num_heads=2, outputs=(dtype,) * 3)


@samples("GroupQueryAttention", _MS)
def group_query(op: Op) -> Found:
    for dtype in op.dtypes("T"):
        base: dict[str, Any] = {"num_heads": 4, "kv_num_heads": 2, "outputs": (dtype,) * 3}

        def qkv(batch: int, tokens: int, dtype: str = dtype) -> list[Any]:
            return [normal(dtype, batch, tokens, heads * 16) for heads in (4, 2, 2)]

        def count(*values: int) -> np.ndarray:
            return np.array(values, np.int32)

        cache = normal(dtype, 1, 2, 4, 16), normal(dtype, 1, 2, 4, 16)
        angles = uniform(dtype, (20, 8), -1, 1), uniform(dtype, (20, 8), -1, 1)
        first, later = (*qkv(1, 3), None, None, count(2), count(3)), (*qkv(1, 3), *cache, count(6), count(7))
        yield op(*first, tag="first", **base)
        yield op(*first, *angles, do_rotary=1, tag="first", **base)
        yield op(*later, tag="later", **base)
        yield op(*later, *angles, do_rotary=1, rotary_interleaved=1, tag="later", **base)
        yield op(*later, softcap=1.5, scale=0.3, tag="later", **base)
        yield op(*later, local_window_size=2, tag="later", **base)
        yield op(*later, smooth_softmax=1, tag="later", **base)
        rows = normal(dtype, 3, 2, 9, 16), normal(dtype, 3, 2, 9, 16)
        yield op(*qkv(3, 1), *rows, count(5, 3, 0), count(6), tag="ragged", **base)
