"""The checks of level L0 as cases."""

from __future__ import annotations

from omniop.conformance.cases import Asked, DeviceCase
from omniop.conformance.prim.bench import Bench
from omniop.conformance.prim.table import catalogue
from omniop.conformance.strict import guard_of
from omniop.dispatcher.registry import registry


class PrimCase(DeviceCase):
    """A check by its name; each has sentinels behind every buffer."""

    def ask(self, device: str) -> Asked:
        guard = guard_of(registry().device(device))
        bench = Bench(guard)
        try:
            catalogue()[self.name].run(bench)
        finally:
            guard.forget()
        return Asked(bench.reason, bench.error)
