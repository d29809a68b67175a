"""What Magika looks at: the first and the last bytes of a file. Its model says which kind of file it is.

Fratantonio et al., "Magika: AI-Powered Content-Type Detection" (2024), and the configuration beside the model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

FOLDER = "models/standard_v3_3"
"""Of the package ``magika``."""


@dataclass(frozen=True)
class FileTypes:
    """The features of files, and the names of the model's answers, by the model's own configuration."""

    beginning: int
    end: int
    block: int
    padding: int
    labels: tuple[str, ...]

    @classmethod
    def read(cls, config: Path) -> FileTypes:
        """From ``config.min.json``."""
        c = json.loads(config.read_bytes())
        return cls(c["beg_size"], c["end_size"], c["block_size"], c["padding_token"], tuple(c["target_labels_space"]))

    def features(self, *contents: bytes) -> np.ndarray:
        """int32 [files, beginning + end]: the stripped first block's first bytes, the stripped last block's last
        ones; what is missing between them is padding."""
        rows = np.full((len(contents), self.beginning + self.end), self.padding, np.int32)
        for row, content in zip(rows, contents, strict=True):
            first = content[: self.block].lstrip()[: self.beginning]
            last = content[-self.block :].rstrip()[-self.end :]
            row[: len(first)] = np.frombuffer(first, np.uint8)
            row[len(row) - len(last) :] = np.frombuffer(last, np.uint8)
        return rows

    def names(self, scores: np.ndarray) -> list[str]:
        """The likeliest kind of each file, of scores f32 [files, kinds]."""
        return [self.labels[k] for k in scores.argmax(axis=-1)]
