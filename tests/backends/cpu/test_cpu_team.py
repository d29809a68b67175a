"""The worker team: whatever the number of threads, and whoever else wants it, a program gives the same."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from omniop.backends.base import Launched, LaunchError
from omniop.backends.codegen.llvm_ir import Module
from omniop.backends.cpu import BACKEND, jit, program, recording
from omniop.backends.cpu.memory import HostBuffer, Scratch
from omniop.backends.cpu.program import RecordedWork
from omniop.backends.cpu.recording import Context, Record, Recording, shares, tasks_of
from omniop.backends.cpu.sequence import sequence
from omniop.backends.cpu.team import workers
from omniop.backends.cpu.team.code import available
from omniop.backends.cpu.team.cpus import VARIABLE
from omniop.backends.cpu.team.workers import Team, team

pytestmark = pytest.mark.skipif(not available(), reason="workers cannot sleep on this system")


@pytest.fixture(autouse=True)
def _tiny_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every point is worth a task."""
    monkeypatch.setattr(recording, "TASK", 0.0)


COUNT = """
define i64 @count(ptr %buffers, ptr %context, i64 %begin, i64 %end, ptr %scratch) {
entry:
  %out = load ptr, ptr %buffers
  %turns = load i64, ptr %context
  br label %point

point:
  %k = phi i64 [ %begin, %entry ], [ %k.next, %store ]
  %more = icmp slt i64 %k, %end
  br i1 %more, label %work, label %done

work:
  %turn = phi i64 [ 0, %point ], [ %turn.next, %work ]
  %found = load volatile i64, ptr %scratch
  store volatile i64 %k, ptr %scratch
  %turn.next = add i64 %turn, 1
  %again = icmp slt i64 %turn.next, %turns
  br i1 %again, label %work, label %store

store:
  %mine = load volatile i64, ptr %scratch
  %place = getelementptr i64, ptr %out, i64 %k
  %old = load i64, ptr %place
  %new = add i64 %old, %mine
  store i64 %new, ptr %place
  %k.next = add i64 %k, 1
  br label %point

done:
  ret i64 0
}
"""
"""Adds each point's number to its element, by way of scratch memory, which is written so many times before."""


def print_count(module: Module) -> None:
    module.functions["count"] = COUNT


class Counter(RecordedWork):
    """``out[k] += k`` for k below the first size; ``turns`` of work for each."""

    def __init__(self, turns: int = 1, scratch: int = 8, workspace: int = 0) -> None:
        super().__init__()
        self._code = jit.build_printed("count", print_count)
        self._turns = turns
        self._scratch, self._workspace = scratch, workspace

    def record(self, sizes: tuple[int, ...]) -> Recording:
        record = Record(self._code, Context(np.array([self._turns])), sizes[0], scratch=self._scratch)
        return Recording((record,), self._workspace)


def zeros(points: int) -> HostBuffer:
    buffer = HostBuffer(8 * points)
    buffer.bytes[:] = 0
    return buffer


def numbers(buffer: HostBuffer) -> np.ndarray:
    return buffer.bytes.view(np.int64)


def counted(points: int, launches: int, threads: int, turns: int = 1) -> None:
    """So many launches, one after another."""
    work, table = Counter(turns), [zeros(points)]
    sequence([Launched(work, (0,), (points,))] * launches, threads)(table)
    np.testing.assert_array_equal(numbers(table[0]), launches * np.arange(points))


