"""The examples' tokenizer, on a vocabulary small enough to follow by hand."""

from __future__ import annotations

import pytest

from examples.smollm2.bpe import Tokenizer

CONTROL, NORMAL = 3, 1
BYTES = [chr(b) if 33 <= b < 127 or 161 <= b < 173 or b >= 174 else None for b in range(256)]
HIDDEN = iter(range(256, 512))
BASE = [c if c is not None else chr(next(HIDDEN)) for c in BYTES]
"""Each byte's character: a space is "Ġ", a newline "Ċ"."""
MERGES = ["t h", "Ġ th", "h e", "Ġth e", "e r", "Ġ 1", "Ġ Ġ"]
TOKENS = ["<|end|>", "<|end|>!", *BASE, *(m.replace(" ", "") for m in MERGES)]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(TOKENS, MERGES, [CONTROL] * 2 + [NORMAL] * (len(TOKENS) - 2))


def spelt(tokenizer: Tokenizer, text: str) -> list[str]:
    return [TOKENS[k] for k in tokenizer.encode(text)]


def test_the_alphabet_is_gpt2s() -> None:
    assert (BASE[ord(" ")], BASE[ord("\n")], BASE[0x7F], BASE[0xAD]) == ("Ġ", "Ċ", "ġ", "Ń")


def test_earlier_merges_come_first(tokenizer: Tokenizer) -> None:
    assert spelt(tokenizer, "the the") == ["th", "e", "Ġthe"]
    assert spelt(tokenizer, "her") == ["he", "r"]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("a1", ["a", "1"]),
        (" 11", ["Ġ", "1", "1"]),  # a digit takes no blank along, though the vocabulary has one
        ("  the", ["Ġ", "Ġthe"]),  # the last blank goes with the word
        ("  1", ["ĠĠ", "1"]),
        ("the  ", ["th", "e", "ĠĠ"]),
        ("x_th", ["x", "_", "th"]),
        ("the're", ["th", "e", "'", "r", "e"]),
        ("\n\nthe", ["Ċ", "Ċ", "th", "e"]),
        ("²the", ["Â", "²", "th", "e"]),  # a number, no letter
    ],
)
def test_pieces(tokenizer: Tokenizer, text: str, pieces: list[str]) -> None:
    assert spelt(tokenizer, text) == pieces


def test_markers_are_tokens_of_their_own(tokenizer: Tokenizer) -> None:
    assert spelt(tokenizer, "the<|end|>the<|end|>!") == ["th", "e", "<|end|>", "th", "e", "<|end|>!"]


@pytest.mark.parametrize("text", ["", "Grüße, 東京 🎉!", "tab\tand\r\nlines\x00\x7f\xad", " <|end|> it's 3.14 "])
def test_decoding_gives_the_text_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_character_is_streamed_when_it_is_whole(tokenizer: Tokenizer) -> None:
    tokens = tokenizer.encode("é🎉")
    assert list(tokenizer.stream(tokens)) == ["é", "🎉"]
    assert list(tokenizer.stream(tokens[:-1])) == ["é", "\N{REPLACEMENT CHARACTER}"]
