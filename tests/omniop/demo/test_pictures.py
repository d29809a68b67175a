"""Pictures in and out."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples.make_picture import FILE, HEIGHT, WIDTH, picture, truth
from omniop.demo import pictures
from omniop.demo.ocr import Line
from omniop.demo.quads import rectangle
from omniop.opset.errors import FeedError
from omniop.terminal import UsageError

BLANK = Image.new("RGB", (300, 200), "white")


def test_the_shipped_picture_is_the_one_that_the_script_makes() -> None:
    """But for JPEG's loss, and what another release of the font's rasteriser may do to its edges."""
    assert FILE.resolve() == pictures.SHIPPED.resolve()
    shipped, made = pictures.open_picture(pictures.SHIPPED), picture()
    assert shipped.size == (WIDTH, HEIGHT)
    assert np.abs(np.asarray(shipped, float) - np.asarray(made, float)).mean() < 4
    assert pictures.SHIPPED.stat().st_size < 300_000


def test_every_line_of_the_truth_is_on_the_picture() -> None:
    """In its box there is ink: a wider range of brightness than on the paper and on the table."""
    grey = np.asarray(pictures.open_picture(pictures.SHIPPED).convert("L"), float)
    for text, quad in truth():
        (left, top), (right, bottom) = quad.min(axis=0).astype(int), quad.max(axis=0).astype(int)
        assert 0 <= left < right < WIDTH, text
        assert 0 <= top < bottom < HEIGHT, text
        assert np.ptp(grey[top:bottom, left:right]) > 90, text


def test_a_picture_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by 90 degrees
    BLANK.save(tmp_path / "x.jpg", exif=exif)
    assert pictures.open_picture(tmp_path / "x.jpg").size == (200, 300)


def test_what_is_no_picture_is_told_with_its_name(tmp_path: Path) -> None:
    text, cut = tmp_path / "x.png", tmp_path / "cut.jpg"
    text.write_text("hello")
    with pytest.raises(FeedError, match=r"x\.png is not a picture of a known kind"):
        pictures.open_picture(text)
    cut.write_bytes(pictures.SHIPPED.read_bytes()[:9000])
    with pytest.raises(FeedError, match=r"cut\.jpg cannot be read as a picture: .*truncated"):
        pictures.open_picture(cut)
    with pytest.raises(FileNotFoundError):
        pictures.open_picture(tmp_path / "none.png")


def test_a_huge_picture_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    BLANK.save(tmp_path / "x.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50_000)
    with pytest.raises(FeedError, match=r"x\.png is too large a picture"):
        pictures.open_picture(tmp_path / "x.png")


def test_outputs_that_cannot_be_are_refused_beforehand(tmp_path: Path) -> None:
    for path, said in (
        (tmp_path / "x.txt", r"has to end in \.png or \.jpg"),
        (tmp_path / "none" / "x.png", "not a folder that can be written to"),
        (tmp_path, "has to end"),
    ):
        with pytest.raises(UsageError, match=said):
            pictures.check_output(path)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        pictures.check_output(tmp_path / "folder.png")
    pictures.check_output(tmp_path / "x.png")


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "x.jpg"
    pictures.write(BLANK, path)
    before = path.read_bytes()
    with pytest.raises(OSError, match="RGBA"):
        pictures.write(BLANK.convert("RGBA"), path)  # JPEG has no such thing
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["x.jpg"]
    shutil.rmtree(tmp_path)


def test_drawn_boxes_on_the_left_and_text_on_the_right() -> None:
    upright, turned = rectangle(200, 40, 50, 20), np.roll(rectangle(200, 40, 50, 120), 2, axis=0)
    lines = [Line("HHHHHH", 1.0, upright, False, 0), Line("LLLLLL", 1.0, turned, True, 1)]
    drawing = np.asarray(pictures.drawn(BLANK, lines), float)
    height, width = drawing.shape[0], drawing.shape[1] // 2
    scale = height / BLANK.height
    left, right = drawing[:, :width], drawing[:, width:]
    coloured = (left.max(axis=-1) - left.min(axis=-1)) > 60
    rows, columns = np.nonzero(coloured)
    assert abs(rows.min() / scale - 20) < 3
    assert abs(columns.max() / scale - 250) < 3
    for line in lines:
        (x, y), (u, v) = line.quad.min(axis=0), line.quad.max(axis=0)
        part = right[int(y * scale) : int(v * scale), int(x * scale) : int(u * scale)]
        ink = (part.max(axis=-1) - part.min(axis=-1)) > 60
        assert 0.03 < ink.mean() < 0.5
        if line.turned:  # set upright all the same: an L has its foot at the bottom
            inked = np.flatnonzero(ink.any(axis=1))
            assert ink[inked[-3]].sum() > 2 * ink[inked[3]].sum()
