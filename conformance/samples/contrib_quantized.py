"""com.microsoft's operators on quantised numbers, and weights packed in blocks."""

from __future__ import annotations

from typing import Any

import numpy as np

from omniop.conformance.samples.drawing import Values, index, normal, uniform
from omniop.conformance.samples.op import Found, Op, samples

_MS = "com.microsoft"


def whole(dtype: str, *shape: int) -> Values:
    """Of 7 bits where signed: without VNNI, ONNX Runtime saturates sums of two products at 16 bits."""
    return uniform(dtype, shape, *((-64, 64) if dtype == "int8" else (0, 256)))


def scale(value: float, *shape: int) -> np.ndarray:
    return np.full(shape, value, np.float32)


def zero(dtype: str, value: int, *shape: int) -> np.ndarray:
    return np.full(shape, value, dtype)


@samples("MatMulIntegerToFloat DynamicQuantizeMatMul", _MS)
def products(op: Op) -> Found:
    for b in op.dtypes("T2"):
        columns = uniform("float32", (4,), 0.05, 0.3), whole(b, 4)
        for lead in ((3,), (2, 3), (17,)):
            if op.name == "DynamicQuantizeMatMul":
                yield op(normal("float32", *lead, 5), whole(b, 5, 4), *columns, normal("float32", 4), tag=b)
                yield op(normal("float32", *lead, 5), uniform(b, (5, 4), 0, 60), scale(0.2), tag=b)
                continue
            for a in op.dtypes("T1"):
                for dtype in op.dtypes("T3"):
                    if dtype == "float16":
                        scales = uniform(dtype, (), 0.02, 0.1), uniform(dtype, (), 0.02, 0.1)
                        yield op(whole(a, *lead, 5), whole(b, 5, 4), *scales, outputs=(dtype,), tag=f"{a}_{b}")
                    else:
                        x = whole(a, *lead, 5), whole(b, 5, 4), scale(0.1)
                        yield op(*x, columns[0], zero(a, 100), columns[1], normal("float32", 4), tag=f"{a}_{b}")
                        yield op(*x, scale(0.2), outputs=("float32",), tag=f"{a}_{b}")


@samples("QGemm", _MS)
def q_gemm(op: Op) -> Found:
    for a in op.dtypes("TA"):
        for b in op.dtypes("TB"):
            if a == "int8" and b == "uint8":
                continue
            common = whole(a, 3, 5), scale(0.1), zero(a, 20), whole(b, 5, 4), scale(0.05), zero(b, 3)
            bias = normal("int32", 4)
            yield op(*common, bias, outputs=("float32",), alpha=0.5, tag=b)
            yield op(*common, None, scale(0.7), zero(a, 50), outputs=(a,), tag=b)
            yield op(*common, bias, scale(0.7), zero(a, 50), outputs=(a,), tag=b)


_ELEMENTWISE = "QLinearAdd QLinearMul QLinearSigmoid QLinearLeakyRelu QLinearSoftmax QLinearWhere QLinearConcat"


@samples(_ELEMENTWISE, _MS)
def elementwise(op: Op) -> Found:
    for dtype in op.dtypes("T8" if op.name == "QLinearConcat" else "T"):
        least = -128 if dtype == "int8" else 0
        scaled = scale(0.1), zero(dtype, 3), scale(0.09), zero(dtype, 4)
        share = scale(0.05), zero(dtype, 60), scale(1 / 256), zero(dtype, least)
        for left, right in (((5,), (5,)), ((2, 3, 50), (3, 50)), ((1, 65), (3, 1)), ((4, 1), (1, 7))):
            match op.name:
                case "QLinearAdd" | "QLinearMul":
                    pair = whole(dtype, *left), scale(0.1037), zero(dtype, 3), whole(dtype, *right), scale(0.0713)
                    yield op(*pair, zero(dtype, 9), scale(0.8911), zero(dtype, 20))
                case "QLinearSigmoid":
                    yield op(whole(dtype, *left), *share)
                case "QLinearLeakyRelu":
                    yield op(whole(dtype, *left), *scaled, alpha=0.2)
                case "QLinearSoftmax":
                    for opset in (11, 13):
                        yield op(whole(dtype, *left), *share, opset=opset, axis=len(left) - 1)
                case "QLinearWhere":
                    x = whole(dtype, *left), scale(0.1), zero(dtype, 3)
                    y = whole(dtype, *right), scale(0.2), zero(dtype, 4)
                    yield op(normal("bool", *left), *x, *y, scale(0.15), zero(dtype, 7))
                case "QLinearConcat":
                    one = whole(dtype, 2, 3), scale(0.05), zero(dtype, 60)
                    two = whole(dtype, 2, left[-1]), scale(0.1), zero(dtype, 9)
                    yield op(scale(0.1), zero(dtype, 9), *one, *two, axis=1)


