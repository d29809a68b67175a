"""Where the time goes, launch by launch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import parser

from benchmarks.architectures import write
from benchmarks.launches import profile
from omniop.dispatcher.registry import registry


def test_profile_counts_every_launch_once(tmp_path: Path) -> None:
    model, feeds = write("bert_base", tiny=True)
    path = tmp_path / "bert.onnx"
    onnx.save(model, path)
    found = profile(path, feeds, "cpu", 2)
    assert sum(s.launches for s in found.spent) == found.launches > 10
    assert [s.seconds for s in found.spent] == sorted((s.seconds for s in found.spent), reverse=True)
    assert min(s.seconds for s in found.spent) > 0
    assert found.planned > found.run > 0
    projections = [s for s in found.spent if "contract" in s.shapes and "MatMul" in s.operators]
    assert any("[9x32] [32x128]" in s.shapes and s.launches == 2 for s in projections)
    assert all(s.operations == 2 * 2 * 9 * 32 * 128 for s in projections if "[9x32] [32x128]" in s.shapes)
    assert "sequence" not in vars(registry().device("cpu")), "the device is left as it was"


def test_operations_are_not_told_where_filters_are_transformed(tmp_path: Path) -> None:
    """The element count of a filter transformed by Winograd's algorithm is not the number of a sum's terms."""
    text = """<ir_version: 10, opset_import: ["": 21]> g (float[1, 32, 56, 56] x) => (float[1, 32, 28, 28] y) {
        wide = Conv<pads=[1, 1, 1, 1]>(x, filters)
        y = Conv<pads=[1, 1, 1, 1], strides=[2, 2]>(wide, filters)
    }"""
    model = parser.parse_model(text)
    filters = np.random.default_rng(0).standard_normal((32, 32, 3, 3), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(filters, "filters"))
    path = tmp_path / "two.onnx"
    onnx.save(model, path)
    found = profile(path, {"x": np.ones((1, 32, 56, 56), np.float32)}, "cpu", 1)
    counted = {"winograd" in s.shapes: s.operations for s in found.spent if s.shapes.startswith("conv")}
    assert counted == {True: 0, False: 2 * 28 * 28 * 32 * 32 * 9}


def test_profile_refuses_what_is_not_one_segment(tmp_path: Path) -> None:
    """NonZero feeds a Reshape: its elements are read back in between."""
    text = """<ir_version: 10, opset_import: ["": 21]> g (float[4] x) => (float[N] y) {
        places = NonZero(x)
        shape = Shape(places)
        count = Gather<axis=0>(shape, one)
        wide = Unsqueeze(count, zero)
        y = ConstantOfShape(wide)
    }"""
    model = parser.parse_model(text)
    model.graph.initializer.extend(
        [onnx.numpy_helper.from_array(np.int64(1), "one"), onnx.numpy_helper.from_array(np.array([0]), "zero")]
    )
    path = tmp_path / "cut.onnx"
    onnx.save(model, path)
    with pytest.raises(ValueError, match="more than one segment"):
        profile(path, {"x": np.array([1, 0, 2, 0], np.float32)}, "cpu", 1)
