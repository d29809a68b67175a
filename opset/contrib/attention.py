"""Attention in its several forms, and rotary embeddings."""

from __future__ import annotations

from omniop.opset.contrib.signature import BYTES, FLOATS, Required, schema

SCHEMAS = (
    schema(
        "Attention",
        (
            "input:T weights:T bias?:T mask_index?:M past?:T attention_bias?:T past_sequence_length?:M -> "
            "output:T present?:T"
        ),
        ("Multi-head self attention with its input projection. The mask is raw of rank 2, 3 or 4, or key lengths."),
        {"T": FLOATS, "M": "int32"},
        num_heads=Required(int),
        do_rotary=int,
        mask_filter_value=float,
        past_present_share_buffer=int,
        qkv_hidden_sizes=list[int],
        rotary_embedding_dim=int,
        scale=float,
        unidirectional=0,
    ),
    schema(
        "QAttention",
        (
            "input:T1 weight:T2 bias:T3 input_scale:T3 weight_scale:T3 mask_index?:T4 input_zero_point?:T1 "
            "weight_zero_point?:T2 past?:T3 -> output:T3 present?:T3"
        ),
        "Attention of a quantized input and quantized weights.",
        {"T1": BYTES, "T2": BYTES, "T3": "float float16", "T4": "int32"},
        num_heads=Required(int),
        do_rotary=int,
        mask_filter_value=float,
        past_present_share_buffer=int,
        scale=float,
        unidirectional=0,
    ),
    schema(
        "MultiHeadAttention",
        (
            "query:T key?:T value?:T bias?:T key_padding_mask?:M attention_bias?:T past_key?:T past_value?:T "
            "past_sequence_length?:M cache_indirection?:M -> output:T present_key?:T present_value?:T qk?:QK"
        ),
        ("softmax(scale * Q K' + masks) V for each head; Q, K, V may be packed, the past is put before K and V."),
        {"T": FLOATS, "QK": FLOATS, "M": "int32"},
        num_heads=Required(int),
        mask_filter_value=float,
        scale=float,
        unidirectional=0,
    ),
    schema(
        "GroupQueryAttention",
        (
            "query:T key?:T value?:T past_key?:T_CACHE past_value?:T_CACHE seqlens_k:M total_sequence_length:M "
            "cos_cache?:T sin_cache?:T position_ids?:int64 attention_bias?:T head_sink?:T k_scale?:T_KV_SCALE "
            "v_scale?:T_KV_SCALE q_norm_weight?:T k_norm_weight?:T query_seqlens?:M -> output:T "
            "present_key?:T_CACHE present_value?:T_CACHE output_qk?:T"
        ),
        (
            "Causal attention in which several query heads share a key and value head, with its cache and rotary "
            "embedding."
        ),
        {"T": FLOATS, "T_CACHE": "float float16 bfloat16 uint8 int8 float8e4m3fn", "T_KV_SCALE": "float", "M": "int32"},
        kv_num_heads=Required(int),
        num_heads=Required(int),
        causal=1,
        do_rotary=int,
        k_norm_epsilon=float,
        k_quant_type="NONE",
        kv_cache_bit_width=int,
        local_window_size=-1,
        q_norm_epsilon=float,
        qk_norm_epsilon=1e-06,
        qk_output=0,
        rotary_interleaved=int,
        scale=float,
        sliding_window_cache=0,
        smooth_softmax=-1,
        softcap=float,
        v_quant_type="NONE",
    ),
    schema(
        "RotaryEmbedding",
        "input:T position_ids:M cos_cache:T sin_cache:T -> output:T",
        "Pairs of each head turned by the angle of their position.",
        {"T": FLOATS, "M": "int64"},
        interleaved=int,
        is_packed_batching=int,
        num_heads=int,
        rotary_embedding_dim=int,
        scale=float,
    ),
)
