"""The null device: plans are made and recorded, nothing runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import omniop
from omniop.backends.base import Caps, Device, KernelTable
from omniop.backends.null import NullBackend, NullDevice
from omniop.dispatcher.registry import Registry, trial
from omniop.opset import dtype as dtypes
from omniop.opset.kernel import Call, Kernel


class OneDevice(Registry):
    """A registry that trusts the one device that it has."""

    def __init__(self, device: Device) -> None:
        super().__init__(points=())
        self._device = device

    def device(self, name: str) -> Device:
        return self._device


def mlp() -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Add", ["h", "b"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Softmax", ["r"], ["y"]),
    ]
    held = {"w": np.ones((4, 6), np.float32), "b": np.ones(6, np.float32)}
    graph = helper.make_graph(
        nodes,
        "mlp",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(array, name) for name, array in held.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def run(device: NullDevice, rows: int = 3) -> np.ndarray:
    session = omniop.Session(mlp(), device.name, fallback="error", devices=OneDevice(device))
    return np.asarray(session.run({"x": np.ones((rows, 4), np.float32)})["y"])


def test_gives_zeros_of_the_right_shape() -> None:
    y = run(NullDevice(Caps()), 5)
    assert y.shape == (5, 6)
    assert not y.any()


def test_records_the_works_of_a_plan() -> None:
    """Bias and ReLU go with the product where that takes an epilogue; a template is built in one batch."""
    device = NullDevice(Caps())
    run(device)
    product, softmax = device.works
    assert isinstance(product, Call)
    assert product.epilogue is not None
    assert isinstance(softmax, Kernel)
    assert len(device.batches) == 1


def test_plans_for_what_it_is_given() -> None:
    """No epilogues: the activation is a kernel of its own. Loops: the product is one too, with the activation in it."""
    for device, kinds in (
        (NullDevice(Caps(), epilogues=()), ["Call", "Kernel", "Kernel"]),
        (NullDevice(Caps(loops=True), takes=()), ["Kernel", "Kernel"]),
    ):
        run(device)
        assert [type(w).__name__ for w in device.works] == kinds


def test_works_are_legal_for_its_caps() -> None:
    """Float32 alone: softmax of float16 is held in integers."""
    plain = frozenset((dtypes.BOOL, dtypes.UINT16, dtypes.UINT32, dtypes.INT32, dtypes.INT64, dtypes.FLOAT32))
    device = NullDevice(Caps(storage=plain, compute=plain))
    proto = helper.make_model(
        helper.make_graph(
            [helper.make_node("Softmax", ["x"], ["y"])],
            "half",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT16, [2, 5])],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT16, [2, 5])],
        ),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    session = omniop.Session(proto, "null", fallback="error", devices=OneDevice(device))
    session.run({"x": np.ones((2, 5), np.float16)})
    used = {p.dtype for w in device.works for p in w.params}
    assert used == {dtypes.UINT16}


def test_tuned_kernels_are_planned_with() -> None:
    """The work of a tuned kernel is recorded; its own code never runs."""
    table = KernelTable()

    @table.kernel("MatMul", name="fast")
    def fast(device: Any, work: Any) -> Any:
        raise AssertionError

    device = NullDevice(Caps(), kernels=table)
    run(device)
    assert device.works[0].prim == "kernel:fast"  # type: ignore[union-attr]


def test_overruns_are_found() -> None:
    device = NullDevice(Caps(), name="pretend:0")
    small = device.alloc(8)
    with pytest.raises(omniop.DeviceError, match="pretend:0: 12 bytes do not fit a buffer of 8"):
        device.h2d(small, np.zeros(3, np.float32))
    with pytest.raises(omniop.DeviceError, match="16 bytes"):
        device.copy(device.alloc(16), small, 16)


def test_is_not_mistaken_for_hardware() -> None:
    device = NullDevice(Caps())
    assert trial(device) == "its trial kernel gave a wrong answer"
    assert NullBackend(device).devices() == [device]
    assert "null" not in Registry().names()
