"""LinearAttention against onnx's reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import check, random, run, same

from omniop.opset.errors import ModelError, UnsupportedError

BATCH, TOKENS, KEYS, VALUES = 2, 5, 4, 3
RULES = {"linear": (), "gated": ("decay",), "delta": ("beta",), "gated_delta": ("decay", "beta")}


def inputs(rule: str, heads: int = 2, groups: int = 2, past: bool = True, by_key: bool = False) -> list[Any]:
    shapes = {
        "query": (BATCH, TOKENS, heads * KEYS),
        "key": (BATCH, TOKENS, groups * KEYS),
        "value": (BATCH, TOKENS, groups * VALUES),
        "past": (BATCH, groups, KEYS, VALUES),
        "decay": (BATCH, TOKENS, groups * (KEYS if by_key else 1)),
        "beta": (BATCH, TOKENS, groups),
    }
    wanted = {"query", "key", "value", *RULES[rule], *(["past"] if past else [])}
    tensors = [
        random(shape, seed=k, scale=0.5) if name in wanted else None for k, (name, shape) in enumerate(shapes.items())
    ]
    while tensors[-1] is None:
        tensors.pop()
    return tensors


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("heads", "groups"), [(2, 2), (4, 2), (3, 1)])
@pytest.mark.parametrize("past", [False, True])
def test_rules(rule: str, heads: int, groups: int, past: bool) -> None:
    attrs: dict[str, Any] = {"q_num_heads": heads, "kv_num_heads": groups, "update_rule": rule}
    check("LinearAttention", inputs(rule, heads, groups, past), outputs=2, rtol=1e-4, atol=1e-5, **attrs)


def test_decay_by_key_one_beta_for_all_heads_and_a_scale() -> None:
    xs = inputs("gated_delta", by_key=True)
    attrs: dict[str, Any] = {"q_num_heads": 2, "kv_num_heads": 2, "scale": 0.3}
    check("LinearAttention", xs, outputs=2, rtol=1e-4, atol=1e-5, **attrs)
    check("LinearAttention", [*xs[:5], xs[5][..., :1].copy()], outputs=2, rtol=1e-4, atol=1e-5, **attrs)


def test_the_state_keeps_its_own_dtype_and_continues() -> None:
    xs = [x.astype(np.float16) if k != 3 else x for k, x in enumerate(inputs("gated_delta"))]
    attrs: dict[str, Any] = {"q_num_heads": 2, "kv_num_heads": 2}
    whole, last = run("LinearAttention", xs, outputs=2, **attrs)
    assert (whole.dtype, last.dtype) == (np.float16, np.float32)
    first, state = run("LinearAttention", [x if k == 3 else x[:, :2] for k, x in enumerate(xs)], outputs=2, **attrs)
    rest = [state if k == 3 else x[:, 2:] for k, x in enumerate(xs)]
    second, end = run("LinearAttention", rest, outputs=2, **attrs)
    same(np.concatenate([first, second], 1), whole, rtol=1e-3)
    same(end, last, rtol=1e-6)


def test_rules_and_inputs_must_fit() -> None:
    attrs: dict[str, Any] = {"q_num_heads": 2, "kv_num_heads": 2}
    with pytest.raises(ModelError, match="needs input 'decay'"):
        run("LinearAttention", inputs("linear"), outputs=2, update_rule="gated", **attrs)
    with pytest.raises(ModelError, match="takes no input 'beta'"):
        run("LinearAttention", inputs("delta"), outputs=2, update_rule="linear", **attrs)
    with pytest.raises(UnsupportedError, match="known: linear"):
        run("LinearAttention", inputs("linear"), outputs=2, update_rule="softmax", **attrs)
