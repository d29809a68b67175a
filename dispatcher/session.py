"""A session: one loaded model on its devices."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from omniop.backends.base import Device
from omniop.backends.compile_cache import cache_root
from omniop.dispatcher.decision import Decision
from omniop.dispatcher.execute import Env, GraphRunner, Options
from omniop.dispatcher.express import MAX_KEPT, Express, Signature, express, signature
from omniop.dispatcher.feeds import Sizes, dims_text, feed
from omniop.dispatcher.graph import Value
from omniop.dispatcher.model import Model
from omniop.dispatcher.plan_store import PlanStore
from omniop.dispatcher.program import RunReport
from omniop.dispatcher.registry import Registry, registry
from omniop.dispatcher.values import DeviceTensor, RuntimeValue
from omniop.dispatcher.weights import Weights
from omniop.opset.errors import DeviceError, FeedError

if TYPE_CHECKING:
    import onnx

    from omniop.dispatcher.precision import Precision
    from omniop.dispatcher.report import Explanation
    from omniop.opset.importer import ImportedModel
    from omniop.opset.rewrite import Applied

Fallback = Literal["warn", "error", "silent"]


class FallbackWarning(UserWarning):
    """Part of a run left the session's device."""


@dataclass(frozen=True)
class ValueInfo:
    """An input or output as the model declares it. Dims are ints, names, or None."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None

    def __str__(self) -> str:
        return f"{self.name!r} ({self.dtype} {dims_text(self.shape)})"


class Session:
    """A loaded model. `run` may be called from several threads at once.

    Build one with `omniop.load`.
    """

    def __init__(
        self,
        source: str | os.PathLike[str] | bytes | onnx.ModelProto,
        device: str | Sequence[str] = "cpu",
        *,
        threads: int | None = None,
        fallback: Fallback = "warn",
        exclude: Mapping[str, Collection[str]] | None = None,
        precision: Precision | None = None,
        devices: Registry | None = None,
    ) -> None:
        """See `omniop.load`."""
        if fallback not in ("warn", "error", "silent"):
            raise DeviceError(f"fallback is 'warn', 'error' or 'silent', not {fallback!r}")
        if threads is not None and threads < 1:
            raise DeviceError(f"threads is at least 1, not {threads}")
        found = devices or registry()
        names = [device] if isinstance(device, str) else list(device)
        if not names:
            raise DeviceError("a session needs at least one device")
        self.devices: list[Device] = list(dict.fromkeys(found.device(n) for n in names))
        self.fallback = fallback
        self.threads = threads
        for name in exclude or ():
            if not found.knows(name.split(":")[0]):
                raise DeviceError(f"exclude: there is no device {name!r}; there are: {', '.join(found.names())}")
        self._allowed = list(self.devices)
        if fallback != "error":
            self._allowed += [d for d in _spare(found) if d not in self.devices]
        if precision is not None:
            _check_precision(precision, self.devices)
        self.precision = precision
        self._options = Options(self._allowed, exclude or {}, Weights(), threads, precision)
        self._plans = _store(source, self._options)
        self.runner = (self._plans and self._plans.load()) or self._fresh(source)
        self.model = self.runner.model
        self.model.load = partial(_imported, source)
        self._inputs = {v.name: v for v in self.model.graph.inputs}
        self._warned: set[int] = set()
        self._told = 0
        self._express: dict[Signature, Express] = {}
        self._latest: Express | None = None
        """That of the last feeds: others are looked for when it does not take them."""
        self._output_names = [v.name for v in self.model.graph.outputs]
        self.last_report = RunReport()

    def __repr__(self) -> str:
        given, made = (", ".join(map(str, values)) for values in (self.inputs, self.outputs))
        return f"<omniop.Session on {', '.join(d.name for d in self.devices)}: {given} -> {made}>"

    def _fresh(self, source: Any) -> GraphRunner:
        model = Model(partial(_imported, source))
        return GraphRunner(model, model.graph, self._options)

    @property
    def inputs(self) -> list[ValueInfo]:
        """Inputs that a run has to feed."""
        return [_info(v) for v in self._inputs.values() if not v.constant]

    @property
    def outputs(self) -> list[ValueInfo]:
        """What a run gives."""
        return [_info(v) for v in self.model.graph.outputs]

    def run(self, feeds: Mapping[str, Any], outputs: Sequence[str] | None = None) -> dict[str, Any]:
        """Run the model.

        ``feeds``: an array per required input, or what holds one (`omniop.dispatcher.feeds`: numpy, DLPack, buffers,
        lists of numbers); a list of arrays for a sequence, None for an empty optional. They are borrowed until the run
        ends. ``outputs``: names of the outputs wanted; all by default. Gives arrays that are the caller's own.

        Raises FeedError for feeds that do not fit, ExecutionError for bad data met on the way, PlacementError when no
        allowed device can run a node, DeviceError when there is not enough memory. The session can be used again after
        any of them.
        """
        if outputs is None and (values := self.direct(feeds)) is not None:
            return dict(zip(self._output_names, values, strict=True))
        if not isinstance(feeds, Mapping):
            raise FeedError(f"feeds are a dict, an array for each input by its name, and not a {type(feeds).__name__}")
        kind = signature(feeds)
        short = self._express.get(kind) if kind is not None else None
        if short is not None:
            self._latest = short
            values = short.direct(feeds)
            quick = short(feeds) if values is None else dict(zip(self._output_names, values, strict=True))
            if quick is not None and (outputs is None or all(name in quick for name in outputs)):
                self.last_report = short.report
                return quick if outputs is None else {name: quick[name] for name in outputs}
        env = self._env(feeds)
        names = self._output_names
        wanted = names if outputs is None else list(outputs)
        for name in wanted:
            if name not in names:
                raise FeedError(f"the model has no output {name!r}; it has: {', '.join(names)}")
        report = RunReport()
        with _host_memory():
            values = self.runner.run(env, report)
        self.last_report = report
        self._tell()
        if self._plans is not None and self._plans.kept != self._options.templates_made:
            self._plans.save(self.runner)
        if kind is not None and (made := express(report, self.model.graph, self.model.labels, self._inputs, kind)):
            if len(self._express) >= MAX_KEPT:
                self._express.clear()
            self._express[kind] = made
        found = dict(zip(names, values, strict=True))
        lent: set[int] = set()
        with _host_memory():
            return {name: _own(found[name], lent) for name in wanted}

    def direct(self, feeds: Mapping[str, Any]) -> list[np.ndarray] | None:
        """All outputs, in the model's order, as `run` gives them; None when it takes more than the shortest way."""
        latest = self._latest
        values = None if latest is None else latest.direct(feeds)
        if latest is not None and values is not None:
            self.last_report = latest.report
        return values

    def explain(self) -> Explanation:
        """Where each node runs and why, kernels, copies and memory, of every template made so far."""
        from omniop.dispatcher.report import explain

        return explain(self)

    def _env(self, feeds: Mapping[str, Any]) -> Env:
        for name in feeds:
            if name not in self._inputs:
                known = ", ".join(self._inputs) or "none"
                raise FeedError(f"the model has no input {name!r}; it has: {known}")
        env: Env = {}
        sizes: Sizes = {}
        for name, v in self._inputs.items():
            if name in feeds:
                env[v] = feed(v, feeds[name], sizes)
            elif not v.constant:
                missing = [str(i) for i in self.inputs if i.name not in feeds]
                raise FeedError(f"missing feed{'s' if len(missing) > 1 else ''}: {', '.join(missing)}")
        return env

    def _tell(self) -> None:
        if self.fallback != "warn" or self._options.templates_made == self._told:
            return
        self._told = self._options.templates_made
        fallen = [d for d in self.runner.decisions().values() if self._fallen(d)]
        new = [d for d in fallen if d.origin not in self._warned]
        if not new:
            return
        self._warned.update(d.origin for d in new)
        first = new[0]
        reason = next((f"{who}: {why}" for who, why in first.rejected), "")
        more = f" and {len(new) - 1} more" if len(new) > 1 else ""
        warnings.warn(
            f"{first.label}{more} ran on {first.device}, not on {self.devices[0].name} ({reason}); "
            f"{self.last_report.copied_bytes} bytes were copied between devices in this run. "
            "explain() lists every node.",
            FallbackWarning,
            stacklevel=3,
        )

    def _fallen(self, decision: Decision) -> bool:
        return decision.device not in ("-", "host") and all(decision.device != d.name for d in self.devices)


