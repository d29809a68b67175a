"""Reading a picture: PP-OCR's three networks on one device.

Detection finds boxes around lines of text, orientation turns those that lie upside down, recognition reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from PIL import Image

import omniop
from omniop.demo import detection, models, quads
from omniop.demo.reading_order import in_order
from omniop.demo.trial import Progress

HEIGHT = 48
"""Rows of a line of text as the networks take it."""
_TURNED_WIDTH = 192
"""Columns that the orientation network looks at."""
_WIDTH_STEP, _WIDEST = 64, 1600
"""Widths of batches are multiples of this, so that few sizes are met; longer lines are squeezed."""
_BATCH = 8
_SURE, _LEGIBLE = 0.9, 0.5
"""A line is turned if the network is this sure; it counts as read if its mean confidence is this high."""

Strip = npt.NDArray[np.float32]
"""A line of text cut out: f32 [3, 48, width]."""


@dataclass(frozen=True)
class Line:
    """A line of text: its quad from where it starts, and how sure the recogniser is of its characters, 0 to 1."""

    text: str
    confidence: float
    quad: quads.Quad
    turned: bool
    """Whether it lies upside down."""
    block: int
    """Lines that stand together have the same number."""


class Reader:
    """The three networks, loaded onto one device."""

    def __init__(self, picture: Image.Image, device: str) -> None:
        """Raises ModelError, also where a network is not installed, and DeviceError."""
        self.picture = picture
        self.sessions = [
            omniop.load(model.path(), device) for model in (models.DETECTION, models.ORIENTATION, models.RECOGNITION)
        ]
        self.alphabet = alphabet(models.RECOGNITION.path())

    def run(self, progress: Progress) -> list[Line]:
        """The picture's lines of text in reading order. Raises ExecutionError and PlacementError."""
        detect, _, _ = self.sessions
        progress("finding lines of text", 0.0)
        probability = run(detect, detection.network_input(self.picture))
        found = [box.quad for box in detection.boxes(probability[0, 0], self.picture.size)]
        turned = self._turned([strip(self.picture, quad, _TURNED_WIDTH) for quad in found], progress)
        found = [np.roll(quad, 2, axis=0) if turn else quad for quad, turn in zip(found, turned, strict=True)]
        read = self._read([strip(self.picture, quad, _WIDEST) for quad in found], progress)
        blocks = in_order(found)
        lines = [Line(*read[k], found[k], turned[k], b) for b, block in enumerate(blocks) for k in block]
        return [line for line in lines if line.confidence >= _LEGIBLE]

    def _turned(self, strips: Sequence[Strip], progress: Progress) -> list[bool]:
        """Which lie upside down."""
        turned: list[bool] = []
        for batch in batches(range(len(strips))):
            progress("turning lines upright", 0.3 + 0.2 * len(turned) / len(strips))
            upright_or_not = run(self.sessions[1], stacked([strips[k] for k in batch], _TURNED_WIDTH))
            turned += (upright_or_not[:, 1] > _SURE).tolist()
        return turned

    def _read(self, strips: Sequence[Strip], progress: Progress) -> dict[int, tuple[str, float]]:
        """Text and confidence by index; strips of like widths go together."""
        read: dict[int, tuple[str, float]] = {}
        for batch in batches(sorted(range(len(strips)), key=lambda k: strips[k].shape[2])):
            progress("reading lines", 0.5 + 0.5 * len(read) / len(strips))
            widest = max(strips[k].shape[2] for k in batch)
            width = ceil(widest / _WIDTH_STEP) * _WIDTH_STEP
            probabilities = run(self.sessions[2], stacked([strips[k] for k in batch], width))
            read |= {k: decode(p, self.alphabet) for k, p in zip(batch, probabilities, strict=True)}
        return read


def run(session: omniop.Session, value: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """A network of one input and one output."""
    (name,) = (given.name for given in session.inputs)
    (result,) = session.run({name: value}).values()
    return result


def batches(indices: Sequence[int]) -> list[list[int]]:
    """As few groups as can be, in order and of about one size: an odd one out would be planned anew."""
    parts = np.array_split(np.asarray(indices, np.intp), max(1, ceil(len(indices) / _BATCH)))
    return [part.tolist() for part in parts if len(part)]


def strip(picture: Image.Image, quad: quads.Quad, widest: int) -> Strip:
    """The quad's part of the picture, straightened and 48 rows high."""
    width, height = (max(1, round(side)) for side in quads.sides(quad))
    matrix = quads.homography(quads.rectangle(width, height), quad)
    cut = picture.transform(
        (width, height), Image.Transform.PERSPECTIVE, matrix.ravel()[:8].tolist(), Image.Resampling.BICUBIC
    )
    columns = min(widest, max(1, ceil(HEIGHT * width / height)))
    return detection.pixels(cut.resize((columns, HEIGHT), Image.Resampling.BILINEAR))


def stacked(strips: Sequence[Strip], width: int) -> npt.NDArray[np.float32]:
    """f32 [strips, 3, 48, width]: each from the left, grey after its end."""
    batch = np.zeros((len(strips), 3, HEIGHT, width), np.float32)
    for row, one in zip(batch, strips, strict=True):
        row[:, :, : one.shape[2]] = one
    return batch


def alphabet(path: Path) -> list[str]:
    """What each class of the recogniser stands for: class 0 is CTC's blank, the last one is the space."""
    model = onnx.load(path, load_external_data=False)
    (known,) = (entry.value for entry in model.metadata_props if entry.key == "character")
    return ["", *known.splitlines(), " "]


def decode(probabilities: npt.NDArray[np.float32], alphabet: Sequence[str]) -> tuple[str, float]:
    """Greedy CTC over f32 [steps, classes]: repeats count once, blanks vanish. The text, and the mean confidence."""
    best = probabilities.argmax(axis=-1)
    kept = (best != 0) & (best != np.concatenate(([-1], best[:-1])))
    confidence = probabilities.max(axis=-1)[kept]
    return "".join(alphabet[i] for i in best[kept]), float(confidence.mean()) if confidence.size else 0.0
