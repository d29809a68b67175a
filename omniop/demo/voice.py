"""A voice made up from its source and its filters, for want of a recording: glottal pulses and noise through formants.

The scheme is Klatt's ("Software for a cascade/parallel formant synthesizer", 1980), cut down to what sounds like a
person talking: a cascade of resonators that glide from phone to phone. The vowels' formants are the men's of Peterson
and Barney ("Control methods used in a study of the vowels", 1952).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import signal

Sound = npt.NDArray[np.float32]

RATE = 16000
_FRAME = RATE // 200
"""Samples that share one set of filters."""
_BANDWIDTHS = (60.0, 90.0, 120.0, 200.0, 250.0)
_HIGH_FORMANTS = (3500.0, 4500.0)


@dataclass(frozen=True)
class Phone:
    """A sound of speech: formants 1 to 3 in Hz, loudness of the voice and of the breath, and seconds."""

    formants: tuple[float, float, float]
    voice: float
    breath: float
    seconds: float


_PHONES = {
    "i": Phone((270, 2290, 3010), 1.0, 0.01, 0.12),
    "I": Phone((390, 1990, 2550), 1.0, 0.01, 0.09),
    "e": Phone((530, 1840, 2480), 1.0, 0.01, 0.11),
    "a": Phone((730, 1090, 2440), 1.0, 0.01, 0.14),
    "o": Phone((570, 840, 2410), 1.0, 0.01, 0.13),
    "u": Phone((300, 870, 2240), 1.0, 0.01, 0.12),
    "@": Phone((490, 1350, 1690), 0.8, 0.01, 0.07),
    "m": Phone((250, 1100, 2200), 0.35, 0.0, 0.07),
    "n": Phone((250, 1500, 2500), 0.35, 0.0, 0.06),
    "l": Phone((360, 1100, 2600), 0.6, 0.0, 0.06),
    "r": Phone((420, 1200, 1550), 0.6, 0.0, 0.06),
    "w": Phone((300, 650, 2200), 0.6, 0.0, 0.06),
    "d": Phone((220, 1700, 2600), 0.12, 0.05, 0.05),
    "b": Phone((220, 900, 2200), 0.12, 0.05, 0.05),
    "k": Phone((300, 1900, 2600), 0.0, 0.12, 0.06),
    "t": Phone((300, 1800, 2600), 0.0, 0.15, 0.05),
    "h": Phone((500, 1500, 2500), 0.05, 0.15, 0.06),
    "s": Phone((300, 1800, 2600), 0.0, 0.2, 0.10),
    " ": Phone((500, 1500, 2500), 0.0, 0.0, 0.08),
}


def say(phones: str, pitch: float = 120.0, seed: int = 0) -> Sound:
    """f32 [samples] at `RATE`, within -1 .. 1: the phones of ``phones`` one after the other.

    ``pitch`` is the voice's at the start, in Hz; it falls by a quarter towards the end.
    """
    noise = np.random.default_rng(seed)
    track = _track([_PHONES[p] for p in phones])
    frames, samples = len(track), len(track) * _FRAME
    contour = pitch * np.linspace(1.05, 0.78, frames) * (1 + 0.06 * np.sin(np.arange(frames) / 17))
    contour *= 1 + 0.01 * noise.standard_normal(frames)
    source = _pulses(np.repeat(contour, _FRAME)) * _smooth(track[:, 3])
    source += noise.standard_normal(samples) * _smooth(track[:, 4])
    sound = _through_formants(source, track[:, :3])
    return (sound / np.abs(sound).max()).astype(np.float32)


def _track(phones: list[Phone]) -> npt.NDArray[np.float64]:
    """f64 [frames, 5]: formants, voice, breath; each phone is held for its middle and glides to the next."""
    ends = np.cumsum([p.seconds for p in phones])
    starts = ends - [p.seconds for p in phones]
    held = np.array([[*p.formants, p.voice, p.breath] for p in phones])
    times = np.ravel(np.column_stack([starts * 0.7 + ends * 0.3, starts * 0.3 + ends * 0.7]))
    frames = np.arange(0, ends[-1], _FRAME / RATE)
    return np.stack([np.interp(frames, times, np.repeat(column, 2)) for column in held.T], axis=1)


def _smooth(per_frame: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A value for every sample, from one for every frame."""
    at = np.arange(len(per_frame) * _FRAME) / _FRAME
    return np.interp(at, np.arange(len(per_frame)) + 0.5, per_frame)


def _pulses(pitch: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The flow through the vocal folds, differentiated: Rosenberg's pulse (1971), open for 60 % of a period."""
    phase = np.cumsum(pitch / RATE) % 1
    opening, closing = 0.4, 0.2
    rise = 0.5 * (1 - np.cos(np.pi * np.minimum(phase / opening, 1)))
    fall = np.cos(0.5 * np.pi * np.clip((phase - opening) / closing, 0, 1))
    return np.diff(rise * fall, prepend=0.0) * 10


def _through_formants(source: npt.NDArray[np.float64], formants: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A cascade of two-pole resonators of unit gain at 0 Hz, whose poles move from frame to frame."""
    for k, bandwidth in enumerate(_BANDWIDTHS):
        radius = np.exp(-np.pi * bandwidth / RATE)
        state = np.zeros(2)
        shaped = np.empty_like(source)
        for frame in range(len(formants)):
            centre = formants[frame, k] if k < formants.shape[1] else _HIGH_FORMANTS[k - formants.shape[1]]
            poles = np.array([1, -2 * radius * np.cos(2 * np.pi * centre / RATE), radius**2])
            part = slice(frame * _FRAME, (frame + 1) * _FRAME)
            shaped[part], state = signal.lfilter([poles.sum()], poles, source[part], zi=state)
        source = shaped
    return source
