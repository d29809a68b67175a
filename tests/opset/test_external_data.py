from __future__ import annotations

import os
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_models import F32, model, refused

from omniop.opset.importer import attributes, import_model, initializer_array
from omniop.opset.schemas import schema_for

# Tensors


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.float32).reshape(2, 3),
        np.array([True, False]),
        np.array(3, np.int64),
        np.zeros((0, 4), np.float16),
        np.array([1.5, -2], ml_dtypes.bfloat16),
        np.array([0.5, 448], ml_dtypes.float8_e4m3fn),
        np.array([[-8, 7, 1]], ml_dtypes.int4),
        np.array([3, 0, 1, 2, 3], ml_dtypes.uint2),
        np.array([1 + 2j], np.complex64),
    ],
    ids=lambda a: a.dtype.name,
)
def test_initializer_arrays(array: np.ndarray) -> None:
    proto = model([helper.make_node("Identity", ["w"], ["y"])])
    proto.graph.initializer.append(ir.serde.serialize_tensor(ir.Tensor(array, name="w")))
    found = initializer_array(import_model(proto).graph.initializers["w"])
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_string_initializers_keep_every_byte() -> None:
    proto = model([helper.make_node("Identity", ["w"], ["y"])])
    # Not by make_tensor, which loses the zero byte.
    proto.graph.initializer.add(
        name="w", data_type=TensorProto.STRING, dims=[2, 1], string_data=[b"caf\xc3\xa9\0", b"\xff"]
    )
    found = initializer_array(import_model(proto).graph.initializers["w"])
    assert found.dtype == object
    assert found.tolist() == [["café\0"], ["\udcff"]]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"raw_data": b"1234"}, ("4 bytes", "need 24")),
        ({"dims": [2, -3]}, ("non-negative",)),
        ({"dims": [1 << 40, 1 << 40], "raw_data": b""}, ("0 bytes",)),
        ({"data_type": 99}, ("element type 99",)),
        ({"data_type": 0}, ("no element type",)),
    ],
)
def test_tensors_that_lie_about_their_size(changes: dict, words: tuple[str, ...]) -> None:
    tensor = numpy_helper.from_array(np.ones((2, 3), np.float32), "w")
    for field, content in changes.items():
        tensor.ClearField(field)
        if isinstance(content, list):
            tensor.dims.extend(content)
        else:
            setattr(tensor, field, content)
    if tensor.data_type in (0, 99):
        attribute = helper.make_node("Constant", [], ["c"], value=tensor)
        refused(model([attribute, helper.make_node("Add", ["x", "c"], ["y"])]), "attribute 'value'", *words)
    else:
        nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
        refused(model(nodes, initializers=[tensor]), 'initializer "w"', *words)


def test_typed_fields_are_counted_too() -> None:
    tensor = helper.make_tensor("w", F32, [2], [1.0, 2.0])
    tensor.dims[0] = 1 << 50
    refused(model([helper.make_node("Add", ["x", "w"], ["y"])], initializers=[tensor]), "2 entries of float_data")


# External data

WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)


def external(folder: Path, location: str = "weights.bin", array: np.ndarray = WEIGHT, **entries: object) -> Path:
    """Save a model in ``folder`` whose initializer w is at ``location``."""
    tensor = ir.serde.serialize_tensor(ir.Tensor(array, name="w"))
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, entry in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(entry))
    path = folder / "model.onnx"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model([helper.make_node("Identity", ["w"], ["y"])], initializers=[tensor]).SerializeToString())
    return path


def weight(path: Path, **options) -> np.ndarray:
    return initializer_array(import_model(path, **options).graph.initializers["w"])


def test_external_data_is_mapped(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "weights.bin").write_bytes(b"abc" + WEIGHT.tobytes())
    path = external(tmp_path, "./sub/weights.bin", offset=3, length=24, checksum="0", basepath="/", __class__="evil")
    found = weight(path)
    np.testing.assert_array_equal(found, WEIGHT)
    assert not found.flags.owndata
    assert not found.flags.writeable


