"""Byte-level byte-pair encoding, as GPT-2 introduced it (Radford et al. 2019) and SmolLM2 uses it.

A text is cut into pieces, each piece's UTF-8 bytes are spelt in 256 printable characters, and neighbours are merged in
the order in which the merges were learnt.
"""

from __future__ import annotations

import codecs
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache, lru_cache
from itertools import pairwise
from typing import Any

_CONTROL = 3
"""GGUF's token type of markers such as <|im_start|>, which no text is merged into."""


@cache
def _pieces() -> re.Pattern[str]:
    """What a text is cut into before merging: GPT-2's pieces, but each digit by itself, and first of all."""
    digits = "".join(re.escape(c) for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.category(c)[0] == "N")
    return re.compile(
        rf"[{digits}]"
        r"|'(?:s|t|re|ve|m|ll|d)"
        rf"| ?[^\W_{digits}]+"  # letters
        r"| ?(?:[^\w\s]|_)+"  # anything else that shows
        rf"|\s+(?![^\s{digits}])"  # blanks, without the last one before a word, which goes with it
        r"|\s+"
    )


def _byte_characters() -> dict[int, str]:
    """A printable character for every byte: itself where it is one, else one from 256 on."""
    shown = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [b for b in range(256) if b not in shown]
    return {b: chr(b) for b in shown} | {b: chr(256 + k) for k, b in enumerate(hidden)}


class Tokenizer:
    """Between text and token numbers."""

    def __init__(self, tokens: Sequence[str], merges: Sequence[str], kinds: Sequence[int]) -> None:
        """``merges``: pairs such as "Ġ t", first learnt first. ``kinds``: GGUF's type of each token."""
        self._tokens = tokens
        self._ids = {token: k for k, token in enumerate(tokens)}
        self._ranks = {tuple(merge.split(" ")): k for k, merge in enumerate(merges)}
        self._control = {tokens[k] for k, kind in enumerate(kinds) if kind == _CONTROL}
        self._markers = re.compile("|".join(map(re.escape, sorted(self._control, key=len, reverse=True))) or r"(?!)")
        self._spelt = _byte_characters()
        self._bytes = {c: b for b, c in self._spelt.items()}
        self._merged = lru_cache(maxsize=1 << 16)(self._merge)

    @classmethod
    def of_metadata(cls, metadata: Mapping[str, Any]) -> Tokenizer:
        """From a GGUF file's metadata, or what of it an ONNX file keeps."""
        return cls(*(metadata[f"tokenizer.ggml.{part}"] for part in ("tokens", "merges", "token_type")))

    def encode(self, text: str) -> list[int]:
        """Token numbers; markers such as <|im_start|> in the text are one token each."""
        found: list[int] = []
        start = 0
        for marker in self._markers.finditer(text):
            found += self._encode_plain(text[start : marker.start()])
            found.append(self._ids[marker.group()])
            start = marker.end()
        return found + self._encode_plain(text[start:])

    def decode(self, ids: Iterable[int]) -> str:
        """The text of tokens; bytes that are no UTF-8 become U+FFFD."""
        return "".join(self.stream(ids))

    def stream(self, ids: Iterable[int]) -> Iterator[str]:
        """The text of tokens as they come: a character is given out with its last byte, and no piece is empty."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for k in ids:
            if text := decoder.decode(self._bytes_of(self._tokens[k])):
                yield text
        if text := decoder.decode(b"", final=True):
            yield text

    def _bytes_of(self, token: str) -> bytes:
        return token.encode() if token in self._control else bytes(self._bytes[c] for c in token)

    def _encode_plain(self, text: str) -> list[int]:
        return [self._ids[part] for piece in _pieces().findall(text) for part in self._merged(piece)]

    def _merge(self, piece: str) -> tuple[str, ...]:
        parts = [self._spelt[b] for b in piece.encode()]
        while len(parts) > 1:
            rank, k = min((self._ranks.get(pair, len(self._ranks)), k) for k, pair in enumerate(pairwise(parts)))
            if rank == len(self._ranks):
                break
            parts[k : k + 2] = [parts[k] + parts[k + 1]]
        return tuple(parts)
