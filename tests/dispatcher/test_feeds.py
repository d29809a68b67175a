"""Feeds of every kind: the values that arrive, the memory that is shared, and what is said of those that do not fit."""

from __future__ import annotations

import array as array_module
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import omniop
from omniop.backends.cpu.device import CpuDevice
from omniop.dispatcher.feeds import feed
from omniop.dispatcher.graph import Value
from omniop.dispatcher.reader import value_type
from omniop.opset.errors import FeedError

X = np.arange(6, dtype=np.float32).reshape(2, 3)


def tensor_input(dtype: int = TensorProto.FLOAT, shape: Any = None) -> Value:
    return value_of(helper.make_tensor_value_info("x", dtype, shape))


def value_of(proto: onnx.ValueInfoProto) -> Value:
    value = Value(proto.name)
    value.type = value_type(proto.type)
    return value


class Interface:
    """Only ``__array_interface__``."""

    def __init__(self, array: np.ndarray) -> None:
        self.held = array
        self.__array_interface__ = array.__array_interface__


class Dlpack:
    """Only DLPack, on a device of any kind; ``hands_over``: it copies to the host when asked to."""

    def __init__(self, array: np.ndarray, device: tuple[int, int] = (1, 0), hands_over: bool = False) -> None:
        self.held = array
        self.device = device
        self.hands_over = hands_over

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device

    def __dlpack__(self, *, dl_device: tuple[int, int] | None = None, **options: Any) -> Any:
        if self.device != (1, 0) and not (self.hands_over and dl_device == (1, 0)):
            raise BufferError("no way to the host")
        return self.held.__dlpack__(**{k: v for k, v in options.items() if k != "stream"})


class Converts:
    """Only ``__array__``, and DLPack that has no word for its dtype, as bfloat16 tensors of other libraries."""

    def __init__(self, array: np.ndarray) -> None:
        self.held = array

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __dlpack__(self, **_: Any) -> Any:
        raise BufferError("bfloat16 is unknown")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return self.held


class CudaArray:
    """Only ``__cuda_array_interface__``."""

    __cuda_array_interface__ = {"shape": (2, 3), "typestr": "<f4", "data": (1 << 40, False), "version": 3}  # noqa: RUF012


# Kinds ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [X, Interface(X), Dlpack(X), Dlpack(X, (2, 0), hands_over=True), memoryview(X), Converts(X)],
    ids=["numpy", "array interface", "dlpack", "dlpack of a device", "memoryview", "__array__"],
)
def test_holders_of_arrays_share_their_memory(given: Any) -> None:
    found = feed(tensor_input(shape=[2, 3]), given, {})
    np.testing.assert_array_equal(found, X)
    assert np.shares_memory(found, X)


@pytest.mark.parametrize(
    ("given", "dtype", "expected"),
    [
        (array_module.array("f", [1, 2]), TensorProto.FLOAT, np.array([1, 2], np.float32)),
        (b"\x01\x02", TensorProto.UINT8, np.array([1, 2], np.uint8)),
        (bytearray(b"\x01"), TensorProto.UINT8, np.array([1], np.uint8)),
        (np.float32(2), TensorProto.FLOAT, np.array(2, np.float32)),
        (3, TensorProto.FLOAT, np.array(3, np.float32)),
        (True, TensorProto.BOOL, np.array(True)),
        ([[1, 2], [3, 4]], TensorProto.INT32, np.array([[1, 2], [3, 4]], np.int32)),
        ((1.5, 2), TensorProto.FLOAT16, np.array([1.5, 2], np.float16)),
        ([-8, 7], TensorProto.INT4, np.array([-8, 7], ml_dtypes.int4)),
        ([2**64 - 1], TensorProto.UINT64, np.array([2**64 - 1], np.uint64)),
        ([1, 2], TensorProto.COMPLEX64, np.array([1, 2], np.complex64)),
        ([], TensorProto.INT64, np.zeros(0, np.int64)),
        ([np.float32(1), np.float32(2)], TensorProto.FLOAT, np.array([1, 2], np.float32)),
        (np.array([1, 2], ">f4"), TensorProto.FLOAT, np.array([1, 2], np.float32)),
        ("word", TensorProto.STRING, np.array("word", object)),
        (["a", "b"], TensorProto.STRING, np.array(["a", "b"], object)),
        (np.array(["a", "bc"]), TensorProto.STRING, np.array(["a", "bc"], object)),
        (np.array(["é".encode(), b"b"]), TensorProto.STRING, np.array(["é", "b"], object)),
    ],
)
def test_values_take_the_type_of_the_input(given: Any, dtype: int, expected: np.ndarray) -> None:
    found = feed(tensor_input(dtype), given, {})
    assert found.dtype == expected.dtype
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, expected)


def test_an_input_without_an_element_type_takes_any() -> None:
    untyped = value_of(helper.make_empty_tensor_value_info("x"))
    assert feed(untyped, [1, 2], {}).dtype == np.int64
    assert feed(untyped, X, {}) is X


