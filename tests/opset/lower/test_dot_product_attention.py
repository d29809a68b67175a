"""Attention against onnx's reference: packed and split heads, groups, masks, caches, lengths, windows, narrow types."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import check, random, reference, run, same, traced

from omniop.opset.definitions import Structured
from omniop.opset.dtype import FLOAT32
from omniop.opset.errors import ModelError

BATCH, HEADS, GROUPS, QUERIES, PAST, SIZE = 2, 6, 2, 3, 4, 5
KEYS = PAST + QUERIES
PACKED = {"q_num_heads": HEADS, "kv_num_heads": GROUPS}
OUTPUTS = 4


def split(past: bool = True, dtype: Any = np.float32, queries: int = QUERIES, keys: int = QUERIES) -> list[Any]:
    """Q, K, V, no mask, past keys and values."""
    shapes = [(BATCH, HEADS, queries, SIZE), *[(BATCH, GROUPS, keys, SIZE)] * 2]
    shapes += [(BATCH, GROUPS, PAST, SIZE)] * 2 if past else []
    tensors: list[Any] = [random(s, dtype, seed=k, scale=1) for k, s in enumerate(shapes)]
    return [*tensors[:3], None, *tensors[3:]] if past else tensors


def packed(past: bool = True) -> list[Any]:
    q, k, v, *rest = split(past)
    return [*(t.transpose(0, 2, 1, 3).reshape(BATCH, QUERIES, -1) for t in (q, k, v)), *rest]


@pytest.mark.parametrize("past", [False, True])
@pytest.mark.parametrize("causal", [0, 1])
def test_heads(past: bool, causal: int) -> None:
    check("Attention", split(past), outputs=OUTPUTS, is_causal=causal)
    check("Attention", packed(past), outputs=OUTPUTS, is_causal=causal, **PACKED)


@pytest.mark.parametrize("mode", [1, 2, 3])
def test_stages(mode: int) -> None:
    attrs: dict[str, Any] = {"softcap": 1.5, "scale": 0.7, "is_causal": 1}
    check("Attention", split(), outputs=OUTPUTS, qk_matmul_output_mode=mode, **attrs)


def test_raw_scores_are_not_capped() -> None:
    """As the operator's text says; onnx's reference caps them."""
    capped, plain = (run("Attention", split(), outputs=OUTPUTS, softcap=cap)[3] for cap in (1.5, 0.0))
    same(capped, plain, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [bool, np.float32])
@pytest.mark.parametrize(
    "shape",
    [(QUERIES, KEYS), (1, KEYS), (HEADS, 1, KEYS), (BATCH, 1, QUERIES, KEYS), (QUERIES, KEYS - 2), (QUERIES, 1)],
)
@pytest.mark.parametrize("causal", [0, 1])
def test_masks(dtype: Any, shape: tuple[int, ...], causal: int) -> None:
    """Also one that is too short for the keys: the others are forbidden.

    onnx's reference gets a row for each query: under is_causal it does not broadcast them.
    """
    xs, attrs = split(), {"qk_matmul_output_mode": 3, "is_causal": causal}
    mask = random(shape, dtype)
    rows = np.broadcast_to(mask, (*shape[:-2], QUERIES, shape[-1])).copy()
    expected = reference("Attention", [*xs[:3], rows, *xs[4:]], outputs=OUTPUTS, **attrs)
    for a, b in zip(run("Attention", [*xs[:3], mask, *xs[4:]], outputs=OUTPUTS, **attrs), expected, strict=True):
        same(a, b)


def test_a_query_that_may_attend_to_nothing_gives_0() -> None:
    """Whatever the scores are: NaN and infinity behind a mask do not count."""
    for dtype, never in ((bool, False), (np.float32, -np.inf)):
        xs = split(past=False)
        xs.append(np.full((QUERIES, QUERIES), not never if dtype is bool else 0, dtype))
        xs[3][1] = never
        y, *_, weights = run("Attention", xs, outputs=OUTPUTS, qk_matmul_output_mode=3)
        assert np.all(y[:, :, 1] == 0)
        assert np.all(weights[:, :, 1] == 0)
        same(y[:, :, 0], run("Attention", xs[:3])[0][:, :, 0])
        xs[0][:, :, 1] = np.nan
        assert np.all(run("Attention", xs)[0][:, :, 1] == 0)


@pytest.mark.parametrize("causal", [0, 1])
def test_lengths_of_an_external_cache(causal: int) -> None:
    """One is below the number of queries: its first queries see nothing."""
    xs = [*split(past=False, keys=KEYS), None, None, None, np.array([KEYS - 1, QUERIES - 1], np.int64)]
    check("Attention", xs, outputs=1, is_causal=causal)


@pytest.mark.parametrize("window", [(0, -1), (2, -1), (-1, 1), (1, 2)])
def test_windows(window: tuple[int, int]) -> None:
    left, right = window
    check("Attention", split(), outputs=OUTPUTS, left_window_size=left, right_window_size=right)
    xs = [*split(past=False, keys=KEYS), None, None, None, np.array([KEYS - 1, QUERIES], np.int64)]
    check("Attention", xs, outputs=1, left_window_size=left, right_window_size=right)


@pytest.mark.parametrize("precision", [None, 1, 10, 11])
def test_narrow_types(precision: int | None) -> None:
    attrs = {} if precision is None else {"softmax_precision": precision}
    check("Attention", split(dtype=np.float16), outputs=OUTPUTS, rtol=4e-3, atol=2e-3, is_causal=1, **attrs)


def test_groups_share_keys_and_values_in_place() -> None:
    """Both products read keys and values as they are: no operand has a row for each query head."""
    shapes = [(BATCH, n, QUERIES, SIZE) for n in (HEADS, GROUPS, GROUPS)]
    _, trace = traced("Attention", [(s, FLOAT32) for s in shapes])
    products = [d for d in trace.definitions if isinstance(d, Structured)]
    assert [d.prim for d in products] == ["contract"] * 2
    hint = trace.env.hint
    for product in products:
        assert [hint(e) for e in product.operands[1].extents[:2]] == [BATCH, GROUPS]
        assert hint(product.operands[0].extents[2]) == HEADS // GROUPS * QUERIES


def test_what_does_not_fit_is_named() -> None:
    q, k, v, *_ = split(past=False)
    with pytest.raises(ModelError, match="past_key and past_value go together"):
        run("Attention", [q, k, v, None, k])
    with pytest.raises(ModelError, match="the query has rank 3, which needs the attributes"):
        run("Attention", packed(past=False))
    with pytest.raises(ModelError, match="columns of the key by 7 heads"):
        run("Attention", packed(past=False), q_num_heads=HEADS, kv_num_heads=7)
    with pytest.raises(ModelError, match=r"query heads by .*2 key heads"):
        run("Attention", [q[:, :5], k, v])
    with pytest.raises(ModelError, match="qk_matmul_output_mode is 4"):
        run("Attention", [q, k, v], qk_matmul_output_mode=4)
    with pytest.raises(ModelError, match="window sizes are -1"):
        run("Attention", [q, k, v], left_window_size=-2)
