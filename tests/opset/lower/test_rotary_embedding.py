"""RotaryEmbedding against onnx's reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import check, random, run

from omniop.opset.errors import ModelError

BATCH, HEADS, TOKENS, SIZE, POSITIONS = 2, 3, 4, 8, 10


def inputs(packed: bool, half: int, positions: bool, dtype: Any = np.float32) -> list[Any]:
    """x, cosines, sines, and maybe positions, which may count from the end."""
    x = random((BATCH, TOKENS, HEADS * SIZE) if packed else (BATCH, HEADS, TOKENS, SIZE), dtype)
    caches = [random((POSITIONS, half) if positions else (BATCH, TOKENS, half), dtype, seed=k, scale=1) for k in (1, 2)]
    places = np.random.default_rng(3).integers(-POSITIONS, POSITIONS, (BATCH, TOKENS))
    return [x, *caches, *([places] if positions else [])]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("turning", [0, 4])
@pytest.mark.parametrize("positions", [False, True])
def test_pairs_are_turned(packed: bool, interleaved: int, turning: int, positions: bool) -> None:
    attrs: dict[str, Any] = {"interleaved": interleaved} | ({"num_heads": HEADS} if packed else {})
    attrs |= {"rotary_embedding_dim": turning} if turning else {}
    check("RotaryEmbedding", inputs(packed, (turning or SIZE) // 2, positions), **attrs)


def test_narrow_floats_round_at_every_operation() -> None:
    check("RotaryEmbedding", inputs(False, SIZE // 2, True, np.float16), rtol=0, atol=0)


def test_what_does_not_fit_is_named() -> None:
    x, cos, sin, places = inputs(True, SIZE // 2, True)
    with pytest.raises(ModelError, match="needs the attribute num_heads"):
        run("RotaryEmbedding", [x, cos, sin, places])
    with pytest.raises(ModelError, match="columns by 5 heads"):
        run("RotaryEmbedding", [x, cos, sin, places], num_heads=5)
    with pytest.raises(ModelError, match="sin_cache is of shape"):
        run("RotaryEmbedding", [x, cos, sin[:, 1:], places], num_heads=HEADS)
    with pytest.raises(ModelError, match="position_ids is of shape"):
        run("RotaryEmbedding", [x, cos, sin, places[:, 1:]], num_heads=HEADS)
    with pytest.raises(ModelError, match="elements to turn, in pairs"):
        run("RotaryEmbedding", [x, cos, sin, places], num_heads=HEADS, rotary_embedding_dim=3)