def _imported(source: Any) -> tuple[ImportedModel, list[Applied]]:
    from omniop.opset.importer import import_model
    from omniop.opset.rewrite import rewrite

    imported = import_model(source)
    return imported, rewrite(imported)


def _store(source: Any, options: Options) -> PlanStore | None:
    """Where the plans of a model in a file or in bytes are kept."""
    if not isinstance(source, str | os.PathLike | bytes) or cache_root() is None:
        return None
    try:
        return PlanStore(source, options)
    except (OSError, ValueError):  # ValueError: an empty file
        return None  # the import says what is wrong with the file


def _check_precision(precision: str, devices: Sequence[Device]) -> None:
    """Raises DeviceError when none of the devices has it."""
    from omniop.dispatcher.precision import OPERANDS

    if precision not in OPERANDS:
        raise DeviceError(f"precision is {' or '.join(map(repr, OPERANDS))}, or left out, not {precision!r}")
    if not any(precision in device.precisions for device in devices):
        names = ", ".join(device.name for device in devices)
        raise DeviceError(f"precision={precision!r}: {names} has no products of that; left out, they are of float32")


@contextmanager
def _host_memory() -> Iterator[None]:
    """numpy says how many bytes it did not get, and for what array."""
    try:
        yield
    except MemoryError as error:
        raise DeviceError(f"the host has no memory left: {error}") from error


def _spare(found: Registry) -> list[Device]:
    """Where nodes go that the session's devices refuse."""
    return found.devices("cpu") if found.knows("cpu") else found.devices("reference")


def _info(v: Value) -> ValueInfo:
    dtype = v.type.dtype if v.type is not None else None
    return ValueInfo(v.name, "unknown" if dtype is None else dtype.name, None if v.type is None else v.type.dims)


def _own(value: RuntimeValue, lent: set[int]) -> Any:
    """The value on the host, in arrays that nobody else holds: a feed or a constant may be an output as it is.

    ``lent``: buffers that an output has for itself.
    """
    if isinstance(value, DeviceTensor):
        if value.fresh and id(value.buffer) not in lent:
            array = value.device.lend(value.buffer, value.shape, value.dtype)
            if array is not None:
                lent.add(id(value.buffer))
                return array
        return value.numpy()
    if isinstance(value, list):
        return [_own(v, lent) for v in value]
    return value.copy() if isinstance(value, np.ndarray) else value