@pytest.mark.parametrize("dtype", [ml_dtypes.int4, ml_dtypes.bfloat16])
def test_external_data_of_narrow_types(tmp_path: Path, dtype: type) -> None:
    array = np.array([[-8, 7, 1]]).astype(dtype)
    (tmp_path / "weights.bin").write_bytes(ir.Tensor(array).tobytes())
    found = weight(external(tmp_path, array=array))
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_external_data_of_an_attribute(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(WEIGHT.tobytes())
    tensor = onnx.load(external(tmp_path), load_external_data=False).graph.initializer[0]
    proto = model([helper.make_node("Constant", [], ["y"], value=tensor)])
    node = import_model(proto, folder=tmp_path).graph[0]
    np.testing.assert_array_equal(attributes(node, schema_for("", "Constant", 20))["value"], WEIGHT)


def test_a_model_without_a_folder(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(WEIGHT.tobytes())
    path = external(tmp_path)
    refused(path.read_bytes(), 'initializer "w"', "no folder")
    np.testing.assert_array_equal(weight(path.read_bytes(), folder=tmp_path), WEIGHT)
    np.testing.assert_array_equal(weight(ir.load(path)), WEIGHT)


@pytest.mark.parametrize(
    "location",
    [
        "../secret.bin",
        "sub/../../secret.bin",
        "..\\secret.bin",
        "/etc/passwd",
        "C:\\secret.bin",
        "\\\\host\\share\\secret.bin",
        "",
        "weights\0.bin",
    ],
)
def test_locations_outside_of_the_folder(tmp_path: Path, location: str) -> None:
    (tmp_path / "secret.bin").write_bytes(WEIGHT.tobytes())
    (tmp_path / "model" / "sub").mkdir(parents=True)
    refused(external(tmp_path / "model", location), "model.onnx", 'initializer "w"', "keeps its data in")


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"offset": 1}, ("bytes 1 to 25", "which has 24")),
        ({"offset": 1 << 70}, ("which has 24",)),
        ({"offset": -4}, ("-4",)),
        ({"offset": "x"}, ("x",)),
        ({"length": 4}, ("4 bytes", "need 24")),
        ({"location": "none.bin"}, ("none.bin", "No such file")),
        ({"location": "sub"}, ("not a regular file",)),
        ({"location": "pipe"}, ("not a regular file",)),
    ],
)
def test_external_data_that_is_not_there(tmp_path: Path, entries: dict, words: tuple[str, ...]) -> None:
    (tmp_path / "weights.bin").write_bytes(WEIGHT.tobytes())
    (tmp_path / "sub").mkdir()
    os.mkfifo(tmp_path / "pipe")
    refused(external(tmp_path, **{"location": "weights.bin", **entries}), "model.onnx", *words)


def test_an_empty_external_tensor_needs_no_bytes(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"")
    assert weight(external(tmp_path, array=WEIGHT[:0])).shape == (0, 3)


def test_links(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    path = external(folder)
    (tmp_path / "secret.bin").write_bytes(WEIGHT.tobytes())
    (folder / "real.bin").write_bytes(WEIGHT.tobytes())
    link = folder / "weights.bin"
    link.symlink_to("real.bin")
    np.testing.assert_array_equal(weight(path), WEIGHT)
    link.unlink()
    link.symlink_to("../secret.bin")
    refused(path, "leads out of the model's folder")
    link.unlink()
    link.symlink_to("weights.bin")
    refused(path, "cannot be read")
    # A folder that is a link is no way out either.
    (folder / "linked").symlink_to(tmp_path)
    refused(external(folder, "linked/secret.bin"), "leads out of the model's folder")


def test_the_hugging_face_cache(tmp_path: Path) -> None:
    repository = tmp_path / "models--someone--model"
    snapshot = repository / "snapshots" / "0123abc" / "onnx"
    blobs = repository / "blobs"
    blobs.mkdir(parents=True)
    path = external(snapshot, "model.onnx_data")
    path.rename(blobs / "aaaa")
    path.symlink_to("../../../blobs/aaaa")
    (blobs / "bbbb").write_bytes(WEIGHT.tobytes())
    data = snapshot / "model.onnx_data"
    data.symlink_to("../../../blobs/bbbb")
    np.testing.assert_array_equal(weight(path), WEIGHT)
    # Another repository's blobs are not this one's.
    other = tmp_path / "models--someone--else" / "blobs"
    other.mkdir(parents=True)
    (other / "cccc").write_bytes(WEIGHT.tobytes())
    data.unlink()
    data.symlink_to(other / "cccc")
    refused(path, "leads out of the model's folder")
    # Nor is what a link in the place of the blobs leads to.
    data.unlink()
    data.symlink_to("../../../blobs/cccc")
    for blob in blobs.iterdir():
        blob.rename(other / blob.name)
    blobs.rmdir()
    blobs.symlink_to(other)
    refused(path, "leads out of the model's folder")
