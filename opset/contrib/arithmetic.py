"""Activations, matrix products, convolutions, normalizations and what ONNX took over later."""

from __future__ import annotations

from omniop.opset.contrib.signature import FLOATS, REALS, schema

SCHEMAS = (
    schema(
        "Gelu",
        "X:T -> Y:T",
        "x/2 * (1 + erf(x/sqrt(2))).",
        {"T": REALS},
    ),
    schema(
        "FastGelu",
        "X:T bias?:T -> Y:T",
        "Gelu by tanh of x + bias; the bias lies along the last axis.",
        {"T": REALS},
    ),
    schema(
        "BiasGelu",
        "A:T B:T -> C:T",
        "Gelu of A + B; B lies along the last axis.",
        {"T": REALS},
    ),
    schema("QuickGelu", "X:T -> Y:T", "x * sigmoid(alpha * x).", {"T": REALS}, alpha=1.702),
    schema(
        "BiasSplitGelu",
        "X:T bias:T -> Y:T",
        "Of x + bias the first half along the last axis, times Gelu of the second.",
        {"T": "float16 float"},
    ),
    schema(
        "FusedMatMul",
        "A:T B:T -> Y:T",
        (
            "alpha * A B. transA and transB swap the last two axes; before that, transBatchA and transBatchB make "
            "the first axis the last but one."
        ),
        {"T": REALS},
        alpha=1.0,
        transA=0,
        transB=0,
        transBatchA=0,
        transBatchB=0,
    ),
    schema(
        "TransposeMatMul",
        "A:T B:T -> Y:T",
        "alpha * A B with the last two axes of either swapped.",
        {"T": REALS},
        alpha=1.0,
        transA=0,
        transB=0,
    ),
    schema(
        "FusedGemm",
        "A:T B:T C?:T -> Y:T",
        "Gemm and an activation.",
        {"T": "float16 float double uint32 uint64 int32 int64"},
        activation=str,
        activation_alpha=float,
        activation_beta=float,
        activation_gamma=float,
        alpha=1.0,
        beta=1.0,
        transA=0,
        transB=0,
    ),
    schema(
        "FusedConv",
        "X:T W:T B?:T Z?:T -> Y:T",
        "Activation of Conv + Z.",
        {"T": "float16 float double"},
        activation=str,
        activation_params=list[float],
        auto_pad="NOTSET",
        dilations=list[int],
        group=1,
        kernel_shape=list[int],
        pads=list[int],
        strides=list[int],
    ),
    schema(
        "Inverse",
        "X:T -> Y:T",
        "The inverse of each matrix.",
        {"T": "float16 float double"},
    ),
    schema(
        "CDist",
        "A:T B:T -> C:T",
        "Distances between the rows of A and those of B: [M, K].",
        {"T": "float double"},
        metric="sqeuclidean",
    ),
    schema(
        "LayerNormalization",
        "X:T Scale:V B?:V -> Y:V Mean?:U InvStdDev?:U",
        "LayerNormalization for models of opsets before 17.",
        {"T": REALS, "U": "float double", "V": REALS},
        domain="",
        axis=-1,
        epsilon=1e-05,
        stash_type=1,
    ),
    schema(
        "SimplifiedLayerNormalization",
        "X:T scale:V -> Y:V inv_std_var?:U",
        "X / sqrt(mean(X * X) + epsilon) * scale, the mean over `axis` and all after it.",
        {"T": REALS, "U": "float double", "V": REALS},
        domain="",
        axis=-1,
        epsilon=1e-05,
        stash_type=1,
    ),
    schema(
        "SkipLayerNormalization",
        "input:T skip:T gamma:T beta?:T bias?:T -> output:T mean?:U inv_std_var?:U input_skip_bias_sum?:T",
        ("LayerNormalization of input + skip + bias over the last axis, and that sum. The skip may lack the batch."),
        {"T": FLOATS, "U": "float"},
        epsilon=1e-12,
    ),
    schema(
        "SkipSimplifiedLayerNormalization",
        "input:T skip:T gamma:T bias?:T -> output:T mean?:U inv_std_var?:U input_skip_bias_sum?:T",
        "SimplifiedLayerNormalization of input + skip + bias over the last axis, and that sum.",
        {"T": FLOATS, "U": "float"},
        epsilon=1e-12,
    ),
    schema(
        "EmbedLayerNormalization",
        (
            "input_ids:T1 segment_ids?:T1 word_embedding:T position_embedding:T segment_embedding?:T gamma:T "
            "beta:T mask?:T1 position_ids?:T1 -> output:T mask_index?:T1 embedding_sum?:T"
        ),
        (
            "LayerNormalization of word, position and segment embeddings, and their sum; mask_index counts the "
            "mask's ones."
        ),
        {"T1": "int32", "T": "float float16"},
        epsilon=1e-12,
        mask_index_type=int,
    ),
    schema(
        "ExpandDims",
        "X:T axis:int32 -> Y:T",
        "Unsqueeze at one axis.",
        {"T": "uint8 uint16 uint32 uint64 int8 int16 int32 int64 float16 float double string bool"},
    ),
    schema(
        "GatherND",
        "data:T indices:Tind -> output:T",
        "ONNX's GatherND-11.",
        {
            "T": "uint8 uint16 uint32 uint64 int8 int16 int32 int64 float16 float double string bool",
            "Tind": "int32 int64",
        },
    ),
    schema(
        "Pad",
        "data:T pads:int64 value?:T -> output:T",
        "ONNX's Pad-11.",
        {"T": "float16 float double"},
        mode="constant",
    ),
    schema(
        "Range",
        "start:T limit:T delta?:T -> Y:T",
        "ONNX's Range, with steps of 1 where delta is left out.",
        {"T": "float double int16 int32 int64"},
    ),
    schema(
        "Trilu",
        "X:T k?:int64 -> Y:T",
        "ONNX's Trilu.",
        {"T": "float16 float double bfloat16 uint8 uint16 uint32 uint64 int8 int16 int32 int64 bool"},
        upper=1,
    ),
)
