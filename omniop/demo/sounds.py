"""Sounds: WAV files, and two that are made up where the user names none."""

from __future__ import annotations

import struct
import warnings
from math import gcd
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy import signal
from scipy.io import wavfile

from omniop.demo import voice
from omniop.opset.errors import FeedError

Sound = npt.NDArray[np.float32]
"""f32 [samples], mono, within -1 .. 1."""

MELODY = (
    *((64, 1), (64, 1), (65, 1), (67, 1), (67, 1), (65, 1), (64, 1), (62, 1)),
    *((60, 1), (60, 1), (62, 1), (64, 1), (64, 1.5), (62, 0.5), (62, 2)),
)
"""(MIDI pitch, beats): the first line of Beethoven's Ode to Joy."""
_BEAT = 0.45
"""Seconds."""


def open_wav(path: Path, rate: int) -> Sound:
    """A WAV file's channels as one, at ``rate`` samples a second.

    Raises FeedError for what is no WAV file or holds no sound, OSError for what is no file.
    """
    with path.open("rb") as file, warnings.catch_warnings():  # its own error names the file
        warnings.simplefilter("ignore", wavfile.WavFileWarning)  # of chunks that hold no sound
        try:
            found, samples = wavfile.read(file)
        except (ValueError, EOFError, ArithmeticError, struct.error) as error:
            raise FeedError(f"{path} cannot be read as a WAV file: {error}") from None
    if not samples.size or not np.isfinite(samples).all():
        raise FeedError(f"{path} holds {'numbers that are not finite' if samples.size else 'no sound'}")
    if samples.dtype.kind in "iu":
        middle = 128 if samples.dtype == np.uint8 else 0
        samples = (samples.astype(np.float64) - middle) / (128 if middle else np.iinfo(samples.dtype).max)
    mono = samples.reshape(len(samples), -1).mean(axis=1)
    shared = gcd(found, rate)
    return signal.resample_poly(mono, rate // shared, found // shared).astype(np.float32)


def talk() -> tuple[Sound, list[tuple[float, float]]]:
    """12 seconds at `voice.RATE`: two sentences of a made-up voice among a bell and a hiss; when the sentences are."""
    noise = np.random.default_rng(1)
    seconds = np.arange(voice.RATE) / voice.RATE
    bell = 0.3 * np.exp(-3 * seconds) * (np.sin(2 * np.pi * 880 * seconds) + np.sin(2 * np.pi * 1320 * seconds))
    hiss = 0.15 * noise.standard_normal(voice.RATE)
    first = 0.5 * voice.say("helo wIl@n tu lIs@n tu mi", 120, 0)
    second = 0.5 * voice.say("dIs Is a meid ab wois m@d bai a kombiut@r", 140, 1)
    parts = [_silence(0.8), first, _silence(1.0), bell, _silence(0.6), second, _silence(0.8), hiss, _silence(0.5)]
    ends = np.cumsum([len(part) for part in parts]) / voice.RATE
    sound = np.concatenate(parts)
    sound += 0.002 * noise.standard_normal(len(sound))  # a room is never quite silent
    return sound.astype(np.float32), [(float(ends[0]), float(ends[1])), (float(ends[4]), float(ends[5]))]


def melody(rate: int) -> tuple[Sound, list[tuple[float, float, int]]]:
    """`MELODY` on plucked strings at ``rate``, and its notes: (start, end, MIDI pitch), in seconds."""
    starts = np.cumsum([_BEAT, *(beats * _BEAT for _, beats in MELODY)])
    sound = np.zeros(round((starts[-1] + 1) * rate))
    notes = []
    for (pitch, beats), start in zip(MELODY, starts[:-1].tolist(), strict=True):
        length = beats * _BEAT * 0.92
        at = round(start * rate)
        string = plucked(440 * 2 ** ((pitch - 69) / 12), length, rate)
        sound[at : at + len(string)] += string
        notes.append((start, start + length, pitch))
    return (0.5 * sound / np.abs(sound).max()).astype(np.float32), notes


def _silence(seconds: float) -> Sound:
    return np.zeros(round(seconds * voice.RATE), np.float32)


def plucked(frequency: float, seconds: float, rate: int, decay: float = 1.5) -> npt.NDArray[np.float64]:
    """A string's harmonics, the higher the weaker and the sooner gone; damped at its end."""
    time = np.arange(round(seconds * rate)) / rate
    harmonics = [np.sin(2 * np.pi * frequency * k * time) * np.exp(-decay * k * time) / k**2 for k in range(1, 7)]
    damped = np.minimum(1, np.minimum(time / 0.004, (seconds - time) / 0.04))
    return np.sum(harmonics, axis=0) * damped
