"""Silero VAD tells speech from noise and silence, 32 ms at a time, with a state that goes from frame to frame.

Its files say the same network in six ways: branches nested four deep around LSTM nodes, one LSTM over a sequence, an
LSTM spelled out in Gemm and Sigmoid, float16 weights. The voice is synthesised.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from scipy.signal import resample_poly

import omniop
from omniop.conformance.oracles import onnxruntime_engine
from omniop.demo import voice
from tests.models.conftest import MOSTLY, ModelFile

Run = Callable[[Mapping[str, Any]], Mapping[str, Any]]

FRAME, CONTEXT = 512, 64
"""Samples that are judged at a time at 16 kHz, and those before them that the network looks back on."""
SPOKEN = ("alou a wIl@", "dIs Is a wois", "mai neim Is d@n")
SILENCE = np.zeros(voice.RATE // 2, np.float32)
SOUNDS = {
    "voice": voice.say(SPOKEN[0]),
    "silence": SILENCE,
    "noise": 0.1 * np.random.default_rng(0).standard_normal(len(SILENCE)),
    "tone": 0.3 * np.sin(2 * np.pi * 440 * np.arange(len(SILENCE)) / voice.RATE),
}


@dataclass(frozen=True)
class Variant:
    """One of the package's files: what it is fed, and the sampling rates that it knows."""

    file: str
    takes_rate: bool
    rates: tuple[int, ...] = (16000,)


VARIANTS = (
    Variant("silero_vad.onnx", True, (16000, 8000)),
    Variant("silero_vad_16k_op15.onnx", True),
    Variant("silero_vad_half.onnx", False),
    Variant("silero_vad_op18_ifless.onnx", True, (16000, 8000)),
    Variant("silero_vad_openvino_16k.onnx", False),
)
SEQUENCE = "silero_vad_16k_sequence.onnx"


def frames(sound: np.ndarray, rate: int = voice.RATE) -> np.ndarray:
    """f32 [frames, CONTEXT + FRAME], the first one after silence; at 8 kHz both are half as long."""
    size, context = FRAME * rate // voice.RATE, CONTEXT * rate // voice.RATE
    padded = np.concatenate([np.zeros(context, np.float32), sound])
    starts = range(0, len(sound) - size + 1, size)
    return np.stack([padded[start : start + context + size] for start in starts])


def probabilities(run: Run, sound: np.ndarray, takes_rate: bool, rate: int = voice.RATE) -> np.ndarray:
    """How likely each frame is speech, the state carried from one to the next."""
    state = np.zeros((2, 1, 128), np.float32)
    found = []
    for frame in frames(sound, rate):
        feeds = {"input": frame[None], "state": state} | ({"sr": np.array(rate, np.int64)} if takes_rate else {})
        outputs = run(feeds)
        state = outputs["stateN"]
        found.append(outputs["output"].item())
    return np.array(found)


def by_onnxruntime(path: object) -> Run:
    return onnxruntime_engine(onnx.load(path))


def is_speech(found: np.ndarray) -> bool:
    """Most frames are; the first ones have not heard enough."""
    return bool((found > 0.8).mean() > 0.9)


def test_the_voice_is_one(model_file: ModelFile) -> None:
    """ONNX Runtime hears speech in it, whatever it says."""
    run = by_onnxruntime(model_file("silero_vad", "data/silero_vad.onnx"))
    for seed, spoken in enumerate(SPOKEN):
        assert is_speech(probabilities(run, voice.say(spoken, seed=seed), takes_rate=True))


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: v.file.removesuffix(".onnx"))
def test_hears_speech(device: str, variant: Variant, model_file: ModelFile) -> None:
    path = model_file("silero_vad", f"data/{variant.file}")
    session, oracle = omniop.load(path, device=device, fallback="error"), by_onnxruntime(path)
    for rate in variant.rates:
        for name, sound in SOUNDS.items():
            sampled = resample_poly(sound, rate, voice.RATE).astype(np.float32)
            found = probabilities(session.run, sampled, variant.takes_rate, rate)
            assert is_speech(found) if name == "voice" else (found < 0.5).all(), name
            np.testing.assert_allclose(found, probabilities(oracle, sampled, variant.takes_rate, rate), atol=1e-4)
        assert session.explain().share() >= MOSTLY


def test_hears_when_speech_begins_and_ends(device: str, model_file: ModelFile) -> None:
    """One network over all frames at once, the state carried inside."""
    path = model_file("silero_vad", f"data/{SEQUENCE}")
    sound = np.concatenate([SILENCE, SOUNDS["voice"], SILENCE, SILENCE])
    feeds = {"input": frames(sound), "h": np.zeros((1, 1, 128), "f"), "c": np.zeros((1, 1, 128), "f")}
    session = omniop.load(path, device=device, fallback="error")
    outputs = session.run(feeds)
    for name, expected in by_onnxruntime(path)(feeds).items():
        np.testing.assert_allclose(outputs[name], expected, rtol=1e-3, atol=1e-4, err_msg=name)
    found = outputs["speech_probs"]
    begins, ends = (np.flatnonzero(found > 0.5)[k] * FRAME / voice.RATE for k in (0, -1))
    assert begins == pytest.approx(0.5, abs=0.1)
    assert ends == pytest.approx((len(SILENCE) + len(SOUNDS["voice"])) / voice.RATE, abs=0.2)
    assert session.explain().share() >= MOSTLY
