"""DFT and STFT against numpy in float64, the mel scale against onnx's reference."""

from __future__ import annotations

import math
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


def near(y: np.ndarray, expected: np.ndarray) -> None:
    """Within what a fast transform rounds off: a unit in the last place of the greatest bin, one more each doubling."""
    exact = parts(expected, np.float64) if y.shape[-1] == 2 else expected[..., None]
    assert y.shape == exact.shape
    length = max(exact.shape[:-1])
    rounding = np.finfo(y.dtype).eps * (math.log2(length) + 1) * np.abs(exact).max()
    np.testing.assert_allclose(y.astype(np.float64), exact, rtol=0, atol=rounding)


LENGTHS = [*range(1, 14), 16, 17, 22, 31, 32, 34, 45, 60, 64, 65, 127, 128, 143, 254, 400, 512]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("length", LENGTHS)
def test_each_length(length: int, dtype: Any) -> None:
    z, x = (random((2, length, c)).astype(dtype) for c in (2, 1))
    near(run("DFT", [z])[0], np.fft.fft(whole(z)))
    near(run("DFT", [z], inverse=1)[0], np.fft.ifft(whole(z)))
    near(run("DFT", [x])[0], np.fft.fft(whole(x)))
    near(run("DFT", [x], inverse=1)[0], np.fft.ifft(whole(x)))
    near(run("DFT", [x], onesided=1)[0], np.fft.rfft(whole(x)))
    half = z[:, : length // 2 + 1]
    near(run("DFT", [half, np.array(length)], inverse=1, onesided=1)[0], np.fft.irfft(whole(half), n=length))


@pytest.mark.parametrize("length", [2, 3, 5, 6, 9, 10, 15, 25, 27, 50, 75])
def test_roundings_are_those_of_numpys_transform(length: int) -> None:
    z = random((3, length, 2)).astype(np.float32)
    expected = np.fft.ifft(z[..., 0] + 1j * z[..., 1])
    assert expected.dtype == np.complex64
    same(run("DFT", [z], inverse=1)[0], parts(expected), rtol=0, atol=0)


@pytest.mark.parametrize("complex_parts", [1, 2])
@pytest.mark.parametrize("inverse", [0, 1])
@pytest.mark.parametrize("length", [None, 4, 11, 17])
@pytest.mark.parametrize("axis", [0, 1, -2])
def test_dft(complex_parts: int, inverse: int, length: int | None, axis: int) -> None:
    x = random((3, 7, 5, complex_parts))
    given = [] if length is None else [np.array(length)]
    signal_axis = axis if axis >= 0 else axis + 3 + 1
    transform = np.fft.ifft if inverse else np.fft.fft
    expected = transform(whole(x), n=length, axis=signal_axis)
    near(run("DFT", [x, *given], opset=17, axis=axis, inverse=inverse)[0], expected)
    near(run("DFT", [x, given[0] if given else None, np.array(axis)], inverse=inverse)[0], expected)


@pytest.mark.parametrize("length", [None, 6, 9, 34])
def test_onesided(length: int | None) -> None:
    x = random((2, 8, 3, 1))
    given = None if length is None else np.array(length)
    (y,) = run("DFT", [x, given, np.array(1)], onesided=1)
    near(y, np.fft.rfft(whole(x), n=length, axis=1))


@pytest.mark.parametrize("length", [None, 6, 9, 14, 17, 34])
def test_onesided_inverse_is_real(length: int | None) -> None:
    x = random((2, 5, 3, 2))
    given = None if length is None else np.array(length)
    (y,) = run("DFT", [x, given, np.array(1)], onesided=1, inverse=1)
    near(y, np.fft.irfft(whole(x), n=length, axis=1))


def test_no_samples_give_zeros() -> None:
    assert run("DFT", [np.zeros((0, 4, 1), np.float32)])[0].shape == (0, 4, 2)
    same(run("DFT", [np.zeros((2, 0, 1), np.float32), np.array(4)])[0], np.zeros((2, 4, 2), np.float32))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_narrow_parts_are_rounded_once(dtype: Any) -> None:
    x = random((2, 40, 2)).astype(dtype)
    (y,) = run("DFT", [x])
    (wide,) = run("DFT", [x.astype(np.float32)])
    same(y, wide.astype(dtype), rtol=0, atol=0)


@pytest.mark.parametrize("length", [540, 640, 587, 1024])
@pytest.mark.parametrize("inverse", [0, 1])
def test_long_transforms(length: int, inverse: int) -> None:
    x = random((2, 600, 2))
    transform = np.fft.ifft if inverse else np.fft.fft
    near(run("DFT", [x, np.array(length)], inverse=inverse)[0], transform(whole(x), n=length))
    (y,) = run("DFT", [x[:, :400], np.array(length)], inverse=1, onesided=1)
    near(y, np.fft.irfft(whole(x[:, :400]), n=length))


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
    with pytest.raises(ModelError, match=r"values of the window, for a frame: .*4 is not 8"):
        run("STFT", [x, np.array(4), window, np.array(8)])


@pytest.mark.parametrize(("mels", "length", "rate"), [(8, 16, 8192), (23, 512, 16000), (80, 400, 16000)])
def test_mel_weight_matrix(mels: int, length: int, rate: int) -> None:
    operands = [np.array(v, np.int64) for v in (mels, length, rate)]
    operands += [np.array(v, np.float32) for v in (20.0, rate / 2 - 50)]
    check("MelWeightMatrix", operands)
    check("MelWeightMatrix", operands, output_datatype=11)
