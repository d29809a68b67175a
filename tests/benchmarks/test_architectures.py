"""The benchmarks' architectures at a small size: whole, finite, and the same on omniop as on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import omniop
from benchmarks.architectures import ARCHITECTURES, stored, write
from benchmarks.architectures.decoders import gpt2, llama
from benchmarks.architectures.graph import DECOMPOSED_OPSET, FUSED_OPSET, Feeds, Graph
from omniop.conformance.compare import compare_outputs
from omniop.conformance.oracles import Prepared, onnxruntime_engine
from omniop.conformance.tolerance import Relative

DEVICES = ("reference", "cpu")

spellings = pytest.mark.parametrize("fused", [False, True], ids=["decomposed", "fused"])
names = pytest.mark.parametrize("name", ARCHITECTURES)


@names
@spellings
def test_agrees_with_onnxruntime(name: str, fused: bool) -> None:
    model, feeds = write(name, tiny=True, fused=fused)
    assert model.opset_import[0].version == (FUSED_OPSET if fused else DECOMPOSED_OPSET)
    onnx.checker.check_model(model, full_check=True)
    expected = onnxruntime_engine(model)(feeds)
    for output in expected.values():
        assert np.isfinite(output).all()
        assert output.std() > 1e-3
    for device in DEVICES:
        session = omniop.load(model, device=device, fallback="error")
        assert compare_outputs(session.run(feeds), expected, Relative(1e-3, 1e-4)) is None, device


@names
def test_spellings_compute_the_same(name: str) -> None:
    """But for the random weights, which both draw in the same order."""
    (spelled, feeds), (fused, same) = (write(name, tiny=True, fused=fused) for fused in (False, True))
    for key, feed in feeds.items():
        np.testing.assert_array_equal(feed, same[key])
    expected = onnxruntime_engine(spelled)(feeds)
    assert compare_outputs(onnxruntime_engine(fused)(feeds), expected, Relative(1e-3, 1e-4)) is None


@pytest.mark.parametrize("family", [gpt2, llama])
@spellings
def test_decode_goes_on_where_prefill_ends(family: Callable[..., None], fused: bool) -> None:
    """A token decoded with the cache of those before gives the logits that reading all of them at once gives."""
    sizes = {"layers": 2, "hidden": 32, "heads": 4, "vocabulary": 50}

    def graph(**options: Any) -> tuple[Prepared, Feeds]:
        g = Graph(fused=fused)
        family(g, **sizes, **options)
        return onnxruntime_engine(g.model("decoder")), g.feeds

    whole, feeds = graph(decode=False, length=8)
    before, first = graph(decode=False, length=7)
    after, turn = graph(decode=True, length=7)
    cache = before({**first, "ids": feeds["ids"][:, :7]})
    turn |= {f"past_{name}": value for name, value in cache.items() if name != "logits"}
    expected = whole(feeds)
    found = after({**turn, "ids": feeds["ids"][:, 7:]})
    assert compare_outputs(found, expected, Relative(1e-4, 1e-5)) is None


def test_stored_keeps_weights_beside_the_model(tmp_path: Path) -> None:
    path, feeds = stored("mobilenetv2", tmp_path)
    written = path.stat().st_mtime_ns
    assert path.stat().st_size < 1e6 < path.with_suffix(".onnx.data").stat().st_size
    again, same = stored("mobilenetv2", tmp_path)
    assert again == path
    assert again.stat().st_mtime_ns == written
    np.testing.assert_array_equal(feeds["x"], same["x"])
    output = onnxruntime_engine(onnx.load(path))(feeds)["y"]
    assert output.shape == (1, 1000)
    assert np.isfinite(output).all()
