"""The gate's whole models on every device, against ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import omniop
from omniop.conformance.compare import compare_outputs
from omniop.conformance.oracles import onnxruntime_engine, reference_engine
from omniop.conformance.tolerance import Relative
from tests.gate.case import normal
from tests.gate.models import bert, bert_feeds, two_convs

BERT_SHAPES = ((1, 1), (2, 7), (3, 16), (1, 33))
CONV_SHAPES = ((1, 32, 8, 8), (2, 32, 5, 13), (1, 32, 1, 1))


@pytest.fixture(scope="module")
def small_bert() -> onnx.ModelProto:
    return bert()


@pytest.fixture(scope="module")
def small_convs() -> onnx.ModelProto:
    return two_convs()


@pytest.mark.parametrize("shape", BERT_SHAPES)
def test_oracles_agree_on_bert(small_bert: onnx.ModelProto, shape: tuple[int, int]) -> None:
    feeds = bert_feeds(*shape)
    expected = reference_engine(small_bert)(feeds)
    assert compare_outputs(onnxruntime_engine(small_bert)(feeds), expected, Relative(1e-4, 1e-5)) is None


def test_bert_attends_by_its_mask(small_bert: onnx.ModelProto) -> None:
    """A hidden token changes nothing in the others, and a token that is seen does."""
    run, feeds = onnxruntime_engine(small_bert), bert_feeds(1, 6)
    feeds["attention_mask"][:] = [[1, 1, 1, 1, 1, 0]]
    other = {name: array.copy() for name, array in feeds.items()}
    other["input_ids"][0, 5] += 1
    states, hidden = (run(given)["last_hidden_state"][:, :5] for given in (feeds, other))
    np.testing.assert_array_equal(states, hidden)
    other["attention_mask"][0, 5] = 1
    assert np.abs(run(other)["last_hidden_state"][:, :5] - states).max() > 1e-2


def test_bert(device: str, small_bert: onnx.ModelProto) -> None:
    """One session over several shapes."""
    session = omniop.load(small_bert, device=device, fallback="error")
    run = onnxruntime_engine(small_bert)
    for shape in BERT_SHAPES:
        feeds = bert_feeds(*shape)
        assert compare_outputs(session.run(feeds), run(feeds), Relative(1e-3, 1e-4)) is None, shape


def test_two_convs(device: str, small_convs: onnx.ModelProto) -> None:
    session = omniop.load(small_convs, device=device, fallback="error")
    run = onnxruntime_engine(small_convs)
    for shape in CONV_SHAPES:
        feeds = {"x": normal(*shape)}
        assert compare_outputs(session.run(feeds), run(feeds), Relative(1e-4, 1e-5)) is None, shape