def test_sequences_and_optionals() -> None:
    tensors = helper.make_tensor_type_proto(TensorProto.FLOAT, None)
    sequence = value_of(helper.make_value_info("s", helper.make_sequence_type_proto(tensors)))
    found = feed(sequence, [X, Dlpack(X), [1, 2]], {})
    assert [a.dtype for a in found] == [np.float32] * 3
    optional = value_of(helper.make_value_info("o", helper.make_optional_type_proto(tensors)))
    assert feed(optional, None, {}) is None
    assert feed(optional, X, {}) is X
    with pytest.raises(FeedError, match=r"'s\[1\]': float32 is needed"):
        feed(sequence, [X, X.astype(np.float64)], {})
    with pytest.raises(FeedError, match="'s': a list of arrays is needed, not a ndarray"):
        feed(sequence, X, {})


# What does not fit ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "dtype", "words"),
    [
        (Dlpack(X.astype(np.float64)), TensorProto.FLOAT, "float32 is needed, the feed is float64"),
        (Dlpack(X, (2, 0)), TensorProto.FLOAT, r"Dlpack, is in cuda memory \(no way to the host\); copy it"),
        (Dlpack(X, (99, 0)), TensorProto.FLOAT, r"another device's \(DLPack type 99\) memory"),
        (CudaArray(), TensorProto.FLOAT, "CudaArray, is in cuda memory; copy it to the host"),
        (memoryview(X)[::-1].cast, TensorProto.FLOAT, "an array is needed, not a builtin_function_or_method"),
        ([[1, 2], [3]], TensorProto.FLOAT, "the list is no array"),
        ([1.5], TensorProto.INT32, "int32 is needed, the feed holds Python values of float64"),
        (3, TensorProto.BOOL, "bool is needed, the feed holds Python values of int64"),
        ([300], TensorProto.INT8, "integers outside of its range"),
        ([-1], TensorProto.UINT8, "integers outside of its range"),
        (["a"], TensorProto.FLOAT, "float32 is needed, the feed is string"),
        ([1], TensorProto.STRING, "string is needed, the feed is int64"),
        (np.array([1, None], object), TensorProto.STRING, "strings are needed, the feed holds a int"),
        (np.zeros(3, "datetime64[s]"), TensorProto.FLOAT, "datetime64"),
        ({"a": 1}, TensorProto.FLOAT, "an array is needed, not a dict"),
        (None, TensorProto.FLOAT, "an array is needed, not a NoneType"),
        (object(), TensorProto.FLOAT, "an array is needed, not a object"),
    ],
)
def test_what_does_not_fit_is_a_feed_error(given: Any, dtype: int, words: str) -> None:
    with pytest.raises(FeedError, match=f"input 'x': .*{words}"):
        feed(tensor_input(dtype), given, {})


# Memory ---------------------------------------------------------------------------------------------------------------


def twice(dtype: int = TensorProto.FLOAT) -> onnx.ModelProto:
    """``y = x + x``, x of any rank 2 shape."""
    x = helper.make_tensor_value_info("x", dtype, ["n", "m"])
    y = helper.make_tensor_value_info("y", dtype, None)
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "g", [x], [y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def misaligned(array: np.ndarray) -> np.ndarray:
    memory = np.zeros(array.nbytes + 1, np.uint8)
    memory[1:] = array.reshape(-1).view(np.uint8)
    return memory[1:].view(array.dtype).reshape(array.shape)


def read_only(array: np.ndarray) -> np.ndarray:
    copy = array.copy()
    copy.flags.writeable = False
    return copy


@pytest.mark.parametrize(
    "arrange",
    [
        np.asfortranarray,
        read_only,
        misaligned,
        lambda a: a[::-1, ::-1][::-1, ::-1],
        lambda a: np.repeat(a, 2, axis=1)[:, ::2],
        lambda a: np.concatenate([a, a])[:2],
    ],
    ids=["fortran", "read-only", "misaligned", "reversed twice", "strided", "part"],
)
def test_arrays_however_they_lie(device: str, arrange: Any) -> None:
    given = arrange(X)
    np.testing.assert_array_equal(given, X)
    found = omniop.load(twice(), device=device).run({"x": given})["y"]
    np.testing.assert_array_equal(found, X + X)
    np.testing.assert_array_equal(given, X)


def test_a_broadcast_feed(device: str) -> None:
    given = np.broadcast_to(np.float32(3), (2, 4))
    np.testing.assert_array_equal(omniop.load(twice(), device=device).run({"x": given})["y"], np.full((2, 4), 6))


def test_the_cpu_reads_a_feed_where_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[int] = []
    monkeypatch.setattr(CpuDevice, "h2d", lambda self, buffer, array: copied.append(array.nbytes))
    session = omniop.load(twice(), device="cpu")
    for given in (X, read_only(X), Dlpack(X)):
        np.testing.assert_array_equal(session.run({"x": given})["y"], X + X)
    assert X.nbytes not in copied


def test_outputs_never_share_a_feed_s_or_a_constant_s_memory() -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"]), helper.make_node("Identity", ["w"], ["z"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "m"])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("y", "z")],
        [onnx.numpy_helper.from_array(X, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = omniop.load(model, device="cpu")
    given = X.copy()
    for _ in range(2):
        found = session.run({"x": given})
        for array in found.values():
            np.testing.assert_array_equal(array, X)
            array[:] = 7
    np.testing.assert_array_equal(given, X)
