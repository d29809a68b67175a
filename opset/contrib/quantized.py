"""Operators on quantized tensors, and products with quantized weights."""

from __future__ import annotations

from omniop.opset.contrib.signature import BYTES, FLOATS, Required, schema

SCHEMAS = (
    schema(
        "MatMulNBits",
        "A:T1 B:T2 scales:T1 zero_points?:T3 g_idx?:T4 bias?:T1 -> Y:T1",
        "A B' + bias with B packed in `bits` bits, in blocks along K that have a scale and a zero point each.",
        {"T1": FLOATS, "T2": "uint8", "T3": "uint8 float16 float bfloat16", "T4": "int32"},
        K=Required(int),
        N=Required(int),
        block_size=Required(int),
        accuracy_level=0,
        bits=4,
        weight_prepacked=0,
    ),
    schema(
        "GatherBlockQuantized",
        "data:T1 indices:Tind scales:T2 zero_points?:T1 -> output:T2",
        "Gather of data quantized in blocks along an axis, dequantized; an index out of range gives 0.",
        {
            "T1": "int4 uint4 uint8 float8e4m3fn float8e4m3fnuz float8e5m2 float8e5m2fnuz float4e2m1",
            "T2": FLOATS,
            "Tind": "int32 int64",
        },
        bits=4,
        block_size=128,
        gather_axis=0,
        quantize_axis=1,
    ),
    schema(
        "DynamicQuantizeMatMul",
        "A:T1 B:T2 b_scale:T1 b_zero_point?:T2 bias?:T1 -> Y:T1",
        "A quantized to uint8 by its own range, times quantized B, plus bias.",
        {"T1": "float", "T2": BYTES},
    ),
    schema(
        "MatMulIntegerToFloat",
        "A:T1 B:T2 a_scale:T3 b_scale:T3 a_zero_point?:T1 b_zero_point?:T2 bias?:T3 -> Y:T3",
        "MatMulInteger taken to floats by the scales, plus bias.",
        {"T1": BYTES, "T2": BYTES, "T3": "float float16"},
    ),
    schema(
        "DynamicQuantizeLSTM",
        (
            "X:T W:T2 R:T2 B?:T sequence_lens?:T1 initial_h?:T initial_c?:T P?:T W_scale:T W_zero_point:T2 "
            "R_scale:T R_zero_point:T2 -> Y?:T Y_h?:T Y_c?:T"
        ),
        (
            "LSTM with quantized weights; inputs and states are quantized to uint8 by their own range before each "
            "product."
        ),
        {"T": "float", "T1": "int32", "T2": BYTES},
        activation_alpha=list[float],
        activation_beta=list[float],
        activations=list[str],
        clip=float,
        direction="forward",
        hidden_size=int,
        input_forget=0,
    ),
    schema(
        "QGemm",
        ("A:TA a_scale:T a_zero_point:TA B:TB b_scale:T b_zero_point:TB C?:TC y_scale?:T y_zero_point?:TYZ -> Y:TY"),
        "Gemm of quantized matrices; float where the output has no scale.",
        {"T": "float", "TA": BYTES, "TB": BYTES, "TC": "int32", "TYZ": BYTES, "TY": "float uint8 int8"},
        alpha=1.0,
        transA=0,
        transB=0,
    ),
    schema(
        "QLinearConv",
        (
            "x:T1 x_scale:float x_zero_point:T1 w:T2 w_scale:float w_zero_point:T2 y_scale:float y_zero_point:T3 "
            "B?:T4 -> y:T3"
        ),
        "ONNX's QLinearConv, also with the channels last.",
        {"T1": BYTES, "T2": BYTES, "T3": BYTES, "T4": "int32"},
        auto_pad="NOTSET",
        channels_last=0,
        dilations=list[int],
        group=1,
        kernel_shape=list[int],
        pads=list[int],
        strides=list[int],
    ),
    schema(
        "QLinearAdd",
        ("A:T A_scale:float A_zero_point?:T B:T B_scale:float B_zero_point?:T C_scale:float C_zero_point?:T -> C:T"),
        "A + B of quantized tensors.",
        {"T": BYTES},
    ),
    schema(
        "QLinearMul",
        ("A:T A_scale:float A_zero_point?:T B:T B_scale:float B_zero_point?:T C_scale:float C_zero_point?:T -> C:T"),
        "A * B of quantized tensors.",
        {"T": BYTES},
    ),
    schema(
        "QLinearSigmoid",
        "X:T X_scale:float X_zero_point?:T Y_scale:float Y_zero_point?:T -> Y:T",
        "Sigmoid of a quantized tensor.",
        {"T": BYTES},
    ),
    schema(
        "QLinearLeakyRelu",
        "X:T X_scale:float X_zero_point?:T Y_scale:float Y_zero_point?:T -> Y:T",
        "LeakyRelu of a quantized tensor.",
        {"T": BYTES},
        alpha=0.01,
    ),
    schema(
        "QLinearSoftmax",
        "X:T X_scale:float x_zero_point?:T y_scale:float y_zero_point:T -> Y:T",
        "Softmax of a quantized tensor, as `opset` has it.",
        {"T": BYTES},
        opset=Required(int),
        axis=-1,
    ),
    schema(
        "QLinearConcat",
        "Y_scale:TF Y_zero_point:T8 inputs*:TV -> Y:T8",
        "Concat of quantized tensors: Y's scale and zero point, then tensor, scale and zero point of each.",
        {"T8": BYTES, "TF": "float", "TV": "uint8 int8 float"},
        axis=Required(int),
    ),
    schema(
        "QLinearWhere",
        ("condition:B X:T x_scale:TF x_zero_point:T Y:T y_scale:TF y_zero_point:T z_scale:TF z_zero_point:T -> Z:T"),
        "Where of quantized tensors.",
        {"B": "bool", "TF": "float", "T": BYTES},
    ),
    schema(
        "QLinearAveragePool",
        "X:T x_scale:float x_zero_point?:T y_scale:float y_zero_point?:T -> Y:T",
        "AveragePool of a quantized tensor.",
        {"T": BYTES},
        kernel_shape=Required(list[int]),
        auto_pad="NOTSET",
        ceil_mode=0,
        channels_last=0,
        count_include_pad=0,
        pads=list[int],
        strides=list[int],
    ),
    schema(
        "QLinearGlobalAveragePool",
        "X:T x_scale:float x_zero_point:T y_scale:float y_zero_point:T -> Y:T",
        "GlobalAveragePool of a quantized tensor.",
        {"T": BYTES},
        channels_last=0,
    ),
    schema(
        "QuantizeLinear",
        "x:T1 y_scale:T1 y_zero_point?:T2 -> y:T2",
        "ONNX's QuantizeLinear.",
        {"T1": "float16 float", "T2": "int8 uint8 int16 uint16 int4 uint4"},
        axis=int,
    ),
    schema(
        "DequantizeLinear",
        "x:T1 x_scale:T2 x_zero_point?:T1 -> y:T2",
        "ONNX's DequantizeLinear.",
        {"T1": "int8 uint8 int16 uint16 int32 int4 uint4", "T2": "float16 float"},
        axis=int,
    ),
    schema(
        "QEmbedLayerNormalization",
        (
            "input_ids:T1 segment_ids?:T1 word_embedding_quant:T2 position_embedding_quant:T2 "
            "segment_embedding?:T2 gamma_quant:T2 beta_quant:T2 mask?:T1 word_embedding_scale:T "
            "position_embedding_scale:T segment_embedding_scale?:T gamma_scale:T beta_scale:T "
            "word_embedding_zero_point:T2 position_embedding_zero_point:T2 segment_embedding_zero_point?:T2 "
            "gamma_zero_point:T2 beta_zero_point:T2 -> layernorm_out:T mask_index_out:T1"
        ),
        "EmbedLayerNormalization of quantized parameters.",
        {"T1": "int32", "T2": BYTES, "T": "float"},
        epsilon=1e-12,
    ),
)
