"""Tones for Basic Pitch, which hears the notes of two seconds of music.

Bittner et al., "A Lightweight Instrument-Agnostic Model for Polyphonic Note Transcription" (2022).
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from omniop.demo.pitch import RATE, WINDOW
from omniop.demo.sounds import plucked

FILE = "saved_models/icassp_2022/nmp.onnx"
"""Of the package ``basic_pitch``."""
INPUT = "serving_default_input_2:0"
NOTES = "StatefulPartitionedCall:1"
"""f32 [windows, frames, 88]: how likely each key of a piano sounds. Beside it, the onsets (2) and the contour (0)."""

_LOWEST = 27.5  # Hz, A0
_NAMES = ("A", "A#", "B", "C", "C#", "D", "D#", "E", "F", "F#", "G", "G#")


def bin_of(note: str) -> int:
    """Number of a note's key from A0 on: "A4" is 48."""
    name, octave = note[:-1], int(note[-1])
    k = _NAMES.index(name)
    return 12 * (octave - (k > 2)) + k  # octaves begin at C


def played(*notes: str) -> np.ndarray:
    """Strings plucked together, in a room that is not quite silent: f32 [1, WINDOW, 1]."""
    sound = 1e-3 * np.random.default_rng(0).standard_normal(WINDOW)
    for note in notes:
        sound += 0.2 * plucked(_LOWEST * 2 ** (bin_of(note) / 12), WINDOW / RATE, RATE, decay=0.7)
    return sound.astype(np.float32)[None, :, None]


def heard(notes: np.ndarray) -> Collection[int]:
    """The keys that sound for most of the window, of f32 [1, frames, 88]."""
    return set(np.flatnonzero(np.median(notes[0], axis=0) > 0.5).tolist())
