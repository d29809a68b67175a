"""DFT and STFT against numpy in float64, the mel scale against onnx's reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from harness import check, random, run, same

from omniop.opset.errors import ModelError


def parts(z: np.ndarray, dtype: Any = np.float32) -> np.ndarray:
    return np.stack([z.real, z.imag], -1).astype(dtype)


def whole(x: np.ndarray) -> np.ndarray:
    wide = x.astype(np.float64)
    return wide[..., 0] + 1j * wide[..., 1] if x.shape[-1] == 2 else wide[..., 0]


@pytest.mark.parametrize("complex_parts", [1, 2])
@pytest.mark.parametrize("inverse", [0, 1])
@pytest.mark.parametrize("length", [None, 4, 11])
@pytest.mark.parametrize("axis", [0, 1, -2])
def test_dft(complex_parts: int, inverse: int, length: int | None, axis: int) -> None:
    x = random((3, 7, 5, complex_parts))
    given = [] if length is None else [np.array(length)]
    signal_axis = axis if axis >= 0 else axis + 3 + 1
    transform = np.fft.ifft if inverse else np.fft.fft
    expected = parts(transform(whole(x), n=length, axis=signal_axis))
    same(run("DFT", [x, *given], opset=17, axis=axis, inverse=inverse)[0], expected, rtol=1e-6, atol=1e-6)
    operands = [x, given[0] if given else None, np.array(axis)]
    same(run("DFT", operands, inverse=inverse)[0], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("length", [None, 6, 9])
def test_onesided(length: int | None) -> None:
    x = random((2, 8, 3, 1))
    given = None if length is None else np.array(length)
    (y,) = run("DFT", [x, given, np.array(1)], onesided=1)
    same(y, parts(np.fft.rfft(whole(x), n=length, axis=1)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("length", [None, 6, 9, 14])
def test_onesided_inverse_is_real(length: int | None) -> None:
    x = random((2, 5, 3, 2))
    given = None if length is None else np.array(length)
    (y,) = run("DFT", [x, given, np.array(1)], onesided=1, inverse=1)
    expected = np.fft.irfft(whole(x), n=length, axis=1)[..., None].astype(np.float32)
    same(y, expected, rtol=1e-6, atol=1e-6)


def test_terms_that_cancel_give_nothing() -> None:
    x = np.arange(200, dtype=np.float32).reshape(1, 200, 1)
    x = np.concatenate([x, x[:, ::-1]], 1)
    (y,) = run("DFT", [x])
    exact = np.fft.fft(x[..., 0].astype(np.float64))
    assert np.abs(whole(y) - exact).max() < 1e-7 * np.abs(exact).max()


@pytest.mark.parametrize("length", [540, 640, 587, 1024])
@pytest.mark.parametrize("inverse", [0, 1])
def test_long_transforms_are_taken_in_rounds(length: int, inverse: int) -> None:
    x = random((2, 600, 2))
    transform = np.fft.ifft if inverse else np.fft.fft
    expected = parts(transform(whole(x), n=length))
    same(run("DFT", [x, np.array(length)], inverse=inverse)[0], expected, rtol=1e-6, atol=1e-5)
    (y,) = run("DFT", [x[:, :400], np.array(length)], inverse=1, onesided=1)
    same(y[..., 0], np.fft.irfft(whole(x[:, :400]), n=length).astype(np.float32), rtol=1e-5, atol=1e-6)


def test_axis_of_parts_and_wrong_parts_are_refused() -> None:
    with pytest.raises(ModelError, match="holds the real and imaginary"):
        run("DFT", [random((2, 3, 1)), None, np.array(-1)])
    with pytest.raises(ModelError, match="a last axis of"):
        run("DFT", [random((2, 3, 3))])


@pytest.mark.parametrize(("length", "step"), [(8, 3), (16, 16), (5, 1)])
@pytest.mark.parametrize("windowed", [False, True])
@pytest.mark.parametrize("onesided", [0, 1])
def test_stft(length: int, step: int, windowed: bool, onesided: int) -> None:
    x = random((2, 40, 1))
    window = np.hanning(length).astype(np.float32) if windowed else np.ones(length, np.float32)
    operands = [x, np.array(step), window if windowed else None, np.array(length)]
    (y,) = run("STFT", operands, onesided=onesided)
    starts = range(0, 40 - length + 1, step)
    frames = np.stack([whole(x)[:, k : k + length] * window for k in starts], 1)
    spectrum = np.fft.rfft(frames) if onesided else np.fft.fft(frames)
    same(y, parts(spectrum), rtol=1e-5, atol=1e-5)


def test_stft_takes_its_length_from_the_window_or_the_signal() -> None:
    x, window = random((1, 12, 2)), random((4,), seed=1)
    (y,) = run("STFT", [x, np.array(4), window], onesided=0)
    frames = whole(x).reshape(1, 3, 4) * window
    same(y, parts(np.fft.fft(frames)), rtol=1e-5, atol=1e-5)
    (y,) = run("STFT", [x, np.array(4)], onesided=0)
    same(y, parts(np.fft.fft(whole(x)))[:, None], rtol=1e-5, atol=1e-5)
    with pytest.raises(ModelError, match="longer than the signal"):
        run("STFT", [x, np.array(4), None, np.array(13)])


@pytest.mark.parametrize(("mels", "length", "rate"), [(8, 16, 8192), (23, 512, 16000), (80, 400, 16000)])
def test_mel_weight_matrix(mels: int, length: int, rate: int) -> None:
    operands = [np.array(v, np.int64) for v in (mels, length, rate)]
    operands += [np.array(v, np.float32) for v in (20.0, rate / 2 - 50)]
    check("MelWeightMatrix", operands)
    check("MelWeightMatrix", operands, output_datatype=11)
