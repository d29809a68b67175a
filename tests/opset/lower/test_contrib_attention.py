"""com.microsoft's attention and rotary embedding, against onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from contrib import Case, check, coins, f32, i32, int8, normal, uint8

from omniop.opset.errors import ModelError, UnsupportedError

BATCH, TOKENS, WIDTH, HEADS, SIZE = 2, 4, 8, 2, 4
X, W, BIAS = normal(BATCH, TOKENS, WIDTH), normal(WIDTH, 3 * WIDTH), normal(3 * WIDTH)
TWO = {"num_heads": HEADS}


def masks(queries: int, keys: int) -> dict[str, np.ndarray | None]:
    """Of every form that onnxruntime's kernel for CPUs takes."""
    return {
        "none": None,
        "raw": np.array([[1] * (keys - 1) + [0], [0, 0] + [1] * (keys - 2)], np.int32),
        "lengths": i32(keys - 1, 2),
        "bounds": i32(keys - 1, keys, 0, 2),
        "offsets": i32(keys - 1, 2, 0, 4, 8, 0, 4, 8),
        "3d": coins(BATCH, queries, keys),
    }


def attention() -> dict[str, Case]:
    cases = {
        "bias": Case("Attention", [X, W, BIAS, coins(BATCH, TOKENS), None, normal(1, HEADS, TOKENS, TOKENS)], TWO),
        "bias-shared": Case("Attention", [X, W, BIAS, None, None, normal(BATCH, 1, TOKENS, TOKENS)], TWO),
        "scale": Case("Attention", [X, W], {**TWO, "scale": 0.3}),
        "filter": Case("Attention", [X, W, BIAS, coins(BATCH, TOKENS)], {**TWO, "mask_filter_value": -1.0}),
        "widths": Case("Attention", [X, normal(WIDTH, 22), normal(22)], {**TWO, "qkv_hidden_sizes": [8, 8, 6]}),
    }
    for label, mask in masks(TOKENS, TOKENS).items():
        for causal in (0, 1):
            cases[f"{label}-{causal}"] = Case("Attention", [X, W, BIAS, mask], {**TWO, "unidirectional": causal})
    for length in (0, 3):
        past = normal(2, BATCH, HEADS, length, SIZE)
        for label, mask in masks(TOKENS, length + TOKENS).items():
            attrs = {**TWO, "unidirectional": 1}
            cases[f"past-{length}-{label}"] = Case("Attention", [X, W, BIAS, mask, past], attrs, (True, True))
    return {f"Attention-{label}": case for label, case in cases.items()}


def quantized() -> dict[str, Case]:
    scales = [f32(0.02), f32(0.01)]
    zeros = [np.asarray(np.uint8(120)), np.asarray(np.uint8(110))]
    x, mask, past = uint8(BATCH, TOKENS, WIDTH), coins(BATCH, TOKENS), normal(2, BATCH, HEADS, 3, SIZE)
    whole = [x, uint8(WIDTH, 3 * WIDTH), BIAS, *scales, mask, *zeros]
    columns = np.abs(normal(3 * WIDTH)) * f32(0.01)
    apart = [x, int8(WIDTH, 24), BIAS, scales[0], columns, None, zeros[0], int8(24) * np.int8(0), past]
    return {
        "QAttention": Case("QAttention", whole, {**TWO, "unidirectional": 1}),
        "QAttention-columns": Case("QAttention", apart, TWO, (True, True)),
    }


def multi_head() -> dict[str, Case]:
    q, k, v, op = X, normal(BATCH, 5, WIDTH), normal(BATCH, 5, WIDTH), "MultiHeadAttention"
    cached = [normal(BATCH, HEADS, 5, SIZE) for _ in range(2)]
    cases = {
        "plain": Case(op, [q, k, v], TWO),
        "widths": Case(op, [q, k, normal(BATCH, 5, 6), normal(22)], TWO),
        "bias": Case(op, [q, k, v, None, None, normal(BATCH, 1, TOKENS, 5)], TWO),
        "causal": Case(op, [q, q, q], {**TWO, "unidirectional": 1}),
        "cross": Case(op, [q, *cached], TWO),
        "scores": Case(op, [q, k, v, None, coins(BATCH, 5)], TWO, (True, True, True, 1)),
    }
    for label, mask in masks(TOKENS, 5).items():
        if label != "bounds":  # a form of Attention alone
            cases[label] = Case(op, [q, k, v, None, mask], TWO)
    for length in (0, 3):
        past = [normal(BATCH, HEADS, length, SIZE) for _ in range(2)]
        mask = coins(BATCH, length + TOKENS)
        for causal in (0, 1):
            attrs = {**TWO, "unidirectional": causal}
            cases[f"past-{length}-{causal}"] = Case(op, [q, q, q, BIAS, mask, None, *past], attrs, (True, True, True))
    return {f"MultiHead-{label}": case for label, case in cases.items()}


