"""Host steps: strings that are moved, classes that are drawn, constants that are strings."""

from __future__ import annotations

import numpy as np
import pytest

import omniop
from omniop.opset.errors import ExecutionError
from tests.gate.case import model

WORDS = np.array([["a", "b", "c"], ["d", "e", "f"]], object)


def run(text: str, **feeds: np.ndarray) -> np.ndarray:
    return omniop.load(model(text), device="reference").run(feeds)["y"]


def test_pads_of_strings_cut_before_they_fill() -> None:
    padded = run(
        "g (string[2, 3] x, int64[2] p, string v, int64[1] a) => (string[R, C] y) { y = Pad (x, p, v, a) }",
        x=WORDS,
        p=np.array([-1, 2]),
        v=np.array("-", object),
        a=np.array([1]),
    )
    np.testing.assert_array_equal(padded, np.array([["b", "c", "-", "-"], ["e", "f", "-", "-"]], object))
    plain = run(
        "g (string[2, 3] x, int64[4] p) => (string[R, C] y) { y = Pad (x, p) }", x=WORDS, p=np.array([0, 0, 1, 0])
    )
    np.testing.assert_array_equal(plain, np.vstack([WORDS, [[""] * 3]]))


def test_one_hot_and_resize_give_strings_by_their_places() -> None:
    hot = run(
        "g (int64[2] i, int64 d, string[2] v) => (string[R, C] y) { y = OneHot (i, d, v) }",
        i=np.array([2, 0]),
        d=np.array(3),
        v=np.array(["no", "yes"], object),
    )
    np.testing.assert_array_equal(hot, np.array([["no", "no", "yes"], ["yes", "no", "no"]], object))
    wide = run(
        'g (string[2, 3] x, float[2] s) => (string[R, C] y) { y = Resize <mode = "nearest"> (x, , s) }',
        x=WORDS,
        s=np.array([1, 2], np.float32),
    )
    np.testing.assert_array_equal(wide, WORDS.repeat(2, 1))


def test_classes_are_drawn_by_their_shares() -> None:
    text = "g (float[N, C] x) => (int64[N, S] y) { y = Multinomial <dtype = 7, sample_size = 2000, seed = 4.0> (x) }"
    with np.errstate(divide="ignore"):
        logits = np.log(np.array([[0.5, 0.25, 0.25], [0, 1, 0]], np.float32)) + 3
    found = run(text, x=logits)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, run(text, x=logits))
    assert set(found[1]) == {1}
    np.testing.assert_allclose(np.bincount(found[0]) / 2000, [0.5, 0.25, 0.25], atol=0.05)
    with pytest.raises(ExecutionError, match=r"\[batch, classes\] is needed"):
        run(text.replace("[N, C]", "[N]"), x=logits[0])


def test_a_constant_of_strings_is_an_output() -> None:
    np.testing.assert_array_equal(
        run('g () => (string[2] y) { y = Constant <value_strings = ["p", "q"]> () }'), ["p", "q"]
    )
