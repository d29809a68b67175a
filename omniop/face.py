"""The public functions: load a model, list the devices."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omniop.backends.base import Fingerprint
from omniop.dispatcher.registry import registry
from omniop.dispatcher.session import Fallback, Session

if TYPE_CHECKING:
    import onnx

    from omniop.dispatcher.precision import Precision


@dataclass(frozen=True)
class DeviceInfo:
    """A device of this machine, or one that is registered and cannot be used (then ``problem`` says why)."""

    name: str
    description: str
    driver: str
    dtypes: tuple[str, ...]
    problem: str | None = None
    threads: int | None = None
    """How many of the host's a session uses that does not say so, on a device that is made of them."""

    @property
    def available(self) -> bool:
        """Whether it can be used."""
        return self.problem is None


def load(
    source: str | os.PathLike[str] | bytes | onnx.ModelProto,
    device: str | Sequence[str] = "cpu",
    *,
    threads: int | None = None,
    fallback: Fallback = "warn",
    exclude: Mapping[str, Collection[str]] | None = None,
    precision: Precision | None = None,
) -> Session:
    """Load a model onto a device.

    ``source``: a path, the bytes of a model, or a ModelProto. ``device``: a name of `devices`, or several in order of
    preference; each node runs on the first that can.
    ``threads``: how many of the machine's the cpu device uses for a run; by default as many as ``OMNIOP_NUM_THREADS``
    says, else one for each CPU that the process may use. Results do not depend on it.
    ``fallback``: what happens to a node that none of them can run: "warn" and "silent" give it to the cpu, "error"
    raises.
    ``exclude``: ops to keep off a device, as ``{"opencl": ["Softmax"]}``.
    ``precision``: "bf16" rounds operands of float32 products and convolutions to bfloat16, on devices that are faster
    so (a cpu with AVX512-BF16); sums, and all else, stay float32. `Session.explain` shows where.

    Raises ModelError, DeviceError.
    """
    return Session(source, device, threads=threads, fallback=fallback, exclude=exclude, precision=precision)


def _described(found: Fingerprint) -> str:
    """Vendor and name; most names begin with their vendor's."""
    known = found.name.casefold().startswith(found.vendor.casefold())
    return found.name if known else f"{found.vendor} {found.name}"


def devices(*, all: bool = False) -> list[DeviceInfo]:
    """The devices of this machine that passed their trial; with ``all``, also those that did not, and why."""
    found = [
        DeviceInfo(
            d.name,
            _described(d.fingerprint),
            d.fingerprint.driver,
            tuple(sorted(t.name for t in d.caps.compute)),
            threads=d.threads,
        )
        for d in registry().devices()
    ]
    if all:
        found += [DeviceInfo(p.name, "", "", (), p.reason) for p in registry().problems()]
    return found
