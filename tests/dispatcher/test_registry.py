"""Discovery: what is broken is reported with its reason, and nothing else breaks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from omniop.backends.base import API_VERSION, Backend, Device, Runnable
from omniop.backends.reference import ReferenceBackend, ReferenceDevice
from omniop.dispatcher.registry import GROUP, OWN, Registry, trial
from omniop.opset.errors import DeviceError
from omniop.opset.kernel import Work


class Shelf(Backend):
    """A backend of whatever devices it is given."""

    def __init__(self, name: str = "shelf", *devices: Device) -> None:
        self.name = name
        self.found = list(devices)

    def devices(self) -> list[Device]:
        return self.found


def named(name: str, kind: type[ReferenceDevice] = ReferenceDevice) -> ReferenceDevice:
    device = kind()
    device.name = name
    return device


def point(name: str, value: str) -> EntryPoint:
    return EntryPoint(name, value, GROUP)


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module that an entry point can name."""
    module = ModuleType("a_plugin_of_a_test")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


REFERENCE = point("reference", "omniop.backends.reference")


def test_backends_are_found_by_entry_point() -> None:
    registry = Registry([REFERENCE])
    assert registry.names() == ["reference"]
    assert [d.name for d in registry.devices()] == ["reference"]
    assert registry.problems() == []
    assert registry.device("reference") is registry.devices()[0]


def test_the_package_registers_its_own() -> None:
    """Where the registry looks without asking for entry points, too."""
    registered = {p.name: p.value for p in entry_points(group=GROUP) if p.value.startswith("omniop.backends.")}
    assert registered == OWN
    assert set(OWN) <= set(Registry().names())


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("a_package_that_nobody_made", "No module named 'a_package_that_nobody_made'"),
        ("omniop.backends.reference:nothing", "nothing"),
        ("omniop.opset.errors", "has no BACKEND that is a Backend"),
    ],
)
def test_a_broken_plugin_is_reported_and_never_fatal(value: str, reason: str) -> None:
    registry = Registry([point("broken", value), REFERENCE])
    (problem,) = registry.problems()
    assert problem.name == "broken"
    assert reason in problem.reason
    assert [d.name for d in registry.devices()] == ["reference"]
    with pytest.raises(DeviceError, match=r"device 'broken' is not available: .*") as caught:
        registry.device("broken")
    assert reason in str(caught.value)


def test_an_import_that_raises_anything_is_reported(plugin: ModuleType) -> None:
    class Angry(Backend):
        name = "angry"

        def devices(self) -> list[Device]:
            raise ZeroDivisionError

    plugin.BACKEND = Angry()  # type: ignore[attr-defined]
    registry = Registry([point("angry", plugin.__name__), REFERENCE])
    assert [(p.name, p.reason) for p in registry.problems()] == [("angry", "ZeroDivisionError")]


def test_another_version_of_the_contract_names_both(plugin: ModuleType) -> None:
    backend = Shelf("old", named("old:0"))
    backend.api_version = API_VERSION + 41
    plugin.BACKEND = backend  # type: ignore[attr-defined]
    (problem,) = Registry([point("old", plugin.__name__)]).problems()
    assert f"version {API_VERSION + 41}" in problem.reason
    assert f"this is {API_VERSION}" in problem.reason


def test_two_packages_of_one_name_are_both_named(plugin: ModuleType) -> None:
    registry = Registry([REFERENCE, point("reference", plugin.__name__)])
    (problem,) = registry.problems()
    assert "two packages" in problem.reason
    assert REFERENCE.value in problem.reason
    assert plugin.__name__ in problem.reason


def test_registering_a_taken_name_names_both() -> None:
    registry = Registry([REFERENCE])
    with pytest.raises(ValueError, match=r"omniop\.backends\.reference; .*ReferenceBackend"):
        registry.register(ReferenceBackend())
    registry.register(Shelf())
    with pytest.raises(ValueError, match=r"Shelf; .*Shelf"):
        registry.register(Shelf())


def test_unregistering() -> None:
    registry = Registry([])
    registry.register(Shelf("shelf", named("shelf:0")))
    assert registry.device("shelf").name == "shelf:0"
    registry.unregister("shelf")
    assert registry.names() == []
    with pytest.raises(DeviceError, match="there is no device 'shelf'; available: none"):
        registry.device("shelf")


def test_devices_by_name() -> None:
    registry = Registry([REFERENCE])
    first, second = named("shelf:0"), named("shelf:1")
    registry.register(Shelf("shelf", first, second))
    assert registry.device("shelf") is registry.device("shelf:0") is first
    assert registry.device("shelf:1") is second
    for unknown in ("shelf:2", "abacus"):
        with pytest.raises(DeviceError, match=f"no device '{unknown}'; available: reference, shelf:0, shelf:1"):
            registry.device(unknown)


class Wrong(ReferenceDevice):
    """Off by one."""

    def d2h(self, array: np.ndarray, buffer: Any) -> None:
        super().d2h(array, buffer)
        array += 1


class Broken(ReferenceDevice):
    """Its driver is."""

    def build(self, works: Sequence[Work]) -> list[Runnable]:
        raise OSError("the driver fell over")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Wrong, "its trial kernel gave a wrong answer"),
        (Broken, "its trial kernel failed: the driver fell over"),
    ],
)
def test_a_device_that_fails_its_trial_is_kept_out(kind: type[ReferenceDevice], reason: str) -> None:
    assert trial(kind()) == reason
    registry = Registry([])
    registry.register(Shelf("shelf", named("shelf:0", kind), named("shelf:1")))
    assert [d.name for d in registry.devices()] == ["shelf:1"]
    assert [(p.name, p.reason) for p in registry.problems()] == [("shelf:0", reason)]
    assert registry.device("shelf").name == "shelf:1"


def test_a_good_device_passes_its_trial() -> None:
    assert trial(ReferenceDevice()) is None