def group_query() -> dict[str, Case]:
    """One row with several new tokens, and several rows with one."""
    heads, groups, size, new, old = 4, 2, 16, 3, 4
    all_outputs, op = (True, True, True), "GroupQueryAttention"
    base = {"num_heads": heads, "kv_num_heads": groups}

    def qkv(batch: int, tokens: int) -> list[np.ndarray]:
        return [normal(batch, tokens, n * size) for n in (heads, groups, groups)]

    def cache(batch: int, length: int) -> list[np.ndarray]:
        return [normal(batch, groups, length, size) for _ in range(2)]

    first = [*qkv(1, new), None, None, i32(new - 1), i32(new)]
    later = [*qkv(1, new), *cache(1, old), i32(old + new - 1), i32(old + new)]
    angles, part = [normal(20, 8), normal(20, 8)], [normal(20, 4), normal(20, 4)]
    places = np.array([[5, 9, 2]])
    bias = normal(1, heads, new, old + new)
    table: dict[str, tuple[list[Any], dict[str, Any]]] = {
        "first": (first, {}),
        "empty-past": ([*qkv(1, new), *cache(1, 0), i32(new - 1), i32(new)], {}),
        "packed": ([np.concatenate(first[:3], -1), None, None, *first[3:]], {}),
        "later": (later, {}),
        "first-rotary": ([*first, *angles], {"do_rotary": 1}),
        "first-places": ([*first, *angles, places], {"do_rotary": 1}),
        "later-rotary": ([*later, *angles], {"do_rotary": 1}),
        "later-interleaved": ([*later, *angles], {"do_rotary": 1, "rotary_interleaved": 1}),
        "later-places": ([*later, *angles, places], {"do_rotary": 1}),
        "softcap": ([*later, None, None, None, bias], {"softcap": 1.5, "scale": 0.3}),
        "bias-shared": ([*later, None, None, None, bias[:, :1]], {}),
        "sink": ([*later, None, None, None, None, normal(heads)], {}),
        "smooth": (later, {"smooth_softmax": 1}),
        "not-causal": (later, {"causal": 0}),
        "ragged": ([*qkv(3, 1), *cache(3, 9), i32(5, 3, 0), i32(6)], {}),
        "ragged-rotary": ([*qkv(3, 1), *cache(3, 9), i32(5, 3, 9), i32(10), *angles], {"do_rotary": 1}),
        **{f"window-{n}": (later, {"local_window_size": n}) for n in (1, 2, 3)},
    }
    wide = normal(2, new, 32)
    spots = np.array([[4, 1, 2], [0, 3, 19]])
    rotary = {
        f"{label}-{pairs}": Case("RotaryEmbedding", inputs, {**attrs, "interleaved": pairs})
        for pairs in (0, 1)
        for label, inputs, attrs in (
            ("from", [wide, np.array([4]), *angles], {}),
            ("places", [wide, spots, *angles], {}),
            ("heads", [normal(2, 2, new, 16), spots, *angles], {}),
            ("part", [wide, spots, *part], {"num_heads": 2, "rotary_embedding_dim": 8}),
        )
    }
    scores = {
        f"GroupQuery-scores-{n}": Case(op, [*later, None, None, None, bias], {**base, "qk_output": n}, (True,) * 4)
        for n in (1, 2)
    }
    return {
        **{f"GroupQuery-{k}": Case(op, inputs, {**base, **attrs}, all_outputs) for k, (inputs, attrs) in table.items()},
        **scores,
        **{f"Rotary-{label}": case for label, case in rotary.items()},
    }


CASES = {**attention(), **quantized(), **multi_head(), **group_query()}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_as_onnxruntime(case: Case) -> None:
    check(case)


DEVICE_CASES = [
    *("Attention-past-3-raw", "QAttention-columns", "MultiHead-past-0-1", "GroupQuery-first-rotary"),
    *("GroupQuery-ragged-rotary", "GroupQuery-sink", "Rotary-part-1"),
]


@pytest.mark.parametrize("name", DEVICE_CASES)
def test_on_devices(name: str, device: str) -> None:
    CASES[name].agrees(CASES[name].on(device), CASES[name].expected())


