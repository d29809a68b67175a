"""What users get wrong: each mistake is one of omniop's errors that says what it was, and the session lives on."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from mutations import X as PICTURE
from mutations import convolutional, damage_bytes, damage_fields, sequential
from onnx import TensorProto, helper, numpy_helper
from small_models import F32, I64, affine, model

import omniop
from omniop.backends.array_eval import KernelEvaluator
from omniop.backends.base import Device
from omniop.dispatcher.registry import registry
from omniop.dispatcher.values import DeviceTensor

X = np.array([[1, -2, 3], [-4, 5, -6]], np.float32)
B = np.array([1, 1, 1], np.float32)

SPARE_BYTES = 3 << 30
"""What a test may use beyond what the process has: no mutation may bring the machine down."""


@pytest.fixture
def bounded_memory() -> Iterator[None]:
    """Address space held to `SPARE_BYTES` more than there is in use."""
    resource = pytest.importorskip("resource")
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("the size of the process is read from Linux's /proc")
    used = int(statm.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + SPARE_BYTES, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def one_line(error: BaseException) -> str:
    text = str(error)
    assert text
    assert "\n" not in text
    return text


# Files ----------------------------------------------------------------------------------------------------------------


def test_a_file_cut_anywhere(tmp_path: Path) -> None:
    """Protobuf has no length of a whole file: a cut between two fields leaves a model, of which parts are missing."""
    whole = affine().SerializeToString()
    path = tmp_path / "cut.onnx"
    for keep in range(len(whole)):
        path.write_bytes(whole[:keep])
        try:
            omniop.load(path, device="reference").run({"x": X, "b": B})
        except omniop.OmniopError as error:
            one_line(error)
        else:
            assert whole[keep:].startswith(b"B"), "only the opset import may be missed"


def test_what_is_no_model(tmp_path: Path) -> None:
    noise = random.Random(0)
    path = tmp_path / "noise.onnx"
    for size in (1, 2, 3, 10, 100, 10_000):
        for _ in range(20):
            path.write_bytes(noise.randbytes(size))
            with pytest.raises(omniop.ModelError, match=r"noise\.onnx"):
                omniop.load(path, device="reference")
    path.write_bytes(b"")
    with pytest.raises(omniop.ModelError, match=r"noise\.onnx is empty"):
        omniop.load(path, device="reference")
    with pytest.raises(omniop.ModelError, match="Is a directory"):
        omniop.load(tmp_path, device="reference")
    with pytest.raises(omniop.ModelError, match=r"nothing\.onnx cannot be read: No such file"):
        omniop.load(tmp_path / "nothing.onnx", device="reference")


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "sub/../../weights.bin"])
def test_weights_outside_of_the_model_s_folder(location: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "weights.bin").write_bytes(bytes(12))
    with pytest.raises(omniop.ModelError, match='initializer "w"'):
        omniop.load(external(folder, location), device="reference")


def test_weights_that_are_links(tmp_path: Path) -> None:
    """A symbolic link leads elsewhere; a hard link is a file of the folder."""
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(B.tobytes())
    (folder / "weights.bin").symlink_to(tmp_path / "secret")
    path = external(folder, "weights.bin")
    with pytest.raises(omniop.ModelError, match=r"leads out of the model's folder"):
        omniop.load(path, device="reference")
    (folder / "weights.bin").unlink()
    os.link(tmp_path / "secret", folder / "weights.bin")
    np.testing.assert_array_equal(omniop.load(path, device="reference").run({"x": B})["y"], B + B)


def external(folder: Path, location: str) -> Path:
    """A model in ``folder`` whose weight w is at ``location``."""
    tensor = TensorProto(name="w", data_type=F32, dims=[3], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    proto = model([helper.make_node("Add", ["x", "w"], ["y"])], {"x": (F32, [3])}, "y")
    proto.graph.initializer.append(tensor)
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


# Graphs ---------------------------------------------------------------------------------------------------------------


def node_of(op: str, inputs: list[str], outputs: list[str], domain: str = "", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs, outputs, name="odd", domain=domain, **attributes)


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([node_of("Add", ["x", "z"], ["y"]), node_of("Neg", ["y"], ["z"])], "takes part in a cycle"),
        ([node_of("Add", ["x", "nowhere"], ["y"])], 'Add "odd".*"nowhere"'),
        ([node_of("NoSuchOp", ["x"], ["y"])], 'NoSuchOp "odd"'),
        ([node_of("Relu", ["x"], ["y"], domain="org.example")], 'org.example::Relu "odd"'),
        ([node_of("Relu", ["x"], ["y"], alpha=1.0)], 'Relu "odd".*alpha'),
        ([node_of("Softmax", ["x"], ["y"], axis=7)], 'Softmax "odd".*7'),
        ([node_of("Transpose", ["x"], ["y"], perm=[0, 0])], 'Transpose "odd"'),
        ([node_of("Concat", ["x", "b"], ["y"], axis=0)], 'Concat "odd"'),
        ([node_of("MatMul", ["x", "x"], ["y"])], 'MatMul "odd"'),
        ([node_of("Add", ["x", "i"], ["y"])], 'Add "odd"'),
    ],
)
def test_graphs_that_cannot_run(nodes: list[onnx.NodeProto], words: str) -> None:
    proto = model(nodes, {"x": (F32, ["n", 3]), "b": (F32, [3]), "i": (I64, [3])}, "y")
    with pytest.raises(omniop.OmniopError, match=words) as caught:
        omniop.load(proto, device="reference").run({"x": X, "b": B, "i": np.arange(3)})
    one_line(caught.value)


def test_an_opset_from_the_future() -> None:
    """What it has in common with the newest known one runs."""
    proto = affine()
    proto.opset_import[0].version = 999
    np.testing.assert_array_equal(
        omniop.load(proto, device="reference").run({"x": X, "b": B})["y"], np.maximum(X + B, 0)
    )


@pytest.mark.parametrize(
    ("op", "change", "words"),
    [
        ("Loop", lambda body: body.output.pop(), "its body has 1 outputs, and 2 are needed"),
        ("Loop", lambda body: body.input.add(name="more"), "its body has 4 inputs, and 3 are needed"),
        ("If", lambda body: body.output.pop(), "its then_branch has 0 outputs, and 1 are needed"),
    ],
)
def test_bodies_that_do_not_fit_their_node(op: str, change: Any, words: str) -> None:
    value = helper.make_tensor_value_info
    flag = TensorProto.BOOL
    if op == "Loop":
        nodes = [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Identity", ["state"], ["next"])]
        infos = [value("step", I64, []), value("go", flag, []), value("state", F32, None)]
        body = helper.make_graph(nodes, "body", infos, [value("go_on", flag, []), value("next", F32, None)])
        change(body)
        proto = model([helper.make_node("Loop", ["", "go", "x"], ["y"], body=body)], {}, "y")
    else:
        body = helper.make_graph([helper.make_node("Neg", ["x"], ["t"])], "branch", [], [value("t", F32, None)])
        other = onnx.GraphProto()
        other.CopyFrom(body)
        change(body)
        proto = model([helper.make_node("If", ["go"], ["y"], then_branch=body, else_branch=other)], {}, "y")
    proto.graph.input.extend([value("x", F32, [3]), value("go", flag, [])])
    with pytest.raises(omniop.ModelError, match=words):
        omniop.load(proto, device="reference")


# Feeds ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("feeds", "words"),
    [
        ({"x": X}, "missing feed: 'b'"),
        ({"x": X, "b": B, "c": B}, "no input 'c'; it has: x, b"),
        ({"x": X, "B": B}, "no input 'B'"),
        ({"x": X.astype(np.int64), "b": B}, "'x': float32 is needed, the feed is int64"),
        ({"x": X[None], "b": B}, "'x': rank 2 is needed"),
        ({"x": X[:, :2], "b": B}, r"'x': shape \[batch, 3\] is needed, the feed has \[2, 2\]"),
        ({"x": "text", "b": B}, "'x': float32 is needed, the feed is string"),
        ({"x": None, "b": B}, "'x': an array is needed"),
        ({"x": {"a": 1}, "b": B}, "'x': an array is needed, not a dict"),
    ],
)
def test_feeds_that_do_not_fit_leave_the_session_usable(feeds: dict[str, Any], words: str, device: str) -> None:
    session = omniop.load(affine(), device=device)
    with pytest.raises(omniop.FeedError, match=words) as caught:
        session.run(feeds)
    one_line(caught.value)
    np.testing.assert_array_equal(session.run({"x": X, "b": B})["y"], np.maximum(X + B, 0))


def test_shapes_that_only_the_run_finds_wrong(device: str) -> None:
    """The model declares nothing of its inputs' dims, and the node finds that they do not go together."""
    proto = model([node_of("MatMul", ["p", "q"], ["y"])], {"p": (F32, [None, None]), "q": (F32, [None, None])}, "y")
    session = omniop.load(proto, device=device)
    ones = np.ones((3, 3), np.float32)
    with pytest.raises(omniop.OmniopError, match='MatMul "odd"'):
        session.run({"p": ones, "q": ones[:2]})
    np.testing.assert_array_equal(session.run({"p": ones, "q": ones})["y"], np.full((3, 3), 3))


