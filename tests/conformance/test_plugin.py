"""The suite under pytest, as a third party runs it: in a folder of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import omniop
from omniop.conformance.choices import QUICK

_ROOT = Path(omniop.__file__).parents[1]


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "omniop.conformance.plugin", "-p", "no:cacheprovider", "-q"]
    environment = {**os.environ, "PYTHONPATH": str(_ROOT), "PYTEST_ADDOPTS": ""}
    suite = [*command, "--rootdir", str(folder), *arguments, "--pyargs", "omniop.conformance"]
    return subprocess.run(suite, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


MYCHIP = """
import dataclasses
import numpy as np
from omniop.backends.reference.numpy_ops import NUMPY
from omniop.dispatcher.registry import registry
from tests.conformance.planted import Planted

def spoil(device):
    device.ops = dataclasses.replace(NUMPY, alu={**NUMPY.alu, "abs": np.negative})

registry().register(Planted("mychip", spoil), trusted=True)
"""


def test_each_verdict_is_an_outcome(tmp_path: Path) -> None:
    (tmp_path / "mychip.py").write_text(MYCHIP)
    expect = tmp_path / "mine.toml"
    expect.write_text('[[xfail]]\ncases = ["test_abs", "test_acos"]\ndevices = ["mychip"]\nreason = "no sign bit"\n')
    chosen = "node-test_abs or node-test_acos or stale"
    options = ("-p", "mychip", "--omniop-device", "mychip", "--omniop-expect", str(expect))
    done = run(tmp_path, *options, "-k", chosen, "-rA")
    assert "1 failed, 4 passed" in done.stdout, done.stdout + done.stderr
    assert "1 xfailed" in done.stdout
    assert "xpass: passed, though mine.toml says: no sign bit" in done.stdout
    assert "omniop conformance --device mychip --filter '^test_acos$' -vv" in done.stdout


def test_xdist_shares_the_cases_out(tmp_path: Path) -> None:
    done = run(tmp_path, "--omniop-device", "reference", "--quick", "-n", "2", "-k", "test_abs or test_add or test_sub")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d passed", done.stdout)


def test_quick_is_a_sample(tmp_path: Path) -> None:
    done = run(tmp_path, "--omniop-device", "reference", "--quick", "--collect-only")
    assert f"{QUICK + 1} tests collected" in done.stdout, done.stdout[-2000:] + done.stderr


@pytest.mark.parametrize("workers", [[], ["-n", "2"]])
def test_a_missing_device_ends_the_run(workers: list[str], tmp_path: Path) -> None:
    done = run(tmp_path, "--omniop-device", "abacus", "-k", "test_abs", *workers)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert "abacus is unavailable: there is no device 'abacus'" in done.stderr
    assert "INTERNALERROR" not in done.stdout + done.stderr


def test_without_a_device_nothing_runs(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 skipped" in done.stdout


def test_the_plugin_is_light_and_leaves_quick_to_others(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("def pytest_addoption(parser): parser.addoption('--quick')\n")
    (tmp_path / "test_theirs.py").write_text(
        "import sys\n"
        "def test_theirs(pytestconfig):\n"
        "    assert pytestconfig.getoption('--quick') == 'theirs'\n"
        "    assert not {'numpy', 'onnx', 'omniop.conformance.cases'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "omniop.conformance.plugin", "-p", "no:cacheprovider", "-q"]
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    done = subprocess.run(
        [*command, "--quick", "theirs"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
