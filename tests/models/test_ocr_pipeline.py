"""What ``omniop demo`` runs, whole, on the devices that people have: a picture is read, speech and notes are found."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from PIL import Image

from examples.make_picture import truth
from omniop.demo import ocr, pictures, pitch, sounds, speech
from omniop.demo.quads import overlap
from omniop.demo.trial import Trial, try_on
from tests.models.conftest import ModelFile

TURNED = {"Mira Holm", "Piano tuner", "mira@example.com"}
"""The lines of the card that lies upside down."""
IN_ORDER = (
    ("Night train", "Lisbon to Porto", "Departs 21:45", "Coach 7, seat 42"),
    ("Harbour Coffee", "12 Quay Street"),
    (
        *("Flat white", "3.80", "Almond croissant", "4.20", "Lemonade", "2.50", "Total", "$10.50"),
        "Thank you, see you soon!",
    ),
    ("Mira Holm", "Piano tuner", "mira@example.com"),
)


@functools.cache
def trial(device: str) -> tuple[Trial[list[ocr.Line]], list[float]]:
    """The shipped picture, read on the device, and what was told of the progress."""
    picture = pictures.open_picture(pictures.SHIPPED)
    told: list[float] = []
    return try_on(device, lambda: ocr.Reader(picture, device), lambda what, done: told.append(done)), told


def read(device: str) -> list[ocr.Line]:
    return trial(device)[0].result


def test_every_line_is_read_exactly_and_in_order(device: str) -> None:
    lines = read(device)
    assert [line.text for line in lines] == [text for block in IN_ORDER for text in block]
    assert [line.block for line in lines] == [k for k, block in enumerate(IN_ORDER) for _ in block]
    assert sorted(line.text for line in lines) == sorted(text for text, _ in truth())
    assert min(line.confidence for line in lines) > 0.9


def test_boxes_lie_where_the_lines_were_drawn(device: str) -> None:
    """Each starts at the corner where its text starts: so the orientation is told by the quad, too."""
    drawn = dict(truth())
    for line in read(device):
        assert overlap(line.quad, drawn[line.text]) > 0.55, line.text
        assert np.linalg.norm(line.quad[0] - drawn[line.text][0]) < 20, line.text


def test_lines_upside_down_are_turned_and_no_others(device: str) -> None:
    assert {line.text for line in read(device) if line.turned} == TURNED


def test_everything_runs_on_the_device(device: str) -> None:
    placement = trial(device)[0].placement
    assert {name.split(":")[0] for name in placement.nodes} == {device}
    assert placement.fallbacks == []
    assert placement.copied_bytes == 0


def test_a_picture_on_its_side() -> None:
    """Its lines run up, and the card's run down, which is how a box that is taller than wide is read first."""
    side = pictures.open_picture(pictures.SHIPPED).rotate(90, expand=True)
    lines = ocr.Reader(side, "cpu").run(lambda what, done: None)
    assert sorted(line.text for line in lines) == sorted(text for text, _ in truth())
    assert {line.text for line in lines if not line.turned} == TURNED


def test_a_picture_without_text_has_no_lines() -> None:
    reader = ocr.Reader(Image.new("RGB", (400, 300), "#7a8"), "cpu")
    assert reader.run(lambda what, done: None) == []


def test_progress_never_goes_back_and_ends(device: str) -> None:
    _, told = trial(device)
    assert told[0] == 0
    assert told == sorted(told)
    assert 0.9 < told[-1] < 1


def test_speech_is_told_from_a_bell_and_a_hiss(device: str, model_file: ModelFile) -> None:
    model_file("silero_vad", "data/silero_vad_16k_sequence.onnx")
    sound, spoken = sounds.talk()
    heard = try_on(device, lambda: speech.Listener(sound, device), lambda what, done: None).result
    assert len(heard.spoken) == len(spoken)
    np.testing.assert_allclose(heard.spoken, spoken, atol=0.1)


def test_speech_goes_on_from_block_to_block(model_file: ModelFile, monkeypatch: pytest.MonkeyPatch) -> None:
    model_file("silero_vad", "data/silero_vad_16k_sequence.onnx")
    sound, _ = sounds.talk()
    whole = speech.Listener(sound, "cpu").run(lambda what, done: None)
    monkeypatch.setattr(speech, "_BLOCK", 100)
    parts = speech.Listener(sound, "cpu").run(lambda what, done: None)
    np.testing.assert_allclose(parts.probabilities, whole.probabilities, atol=1e-4)


def test_the_tune_is_heard_note_for_note(device: str, model_file: ModelFile) -> None:
    model_file("basic_pitch", "saved_models/icassp_2022/nmp.onnx")
    sound, played = sounds.melody(pitch.RATE)
    heard = try_on(device, lambda: pitch.Transcriber(sound, device), lambda what, done: None).result
    assert [note.pitch for note in heard] == [key for _, _, key in played]
    np.testing.assert_allclose([note.start for note in heard], [start for start, _, _ in played], atol=0.05)
    np.testing.assert_allclose([note.end for note in heard], [end for _, end, _ in played], atol=0.12)
