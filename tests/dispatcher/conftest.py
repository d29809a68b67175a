"""Sessions on a device of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import onnx
import pytest

from omniop.backends.base import Backend, Device
from omniop.backends.reference import ReferenceDevice
from omniop.dispatcher.registry import Registry
from omniop.dispatcher.session import Session


class Shelf(Backend):
    """A backend of one device."""

    name = "shelf"

    def __init__(self, device: Device) -> None:
        self.device = device

    def devices(self) -> list[Device]:
        return [self.device]


LoadPlain = Callable[..., Session]


@pytest.fixture
def load_plain() -> LoadPlain:
    """``load_plain(model, **caps)``: a session on a reference device with other capabilities."""

    def load(model: onnx.ModelProto, **caps: Any) -> Session:
        device = ReferenceDevice()
        device.name = "shelf:0"
        device.caps = replace(device.caps, **caps)
        registry = Registry(points=())
        registry.register(Shelf(device))
        return Session(model, "shelf", fallback="error", devices=registry)

    return load
