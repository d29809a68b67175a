"""Finding drivers: what is written for the loader, and when."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from omniop.backends.opencl import icd

VARIABLE = "OCL_ICD_VENDORS"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with no drivers but those that a test puts there."""
    (tmp_path / "vendors").mkdir()
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    monkeypatch.setenv("OPENCL_VENDOR_PATH", str(tmp_path / "vendors"))
    monkeypatch.setenv("OMNIOP_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(icd, "pip_drivers", list)
    monkeypatch.setattr(icd, "_LIBRARY_FOLDERS", ())
    return tmp_path


def library(folder: Path, name: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.touch()
    return path


def entries() -> dict[str, str]:
    """What the loader will read."""
    return {file.name: file.read_text() for file in Path(os.environ[VARIABLE]).iterdir()}


def test_nothing_to_add_changes_nothing(machine: Path) -> None:
    (machine / "vendors" / "pocl.icd").write_text("libpocl.so.2\n")
    icd.make_visible()
    assert VARIABLE not in os.environ
    assert not (machine / "cache").exists()


def test_a_pip_driver_joins_those_of_the_system(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = library(machine / "lib", "libintelocl.so.2026.1")
    monkeypatch.setattr(icd, "pip_drivers", lambda: [driver])
    (machine / "vendors" / "pocl.icd").write_text("libpocl.so.2\n")
    (machine / "vendors" / "gone.icd").write_text(f"{machine}/no/such/library.so\n")
    icd.make_visible()
    assert entries() == {"pocl.icd": "libpocl.so.2\n", "omniop-libintelocl.icd": f"{driver}\n"}
    before = os.environ[VARIABLE]
    icd.make_visible()  # as a child process does, which inherits the variable
    assert os.environ[VARIABLE] == before


def test_a_driver_that_is_known_is_not_added_again(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = library(machine / "opt", "libintelocl.so")
    (machine / "vendors" / "intel64.icd").write_text(f"{system}\n")
    monkeypatch.setattr(icd, "pip_drivers", lambda: [library(machine / "lib", "libintelocl.so.2026.1")])
    icd.make_visible()
    assert VARIABLE not in os.environ


def test_nvidia_without_an_entry(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = library(machine / "nvidia", "libnvidia-opencl.so.1")
    monkeypatch.setenv("LD_LIBRARY_PATH", f"/nowhere:{driver.parent}")
    icd.make_visible()
    assert entries() == {"omniop-libnvidia-opencl.icd": f"{driver}\n"}


def test_what_the_user_set_stays(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library(machine / "nvidia", "libnvidia-opencl.so.1")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(machine / "nvidia"))
    monkeypatch.setenv(VARIABLE, "/my/vendors")
    icd.make_visible()
    assert os.environ[VARIABLE] == "/my/vendors"


def test_an_inherited_folder_is_made_anew_when_drivers_changed(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(machine / "opencl-vendors" / "0123456789abcdef"))
    icd.make_visible()
    assert VARIABLE not in os.environ


# Writing the folder ---------------------------------------------------------------------------------------------------


def test_equal_entries_share_a_folder(tmp_path: Path) -> None:
    first = icd.publish({"a.icd": "/a.so"}, [tmp_path / "r"])
    assert icd.publish({"a.icd": "/a.so"}, [tmp_path / "r"]) == first
    assert icd.publish({"a.icd": "/b.so"}, [tmp_path / "r"]) != first
    assert len(list((tmp_path / "r").iterdir())) == 2


def test_a_folder_that_others_can_write_to_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    private = icd.publish({"a.icd": "/a.so"}, [tmp_path / "open", tmp_path / "private"])
    assert private is not None
    assert private.parent == tmp_path / "private"


def test_a_folder_with_other_contents_is_not_used(tmp_path: Path) -> None:
    folder = icd.publish({"a.icd": "/a.so"}, [tmp_path / "r"])
    assert folder is not None
    (folder / "b.icd").write_text("/evil.so\n")
    assert icd.publish({"a.icd": "/a.so"}, [tmp_path / "r"]) is None


def test_nowhere_to_write(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert icd.publish({"a.icd": "/a.so"}, [tmp_path / "file"]) is None


def test_many_write_at_once(tmp_path: Path) -> None:
    found: list[Path | None] = []
    threads = [
        threading.Thread(target=lambda: found.append(icd.publish({"a.icd": "/a.so"}, [tmp_path / "r"])))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert None not in found
    assert len(list((tmp_path / "r").iterdir())) == 1  # no temporary is left


def test_a_fresh_process_finds_a_device(device: object, tmp_path: Path) -> None:
    """The variable is set before pyopencl's loader reads it."""
    code = "from omniop.backends.opencl import BACKEND; print(BACKEND.devices()[0].name)"
    environment = {k: v for k, v in os.environ.items() if k != VARIABLE} | {"OMNIOP_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "opencl:0"