def test_a_square_mask_is_read_from_the_row_behind_the_past() -> None:
    """onnxruntime has no kernel for CPUs that takes it: by the same mask in three dims."""
    past, square = normal(2, BATCH, HEADS, 3, SIZE), coins(BATCH, 1, 9, 9)
    seen = square[:, 0, 3 : 3 + TOKENS, : 3 + TOKENS]
    plain = Case("Attention", [X, W, BIAS, seen, past], TWO, (True, True))
    turned = Case("Attention", [X, W, BIAS, square, past], TWO, (True, True))
    plain.agrees(turned.lowered(True), plain.expected())


def test_packed_inputs() -> None:
    """onnxruntime has kernels only for GPUs: by the same tensors apart."""
    parts = [normal(BATCH, TOKENS, HEADS, SIZE) for _ in range(3)]
    apart = Case("MultiHeadAttention", [t.reshape(BATCH, TOKENS, WIDTH) for t in parts], TWO)
    expected = apart.expected()
    together = Case("MultiHeadAttention", [np.stack(parts, 3)], TWO)
    apart.agrees(together.lowered(True), expected)
    keys = Case("MultiHeadAttention", [parts[0].reshape(BATCH, TOKENS, WIDTH), np.stack(parts[1:], 3)], TWO)
    apart.agrees(keys.lowered(True), expected)


def test_a_padded_first_run() -> None:
    """What a row's padding gives is anybody's guess: what stands before it counts."""
    q, k, v = normal(2, 3, 32), normal(2, 3, 16), normal(2, 3, 16)
    attrs = {"num_heads": 4, "kv_num_heads": 2}
    case = Case("GroupQueryAttention", [q, k, v, None, None, i32(2, 0), i32(3)], attrs)
    found, expected = case.lowered(True)[0], case.expected()[0]
    case.agrees([found[0], found[1, :1]], [expected[0], expected[1, :1]])


def test_half_precision_sums_in_float32() -> None:
    q, k, v = (normal(1, 3, 32) for _ in range(3))
    exact = Case("MultiHeadAttention", [q, k, v], {"num_heads": 2}).expected()[0]
    halves = Case("MultiHeadAttention", [t.astype(np.float16) for t in (q, k, v)], {"num_heads": 2})
    (found,) = halves.lowered(True)
    assert found.dtype == np.float16
    np.testing.assert_allclose(found.astype(np.float32), exact, rtol=4e-3, atol=4e-3)


def refused(op: str, inputs: list[Any], **attrs: Any) -> None:
    Case(op, inputs, attrs).lowered(False)


def test_what_is_refused() -> None:
    q, cache = normal(1, 1, 16), normal(1, 1, 3, 16)
    common = [q, q, q, cache, cache, i32(3), i32(4)]
    with pytest.raises(UnsupportedError, match="attribute do_rotary = 1; 0 would work"):
        refused("Attention", [X, W], **TWO, do_rotary=1)
    with pytest.raises(UnsupportedError, match="input 'past_sequence_length'; it works without"):
        refused("MultiHeadAttention", [X, X, X, None, None, None, None, None, i32(1)], **TWO)
    with pytest.raises(UnsupportedError, match="attribute k_quant_type = 'PER_TENSOR'; 'NONE' would work"):
        refused("GroupQueryAttention", common, num_heads=1, kv_num_heads=1, k_quant_type="PER_TENSOR")
    with pytest.raises(UnsupportedError, match="input 'q_norm_weight'; it works without"):
        refused("GroupQueryAttention", [*common, *[None] * 7, normal(16)], num_heads=1, kv_num_heads=1)
    angles = normal(20, 8)
    with pytest.raises(UnsupportedError, match="is_packed_batching"):
        refused("RotaryEmbedding", [normal(1, 1, 16), np.array([0]), angles, angles], is_packed_batching=1)


def test_mistakes() -> None:
    with pytest.raises(ModelError, match="a mask of 3 numbers; 2, 4 and 8 have a meaning for 2 rows"):
        refused("Attention", [X, W, BIAS, i32(1, 2, 3)], **TWO)
    with pytest.raises(ModelError, match="columns of an input by 3 heads"):
        refused("MultiHeadAttention", [X, X, X], num_heads=3)
    with pytest.raises(ModelError, match="without a key and a value, query is of rank 5"):
        refused("MultiHeadAttention", [X], **TWO)
    q = normal(1, 1, 16)
    with pytest.raises(ModelError, match="do_rotary needs the inputs cos_cache and sin_cache"):
        refused("GroupQueryAttention", [q, q, q, None, None, i32(0), i32(1)], num_heads=1, kv_num_heads=1, do_rotary=1)
    with pytest.raises(IndexError, match="a position is outside its axis of 20"):
        refused("RotaryEmbedding", [normal(1, 2, 16), np.array([19]), normal(20, 8), normal(20, 8)])
