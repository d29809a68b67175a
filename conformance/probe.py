"""Whether a device is there, asked in a process of its own: what a driver does at its first kernel harms nobody."""

from __future__ import annotations

import signal
from multiprocessing.connection import Connection
from typing import NamedTuple

from omniop.conformance.pool import CONTEXT
from omniop.opset.errors import DeviceError

_SECONDS = 120.0


class Unavailable(Exception):
    """The device is not there, or does not work; the message says why."""


class Known(NamedTuple):
    """A device that is there: its full name and its fingerprint, and the tuned kernels of its table."""

    fingerprint: dict[str, str]
    kernels: tuple[str, ...] = ()


def probe(device: str) -> Known:
    """What is known of a device. Raises Unavailable."""
    ours, theirs = CONTEXT.Pipe()
    process = CONTEXT.Process(target=_answer, args=(theirs, device), daemon=True)
    process.start()
    theirs.close()
    try:
        found = ours.recv() if ours.poll(_SECONDS) else f"no answer in {_SECONDS:.0f} s"
    except EOFError:
        process.join()
        code = process.exitcode or 0
        found = (
            f"its process was killed by {signal.Signals(-code).name}" if code < 0 else f"its process left with {code}"
        )
    finally:
        process.kill()
        process.join()
    if isinstance(found, str):
        raise Unavailable(found)
    return found


def here(device: str) -> Known:
    """The same, asked in this process."""
    from omniop.conformance.tuned.twins import tuned_kernels
    from omniop.dispatcher.registry import registry

    try:
        found = registry().device(device)
    except DeviceError as error:
        raise Unavailable(str(error)) from None
    known = found.fingerprint
    kept = {"vendor": known.vendor, "hardware": known.name, "arch": known.arch, "driver": known.driver}
    return Known({"name": found.name, **kept}, tuple(tuned_kernels(found)))


def _answer(pipe: Connection, device: str) -> None:
    try:
        pipe.send(here(device))
    except Unavailable as reason:
        pipe.send(str(reason))
