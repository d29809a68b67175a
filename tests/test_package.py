"""The package as it is shipped: one import name for every room, a wheel that loses nothing, a light import."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("backends", "conformance", "dispatcher", "opset")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def shipped_files(package: Path) -> set[str]:
    """Every file under the package and its linked rooms that a wheel must hold, relative to the package's parent."""
    found = set()
    for directory in (package, *(package / room for room in ROOMS)):
        for path in directory.rglob("*"):
            relative = path.relative_to(package.parent)
            hidden = any(part.startswith((".", "__pycache__")) for part in relative.parts)
            if path.is_file() and not hidden:
                found.add(relative.as_posix())
    return found


def run_python(code: str, cwd: Path) -> str:
    """Standard output of a fresh interpreter that imports omniop from this checkout."""
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{code}"
    done = subprocess.run([sys.executable, "-c", script], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("room", ROOMS)
def test_room_is_a_link(room: str) -> None:
    link = ROOT / "omniop" / room
    assert link.is_symlink(), f"{link} must be a link; check out with git's core.symlinks on"
    assert link.readlink() == Path("..", room)


def test_wheel_holds_the_tree(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("omniop", *ROOMS):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    # With neither --sdist nor --wheel the wheel is built from the sdist, so both are checked.
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")}
    assert held == shipped_files(source / "omniop")


def test_import_is_light(tmp_path: Path) -> None:
    code = "import omniop; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = set(run_python(code, tmp_path).split())
    heavy = {"click", "llvmlite", "ml_dtypes", "numpy", "onnx", "onnx_ir", "pyopencl", "rich", "sympy", "typer"}
    assert "omniop" in loaded
    assert not loaded & heavy


@pytest.mark.parametrize("name", sorted(PROJECT["entry-points"]["omniop.backends"]))
def test_own_backend_is_where_its_entry_point_says(name: str) -> None:
    module = PROJECT["entry-points"]["omniop.backends"][name]
    assert importlib.util.find_spec(module) is not None


def test_every_module_has_one_name(tmp_path: Path) -> None:
    code = """
import omniop.backends, omniop.conformance, omniop.dispatcher, omniop.opset.lower
print(*(name for name in sys.modules if name.split('.')[0] in {'backends', 'conformance', 'dispatcher', 'opset'}))
"""
    assert run_python(code, tmp_path).split() == []