@pytest.mark.parametrize(
    ("name", "words"),
    [("referense", "did you mean 'reference'?"), ("CPU", "did you mean 'cpu'?"), ("abacus", "no device 'abacus'")],
)
def test_a_device_that_does_not_exist(name: str, words: str) -> None:
    with pytest.raises(omniop.DeviceError) as caught:
        omniop.load(affine(), device=name)
    assert words in one_line(caught.value)
    assert "available: " in str(caught.value)


# Memory ---------------------------------------------------------------------------------------------------------------

LARGE = 1 << 33
"""Bytes that the devices of a test are told not to have."""


@pytest.fixture
def refusing(device: str, monkeypatch: pytest.MonkeyPatch) -> Device:
    """A device that refuses what is large as its own ``alloc`` does, whatever the machine has."""
    found = registry().device(device)
    alloc = found.alloc
    monkeypatch.setattr(found, "alloc", lambda nbytes: alloc(nbytes if nbytes < LARGE else 1 << 45))
    return found


def test_an_intermediate_that_has_no_room(refusing: Device) -> None:
    nodes = [
        helper.make_node("MatMul", ["p", "q"], ["big"], name="outer"),
        helper.make_node("ReduceMax", ["big"], ["y"], name="most"),
    ]
    session = omniop.load(model(nodes, {"p": (F32, ["n", 1]), "q": (F32, [1, "n"])}, "y"), device=refusing.name)

    def most(n: int) -> np.ndarray:
        ones = np.ones(n, np.float32)
        return session.run({"p": ones[:, None], "q": ones[None, :]})["y"]  # type: ignore[no-any-return]

    np.testing.assert_array_equal(most(3), [[1]])
    with pytest.raises(omniop.DeviceError) as caught:
        most(50_000)
    text = one_line(caught.value)
    assert text.startswith('MatMul "outer": ')
    assert refusing.name in text
    assert str(1 << 45) in text
    np.testing.assert_array_equal(most(3), [[1]])


