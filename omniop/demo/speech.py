"""Which parts of a sound are speech: Silero's network, which hears 32 ms at a time and remembers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

import omniop
from omniop.demo import models, voice
from omniop.demo.sounds import Sound
from omniop.demo.trial import Progress

RATE = voice.RATE
FRAME = 512
"""Samples that the network judges at a time, with `_BEFORE` of those before them."""
_BEFORE, _STATE = 64, (1, 1, 128)
_BLOCK = 256
"""Frames in one run, 8 seconds; the network's memory goes from run to run."""
_ON, _OFF = 0.5, 0.35
"""Speech starts above the one probability and ends below the other."""
_SHORTEST, _PAUSE = 0.25, 0.1
"""Seconds: of speech; and of silence, for it to end speech."""


@dataclass(frozen=True)
class Heard:
    """What was heard: how likely each frame is speech, and where speech starts and ends, in seconds."""

    probabilities: npt.NDArray[np.float32]
    spoken: list[tuple[float, float]]


class Listener:
    """The network on one device, and a sound."""

    def __init__(self, sound: Sound, device: str) -> None:
        """Raises ModelError, also where the network is not installed, and DeviceError."""
        self.sound = sound
        self.sessions = [omniop.load(models.SPEECH.path(), device)]

    def run(self, progress: Progress) -> Heard:
        """Raises ExecutionError and PlacementError."""
        all_frames = frames(self.sound)
        state = {"h": np.zeros(_STATE, np.float32), "c": np.zeros(_STATE, np.float32)}
        heard = []
        for start in range(0, len(all_frames), _BLOCK):
            progress("listening", start / len(all_frames))
            outputs = self.sessions[0].run({"input": all_frames[start : start + _BLOCK], **state})
            heard.append(outputs["speech_probs"])
            state = {"h": outputs["hn"], "c": outputs["cn"]}
        probabilities = np.concatenate(heard)
        return Heard(probabilities, spoken(probabilities))


def frames(sound: Sound) -> npt.NDArray[np.float32]:
    """f32 [frames, 576]: 512 samples each, after the 64 before them; silence before the start and after the end."""
    count = -(-len(sound) // FRAME)
    padded = np.zeros(_BEFORE + count * FRAME, np.float32)
    padded[_BEFORE : _BEFORE + len(sound)] = sound
    windows = np.lib.stride_tricks.sliding_window_view(padded, _BEFORE + FRAME)
    return np.ascontiguousarray(windows[::FRAME])


def spoken(probabilities: npt.NDArray[np.float32]) -> list[tuple[float, float]]:
    """(start, end) in seconds of the stretches of speech."""
    stretches: list[list[int]] = []
    speaking = False
    for k, p in enumerate(probabilities):
        if not speaking and p >= _ON:
            stretches.append([k, k + 1])
        speaking = p >= _ON or (speaking and p >= _OFF)
        if speaking:
            stretches[-1][1] = k + 1
    second = FRAME / RATE
    joined: list[tuple[float, float]] = []
    for start, end in ((a * second, b * second) for a, b in stretches):
        if joined and start - joined[-1][1] < _PAUSE:
            start = joined.pop()[0]
        joined.append((start, end))
    return [(start, end) for start, end in joined if end - start >= _SHORTEST]
