"""Which notes a sound holds: Spotify's basic-pitch, a network that hears two seconds at a time.

Bittner et al., "A lightweight instrument-agnostic model for polyphonic note transcription and multipitch estimation",
2022. Its outputs, 86 frames a second, become notes as in the paper's section on note creation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import signal

import omniop
from omniop.demo import models
from omniop.demo.sounds import Sound
from omniop.demo.trial import Progress

RATE = 22050
_HOP = 256
"""Samples a frame."""
WINDOW = 2 * RATE - _HOP
"""Samples that the network takes; it gives `_FRAMES` frames."""
_FRAMES, _OVERLAP = 172, 30
"""Half of the overlap is dropped at each end of a window."""
_BATCH = 4
_ONSET, _SOUNDING, _SHORTEST, _GAP = 0.5, 0.3, 11, 11
"""Probabilities; and frames: of a note, and of silence for it to end a note."""
_LOWEST = 21
"""The network's first row is a piano's lowest key."""
_NOTE, _STARTS = "StatefulPartitionedCall:1", "StatefulPartitionedCall:2"
_NAMES = ("C", "C#", "D", "D#", "E", "F", "F#", "G", "G#", "A", "A#", "B")


@dataclass(frozen=True)
class Note:
    """A note: seconds, MIDI pitch (69 is the A of 440 Hz), and the mean probability that it sounds, 0 to 1."""

    start: float
    end: float
    pitch: int
    confidence: float

    @property
    def name(self) -> str:
        return f"{_NAMES[self.pitch % 12]}{self.pitch // 12 - 1}"


class Transcriber:
    """The network on one device, and a sound."""

    def __init__(self, sound: Sound, device: str) -> None:
        """Raises ModelError, also where the network is not installed, and DeviceError."""
        self.sound = sound
        self.sessions = [omniop.load(models.PITCH.path(), device)]

    def run(self, progress: Progress) -> list[Note]:
        """The notes by their starts. Raises ExecutionError and PlacementError."""
        (session,) = self.sessions
        (name,) = (given.name for given in session.inputs)
        windows = cut(self.sound)
        sounding, starting = [], []
        for start in range(0, len(windows), _BATCH):
            progress("listening", start / len(windows))
            batch = np.resize(windows[start : start + _BATCH], (_BATCH, WINDOW, 1))  # the last one is filled up
            outputs = session.run({name: batch})
            sounding.append(outputs[_NOTE][: len(windows) - start])
            starting.append(outputs[_STARTS][: len(windows) - start])
        return notes(joined(sounding), joined(starting))


def cut(sound: Sound) -> npt.NDArray[np.float32]:
    """f32 [windows, samples, 1]: windows that overlap by `_OVERLAP` frames, the first from half of that before 0."""
    hop, before = WINDOW - _OVERLAP * _HOP, _OVERLAP * _HOP // 2
    count = -(-(before + len(sound)) // hop)
    padded = np.zeros((count - 1) * hop + WINDOW, np.float32)
    padded[before : before + len(sound)] = sound
    return np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::hop, :, None])


def joined(windows: list[npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """f32 [frames, keys] of the whole sound, from batches [windows, frames, keys]."""
    middle = np.concatenate(windows)[:, _OVERLAP // 2 : _FRAMES - _OVERLAP // 2]
    return middle.reshape(-1, middle.shape[-1])


def notes(sounding: npt.NDArray[np.float32], starting: npt.NDArray[np.float32]) -> list[Note]:
    """Notes from how likely each key sounds, and how likely it is struck, in each frame: f32 [frames, keys] both.

    Only notes whose start was heard: the paper goes on to look for others in what is left.
    """
    rest = sounding.copy()
    found = []
    peaks = np.zeros(starting.shape, bool)
    peaks[signal.argrelmax(starting, axis=0)] = True
    for start, key in np.argwhere(peaks & (starting >= _ONSET))[::-1].tolist():
        # Backwards in time: what later notes took is gone, so a note ends where the next on its key starts.
        end = _end(rest[:, key], start)
        if end - start > _SHORTEST:
            found.append(Note(_time(start), _time(end), key + _LOWEST, float(sounding[start:end, key].mean())))
            rest[start:end, max(0, key - 1) : key + 2] = 0
    return sorted(found, key=lambda note: (note.start, note.pitch))


def _end(sounding: npt.NDArray[np.float32], start: int) -> int:
    """The frame after the last that sounds before `_GAP` that do not."""
    sounds = np.flatnonzero(np.append(sounding[start + 1 :] >= _SOUNDING, [True])) + start + 1
    end = start + 1
    for frame in sounds.tolist():
        if frame - end >= _GAP or frame == len(sounding):
            break
        end = frame + 1
    return end


def _time(frame: int) -> float:
    """Seconds at which a frame of `joined` starts; frames do not divide a window evenly."""
    window, within = divmod(frame, _FRAMES - _OVERLAP)
    return (window * (WINDOW - _OVERLAP * _HOP) + within * _HOP) / RATE
