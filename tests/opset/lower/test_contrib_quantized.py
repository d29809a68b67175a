"""com.microsoft's quantized operators and packed weights, against onnxruntime."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from contrib import Case, check, coins, f32, i32, int8, normal, positive, uint8
from onnx import helper, numpy_helper

import omniop
from omniop.opset.errors import ModelError, UnsupportedError


def u8(value: int) -> np.ndarray:
    return np.asarray(np.uint8(value))


def i8(value: int) -> np.ndarray:
    return np.asarray(np.int8(value))


def products() -> dict[str, Case]:
    a, b, bias = uint8(3, 5), int8(5, 4), i32(-9, 70, 0, 33)
    columns = [positive(4), int8(4)]
    gemm = [a, f32(0.1), u8(100), b, columns[0], columns[1]]
    return {
        "ToFloat": Case("MatMulIntegerToFloat", [a, b, f32(0.1), columns[0], u8(100), columns[1], normal(4)]),
        "ToFloat-bare": Case("MatMulIntegerToFloat", [int8(2, 3, 5), b, f32([0.1]), f32(0.2)]),
        "Dynamic": Case("DynamicQuantizeMatMul", [normal(2, 3, 5), b, *columns, normal(4)]),
        "Dynamic-bare": Case("DynamicQuantizeMatMul", [normal(3, 5), uint8(5, 4, top=128), f32(0.2)]),
        "QGemm-float": Case("QGemm", [*gemm, bias], {"alpha": 0.5}),
        "QGemm-turned": Case("QGemm", [a.T.copy(), *gemm[1:], None, f32(0.7), u8(50)], {"transA": 1}),
        "QGemm": Case(
            "QGemm",
            [a, f32(0.1), u8(100), int8(4, 5), f32(0.1), i8(3), bias.reshape(1, 4), f32(0.7), u8(50)],
            {"transB": 1},
        ),
    }


def elementwise() -> dict[str, Case]:
    cases = {}
    for name, values, zero, least in (("uint8", uint8, u8, 0), ("int8", int8, i8, -128)):
        pair = [values(2, 3, 50), f32(0.1037), zero(3), values(3, 50), f32(0.0713), zero(9)]
        scaled = [f32(0.1), zero(3), f32(0.09), zero(4)]
        pool = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
        share = [f32(0.05), zero(60), f32(1 / 256), zero(least)]
        own = {
            "Add": Case("QLinearAdd", [*pair, f32(0.13), zero(20)]),
            "Mul": Case("QLinearMul", [*pair, f32(0.8911), zero(20)]),
            "Sigmoid": Case("QLinearSigmoid", [values(3, 100), *share]),
            "LeakyRelu": Case("QLinearLeakyRelu", [values(3, 100), *scaled], {"alpha": 0.2}),
            "Softmax-11": Case("QLinearSoftmax", [values(3, 5, 20), *share], {"opset": 11, "axis": 1}),
            "Softmax-13": Case("QLinearSoftmax", [values(3, 5, 20), *share], {"opset": 13, "axis": 1}),
            "Concat": Case(
                "QLinearConcat",
                [f32(0.1), zero(9), values(2, 3), f32(0.05), zero(60), values(2, 4), f32(0.1), zero(9)],
                {"axis": 1},
            ),
            "Where": Case(
                "QLinearWhere",
                [coins(4, 5) > 0, values(4, 5), f32(0.1), zero(3), values(5), f32(0.2), zero(4), f32(0.15), zero(7)],
            ),
            "AveragePool": Case("QLinearAveragePool", [values(1, 3, 7, 8), *scaled], pool),
            "AveragePool-last": Case(
                "QLinearAveragePool",
                [values(1, 7, 8, 3), *scaled],
                {**pool, "count_include_pad": 1, "channels_last": 1},
            ),
            "GlobalAveragePool": Case("QLinearGlobalAveragePool", [values(2, 3, 7, 8), *scaled]),
            "GlobalAveragePool-last": Case(
                "QLinearGlobalAveragePool", [values(2, 7, 8, 3), *scaled], {"channels_last": 1}
            ),
            "Quantize": Case("QuantizeLinear", [normal(3, 4), f32(0.1), zero(3)]),
            "Dequantize": Case("DequantizeLinear", [values(3, 4), f32(0.1), zero(3)]),
            "Dequantize-axis": Case("DequantizeLinear", [values(3, 4), positive(3), values(3)], {"axis": 0}),
            "Add-empty": Case("QLinearAdd", [values(0, 3), *pair[1:3], values(1, 3), *pair[4:], f32(0.13), zero(20)]),
        }
        cases.update({f"{label}-{name}": case for label, case in own.items()})
    return cases


def layers() -> dict[str, Case]:
    x, w, scales = uint8(1, 4, 6, 7), int8(6, 4, 3, 3), positive(6)
    rest = [w, scales, np.zeros(6, np.int8), f32(0.3), u8(100), i32(*range(-90, 90, 30))]
    ids = np.array([[0, 8, 3], [3, 2, 2]], np.int32)
    tables = [uint8(9, 6), uint8(5, 6), uint8(2, 6), uint8(6), uint8(6)]
    parameters = [*(f32(s) for s in (0.1, 0.2, 0.15, 0.02, 0.03)), *(u8(z) for z in (100, 90, 80, 128, 127))]
    pads = {"pads": [1, 1, 1, 1]}
    return {
        "Conv": Case("QLinearConv", [x, f32(0.02), u8(131), *rest], pads),
        "Conv-last": Case(
            "QLinearConv",
            [x.transpose(0, 2, 3, 1).copy(), f32(0.02), u8(131), *rest],
            {**pads, "channels_last": 1},
        ),
        "Embed": Case(
            "QEmbedLayerNormalization", [ids, coins(2, 3), *tables, coins(2, 3), *parameters], {}, (True, True)
        ),
    }


def recurrent() -> dict[str, Case]:
    steps, batch, inputs, hidden, cases = 5, 2, 3, 4, {}
    x = normal(steps, batch, inputs)
    padded = x[:, :1].copy()
    padded[3:] = 0
    for direction, count in (("forward", 1), ("reverse", 1), ("bidirectional", 2)):
        for label, values, shape in (
            ("layer", int8, (count,)),
            ("zero", uint8, (count,)),
            ("column", int8, (count, 4 * hidden)),
        ):
            matrices = [values(count, n, 4 * hidden) for n in (inputs, hidden)]
            points = uint8(*shape, top=40) + np.uint8(100) if values is uint8 else np.zeros(shape, np.int8)
            scales = [f32(0.004) * positive(*shape) + f32(0.004) for _ in range(2)]
            states = [normal(count, batch, hidden) for _ in range(2)]
            rest = [scales[0], points, scales[1], points]
            node = [x, *matrices, normal(count, 8 * hidden), None, *states, None, *rest]
            attrs = {"direction": direction, "hidden_size": hidden}
            cases[f"{direction}-{label}"] = Case("DynamicQuantizeLSTM", node, attrs, (True,) * 3)
        # of one row: which rows share a range depends on how a direction walks rows of several lengths
        lengths = [padded, *node[1:4], i32(3), *(state[:, :1] for state in states), None, *rest]
        cases[f"{direction}-lengths"] = Case("DynamicQuantizeLSTM", lengths, attrs, (True,) * 3)
        bare = [*node[:3], None, None, None, None, normal(count, 3 * hidden), *rest]
        cases[f"{direction}-peepholes"] = Case("DynamicQuantizeLSTM", bare, attrs, (True, False, True))
    return {f"LSTM-{label}": case for label, case in cases.items()}


def packed(rows: int, bits: int, block: int, depth: int, zeros: str, columns: int = 5) -> Case:
    """``zeros``: none, packed, floats, or bias for a flat vector of packed ones and a bias."""
    blocks = -(-depth // block)
    weights = uint8(columns, blocks, block * bits // 8)
    points = uint8(columns, -(-blocks * bits // 8))
    rest = {
        "none": [],
        "packed": [points],
        "floats": [normal(columns, blocks) * f32(3)],
        "bias": [points.reshape(-1), None, normal(columns)],
    }[zeros]
    scales = positive(columns, blocks) / f32(1 << bits)
    attrs = {"K": depth, "N": columns, "bits": bits, "block_size": block}
    return Case("MatMulNBits", [normal(1, rows, depth), weights, scales, *rest], attrs)


def blocks() -> dict[str, Case]:
    cases = {
        f"NBits-{bits}-{zeros}-{rows}": packed(rows, bits, block, depth, zeros)
        for bits in (2, 4, 8)
        for zeros in ("none", "packed", "floats", "bias")
        for rows, block, depth in ((1, 32, 64), (3, 16, 40), (7, 16, 40))
        if not (bits == 8 and zeros == "floats")  # onnxruntime has no such kernel
    }
    indices = np.array([[0, 6], [3, -1]])
    for bits in (2, 4, 8):
        data, scales, points = uint8(7, 32 * bits // 8), positive(7, 2), uint8(7, -(-2 * bits // 8))
        attrs = {"bits": bits, "block_size": 16}
        cases[f"Gather-{bits}"] = Case("GatherBlockQuantized", [data, indices, scales], attrs)
        cases[f"Gather-{bits}-zeros"] = Case("GatherBlockQuantized", [data, indices, scales, points], attrs)
    for dtype, least in ((ml_dtypes.uint4, 0), (ml_dtypes.int4, -8)):
        data, points = ((uint8(*s, top=16).astype(np.int8) + least).astype(dtype) for s in ((7, 3, 32), (7, 3, 2)))
        attrs = {"block_size": 16, "gather_axis": 1, "quantize_axis": 2}
        node = [data, np.array([[0, 2]]), positive(7, 3, 2)]
        cases[f"Gather-{dtype.__name__}"] = Case("GatherBlockQuantized", node, attrs, held=(0,))
        cases[f"Gather-{dtype.__name__}-zeros"] = Case("GatherBlockQuantized", [*node, points], attrs, held=(0, 3))
    return cases


CASES = {**products(), **elementwise(), **layers(), **recurrent(), **blocks()}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_as_onnxruntime(case: Case) -> None:
    check(case)


DEVICE_CASES = [
    *("Dynamic", "QGemm", "Mul-int8", "Concat-uint8", "AveragePool-last-int8", "Conv-last", "Embed"),
    *("LSTM-bidirectional-zero", "NBits-4-packed-1", "NBits-2-bias-7", "Gather-4-zeros", "Gather-int4-zeros"),
]


@pytest.mark.parametrize("name", DEVICE_CASES)
def test_on_devices(name: str, device: str) -> None:
    CASES[name].agrees(CASES[name].on(device), CASES[name].expected())


def test_gather_out_of_range_gives_zeros() -> None:
    case = Case("GatherBlockQuantized", [uint8(3, 16), np.array([1, 3, -4]), positive(3, 2)], {"block_size": 16})
    (found,) = case.lowered(True)
    assert found[0].any()
    assert not found[1:].any()


@pytest.mark.parametrize("rows", [1, 9])
def test_weights_stay_packed(rows: int) -> None:
    """Nothing as large as the unpacked weights is kept between runs."""
    case = packed(rows, 4, 32, 256, "packed", columns=96)
    names = [f"x{k}" for k in range(4)]
    held = [numpy_helper.from_array(v, n) for n, v in zip(names[1:], case.inputs[1:], strict=True)]
    node = helper.make_node("MatMulNBits", names, ["y"], domain="com.microsoft", **case.attrs)
    feed = helper.make_tensor_value_info("x0", onnx.TensorProto.FLOAT, [1, rows, 256])
    graph = helper.make_graph([node], "one", [feed], [onnx.ValueInfoProto(name="y")], held)
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    session = omniop.load(helper.make_model(graph, opset_imports=imports, ir_version=10), device="cpu")
    found = session.run({"x0": case.inputs[0]})["y"]
    case.agrees([found], case.expected())
    kept = [b for made in session.runner.options.weights._derived.values() for b in made]
    assert not kept


def test_what_is_refused() -> None:
    def refused(op: str, inputs: list[Any], **attrs: Any) -> None:
        Case(op, inputs, attrs).lowered(False)

    common = packed(1, 4, 16, 32, "packed")
    with pytest.raises(UnsupportedError, match="input 'g_idx', which is deprecated; it works without"):
        refused("MatMulNBits", [*common.inputs, i32(*range(32))], **common.attrs)
    with pytest.raises(UnsupportedError, match="weight_prepacked 1"):
        refused("MatMulNBits", list(common.inputs), **common.attrs, weight_prepacked=1)
    with pytest.raises(UnsupportedError, match="3 bits; 2, 4 and 8 would work"):
        refused("MatMulNBits", list(common.inputs), **{**common.attrs, "bits": 3})
    with pytest.raises(ModelError, match=r"B is of shape \[5, 2, 8\], and \[5, 1, 16\] is needed"):
        refused("MatMulNBits", list(common.inputs), **{**common.attrs, "block_size": 32})
    with pytest.raises(ModelError, match=r"the scale of A is of shape \[3\], and one number is needed"):
        refused("MatMulIntegerToFloat", [uint8(3, 5), int8(5, 4), positive(3), f32(0.2)])
    with pytest.raises(ModelError, match="4 inputs behind Y's; three for each tensor are needed"):
        refused("QLinearConcat", [f32(0.1), u8(9), uint8(2, 3), f32(0.05), u8(60), uint8(2, 4)], axis=1)
