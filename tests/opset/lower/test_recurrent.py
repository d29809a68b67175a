"""RNN, GRU and LSTM against onnxruntime, and against numpy for what it has not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import random, run, same
from oracle import agrees

from omniop.opset.errors import ModelError, UnsupportedError

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
STEPS, BATCH, INPUTS, HIDDEN = 5, 3, 4, 2


def tensors(op: str, directions: int = 1, seed: int = 0) -> dict[str, np.ndarray]:
    """Every input of the op, by name."""
    gates, h = GATES[op], HIDDEN
    shapes: dict[str, tuple[int, ...]] = {
        "X": (STEPS, BATCH, INPUTS),
        "W": (directions, gates * h, INPUTS),
        "R": (directions, gates * h, h),
        "B": (directions, 2 * gates * h),
        "lens": (BATCH,),
        "h": (directions, BATCH, h),
    }
    if op == "LSTM":
        shapes |= {"c": (directions, BATCH, h), "P": (directions, 3 * h)}
    result = {name: random(shape, seed=seed + k, scale=0.7) for k, (name, shape) in enumerate(shapes.items())}
    result["lens"] = np.array([5, 2, 4], np.int32)
    return result


def inputs(op: str, leave_out: str = "", directions: int = 1) -> list[Any]:
    given = tensors(op, directions)
    return [None if name in leave_out.split() else t for name, t in given.items()]


def sized(op: str) -> dict[str, Any]:
    """The attributes that every node needs; RNN's default functions are spelled out."""
    return {"hidden_size": HIDDEN} | ({"activations": ["Tanh", "Tanh"]} if op == "RNN" else {})


def outputs(op: str) -> int:
    return 3 if op == "LSTM" else 2


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("leave_out", ["", "lens", "B lens h c P", "lens P h", "h c"])
def test_every_direction_and_optional_input(op: str, direction: str, leave_out: str) -> None:
    directions = 2 if direction == "bidirectional" else 1
    xs = inputs(op, leave_out, directions)
    agrees(op, xs, outputs=outputs(op), direction=direction, **sized(op))


@pytest.mark.parametrize("op", GATES)
def test_clip(op: str) -> None:
    agrees(op, inputs(op), outputs=outputs(op), clip=0.3, **sized(op))


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_linear_before_reset(direction: str) -> None:
    xs = inputs("GRU", directions=2 if direction == "bidirectional" else 1)
    agrees("GRU", xs, outputs=2, hidden_size=HIDDEN, linear_before_reset=1, direction=direction)
    xs[3] = None
    agrees("GRU", xs, outputs=2, hidden_size=HIDDEN, linear_before_reset=1, direction=direction)


def test_coupled_gates() -> None:
    xs = inputs("LSTM", "lens P")
    agrees("LSTM", xs, outputs=3, hidden_size=HIDDEN, input_forget=1)


@pytest.mark.parametrize(
    ("name", "alpha", "beta"),
    [
        *((name, [], []) for name in ("Relu", "Tanh", "Sigmoid", "Softsign", "Softplus")),
        *((name, [], []) for name in ("LeakyRelu", "HardSigmoid", "Elu")),
        ("Affine", [0.5], [0.1]),
        ("LeakyRelu", [0.3], []),
        ("ThresholdedRelu", [0.2], []),
        ("ScaledTanh", [1.2], [0.6]),
        ("HardSigmoid", [0.3], [0.4]),
        ("Elu", [0.7], []),
    ],
)
def test_activations(name: str, alpha: list[float], beta: list[float]) -> None:
    attrs: dict[str, Any] = {"activations": [name], "hidden_size": HIDDEN}
    attrs |= {"activation_alpha": alpha} if alpha else {}
    attrs |= {"activation_beta": beta} if beta else {}
    agrees("RNN", inputs("RNN"), outputs=2, **attrs)


def test_activations_by_direction_take_parameters_in_order() -> None:
    names = ["Sigmoid", "LeakyRelu", "Tanh", "HardSigmoid", "Tanh", "Elu"]
    attrs: dict[str, Any] = {"activations": names, "activation_alpha": [0.1, 0.3, 0.8], "activation_beta": [0.4]}
    agrees("LSTM", inputs("LSTM", directions=2), outputs=3, hidden_size=HIDDEN, direction="bidirectional", **attrs)


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_batch_first_is_a_transpose(op: str, direction: str) -> None:
    xs = inputs(op, directions=2 if direction == "bidirectional" else 1)
    attrs = {"direction": direction, **sized(op)}
    y, *states = run(op, xs, opset=22, outputs=outputs(op), **attrs)
    swapped = [x.swapaxes(0, 1).copy() if k in (0, 5, 6) else x for k, x in enumerate(xs)]
    got, *got_states = run(op, swapped, opset=22, outputs=outputs(op), layout=1, **attrs)
    same(got, y.transpose(2, 0, 1, 3), rtol=1e-6)
    for a, b in zip(got_states, states, strict=True):
        same(a, b.swapaxes(0, 1), rtol=1e-6)


@pytest.mark.parametrize("op", GATES)
def test_other_floats(op: str) -> None:
    xs = inputs(op)
    wide = [x if x.dtype.kind == "i" else x.astype(np.float64) for x in xs]
    exact = run(op, wide, opset=22, outputs=outputs(op), **sized(op))
    for a, b in zip(run(op, xs, opset=22, outputs=outputs(op), **sized(op)), exact, strict=True):
        same(a, b.astype(np.float32), rtol=1e-5)
    halves = [x if x.dtype.kind == "i" else x.astype(np.float16) for x in xs]
    for a, b in zip(run(op, halves, opset=22, outputs=outputs(op), **sized(op)), exact, strict=True):
        same(a, b.astype(np.float16), rtol=1e-2, atol=1e-2)


def test_wrong_weights_and_activations_are_refused() -> None:
    xs = inputs("LSTM")
    with pytest.raises(ModelError, match="rows of W"):
        run("LSTM", [xs[0], xs[1][:, :4], *xs[2:]], hidden_size=HIDDEN)
    with pytest.raises(ModelError, match="directions of W"):
        run("LSTM", xs, hidden_size=HIDDEN, direction="bidirectional")
    with pytest.raises(UnsupportedError, match="'gelu'; known"):
        run("RNN", inputs("RNN"), hidden_size=HIDDEN, activations=["Gelu"])
