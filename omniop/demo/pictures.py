"""Pictures in and out: opening what the user names, drawing what was read, writing that whole or not at all."""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError

from omniop.demo import quads
from omniop.demo.ocr import Line
from omniop.opset.errors import FeedError
from omniop.terminal import UsageError, check_file

SHIPPED = Path(__file__).with_name("table.jpg")
"""A café table; examples/make_picture.py makes it."""
_HEIGHT = 800
"""Rows of the picture that is drawn."""
_COLOURS = ("#d6336c", "#1864ab", "#7048e8", "#2b8a3e", "#c2410c", "#0b7285")
"""One for each block of lines, then over again."""
_PAPER, _FAINT, _FINE = "#fbf8f1", 0.15, 2


def open_picture(path: Path) -> Image.Image:
    """RGB, turned as its EXIF data say. FeedError for what is no picture or a huge one, OSError for what is no file."""
    with path.open("rb") as file, warnings.catch_warnings():  # its own error names the file
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            return ImageOps.exif_transpose(Image.open(file)).convert("RGB")
        except UnidentifiedImageError:
            raise FeedError(f"{path} is not a picture of a known kind, such as PNG or JPEG") from None
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise FeedError(f"{path} is too large a picture: {error}") from None
        except (OSError, SyntaxError, ValueError) as error:
            raise FeedError(f"{path} cannot be read as a picture: {error}") from None


def check_output(path: Path) -> None:
    """Say before a long run what would fail after it. Raises UsageError."""
    if path.suffix.lower() not in Image.registered_extensions():
        raise UsageError(f"{path}: the name has to end in .png or .jpg")
    check_file(path)


def write(image: Image.Image, path: Path) -> None:
    """Write aside first, so that a failure leaves what was there."""
    with tempfile.TemporaryDirectory(prefix=".omniop-", dir=path.parent) as aside:
        image.save(Path(aside, path.name))
        os.replace(Path(aside, path.name), path)


def drawn(picture: Image.Image, lines: Sequence[Line]) -> Image.Image:
    """The picture with a box around each line, and beside it a page with the text of each, where it stands."""
    scale = _HEIGHT / picture.height
    width = max(1, round(picture.width * scale))
    boxed = picture.resize((_FINE * width, _FINE * _HEIGHT), Image.Resampling.LANCZOS)
    page = Image.blend(Image.new("RGB", boxed.size, _PAPER), boxed, _FAINT)
    draw = ImageDraw.Draw(boxed)
    for line in lines:
        colour, quad = _COLOURS[line.block % len(_COLOURS)], line.quad * (scale * _FINE)
        _outline(draw, quad, colour)
        ImageDraw.Draw(page).polygon([tuple(corner) for corner in quad], _PAPER)
        _typeset(page, np.roll(quad, 2, axis=0) if line.turned else quad, line.text, colour)
    both = Image.new("RGB", (2 * width, _HEIGHT), _PAPER)
    both.paste(boxed.reduce(_FINE), (0, 0))
    both.paste(page.reduce(_FINE), (width, 0))
    return both


def _outline(draw: ImageDraw.ImageDraw, quad: quads.Quad, colour: str) -> None:
    corners = [tuple(corner) for corner in quad]
    for ink, width in (("white", 5), (colour, 3)):
        draw.line([*corners, *corners[:2]], fill=ink, width=width * _FINE, joint="curve")


def _typeset(page: Image.Image, quad: quads.Quad, text: str, colour: str) -> None:
    """``text`` as large as the quad allows, along it."""
    width, height = quads.sides(quad)
    size = 0.7 * height
    font = ImageFont.load_default(size)
    font = ImageFont.load_default(size * min(1, width / max(1, font.getlength(text))))
    mask = Image.new("L", (round(width) + 1, round(height) + 1))
    ImageDraw.Draw(mask).text((width / 2, height / 2), text, 255, font, "mm")
    matrix = quads.homography(quad, quads.rectangle(width, height)).ravel()[:8].tolist()
    laid = mask.transform(page.size, Image.Transform.PERSPECTIVE, matrix, Image.Resampling.BICUBIC)
    page.paste(colour, mask=laid)
