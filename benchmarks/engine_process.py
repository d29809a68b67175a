"""An engine in a process of its own, held to so many CPUs: what it loads, compiles and caches there is its own."""

from __future__ import annotations

import multiprocessing
import os
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

Outputs = Mapping[str, np.ndarray]
Run = Callable[[], Outputs]
ONNXRUNTIME = "onnxruntime"


@dataclass(frozen=True)
class Loaded:
    """What came of loading a model and running it once; times in seconds, the last two from the same moment on."""

    ready: float
    """To import the engine and bring up the device. What the engine imports when it first loads a model is not here."""
    created: float
    """Until the session was made."""
    first: float
    """Until its first outputs."""
    outputs: dict[str, np.ndarray]


class EngineFailed(Exception):
    """What the engine said."""


class EngineProcess:
    """``engine`` is ``onnxruntime`` or a device of omniop's. A context manager; raises EngineFailed."""

    def __init__(self, engine: str, model: Path, feeds: Mapping[str, np.ndarray], threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(other, engine, model, feeds, threads), daemon=True)
        self._process.start()
        other.close()

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()  # its loop ends
        self._process.join()

    def loaded(self) -> Loaded:
        """Waits until the model is loaded and has run once."""
        return self._receive()

    def run(self, seconds: float) -> list[float]:
        """Seconds of each run, of as many as fit into ``seconds``; at least one."""
        self._connection.send(seconds)
        return self._receive()

    def _receive(self) -> Any:
        try:
            answer = self._connection.recv()
        except EOFError:
            raise EngineFailed("its process ended") from None
        if isinstance(answer, EngineFailed):
            raise answer
        return answer


def _serve(connection: Connection, engine: str, model: Path, feeds: dict[str, np.ndarray], threads: int) -> None:
    # Affinity holds every library's threads alike, those of OpenCL's runtime too.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    try:
        start = time.perf_counter()
        load = _onnxruntime(threads) if engine == ONNXRUNTIME else _omniop(engine, threads)
        ready, start = time.perf_counter() - start, time.perf_counter()
        run = load(model, feeds)
        created = time.perf_counter() - start
        outputs = run()
        connection.send(Loaded(ready, created, time.perf_counter() - start, dict(outputs)))
        while True:
            connection.send(_timed(run, connection.recv()))
    except (EOFError, BrokenPipeError):
        return
    except Exception as error:
        connection.send(EngineFailed("".join(traceback.format_exception_only(error)).strip()))


def _timed(run: Run, seconds: float) -> list[float]:
    times: list[float] = []
    while not times or sum(times) < seconds:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times


def _onnxruntime(threads: int) -> Callable[[Path, dict[str, np.ndarray]], Run]:
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)

    def load(model: Path, feeds: dict[str, np.ndarray]) -> Run:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return lambda: dict(zip(names, session.run(None, feeds), strict=True))

    return load


def _omniop(device: str, threads: int) -> Callable[[Path, dict[str, np.ndarray]], Run]:
    import omniop
    from omniop.dispatcher.registry import registry

    registry().device(device)  # tries it out with a small kernel, so that loading a model does not

    def load(model: Path, feeds: dict[str, np.ndarray]) -> Run:
        session = omniop.load(model, device=device, threads=threads, fallback="error")
        return lambda: session.run(feeds)

    return load
