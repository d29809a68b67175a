"""Boxes from a probability map that is drawn, so that they are known."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw

from omniop.demo import detection
from omniop.demo.quads import Quad, grown, overlap, rectangle


def drawn(*polygons: Quad, probability: float = 0.9, size: tuple[int, int] = (160, 96)) -> np.ndarray:
    """A map whose pixels are likely where more than half of them lies in a polygon."""
    fine = 8
    image = Image.new("L", (size[0] * fine, size[1] * fine))
    for polygon in polygons:
        ImageDraw.Draw(image).polygon([tuple(corner * fine) for corner in polygon], fill=255)
    inside = np.asarray(image.reduce(fine)) > 127
    return np.where(inside, probability, 0.01).astype(np.float32)


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1280, 960), (960, 704)),  # shrunk to the longest side; 720 rounds to an even multiple of 32
        ((640, 480), (640, 480)),
        ((100, 50), (640, 320)),  # enlarged until its short side will do
        ((2000, 40), (960, 32)),
        ((1, 1), (320, 320)),
        ((4, 9000), (32, 960)),
    ],
)
def test_network_size(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert detection.network_size(*size) == expected


def test_network_input_is_blue_green_red_in_minus_one_to_one() -> None:
    given = detection.network_input(Image.new("RGB", (64, 32), (255, 0, 51)))
    assert given.shape == (1, 3, 320, 640)
    assert given.dtype == np.float32
    np.testing.assert_allclose(given[0, :, 5, 7], [-0.6, -1, 1], atol=1e-6)


def test_boxes_are_grown_regions_in_the_pictures_pixels() -> None:
    line, other = rectangle(60, 10, 20, 15), rectangle(40, 8, 90, 60)
    found = detection.boxes(drawn(line, other), (320, 288))  # two and three times as large as the map
    assert [box.score > 0.8 for box in found] == [True, True]
    for box, wanted in zip(found, (line, other), strict=True):
        assert overlap(box.quad, grown(wanted, 1.6) * (2, 3)) > 0.85


def test_a_slanted_region_has_a_slanted_box() -> None:
    line = np.array([[20.0, 20], [120, 45], [117, 57], [17, 32]])
    (box,) = detection.boxes(drawn(line), (160, 96))
    assert overlap(box.quad, grown(line, 1.6)) > 0.85
    assert np.linalg.norm(box.quad[0] - grown(line, 1.6)[0]) < 3


def test_faint_and_thin_regions_are_no_text() -> None:
    assert detection.boxes(drawn(rectangle(60, 10, 20, 15), probability=0.5), (160, 96)) == []
    assert detection.boxes(drawn(rectangle(60, 0, 20, 15)), (160, 96)) == []
    assert detection.boxes(drawn(), (160, 96)) == []


def test_boxes_stay_on_the_picture() -> None:
    (box,) = detection.boxes(drawn(rectangle(159, 10)), (160, 96))
    assert box.quad.min() >= 0
    assert (box.quad <= (160, 96)).all()