@pytest.mark.parametrize("threads", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("points", [1, 2, 3, 5, 64, 1001])
def test_every_point_runs_once(points: int, threads: int) -> None:
    counted(points, 40, threads)


def test_scratch_memory_is_a_threads_own() -> None:
    counted(200, 3, 4, turns=3000)


def test_tasks_are_enough_for_all_threads_and_no_smaller_than_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "TASK", 1000.0)

    code, context = jit.build_printed("count", print_count), Context(np.zeros(1, np.int64))

    def record(points: int, weight: float, grain: int = 1) -> Record:
        return Record(code, context, points, grain, weight)

    assert tasks_of(record(100, 10.0), 1) == (100, 1)
    assert tasks_of(record(100, 10.0), 8) == (100, 1)  # a microsecond in all
    assert tasks_of(record(100, 100.0), 8) == (10, 10)
    assert tasks_of(record(6, 1e6), 64) == (1, 6)
    assert tasks_of(record(18, 1e6), 2) == (1, 18)  # nine for each
    assert tasks_of(record(43, 1e6), 2) == (3, 15)  # 21 and 22
    assert tasks_of(record(1 << 20, 1e3), 64) == (1 << 12, 256)
    for threads in (2, 3, 64, 200):
        for points in (1, 7, 33, 1000, 12345):
            for grain in (1, 16, 48):
                chunk, tasks = tasks_of(record(points, 1e6, grain), threads)
                assert (tasks - 1) * chunk < points <= tasks * chunk
                assert tasks == 1 or chunk % grain == 0


@pytest.mark.parametrize(
    ("threads", "units", "most", "times", "pieces"),
    [(1, 16, 5, 1, 4), (2, 16, 6, 1, 4), (2, 9, 3, 1, 5), (2, 9, 3, 6, 3), (16, 16, 5, 1, 16), (64, 7, 7, 4, 7)],
)
def test_threads_have_equal_shares(
    threads: int, units: int, most: int, times: int, pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(threads))
    assert shares(units, most, times) == pieces


def test_serial_kernels_and_their_neighbours_are_in_order() -> None:
    """A launch on several threads sees all of the one before it, and the next one all of it."""
    work, table = Counter(), [zeros(37), zeros(3)]
    launches = [Launched(work, (k % 2,), (37 if k % 2 == 0 else 3,)) for k in range(50)]
    sequence(launches, 3)(table)
    np.testing.assert_array_equal(numbers(table[0]), 25 * np.arange(37))
    np.testing.assert_array_equal(numbers(table[1]), 25 * np.arange(3))


# Those who want the team ----------------------------------------------------------------------------------------------


def test_many_python_threads_at_once() -> None:
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(counted, 50 + k, 30, 1 + k % 4, 50) for k in range(40)]:
            done.result(60)


def test_one_program_in_another_threads_time() -> None:
    """Whoever finds the team in use runs alone, and waits for nobody."""
    long = threading.Thread(target=counted, args=(64, 1, 2, 20_000_000))
    long.start()
    for _ in range(20):
        counted(64, 1, 2)
    assert long.is_alive()
    long.join()


def test_teams_of_other_sizes_take_turns() -> None:
    for threads in (4, 2, 3, 1, 2, 4) * 10:
        counted(97, 5, threads)
    assert team().gather(2) == 2


def test_more_threads_than_cpus() -> None:
    counted(300, 300, 4 * (os.cpu_count() or 1))


def test_sleepers_wake_up() -> None:
    for _ in range(5):
        counted(64, 3, 4, turns=100)
        time.sleep(0.01)


def test_workers_that_have_nothing_to_do_cost_nothing() -> None:
    counted(64, 3, 4)
    time.sleep(0.05)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.05


def test_a_calm_team_does_not_watch_for_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_team", Team())
    spent: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(40):
        for calm in spent:
            team().calm = calm
            counted(64, 1, 3)
            before = time.process_time()
            time.sleep(0.005)
            spent[calm].append(time.process_time() - before)
    assert statistics.median(spent[True]) < statistics.median(spent[False]) / 2
    team().calm = False
    BACKEND.devices()[0].keep_calm()
    assert team().calm
    counted(1001, 40, 3)
    watched = workers._renew()
    assert team().calm  # a fork's, too
    watched.dismiss(5)
    team().dismiss(5)


