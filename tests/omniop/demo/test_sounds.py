"""Sounds, and what is made of the networks' answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile

from omniop.demo import pitch, sounds, speech, voice
from omniop.opset.errors import FeedError

TONE = np.sin(2 * np.pi * 440 * np.arange(8000) / 8000)


@pytest.mark.parametrize(
    "samples",
    [
        (TONE * 32767).astype(np.int16),
        (TONE * (2**31 - 1)).astype(np.int32),
        (TONE * 127 + 128).astype(np.uint8),
        TONE.astype(np.float32),
        np.stack([TONE, TONE], axis=1),
    ],
    ids=["int16", "int32", "uint8", "float32", "stereo"],
)
def test_open_wav_gives_one_channel_at_the_rate_asked_for(samples: np.ndarray, tmp_path: Path) -> None:
    wavfile.write(tmp_path / "x.wav", 8000, samples)
    sound = sounds.open_wav(tmp_path / "x.wav", 16000)
    assert sound.dtype == np.float32
    assert sound.shape == (16000,)
    wanted = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
    np.testing.assert_allclose(sound[500:-500], wanted[500:-500], atol=0.02)


def test_what_is_no_sound_is_told_with_its_name(tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    wavfile.write(path, 8000, TONE.astype(np.float32))
    whole = path.read_bytes()
    for garbage in (b"", b"RIFF", b"hello, this is no sound", whole[:20], whole[:30]):
        path.write_bytes(garbage)
        with pytest.raises(FeedError, match=r"x\.wav cannot be read as a WAV file"):
            sounds.open_wav(path, 16000)
    wavfile.write(path, 8000, np.zeros(0, np.int16))
    with pytest.raises(FeedError, match="holds no sound"):
        sounds.open_wav(path, 16000)
    wavfile.write(path, 8000, np.array([0, np.nan], np.float32))
    with pytest.raises(FeedError, match="not finite"):
        sounds.open_wav(path, 16000)


def test_the_voice_has_the_vowels_formants() -> None:
    """The spectrum of a long [i] has its strongest part low and a second one near 2290 Hz; an [a]'s lies between."""
    spectra = {}
    for vowel in "ia":
        sound = voice.say(vowel * 6, 100)
        assert np.abs(sound).max() == pytest.approx(1)
        power = np.abs(np.fft.rfft(sound * np.hanning(len(sound)))) ** 2
        hertz = np.fft.rfftfreq(len(sound), 1 / voice.RATE)
        spectra[vowel] = [power[(low <= hertz) & (hertz < high)].sum() for low, high in ((600, 1300), (2000, 2600))]
    assert spectra["i"][1] > 3 * spectra["i"][0]
    assert spectra["a"][0] > 3 * spectra["a"][1]


def test_frames_carry_the_samples_before_them() -> None:
    frames = speech.frames(np.arange(1, 1001, dtype=np.float32))
    assert frames.shape == (2, 576)
    assert frames[0, :64].tolist() == [0] * 64
    assert frames[0, 64:].tolist() == list(range(1, 513))
    assert frames[1, :552].tolist() == [*range(449, 1001)]
    assert frames[1, 552:].tolist() == [0] * 24


def test_spoken_starts_surely_ends_unsurely_and_bridges_short_pauses() -> None:
    frame = speech.FRAME / speech.RATE  # 32 ms
    probabilities = np.array([0.4] * 5 + [0.9] * 10 + [0.4] * 5 + [0.1] * 2 + [0.9] * 10 + [0.1] * 20 + [0.9] * 3)
    assert speech.spoken(probabilities) == [pytest.approx((5 * frame, 32 * frame))]
    pause = np.array([0.9] * 10 + [0.1] * 5 + [0.9] * 10)
    assert speech.spoken(pause) == [pytest.approx((0, 10 * frame)), pytest.approx((15 * frame, 25 * frame))]
    assert speech.spoken(np.zeros(9)) == []


def test_windows_overlap_and_join_again() -> None:
    """What a network that tells each frame's middle sample would say, joined, is every 256th sample."""
    sound = np.arange(3 * pitch.RATE, dtype=np.float32)
    windows = pitch.cut(sound)
    assert windows.shape == (2, pitch.WINDOW, 1)
    middles = np.minimum(np.arange(172) * 256, pitch.WINDOW - 1)
    joined = pitch.joined([windows[:, middles]])[:, 0]
    times = np.array([pitch._time(frame) for frame in range(len(joined))])
    inside = times < 2.9
    np.testing.assert_allclose(joined[inside] / pitch.RATE, times[inside], atol=1e-4)


def test_notes_start_where_struck_and_end_where_silent_or_struck_again() -> None:
    sounding, starting = np.zeros((142, 88), np.float32), np.zeros((142, 88), np.float32)
    sounding[10:40, 39] = sounding[40:60, 39] = 0.8  # struck twice with nothing between
    sounding[70:75, 41] = 0.8  # too short
    sounding[80:130, 43] = 0.6
    sounding[95:100, 43] = 0.1  # a short gap
    for frame, key in ((10, 39), (40, 39), (70, 41), (80, 43), (20, 60)):
        starting[frame, key] = 0.9
    found = pitch.notes(sounding, starting)
    assert [note.name for note in found] == ["C4", "C4", "E4"]
    frames = [(round(note.start * pitch.RATE / 256), round(note.end * pitch.RATE / 256)) for note in found]
    assert frames == [(10, 40), (40, 60), (80, 130)]
    assert found[0].confidence == pytest.approx(0.8)
