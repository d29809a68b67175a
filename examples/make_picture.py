"""Make the picture that ``omniop demo`` reads: a café table with a bill, a ticket, and a card that lies upside down.

    python examples/make_picture.py [FILE]  # omniop/demo/table.jpg by default

It is drawn, not photographed, so what is written where is known: `truth` tells the tests. The font comes with Pillow;
it is Aileron, by Sora Sagano, CC0.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

from omniop.demo.quads import Quad, homography, mapped, rectangle

WIDTH, HEIGHT = 1280, 960
FILE = Path(__file__).resolve().parents[1] / "omniop" / "demo" / "table.jpg"
_FINE = 2
"""Sheets are drawn this many times larger than they lie on the table; sizes and places on them are in those units."""
_INK = "#2b2724"


@dataclass(frozen=True)
class Text:
    """A line on a sheet. ``anchor`` as Pillow has it: where (x, y) is on the baseline."""

    text: str
    x: int
    y: int
    size: int
    anchor: str = "ls"
    colour: str = _INK
    weight: int = 0
    """Of a stroke around the letters: the font has no bold."""

    def font(self) -> ImageFont.FreeTypeFont:
        font = ImageFont.load_default(self.size)
        assert isinstance(font, ImageFont.FreeTypeFont)  # with a size, it is
        return font

    def draw(self, draw: ImageDraw.ImageDraw) -> None:
        draw.text((self.x, self.y), self.text, self.colour, self.font(), self.anchor, stroke_width=self.weight)

    def box(self) -> Quad:
        """As wide as its ink, as high as the font."""
        left, _, right, _ = self.font().getbbox(self.text, anchor=self.anchor)
        ascent, descent = self.font().getmetrics()
        return rectangle(right - left, ascent + descent, self.x + left, self.y - ascent)


@dataclass(frozen=True)
class Sheet:
    """A piece of paper: its size, its middle on the table in pixels, its turn clockwise in degrees, what is on it."""

    size: tuple[int, int]
    middle: tuple[int, int]
    turn: float
    paint: Callable[[ImageDraw.ImageDraw, int, int], None]
    texts: tuple[Text, ...]

    def place(self) -> npt.NDArray[np.float64]:
        """The homography from the sheet to the picture, which is taken from a little below: what is farther up
        the table is smaller."""
        sheet, angle = rectangle(*self.size), np.radians(self.turn)
        turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        flat = (sheet - np.array(self.size) / 2) / _FINE @ turn + self.middle
        centre = np.array([WIDTH, HEIGHT]) / 2
        return homography(sheet, (flat - centre) / (1 - 1.2e-4 * (flat[:, 1:] - centre[1])) + centre)

    def drawn(self) -> Image.Image:
        """RGBA, on its own."""
        image = Image.new("RGBA", self.size, (0, 0, 0, 0))
        draw = ImageDraw.Draw(image)
        self.paint(draw, *self.size)
        for text in self.texts:
            text.draw(draw)
        return image


# What lies on the table ---------------------------------------------------------------------------


def _bill(draw: ImageDraw.ImageDraw, width: int, height: int) -> None:
    teeth = [(x, height - 16 * (k % 2)) for k, x in enumerate(range(0, width + 1, 20))]
    draw.polygon([(0, 0), (width, 0), *reversed(teeth)], fill="#fbf8f1")
    for y in (318, 676):
        for x in range(56, width - 60, 34):
            draw.line([(x, y), (x + 18, y)], fill="#9a948a", width=4)


def _ticket(draw: ImageDraw.ImageDraw, width: int, height: int) -> None:
    draw.rounded_rectangle([0, 0, width - 1, height - 1], 40, fill="#0f4c55")
    draw.rounded_rectangle([0, 0, width - 1, 150], 40, fill="#e4572e")
    draw.rectangle([0, 100, width - 1, 150], fill="#e4572e")
    for y in range(176, height - 20, 34):
        draw.ellipse([width - 216, y, width - 204, y + 12], fill="#f3ead7")
    y = 190
    for bar in (8, 4, 14, 4, 8, 18, 4, 8, 6, 14, 8, 4, 16, 6, 10, 4, 14, 8):
        draw.rectangle([width - 160, y, width - 56, y + bar], fill="#f3ead7")
        y += bar + 10


def _card(draw: ImageDraw.ImageDraw, width: int, height: int) -> None:
    draw.rectangle([0, 0, width, height], fill="#ecb83d")
    draw.rectangle([0, 0, 44, height], fill="#1f1b18")


_PAPER, _WHITE = "#f3ead7", "#ffffff"
SHEETS = (
    Sheet((780, 1180), (290, 470), -5, _bill, (
        Text("Harbour Coffee", 390, 150, 88, "ms", weight=2),
        Text("12 Quay Street", 390, 228, 44, "ms", "#5c564e"),
        Text("Flat white", 56, 430, 50), Text("3.80", 724, 430, 50, "rs"),
        Text("Almond croissant", 56, 516, 50), Text("4.20", 724, 516, 50, "rs"),
        Text("Lemonade", 56, 602, 50), Text("2.50", 724, 602, 50, "rs"),
        Text("Total", 56, 800, 76, weight=2), Text("$10.50", 724, 800, 76, "rs", weight=2),
        Text("Thank you, see you soon!", 390, 920, 50, "ms"),
    )),
    Sheet((1240, 600), (880, 230), 6, _ticket, (
        Text("Night train", 60, 106, 80, colour=_WHITE, weight=2),
        Text("Lisbon to Porto", 60, 300, 104, colour=_WHITE, weight=1),
        Text("Departs 21:45", 60, 414, 62, colour=_PAPER),
        Text("Coach 7, seat 42", 60, 514, 62, colour=_PAPER),
    )),
    Sheet((860, 480), (985, 735), 172, _card, (
        Text("Mira Holm", 110, 180, 104, weight=2),
        Text("Piano tuner", 110, 268, 54),
        Text("mira@example.com", 110, 410, 60),
    )),
)  # fmt: skip


def truth() -> list[tuple[str, Quad]]:
    """What is written on the picture and where: each line's quad starts where the line does."""
    return [(text.text, mapped(text.box(), sheet.place())) for sheet in SHEETS for text in sheet.texts]