@samples("QLinearAveragePool QLinearGlobalAveragePool", _MS)
def pools(op: Op) -> Found:
    for dtype in op.dtypes("T"):
        scaled = scale(0.1), zero(dtype, 3), scale(0.09), zero(dtype, 4)
        for last in (0, 1):
            shape = (2, 7, 8, 3) if last else (2, 3, 7, 8)
            if op.name == "QLinearGlobalAveragePool":
                yield op(whole(dtype, *shape), *scaled, channels_last=last)
                continue
            for pads, counted in (([0, 0, 0, 0], 0), ([1, 1, 1, 1], 0), ([1, 1, 1, 1], 1)):
                options: dict[str, Any] = {
                    "kernel_shape": [3, 3],
                    "strides": [2, 2],
                    "pads": pads,
                    "count_include_pad": counted,
                }
                yield op(whole(dtype, *shape), *scaled, channels_last=last, **options)


@samples("QLinearConv", _MS)
def conv(op: Op) -> Found:
    """As ONNX's; ONNX Runtime's own has channels_last."""
    for dtype in op.dtypes("T1"):
        for last in (0, 1):
            x = whole(dtype, *((1, 6, 5, 4) if last else (1, 4, 6, 5)))
            w = whole(dtype, 6, 4, 3, 3)
            common = x, scale(0.1), zero(dtype, 3), w, scale(0.05), zero(dtype, 0), scale(2.0), zero(dtype, 9)
            yield op(*common, channels_last=last)
            yield op(*common, normal("int32", 6), channels_last=last, pads=[1, 1, 1, 1], strides=[2, 2])


@samples("QuantizeLinear DequantizeLinear", _MS)
def quantize(op: Op) -> Found:
    for dtype in op.dtypes("T2" if op.name == "QuantizeLinear" else "T1", kinds="iu"):
        for shape, axis in (((7,), None), ((3, 5), 1), ((3, 5), 0)):
            sized = () if axis is None else (shape[axis],)
            named: dict[str, Any] = {} if axis is None else {"axis": axis}
            factors = uniform("float32", sized, 0.05, 0.3)
            if op.name == "QuantizeLinear":
                yield op(normal("float32", *shape), factors, uniform(dtype, sized, 0, 3), tag=dtype, **named)
            else:
                point = zero(dtype, 0, *sized) if dtype == "int32" else uniform(dtype, sized, 0, 3)
                yield op(uniform(dtype, shape, 0, 7), factors, point, tag=dtype, **named)
    for dtype in ("int8", "uint8"):
        factor = uniform("float16", (), 0.05, 0.3)
        x = normal("float16", 3, 5) if op.name == "QuantizeLinear" else whole(dtype, 3, 5)
        yield op(x, factor, zero(dtype, 3), tag=f"{dtype}_float16")


