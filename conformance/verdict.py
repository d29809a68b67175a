"""What becomes of a case, and what is known of how it ran."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, get_args, runtime_checkable

Status = Literal["pass", "fail", "crash", "timeout", "unsupported", "unjudged", "xfail", "xpass", "unavailable"]
STATUSES: tuple[Status, ...] = get_args(Status)
"""``unsupported``: the device or omniop declined, and says why. ``unjudged``: nothing on this machine says what is
right, which is no fault of the device: an oracle or a network is not installed, or none knows the operator. ``xfail``:
it failed as the expectations say; ``xpass``: it passed against them. ``unavailable``: the device is not there."""

WRONG: frozenset[Status] = frozenset(("fail", "crash", "timeout", "xpass"))
"""Nobody expected these: a run that has one fails."""


@dataclass(frozen=True)
class Error:
    """The largest distance of an output from what was expected: absolute, relative, and in units in the last place."""

    absolute: float
    relative: float
    ulp: float


@dataclass(frozen=True)
class Node:
    """Where a node ran: its operator, the device (``host`` for a host step, ``-`` for no work at all), the route."""

    op: str
    device: str
    route: str


@dataclass(frozen=True)
class Facts:
    """How a case ran, as far as the engine tells.

    ``host``: operators that ran on the host by nature. ``fallbacks``: tensor operators that left the device, and why.
    ``tuned``: the tuned kernels that were reached, where the case is about them.
    """

    nodes: tuple[Node, ...] = ()
    host: tuple[str, ...] = ()
    fallbacks: tuple[str, ...] = ()
    tuned: tuple[str, ...] = ()


@runtime_checkable
class Telling(Protocol):
    """A prepared model that tells how it ran."""

    def facts(self) -> Facts: ...


@dataclass(frozen=True)
class Verdict:
    """What became of a case, why where it did not pass, and how long it took (load, compile and run).

    ``cpu_seconds`` are the process's own, which a busy machine does not stretch; 0 where the process did not answer.
    """

    status: Status
    reason: str = ""
    seconds: float = 0.0
    trace: str = ""
    error: Error | None = None
    facts: Facts = field(default_factory=Facts)
    cpu_seconds: float = 0.0


@dataclass(frozen=True)
class Result:
    """A verdict with the case that it is about."""

    name: str
    kind: str
    op: str
    dtypes: tuple[str, ...]
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        """A flat, JSON-ready record; what is empty is left out."""
        verdict = {key: value for key, value in asdict(self.verdict).items() if value not in ("", None)}
        facts = {key: value for key, value in verdict.pop("facts").items() if value}
        return {"name": self.name, "kind": self.kind, "op": self.op, "dtypes": list(self.dtypes), **verdict, **facts}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Result:
        """What `to_json` wrote. KeyError or TypeError where it is something else."""
        facts = Facts(
            tuple(Node(**node) for node in record.get("nodes", ())),
            tuple(record.get("host", ())),
            tuple(record.get("fallbacks", ())),
            tuple(record.get("tuned", ())),
        )
        error = Error(**record["error"]) if "error" in record else None
        if record["status"] not in STATUSES:
            raise KeyError(f"status {record['status']!r}")
        verdict = Verdict(
            record["status"],
            record.get("reason", ""),
            record["seconds"],
            record.get("trace", ""),
            error,
            facts,
            record["cpu_seconds"],
        )
        return cls(record["name"], record["kind"], record["op"], tuple(record["dtypes"]), verdict)
