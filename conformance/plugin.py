"""The suite under pytest: ``pytest --omniop-device mine --pyargs omniop.conformance``.

Each case is a test, chosen with ``-k``; ``--quick`` takes a sample, and ``-n`` shares them out where pytest-xdist is
installed. Without ``--omniop-device`` there is nothing to run, and nothing is imported: every pytest of the environment
loads this.
"""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    group = parser.getgroup("omniop", "omniop conformance")
    group.addoption("--omniop-device", metavar="DEVICE", help="run omniop's conformance suite on this device")
    group.addoption(
        "--omniop-expect", metavar="FILE", action="append", type=Path, default=[], help="a list of expected failures"
    )
    group.addoption(
        "--omniop-fallback", choices=("error", "warn", "silent"), default="error", help="when the device declines"
    )
    config = pluginmanager.get_plugin("pytestconfig")
    # A project of this environment may have a --quick of its own, and pytest lets an option be added once.
    if config is None or any(str(word).startswith("--omniop-device") for word in config.invocation_params.args):
        group.addoption("--quick", action="store_true", help="only a sample of the conformance cases")


def pytest_configure(config: pytest.Config) -> None:
    device = config.getoption("--omniop-device")
    if device is None or hasattr(config, "workerinput"):  # pytest-xdist's workers are asked once it is there
        return
    from omniop.conformance.probe import Unavailable, here

    try:
        here(device)
    except Unavailable as error:
        raise pytest.UsageError(f"{device} is unavailable: {error}") from None