@samples("MatMulNBits", _MS)
def n_bits(op: Op) -> Found:
    for dtype in op.dtypes("T1"):
        for bits in (4, 8) if dtype == "float32" else (4,):
            for rows, depth, columns, block in ((1, 32, 5, 16), (3, 64, 9, 32), (2, 40, 4, 16)):
                blocks = -(-depth // block)
                attributes: dict[str, Any] = {"K": depth, "N": columns, "block_size": block, "bits": bits}
                packed = uniform("uint8", (columns, blocks, block * bits // 8), 0, 256)
                common = normal(dtype, rows, depth), packed, uniform(dtype, (columns, blocks), 0.01, 0.1)
                points = uniform("uint8", (columns * -(-blocks * bits // 8),), 0, 256)
                yield op(*common, **attributes)
                yield op(*common, points, **attributes)
                yield op(*common, points, None, normal(dtype, columns), **attributes)


@samples("GatherBlockQuantized", _MS)
def gather_blocks(op: Op) -> Found:
    for dtype in ("int4", "uint4"):
        for scale_type in ("float32", "float16"):
            for ids in op.dtypes("Tind"):
                data, factors = uniform(dtype, (7, 3, 32), -8, 8), uniform(scale_type, (7, 3, 2), 0.1, 1)
                data = uniform(dtype, (7, 3, 32), 0, 7) if dtype == "uint4" else data
                common = data, index(ids, (1, 2), 7), factors
                yield op(*common, block_size=16, quantize_axis=2)
                yield op(*common, uniform(dtype, (7, 3, 2), 0, 7), block_size=16, quantize_axis=2)


@samples("QAttention", _MS)
def q_attention(op: Op) -> Found:
    common = uniform("uint8", (2, 4, 8), 0, 256), uniform("uint8", (8, 24), 0, 256), normal("float32", 24)
    scales = scale(0.02), scale(0.01)
    mask = np.array([[1, 1, 1, 0], [0, 1, 1, 1]], np.int32)
    points = zero("uint8", 120), zero("uint8", 110)
    for causal in (0, 1):
        yield op(*common, *scales, None, *points, num_heads=2, unidirectional=causal)
        yield op(*common, *scales, mask, *points, num_heads=2, unidirectional=causal)
    signed = common[0], whole("int8", 8, 24), common[2]
    yield op(*signed, *scales, None, points[0], zero("int8", 5), num_heads=2, tag="int8")
    past = normal("float32", 2, 2, 2, 3, 4)
    yield op(*common, *scales, None, *points, past, num_heads=2, outputs=("float32", "float32"))


@samples("DynamicQuantizeLSTM", _MS)
def q_lstm(op: Op) -> Found:
    for dtype in op.dtypes("T2"):
        for direction, count in (("forward", 1), ("reverse", 1), ("bidirectional", 2)):
            x, w, r = normal("float32", 4, 2, 3), whole(dtype, count, 3, 20), whole(dtype, count, 5, 20)
            ends = scale(0.01, count), zero(dtype, 2, count), scale(0.02, count), zero(dtype, 1, count)
            bias = uniform("float32", (count, 40), -1, 1)
            outputs = ("float32",) * 3
            common: dict[str, Any] = {"hidden_size": 5, "direction": direction, "outputs": outputs}
            yield op(x, w, r, bias, None, None, None, None, *ends, **common)
            state = normal("float32", count, 2, 5), normal("float32", count, 2, 5)
            yield op(x, w, r, bias, None, *state, None, *ends, **common)
            yield op(x, w, r, bias, np.array([4, 4], np.int32), *state, None, *ends, tag="lengths", **common)


@samples("QEmbedLayerNormalization", _MS)
def q_embed(op: Op) -> Found:
    for dtype in op.dtypes("T2"):
        ids, segments = index("int32", (2, 5), 9, negative=False), index("int32", (2, 5), 2, negative=False)
        tables = whole(dtype, 9, 8), whole(dtype, 6, 8), whole(dtype, 2, 8)
        ends = whole(dtype, 8), whole(dtype, 8)
        mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
        scales, points = [scale(0.03)] * 5, [zero(dtype, 4)] * 5
        yield op(ids, segments, *tables, *ends, mask, *scales, *points, outputs=("float32", "int32"))
        yield op(ids, segments, *tables, *ends, None, *scales, *points, outputs=("float32", "int32"))