# Memory ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """For who wants a megabyte of scratch."""

    def refuse(self: HostBuffer, nbytes: int) -> None:
        if nbytes >= 1 << 20:
            raise MemoryError("no more")
        made(self, nbytes)

    made = HostBuffer.__init__
    monkeypatch.setattr(program, "_SCRATCH", Scratch())
    monkeypatch.setattr(HostBuffer, "__init__", refuse)


@pytest.mark.usefixtures("no_memory")
@pytest.mark.parametrize("greedy", [Counter(scratch=1 << 20), Counter(workspace=1 << 20)], ids=["own", "shared"])
def test_memory_that_runs_out_names_the_launch(greedy: Counter) -> None:
    launches = [Launched(Counter(), (0,), (4,)), Launched(greedy, (0,), (4,)), Launched(Counter(), (0,), (4,))]
    with pytest.raises(LaunchError, match="no more") as caught:
        sequence(launches, 2)([zeros(4)])
    assert caught.value.position == 1


@pytest.mark.usefixtures("no_memory")
def test_memory_that_workers_do_not_get_names_the_launch() -> None:
    greedy = Counter(scratch=300_000)  # a caller gets it, and four workers do not
    launches = [Launched(Counter(), (0,), (8,)), Launched(greedy, (0,), (8,))]
    with pytest.raises(LaunchError, match="no more") as caught:
        sequence(launches, 5)([zeros(8)])
    assert caught.value.position == 1


def test_called_work_is_told_its_place_behind_programs() -> None:
    def greedy(buffers: Sequence[HostBuffer], sizes: Sequence[int]) -> None:
        raise MemoryError("no more")

    launches = [Launched(Counter(), (0,), (4,)), Launched(greedy, (0,), ())]
    with pytest.raises(LaunchError, match="no more") as caught:
        sequence(launches, 2)([zeros(4)])
    assert caught.value.position == 1


# The process ----------------------------------------------------------------------------------------------------------


def alone(text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The text run in a process of its own, behind the definitions of this module."""
    prelude = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\nfrom test_cpu_team import *\n"
    prelude += "recording.TASK = 0.0\n"
    command = [sys.executable, "-c", prelude + text]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **environment})


@pytest.mark.parametrize(
    "text",
    [
        "counted(64, 10, 4)",
        "counted(64, 10, 4); time.sleep(0.1)",
        "threading.Thread(target=counted, args=(64, 1, 4, 50_000_000), daemon=True).start(); time.sleep(0.05)",
        "threading.Thread(target=counted, args=(64, 1, 4, 10_000_000)).start(); time.sleep(0.05)",
        "import atexit; atexit.register(counted, 64, 10, 4); counted(64, 10, 4)",
    ],
    ids=["at work", "asleep", "a daemon at work", "a thread at work", "a program after the end"],
)
def test_a_process_ends(text: str) -> None:
    done = alone(text)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_fork_of_a_process_with_workers() -> None:
    """It has one thread while it forks; parent and child have a team of their own afterwards."""
    done = alone(
        "counted(64, 10, 3)\n"
        "assert threading.active_count() == 3\n"
        "child = os.fork()\n"
        "assert threading.active_count() == 1\n"
        "counted(64, 10, 3)\n"
        "if child == 0:\n"
        "    os._exit(threading.active_count())\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), threading.active_count())\n"
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "3 3", "")


def test_a_fork_while_the_team_is_at_work() -> None:
    done = alone(
        "counted(64, 10, 3)\n"
        "working = threading.Thread(target=counted, args=(64, 1, 3, 20_000_000))\n"
        "working.start()\n"
        "time.sleep(0.02)\n"
        "child = os.fork()\n"
        "counted(64, 10, 3)\n"
        "if child == 0:\n"
        "    os._exit(0)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "working.join()\n"
    )
    assert (done.returncode, done.stdout.strip()) == (0, "0")


def test_threads_that_cannot_be_started_are_not_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[threading.Thread] = []

    def start(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    few = Team()
    assert (few.gather(4), few.gather(4), few.gather(2)) == (2, 2, 2)