# The table and the light --------------------------------------------------------------------------


def _noise(rng: np.random.Generator, columns: int, rows: int) -> npt.NDArray[np.float64]:
    """f64 [HEIGHT, WIDTH]: smooth noise of about that many bumps across and down."""
    small = Image.fromarray(rng.standard_normal((rows, columns)).astype(np.float32))
    return np.asarray(small.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), np.float64)


def table(rng: np.random.Generator) -> Image.Image:
    """Four oak planks."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    plank = y // 240
    shift = rng.uniform(-1, 1, 4)[plank.astype(int)]
    rings = np.sin((y / 9 + 2.4 * _noise(rng, 5, 14) + 7 * shift) + x / 260)
    grain = 0.10 * rings + 0.07 * _noise(rng, 12, 480) + 0.03 * _noise(rng, 160, 960) + 0.10 * shift
    seam = np.exp(-(((y - 240 * plank) / 2.2) ** 2))
    tone = np.clip(0.52 + grain - 0.5 * seam, 0, 1)[..., None]
    dark, light = np.array([74, 44, 26]), np.array([196, 142, 92])
    return Image.fromarray((dark + tone * (light - dark)).astype(np.uint8))


def cup(middle: tuple[int, int], radius: int) -> Image.Image:
    """RGBA: a cup of coffee on its saucer, from above."""
    y, x = np.mgrid[: _FINE * HEIGHT, : _FINE * WIDTH] / _FINE - np.array(middle)[::-1, None, None]
    x, y = x / radius, y / radius
    far, lit = np.hypot(x, y), -(x + y) / 2  # the light comes from the upper left
    image = np.zeros((*far.shape, 4), np.uint8)

    def pour(inside: npt.NDArray[np.bool_], colour: tuple[int, int, int], shade: npt.NDArray[np.float64]) -> None:
        image[inside, :3] = np.clip(np.array(colour) * shade[inside][:, None], 0, 255)
        image[inside, 3] = 255

    pour(far < 1, (233, 231, 226), 1 + 0.10 * lit - 0.10 * np.exp(-(((far - 0.8) / 0.07) ** 2)))
    pour(far < 0.74, (196, 192, 186), 1 - 0.12 * lit)
    pour((np.abs(x - y) < 0.15) & (x > 0) & (far < 0.93), (246, 244, 240), 1 + 0.05 * lit)
    pour(far < 0.66, (248, 246, 243), 1 + 0.03 * lit)
    pour(far < 0.58, (206, 200, 192), 1 - 0.16 * lit)
    pour(far < 0.53, (96, 56, 30), 1 + 0.30 * np.exp(-(((far - 0.48) / 0.05) ** 2)) - 0.10 * lit)
    u, v = (x + 0.35 * y) / 0.24, -(y - 0.35 * x + 0.03) / 0.24
    for size in (1.32, 1.0, 0.62):  # a heart of milk in hearts of milk
        p, q = u / size, v / size
        heart = (p**2 + q**2 - 1) ** 3 - p**2 * q**3 < 0
        pour(heart, (226, 190, 148) if size != 1.0 else (150, 98, 60), 1 - 0.06 * lit)
    return Image.fromarray(image).reduce(_FINE)


def _lay(scene: Image.Image, thing: Image.Image, height: int) -> None:
    """Put RGBA ``thing`` and its shadow on the scene; the light comes from the upper left."""
    shape = thing.getchannel("A")
    shadow = ImageChops.offset(shape, height, height).filter(ImageFilter.GaussianBlur(1.4 * height))
    scene.paste((18, 9, 4), mask=shadow.point(lambda v: v * 0.62))
    scene.paste(thing, mask=shape)


def picture() -> Image.Image:
    """The whole scene; the same at every call."""
    rng = np.random.default_rng(7)
    scene = table(rng)
    _lay(scene, cup((626, 640), 112), 11)
    for sheet in SHEETS:
        inverse = np.linalg.inv(np.diag([_FINE, _FINE, 1.0]) @ sheet.place())
        matrix = (inverse / inverse[2, 2]).ravel()[:8].tolist()
        fine = (_FINE * WIDTH, _FINE * HEIGHT)
        laid = sheet.drawn().transform(fine, Image.Transform.PERSPECTIVE, matrix, Image.Resampling.BICUBIC)
        _lay(scene, laid.reduce(_FINE), 7)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    light = 1.10 - 0.42 * np.hypot((x - 420) / WIDTH, (y - 260) / HEIGHT) ** 1.5
    fibres = 1 + 0.012 * _noise(rng, 320, 240)
    pixels = np.asarray(scene, np.float64) * (light * fibres)[..., None] + rng.normal(0, 2.0, (HEIGHT, WIDTH, 1))
    pixels *= (1.02, 1.0, 0.95)  # a warm lamp
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def main() -> None:
    file = Path(sys.argv[1]) if len(sys.argv) > 1 else FILE
    picture().save(file, quality=82, optimize=True)
    print(f"{file}: {file.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
