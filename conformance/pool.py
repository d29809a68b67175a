"""Worker processes that judge cases one at a time, so that a crash or a hang costs one case.

The parent hands each idle worker a case over a pipe and watches the pipes: an answer is a verdict, an end of file is a
crash, and silence past the deadline is a timeout. What a worker prints, natively too, goes to a log of its own, and its
last words become the reason.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from omniop.conformance.cases import Case
from omniop.conformance.oracles import Engine
from omniop.conformance.runner import judge
from omniop.conformance.verdict import Verdict

RECYCLE = 400
"""Cases after which a worker is replaced, so that what leaks does not pile up."""

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["omniop.conformance.preload"])
_START_SECONDS = 120.0
_CRASH_SECONDS = 2.0
_STACK_SHARE = 0.9  # of the time limit, after which a hanging worker writes its stack


class Pool:
    """``jobs`` workers for one engine. Use it as a context manager: leaving it ends every worker."""

    def __init__(self, engine: Engine, jobs: int, timeout: float, recycle: int = RECYCLE) -> None:
        self._engine, self._jobs, self._timeout, self._recycle = engine, jobs, timeout, recycle
        self._folder = tempfile.TemporaryDirectory(prefix="omniop-conformance-")
        self._workers: list[_Worker] = []
        self._started = 0

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.kill()
        self._folder.cleanup()

    def run(self, cases: Sequence[Case]) -> Iterator[tuple[Case, Verdict]]:
        """Judge every case once; results come as they are ready. RuntimeError where a worker cannot even start."""
        todo = list(reversed(cases))
        self._workers = [self._start() for _ in range(min(self._jobs, len(cases)))]
        while self._workers:
            for worker in self._wait():
                verdict = worker.collect()
                if verdict:
                    yield worker.take_case(), verdict
                if not todo:
                    self._retire(worker)
                elif worker.dead or worker.judged >= self._recycle:
                    self._retire(worker)
                    self._workers.append(self._start())
                else:
                    worker.give(todo.pop(), self._timeout)

    def _wait(self) -> list[_Worker]:
        """The workers that have something to say, or that are past their deadline."""
        patience = min(worker.deadline for worker in self._workers) - time.monotonic()
        ready = wait([worker.pipe for worker in self._workers], max(patience, 0.0))
        now = time.monotonic()
        return [worker for worker in self._workers if worker.pipe in ready or worker.deadline <= now]

    def _start(self) -> _Worker:
        self._started += 1
        return _Worker(self._engine, Path(self._folder.name) / f"worker-{self._started}.log")

    def _retire(self, worker: _Worker) -> None:
        worker.kill()
        self._workers.remove(worker)


class _Worker:
    """One process, seen from the parent: what it works on, until when, and what it said."""

    def __init__(self, engine: Engine, log: Path) -> None:
        self.pipe, theirs = CONTEXT.Pipe()
        self._process = CONTEXT.Process(target=_serve, args=(theirs, engine, str(log)), daemon=True)
        self._process.start()
        theirs.close()
        self._log = log
        self._case: Case | None = None
        self._given = 0.0
        self._read = 0  # how much of the log belongs to earlier cases
        self.deadline = time.monotonic() + _START_SECONDS
        self.judged = 0
        self.dead = False

    def give(self, case: Case, timeout: float) -> None:
        """Hand over a case. The pipe may be broken already: collect() then finds the crash."""
        self._read = self._log.stat().st_size if self._log.exists() else 0
        self._case, self._given, self.deadline = case, time.monotonic(), time.monotonic() + timeout
        try:
            self.pipe.send((case, timeout * _STACK_SHARE))
        except OSError:
            self.deadline = self._given

    def take_case(self) -> Case:
        """The case that the last verdict is about."""
        assert self._case is not None
        case, self._case = self._case, None
        return case

    def collect(self) -> Verdict | None:
        """The verdict on the case in hand, or None where the worker only said that it has started."""
        seconds = time.monotonic() - self._given
        try:
            message = self.pipe.recv() if self.pipe.poll() else "late"
        except (EOFError, OSError):
            message = "crash"
        if isinstance(message, Verdict):
            self.judged += 1
            return message
        if message == "started":
            return None
        self.dead = True
        self.kill(_CRASH_SECONDS if message == "crash" else 0.0)
        if self._case is None:
            raise RuntimeError(f"a conformance worker did not start: {self._words() or 'no output'}")
        if message == "late":
            return Verdict(
                "timeout", f"no answer in {seconds:.0f} s{_colon(self._last_words())}", seconds, self._words()
            )
        return Verdict("crash", f"{self._exit()}{_colon(self._last_words())}", seconds, self._words())

    def kill(self, patience: float = 0.0) -> None:
        """End the process, whatever it is doing; ``patience`` lets one that is crashing write its stack first."""
        self._process.join(patience)
        self._process.kill()
        self._process.join()
        self.pipe.close()

    def _exit(self) -> str:
        code = self._process.exitcode or 0
        return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"

    def _words(self) -> str:
        if not self._log.exists():
            return ""
        with self._log.open("rb") as stream:
            stream.seek(self._read)
            return stream.read().decode(errors="replace").strip()

    def _last_words(self) -> str:
        """The innermost Python frame where there is a stack, else the last line."""
        lines = self._words().splitlines()
        stack = next((i for i, line in enumerate(lines) if "most recent call first" in line), None)
        if stack is not None and stack + 1 < len(lines):
            return lines[stack + 1].strip()
        return lines[-1].strip() if lines else ""


def _colon(text: str) -> str:
    return f": {text}" if text else ""


# -- in the worker ---------------------------------------------------------------------------------------------------


def _serve(pipe: Connection, engine: Engine, log: str) -> None:
    """Answer cases with verdicts until the parent hangs up."""
    with open(log, "ab", buffering=0) as stream:
        _redirect(stream)
        faulthandler.enable(stream)
        pipe.send("started")
        while (order := _receive(pipe)) is not None:
            case, patience = order
            faulthandler.dump_traceback_later(patience, file=stream)
            verdict = judge(case, engine)
            faulthandler.cancel_dump_traceback_later()
            pipe.send(verdict)


def _receive(pipe: Connection) -> Any:
    try:
        return pipe.recv()
    except EOFError:
        return None


def _redirect(stream: IO[bytes]) -> None:
    """Send standard output and error to the log, also of native code, and hear no Ctrl-C: the parent does."""
    sys.stdout.flush()
    sys.stderr.flush()
    for descriptor in (1, 2):
        os.dup2(stream.fileno(), descriptor)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
