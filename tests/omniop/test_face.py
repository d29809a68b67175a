"""omniop.load, Session.run and omniop.devices as a user meets them: right answers, and what is said of mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from small_models import affine, gather, pair

import omniop

X = np.array([[1, -2, 3], [-4, 5, -6]], np.float32)
B = np.array([1, 1, 1], np.float32)


@pytest.fixture(scope="module")
def session() -> omniop.Session:
    return omniop.load(affine(), device="reference")


@pytest.mark.parametrize("device", ["reference", "cpu"])
def test_runs_from_path_bytes_and_proto(device: str, tmp_path: Path) -> None:
    proto = affine()
    path = tmp_path / "affine.onnx"
    onnx.save(proto, path)
    for source in (path, str(path), proto.SerializeToString(), proto):
        found = omniop.load(source, device=device).run({"x": X, "b": B})
        np.testing.assert_array_equal(found["y"], np.maximum(X + B, 0))


def test_declares_inputs_and_outputs(session: omniop.Session) -> None:
    assert [(i.name, i.dtype, i.shape) for i in session.inputs] == [
        ("x", "float32", ("batch", 3)),
        ("b", "float32", (3,)),
    ]
    assert [o.name for o in session.outputs] == ["y"]


def test_gives_only_the_outputs_asked_for(session: omniop.Session) -> None:
    assert list(session.run({"x": X, "b": B}, outputs=["y"])) == ["y"]
    with pytest.raises(omniop.FeedError, match="no output 'z'; it has: y"):
        session.run({"x": X, "b": B}, outputs=["z"])


def test_outputs_belong_to_the_caller(session: omniop.Session) -> None:
    first = session.run({"x": X, "b": B})["y"]
    first[:] = 7
    np.testing.assert_array_equal(session.run({"x": X, "b": B})["y"], np.maximum(X + B, 0))


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ({"x": X}, ["missing feed", "'b'"]),
        ({}, ["missing feeds: 'x' (float32 [batch, 3]), 'b' (float32 [3])"]),
        ({"x": X, "b": B, "c": B}, ["no input 'c'", "x, b"]),
        ({"x": X.astype(np.float64), "b": B}, ["'x'", "float32 is needed", "float64", "astype"]),
        ({"x": X[0], "b": B}, ["'x'", "rank 2", "[batch, 3]", "[3]"]),
        ({"x": X[:, :2], "b": B}, ["'x'", "[batch, 3]", "[2, 2]", "axis 1"]),
        ({"x": np.zeros(3, "datetime64[s]"), "b": B}, ["'x'", "datetime64", "ONNX"]),
    ],
    ids=["missing", "all missing", "unknown", "dtype", "rank", "fixed dim", "foreign dtype"],
)
def test_feed_that_does_not_fit(session: omniop.Session, feeds: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(omniop.FeedError) as caught:
        session.run(feeds)
    for word in words:
        assert word in str(caught.value)


def test_a_session_says_what_it_is(session: omniop.Session) -> None:
    given = "'x' (float32 [batch, 3]), 'b' (float32 [3])"
    assert repr(session) == f"<omniop.Session on reference: {given} -> 'y' (float32 of any rank)>"


def test_feeds_that_have_no_names(session: omniop.Session) -> None:
    for feeds in (X, [X, B]):
        with pytest.raises(omniop.FeedError, match=f"feeds are a dict, .* not a {type(feeds).__name__}"):
            session.run(feeds)  # type: ignore[arg-type]


def test_dims_of_one_name_have_to_agree() -> None:
    session = omniop.load(pair(), device="reference")
    feeds = {"p": np.zeros(4, np.float32), "q": np.zeros(5, np.float32)}
    with pytest.raises(omniop.FeedError, match=r"'q': dim 'n' is 5, but 'p' makes it 4"):
        session.run(feeds)


def test_index_outside_its_tensor_names_the_node() -> None:
    session = omniop.load(gather(), device="reference")
    feeds = {"table": np.zeros((4, 2), np.float32), "index": np.array([4])}
    with pytest.raises(omniop.ExecutionError, match="Gather"):
        session.run(feeds)


@pytest.mark.parametrize("device", ["nowhere", "reference:7"])
def test_device_that_does_not_exist(device: str) -> None:
    with pytest.raises(omniop.DeviceError, match=rf"no device '{device}'; available: .*reference"):
        omniop.load(affine(), device=device)


def test_wrong_options() -> None:
    with pytest.raises(omniop.OmniopError, match="'warn', 'error' or 'silent'"):
        omniop.load(affine(), device="reference", fallback="perhaps")  # type: ignore[arg-type]
    with pytest.raises(omniop.DeviceError, match="at least one device"):
        omniop.load(affine(), device=[])
    with pytest.raises(omniop.DeviceError, match=r"exclude: there is no device 'gpu'; there are: .*reference"):
        omniop.load(affine(), device="reference", exclude={"gpu": ["Relu"]})
    with pytest.raises(omniop.DeviceError, match="threads is at least 1"):
        omniop.load(affine(), device="reference", threads=0)


@pytest.mark.parametrize("keep", [0, 1, 40, -1], ids=["empty", "one byte", "some", "all but one"])
def test_truncated_file(keep: int, tmp_path: Path) -> None:
    path = tmp_path / "cut.onnx"
    path.write_bytes(affine().SerializeToString()[:keep])
    with pytest.raises(omniop.ModelError, match=r"cut\.onnx"):
        omniop.load(path, device="reference")


def test_file_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(omniop.ModelError, match=r"nothing\.onnx"):
        omniop.load(tmp_path / "nothing.onnx", device="reference")


def test_node_without_a_lowering_is_named() -> None:
    proto = affine()
    proto.graph.node[1].op_type = "NoSuchOp"
    with pytest.raises(omniop.OmniopError, match="NoSuchOp"):
        omniop.load(proto, device="reference").run({"x": X, "b": B})


def test_devices() -> None:
    found = {d.name: d for d in omniop.devices()}
    assert {"reference", "cpu"} <= set(found)
    assert all(d.available for d in found.values())
    assert "float32" in found["reference"].dtypes
    assert {d.name for d in omniop.devices(all=True)} >= set(found)


def test_names_of_the_package() -> None:
    assert set(omniop.__all__) <= set(dir(omniop))
    for name in omniop.__all__:
        assert getattr(omniop, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        omniop.no_such_name  # noqa: B018


@pytest.mark.parametrize(("inputs", "words"), [(["x"] * 3, "3 inputs, and 1 are needed"), ([], "0 inputs")])
def test_a_node_of_the_wrong_arity(inputs: list[str], words: str) -> None:
    """The node is named; nothing of Python's own shows."""
    make = onnx.helper
    graph = make.make_graph(
        [make.make_node("Softmax", inputs, ["y"], name="odd")],
        "g",
        [make.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2])],
        [make.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
    )
    model = make.make_model(graph, opset_imports=[make.make_opsetid("", 17)])
    with pytest.raises(omniop.ModelError, match=f'Softmax "odd" has {words}'):
        omniop.load(model, device="reference")