@pytest.mark.parametrize(
    ("shape", "nbytes"),
    [([50_000, 50_000], 1 << 45), ([1 << 40, 1 << 20], 1 << 62), ([1 << 62, 1 << 62], 1 << 126)],
    ids=["large", "beyond any memory", "beyond 64 bits"],
)
def test_an_output_that_has_no_room(refusing: Device, shape: list[int], nbytes: int) -> None:
    proto = model([helper.make_node("Expand", ["x", "s"], ["y"], name="grow")], {"x": (F32, [1]), "s": (I64, [2])}, "y")
    session = omniop.load(proto, device=refusing.name)
    one = np.ones(1, np.float32)
    with pytest.raises(omniop.DeviceError) as caught:
        session.run({"x": one, "s": np.array(shape)})
    text = one_line(caught.value)
    assert text.startswith('Expand "grow": ')
    assert refusing.name in text
    assert str(nbytes) in text
    np.testing.assert_array_equal(session.run({"x": one, "s": np.array([2, 2])})["y"], np.ones((2, 2)))


def test_a_feed_that_has_no_room(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = registry().device(device)
    if found.borrow(X) is not None:
        pytest.skip(f"{device} reads feeds where they lie")
    alloc = found.alloc
    proto = model([helper.make_node("ReduceMax", ["x"], ["y"])], {"x": (F32, ["n"])}, "y")
    session = omniop.load(proto, device=device)
    many = np.ones(1000, np.float32)
    monkeypatch.setattr(found, "alloc", lambda nbytes: alloc(nbytes if nbytes != many.nbytes else 1 << 45))
    with pytest.raises(omniop.DeviceError, match=f"value 'x': {device}.* {1 << 45} bytes"):
        session.run({"x": many})
    np.testing.assert_array_equal(session.run({"x": many[:9]})["y"], [1])


def test_a_kernel_that_has_no_room_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """numpy's evaluation of a kernel takes memory beside its buffers."""
    session = omniop.load(affine(), device="reference")
    feeds = {"x": X, "b": B}
    session.run(feeds)
    with monkeypatch.context() as patch:
        patch.setattr(KernelEvaluator, "__call__", lambda *_: np.empty((1 << 40, 8), np.float32))
        with pytest.raises(
            omniop.DeviceError, match=r'Relu of "y": reference has no memory left: .* \(1099511627776, 8\)'
        ):
            session.run(feeds)
    np.testing.assert_array_equal(session.run(feeds)["y"], np.maximum(X + B, 0))


def test_a_host_that_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    session = omniop.load(affine(), device="reference")

    def numpy(_: DeviceTensor) -> np.ndarray:
        return np.empty((1 << 40, 8), np.float32)

    monkeypatch.setattr(DeviceTensor, "numpy", numpy)
    with pytest.raises(omniop.DeviceError, match=r"the host has no memory left: .* \(1099511627776, 8\)"):
        session.run({"x": X, "b": B})


# Damage ---------------------------------------------------------------------------------------------------------------


def survives(source: bytes | onnx.ModelProto) -> bool:
    """Whether a damaged model runs; if not, an omniop error says why. Anything else fails the test."""
    try:
        session = omniop.load(source, device="reference", fallback="error")
        session.run({info.name: PICTURE for info in session.inputs})
    except omniop.OmniopError as error:
        one_line(error)
        return False
    return True


@pytest.mark.parametrize("make", [convolutional, sequential])
def test_the_models_that_are_damaged_run(make: Any) -> None:
    assert survives(make())


def test_damaged_bytes(bounded_memory: None) -> None:
    whole = convolutional().SerializeToString()
    runs = sum(survives(damage_bytes(whole, random.Random(seed))) for seed in range(200))
    assert 0 < runs < 200


@pytest.mark.parametrize(("make", "seeds"), [(convolutional, 150), (sequential, 60)])
def test_damaged_fields(make: Any, seeds: int, bounded_memory: None) -> None:
    whole = make()
    runs = sum(survives(damage_fields(whole, random.Random(seed))) for seed in range(seeds))
    assert 0 < runs < seeds


def test_weights_that_lie_about_their_size() -> None:
    proto = convolutional()
    proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.zeros((4, 3, 3), np.float32), "w"))
    with pytest.raises(omniop.ModelError, match='Conv "conv"'):
        omniop.load(proto, device="reference").run({"x": PICTURE})
