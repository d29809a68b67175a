"""An engine in a process of its own, held to so many CPUs: what it loads, compiles and caches there is its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from omniop.dispatcher.precision import Precision

Outputs = Mapping[str, np.ndarray]
ONNXRUNTIME = "onnxruntime"
OPENVINO_F32 = "openvino-f32"
OPENVINO = "openvino"
OMNIOP = "cpu"
"""Its device of this name."""
OMNIOP_BF16 = "cpu, bf16"
"""The same, with operands of products rounded to bfloat16, as OpenVINO rounds them unasked."""
OMNIOP_ORT = "omniop.ort"


class Ready(NamedTuple):
    """A loaded model: ``run`` is what is timed, ``named`` takes its result."""

    run: Callable[[], Any]
    named: Callable[[Any], Outputs]


Load = Callable[[Path, dict[str, np.ndarray]], Ready]


class Timing(NamedTuple):
    """One run, in seconds: as a clock on the wall has it, and of the CPU, summed over the process's threads."""

    wall: float
    cpu: float


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
    peak: int
    """The most bytes of memory that the process had till then, files that it mapped included."""


class EngineFailed(Exception):
    """What the engine said."""


class EngineProcess:
    """``engine`` is of ENGINES, or a device of omniop's; ``environment`` adds to this process's. A context manager;
    raises EngineFailed.

    It stands still once it has answered, until it is asked again: threads of a pool that wait by spinning would take
    the CPUs from the engine whose turn comes next.
    """

    def __init__(
        self,
        engine: str,
        model: Path,
        feeds: Mapping[str, np.ndarray],
        threads: int,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        arguments = (other, engine, model, feeds, threads, dict(environment or {}))
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        other.close()

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()  # its loop ends
        self._signal(signal.SIGCONT)
        self._process.join()

    def loaded(self) -> Loaded:
        """Waits until the model is loaded and has run once."""
        return self._receive()

    def run(self, seconds: float) -> list[Timing]:
        """Of each run, of as many as fit into ``seconds``; at least one."""
        self._signal(signal.SIGCONT)
        self._connection.send(seconds)
        return self._receive()

    def _receive(self) -> Any:
        try:
            answer = self._connection.recv()
        except EOFError:
            raise EngineFailed("its process ended") from None
        if isinstance(answer, EngineFailed):
            raise answer
        self._stop()
        return answer

    def _stop(self) -> None:
        if (pid := self._signal(signal.SIGSTOP)) is not None:
            os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def _signal(self, number: signal.Signals) -> int | None:
        """Its process id; None when it has ended."""
        if (pid := self._process.pid) is None or not self._process.is_alive():
            return None
        os.kill(pid, number)
        return pid


def _serve(
    connection: Connection,
    engine: str,
    model: Path,
    feeds: dict[str, np.ndarray],
    threads: int,
    environment: dict[str, str],
) -> None:
    # Affinity holds every library's threads alike, those of OpenCL's runtime too.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    os.environ.update(environment)
    try:
        start = time.perf_counter()
        load = ENGINES[engine](threads) if engine in ENGINES else _omniop(engine, threads)
        ready, start = time.perf_counter() - start, time.perf_counter()
        loaded = load(model, feeds)
        created = time.perf_counter() - start
        result = loaded.run()
        first, peak = time.perf_counter() - start, _peak_memory()
        outputs = {name: np.array(value) for name, value in loaded.named(result).items()}
        connection.send(Loaded(ready, created, first, outputs, peak))
        while True:
            connection.send(_timed(loaded.run, connection.recv()))
    except (EOFError, BrokenPipeError):
        return
    except Exception as error:
        connection.send(EngineFailed("".join(traceback.format_exception_only(error)).strip()))


def _peak_memory() -> int:
    """Of this process; 0 where the system does not tell. The usual ``ru_maxrss`` would count the parent's."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def _timed(run: Callable[[], Any], seconds: float) -> list[Timing]:
    times: list[Timing] = []
    spent = 0.0
    while not times or spent < seconds:
        cpu, wall = time.process_time(), time.perf_counter()
        run()
        wall = time.perf_counter() - wall
        times.append(Timing(wall, time.process_time() - cpu))
        spent += wall
    return times


def _onnxruntime(threads: int) -> Load:
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)

    def load(model: Path, feeds: dict[str, np.ndarray]) -> Ready:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        return _called(onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]), feeds)

    return load


def _omniop_ort(threads: int) -> Load:
    from omniop import ort

    def load(model: Path, feeds: dict[str, np.ndarray]) -> Ready:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        return _called(ort.InferenceSession(model, options, providers=["cpu"]), feeds)

    return load


def _called(session: Any, feeds: dict[str, np.ndarray]) -> Ready:
    names = [output.name for output in session.get_outputs()]
    run = session.run
    return Ready(lambda: run(None, feeds), lambda values: dict(zip(names, values, strict=True)))


def _openvino(precision: str | None, threads: int) -> Load:
    import openvino

    core = openvino.Core()
    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    config["ENABLE_CPU_PINNING"] = False
    if precision is not None:
        config["INFERENCE_PRECISION_HINT"] = precision

    def load(model: Path, feeds: dict[str, np.ndarray]) -> Ready:
        compiled = core.compile_model(core.read_model(model), "CPU", config)
        request = compiled.create_infer_request()
        for value in compiled.inputs:
            name = next(iter(value.names & feeds.keys()))
            request.set_tensor(value, openvino.Tensor(feeds[name]))

        def outputs(_: object) -> Outputs:  # asked for after a run: before it, symbolic dims are 0
            return {name: request.get_tensor(value).data for value in compiled.outputs for name in value.names}

        return Ready(request.infer, outputs)

    return load


def _omniop(device: str, threads: int, precision: Precision | None = None) -> Load:
    import omniop
    from omniop.dispatcher.registry import registry

    registry().device(device)  # tries it out with a small kernel, so that loading a model does not

    def load(model: Path, feeds: dict[str, np.ndarray]) -> Ready:
        session = omniop.load(model, device=device, threads=threads, fallback="error", precision=precision)
        return Ready(lambda: session.run(feeds), lambda outputs: outputs)

    return load


ENGINES: Mapping[str, Callable[[int], Load]] = {
    ONNXRUNTIME: _onnxruntime,
    OPENVINO_F32: lambda threads: _openvino("f32", threads),
    OPENVINO: lambda threads: _openvino(None, threads),
    OMNIOP_ORT: _omniop_ort,
    OMNIOP_BF16: lambda threads: _omniop(OMNIOP, threads, "bf16"),
}
"""By the number of threads; all but omniop's devices."""
