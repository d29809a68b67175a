"""Sentences for MiniLM: BERT's WordPiece tokens in, one vector for each sentence out.

Devlin et al., "BERT" (2018), for the tokens; Reimers and Gurevych, "Sentence-BERT" (2019), for the pooling.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_CJK = r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_PIECES = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+|[^\w\s]|_")
"""Chinese characters and punctuation stand alone; letters and digits make words."""
_LONGEST = 100
"""Letters; a longer word is unknown."""


@dataclass(frozen=True)
class WordPiece:
    """BERT's uncased tokeniser."""

    ids: dict[str, int]

    @classmethod
    def read(cls, vocabulary: Path) -> WordPiece:
        """From ``vocab.txt``: one token a line."""
        return cls({token: k for k, token in enumerate(vocabulary.read_text("utf-8").splitlines())})

    def tokens(self, text: str) -> list[str]:
        """Of a sentence, its marks at both ends included."""
        plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
        words = _PIECES.findall(plain)
        return ["[CLS]", *(piece for word in words for piece in self._split(word)), "[SEP]"]

    def _split(self, word: str) -> Iterator[str]:
        """The longest piece that is known, then the longest of the rest; pieces inside a word begin with ##."""
        found, start = [], 0
        while start < len(word):
            mark = "##" if start else ""
            fits = (end for end in range(len(word), start, -1) if mark + word[start:end] in self.ids)
            end = next(fits, 0) if len(word) <= _LONGEST else 0
            if not end:
                return iter(["[UNK]"])
            found.append(mark + word[start:end])
            start = end
        return iter(found)

    def feeds(self, *sentences: str) -> dict[str, np.ndarray]:
        """int64 [sentences, longest]: ids, the mask of what is no padding, and segments (one)."""
        rows = [[self.ids[token] for token in self.tokens(sentence)] for sentence in sentences]
        ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
        mask = np.zeros_like(ids)
        for k, row in enumerate(rows):
            ids[k, : len(row)], mask[k, : len(row)] = row, 1
        return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}


def embeddings(hidden: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Unit vectors [sentences, width]: the mean over each sentence's tokens, of f32 [sentences, tokens, width]."""
    mean = (hidden * mask[..., None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
    return mean / np.linalg.norm(mean, axis=1, keepdims=True)
