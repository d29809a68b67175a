"""The devices that the tests run on.

A test that takes ``device`` runs once on each. A device that is not available here skips, with the registry's reason;
one that is named in ``OMNIOP_REQUIRE_DEVICES`` (comma separated) fails instead.
"""

from __future__ import annotations

import os

import pytest

from omniop.dispatcher.registry import registry
from omniop.opset.errors import DeviceError

DEVICES = ("reference", "cpu", "opencl", "cuda:emu", "cuda")


def required() -> set[str]:
    """The devices that have to be there."""
    return {name.strip() for name in os.environ.get("OMNIOP_REQUIRE_DEVICES", "").split(",") if name.strip()}


def unavailable(name: str) -> str | None:
    """Why a device cannot be used here; None when it can."""
    try:
        registry().device(name)
    except DeviceError as error:
        return str(error)
    return None


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """The name of each device in turn."""
    name: str = request.param
    reason = unavailable(name)
    if reason is not None:
        (pytest.fail if name in required() else pytest.skip)(reason)
    return name


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    missing = [f"{name} ({reason})" for name in DEVICES if (reason := unavailable(name)) is not None]
    terminalreporter.write_line(f"unavailable devices: {'; '.join(missing) or 'none'}")
