"""How many threads there are: what environment, system and session say, and BLAS."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from one_node import model

import omniop
from omniop.backends.cpu import blas
from omniop.backends.cpu.team import cpus
from omniop.backends.cpu.team.cpus import VARIABLE, default_threads, quotas
from omniop.cli.show import placement_line, print_devices
from omniop.opset.errors import DeviceError
from omniop.terminal import console


def test_the_environment_says_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "3")
    assert default_threads() == 3


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_what_is_no_number_of_threads_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(DeviceError, match=f"{VARIABLE} is a number of threads, at least 1, not {text!r}"):
        default_threads()


@pytest.mark.parametrize(("quota", "threads"), [([], 64), ([100.0], 64), ([2.0], 2), ([8.0, 1.5], 2), ([0.1], 1)])
def test_a_quota_bounds_what_affinity_allows(quota: list[float], threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(cpus, "quotas", lambda: iter(quota))
    cpus._quota.cache_clear()
    assert default_threads() == threads
    cpus._quota.cache_clear()


@pytest.mark.parametrize(
    ("groups", "files", "found"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, [2.0]),
        ("0::/\n", {"cpu.max": "max 100000\n"}, []),
        ("0::/outer/inner\n", {"outer/cpu.max": "50000 100000", "outer/inner/cpu.max": "max 100000"}, [0.5]),
        ("0::/docker/elsewhere\n", {"cpu.max": "400000 100000"}, [4.0]),
        (
            "4:memory:/box\n3:cpu,cpuacct:/box\n0::/\n",
            {"cpu/box/cpu.cfs_quota_us": "300000", "cpu/box/cpu.cfs_period_us": "100000"},
            [3.0],
        ),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, []),
        ("0::/\n", {"cpu.max": "nonsense"}, []),
    ],
    ids=["version 2", "no quota", "nested", "a container", "version 1", "version 1, no quota", "broken"],
)
def test_quotas_of_control_groups(groups: str, files: Mapping[str, str], found: list[float], tmp_path: Path) -> None:
    (tmp_path / "groups").write_text(groups)
    for name, text in files.items():
        (tmp_path / "fs" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "fs" / name).write_text(text)
    assert list(quotas(tmp_path / "groups", tmp_path / "fs")) == found


def test_a_system_without_control_groups(tmp_path: Path) -> None:
    assert list(quotas(tmp_path / "none", tmp_path)) == []


def test_people_are_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv(VARIABLE, "5")
    (cpu,) = (d for d in omniop.devices() if d.name == "cpu")
    assert cpu.threads == 5
    print_devices([cpu], console())
    assert ", 5 threads " in capsys.readouterr().out
    x = np.ones(4, np.float32)
    for threads, told in ((None, 5), (3, 3)):
        session = omniop.load(model("Relu", {"x": x}), threads=threads)
        session.run({"x": x})
        assert session.explain().threads == {"cpu": told}
        assert str(session.explain()).startswith(f"devices: cpu ({told} threads)\n")
        assert f"on {told} threads" in placement_line(session.explain())


class Library:
    """One of BLAS's."""

    def __init__(self) -> None:
        self.num_threads = 8

    def set_num_threads(self, count: int) -> None:
        self.num_threads = count


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    found = Library()
    monkeypatch.setattr(blas, "_libraries", lambda: [found])
    return found


def test_blas_has_its_threads_again(library: Library) -> None:
    with blas.limited(3):
        assert library.num_threads == 3
    assert library.num_threads == 8


def test_blas_has_its_threads_again_when_the_last_run_has_ended(library: Library) -> None:
    """Two runs at once that overlap, the first one ending first."""
    inside, go = threading.Event(), threading.Event()

    def other() -> None:
        with blas.limited(1):
            inside.set()
            go.wait(10)

    thread = threading.Thread(target=other)
    with blas.limited(2):
        thread.start()
        assert inside.wait(10)
        assert library.num_threads == 2
    assert library.num_threads == 2
    go.set()
    thread.join()
    assert library.num_threads == 8


def test_this_machines_blas() -> None:
    before = [x.num_threads for x in blas._libraries()]
    with blas.limited(1):
        assert {x.num_threads for x in blas._libraries()} == {1}
    assert [x.num_threads for x in blas._libraries()] == before
