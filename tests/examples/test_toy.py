"""examples/backend_toy, installed beside omniop as a third party's package would be."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOY = ROOT / "examples" / "backend_toy"

DISCOVER = """
import json, omniop
print(json.dumps({d.name: d.problem for d in omniop.devices(all=True)}))
"""
GATE = """
import json, omniop
from tests.gate.gate_ops import gate_cases

def outcome(case):
    try:
        session = sessions.setdefault(id(case.model), None) or omniop.load(case.model, "toy", fallback="error")
        sessions[id(case.model)] = session
        found = session.run(dict(case.feeds))
    except Exception as error:
        expected = case.raises is not None and isinstance(error, case.raises) and case.op in str(error)
        return None if expected else f"{type(error).__name__}: {error}"
    return case.mismatch(found) if case.raises is None else f"{case.raises.__name__} was not raised"

sessions = {}
print(json.dumps({case.name: outcome(case) for case in gate_cases()}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the package as pip installs it."""
    folder = tmp_path_factory.mktemp("toy")
    source = folder / "source"  # pip builds in place, and the example's folder is to stay clean
    shutil.copytree(TOY, source)
    target = folder / "installed"
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--no-index"]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "--target", target, source], check=True)
    return target


def run(script: str, installed: Path) -> dict[str, str | None]:
    """What the script prints, run in a process that sees the installed package."""
    path = os.pathsep.join([str(installed), str(ROOT), os.environ.get("PYTHONPATH", "")])
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found: dict[str, str | None] = json.loads(result.stdout.splitlines()[-1])
    return found


def test_is_small() -> None:
    """What a backend needs is under 100 lines, docstrings and imports included."""
    lines = (TOY / "omniop_toy.py").read_text().splitlines()
    assert len([line for line in lines if line.strip() and not line.strip().startswith("#")]) < 100


def test_is_discovered(installed: Path) -> None:
    assert run(DISCOVER, installed)["toy"] is None


def test_without_a_compiler(installed: Path) -> None:
    """It is listed with what it lacks."""
    script = "import os; os.environ['PATH'] = ''\n" + DISCOVER
    assert run(script, installed)["toy"] == "toy needs a C compiler, and there is no cc on PATH"


def test_runs_the_gate(installed: Path) -> None:
    """Every operator, at every shape, with nothing left to another device."""
    outcomes = run(GATE, installed)
    assert len(outcomes) > 150
    assert {name: why for name, why in outcomes.items() if why is not None} == {}
