"""A session: one loaded model on its devices."""

from __future__ import annotations

import os
import warnings
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import onnx
import onnx_ir as ir
from threadpoolctl import threadpool_limits

from omniop.backends.base import Device
from omniop.dispatcher.execute import Env, GraphRunner, Options, RunReport
from omniop.dispatcher.graph import GraphContext, Labels
from omniop.dispatcher.placement import Decision
from omniop.dispatcher.registry import Registry, registry
from omniop.dispatcher.report import Explanation, decisions_of, explain
from omniop.dispatcher.values import to_host
from omniop.dispatcher.weights import Weights
from omniop.opset import dtype as dtypes
from omniop.opset.errors import DeviceError, FeedError
from omniop.opset.importer import import_model
from omniop.opset.rewrite import rewrite

Fallback = Literal["warn", "error", "silent"]


class FallbackWarning(UserWarning):
    """Part of a run left the session's device."""


@dataclass(frozen=True)
class ValueInfo:
    """An input or output as the model declares it. Dims are ints, names, or None."""

    name: str
    dtype: str
    shape: tuple[int | str | None, ...] | None


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
        devices: Registry | None = None,
    ) -> None:
        """See `omniop.load`."""
        if fallback not in ("warn", "error", "silent"):
            raise FeedError(f"fallback is 'warn', 'error' or 'silent', not {fallback!r}")
        if threads is not None and threads < 1:
            raise DeviceError(f"threads is at least 1, not {threads}")
        found = devices or registry()
        names = [device] if isinstance(device, str) else list(device)
        if not names:
            raise DeviceError("a session needs at least one device")
        self.devices: list[Device] = list(dict.fromkeys(found.device(n) for n in names))
        self.fallback = fallback
        self.threads = threads
        self.model = import_model(source)
        self.rewrites = rewrite(self.model)
        self._allowed = list(self.devices)
        if fallback != "error":
            self._allowed += [d for d in _spare(found) if d not in self.devices]
        self.model_labels = Labels()
        self._options = Options(self._allowed, exclude or {}, Weights(), self.model_labels)
        context = GraphContext(self.model, self.model.graph, self.model_labels)
        self.runner = GraphRunner(self.model, self.model.graph, self._options, context)
        self._inputs = {v.name or "": v for v in self.model.graph.inputs}
        self.runner.declared = {v: _dims(v) for v in self._inputs.values()}
        self._warned: set[int] = set()
        self._told = 0
        self.last_report = RunReport()

    @property
    def inputs(self) -> list[ValueInfo]:
        """Inputs that a run has to feed."""
        return [_info(v) for v in self.model.required_inputs]

    @property
    def outputs(self) -> list[ValueInfo]:
        return [_info(v) for v in self.model.graph.outputs]

    def run(self, feeds: Mapping[str, Any], outputs: Sequence[str] | None = None) -> dict[str, Any]:
        """Run the model.

        ``feeds``: an array per required input (anything numpy can take; a list of arrays for a sequence, None for an
        empty optional). ``outputs``: names of the outputs wanted; all by default. Gives arrays that are the caller's
        own.

        Raises FeedError for feeds that do not fit, ExecutionError for bad data met on the way, PlacementError when no
        allowed device can run a node.
        """
        env = self._env(feeds)
        report = RunReport()
        with _limited(self.threads):
            values = self.runner.run(env, report)
        self.last_report = report
        self._tell()
        names = [v.name or "" for v in self.model.graph.outputs]
        wanted = names if outputs is None else list(outputs)
        for name in wanted:
            if name not in names:
                raise FeedError(f"the model has no output {name!r}; it has: {', '.join(names)}")
        found = dict(zip(names, values, strict=True))
        return {name: _own(to_host(found[name])) for name in wanted}

    def explain(self) -> Explanation:
        """Where each node runs and why, kernels, copies and memory, of every template made so far."""
        return explain(self)

    def _env(self, feeds: Mapping[str, Any]) -> Env:
        for name in feeds:
            if name not in self._inputs:
                known = ", ".join(self._inputs) or "none"
                raise FeedError(f"the model has no input {name!r}; it has: {known}")
        env: Env = {}
        sizes: dict[str, tuple[int, str]] = {}
        for name, v in self._inputs.items():
            if name in feeds:
                env[v] = _feed(v, feeds[name], sizes)
            elif v.const_value is None:
                missing = [i.name for i in self.inputs if i.name not in feeds]
                raise FeedError(f"missing feed{'s' if len(missing) > 1 else ''}: {', '.join(map(repr, missing))}")
        return env

    def _tell(self) -> None:
        if self.fallback != "warn" or self._options.templates_made == self._told:
            return
        self._told = self._options.templates_made
        fallen = [d for d in decisions_of(self.runner).values() if self._fallen(d)]
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


def _limited(threads: int | None) -> AbstractContextManager[object]:
    """BLAS held to ``threads`` threads; kernels of our own run on the calling thread."""
    return nullcontext() if threads is None else threadpool_limits(threads)


def _spare(found: Registry) -> list[Device]:
    """Where nodes go that the session's devices refuse."""
    return found.devices("cpu") if "cpu" in found.names() else found.devices("reference")


def _dims(v: ir.Value) -> list[object]:
    if v.shape is None:
        return []
    return [
        d if isinstance(d, int) and d >= 0 else (_dim_name(d.value) if isinstance(d, ir.SymbolicDim) else None)
        for d in v.shape
    ]


def _dim_name(name: str | None) -> str | None:
    """A dim's name; exporters write "?" for a dim that has none."""
    return None if name is None or not name.strip("?") else name


def _info(v: ir.Value) -> ValueInfo:
    dtype = dtypes.of_onnx(int(v.dtype)).name if v.dtype is not None and int(v.dtype) else "unknown"
    shape = None if v.shape is None else tuple(_dims(v))
    return ValueInfo(v.name or "", dtype, shape)  # type: ignore[arg-type]


def _feed(v: ir.Value, value: Any, sizes: dict[str, tuple[int, str]]) -> Any:
    """A feed checked against the declared type: dtype, rank, fixed dims, dims that share a name."""
    if value is None or (isinstance(value, list) and isinstance(v.type, ir.SequenceType | ir.OptionalType)):
        return value
    array = np.asarray(value)
    if array.dtype.kind in "UST":
        array = array.astype(object)
    try:
        dtype = dtypes.of_numpy(array.dtype)
    except KeyError:
        raise FeedError(f"input {v.name!r}: numpy dtype {array.dtype} has no counterpart in ONNX") from None
    wanted = dtypes.of_onnx(int(v.dtype)) if v.dtype is not None and int(v.dtype) else None
    if wanted is not None and dtype is not wanted:
        raise FeedError(f"input {v.name!r}: {wanted} is needed, the feed is {dtype}; convert it with astype")
    if v.shape is None:
        return array
    dims = _dims(v)
    if len(dims) != array.ndim:
        raise FeedError(
            f"input {v.name!r}: rank {len(dims)} is needed ({_shape(dims)}), the feed has {list(array.shape)}"
        )
    for axis, (declared, extent) in enumerate(zip(dims, array.shape, strict=True)):
        if isinstance(declared, int) and declared != extent:
            raise FeedError(
                f"input {v.name!r}: shape {_shape(dims)} is needed, the feed has {list(array.shape)} (axis {axis})"
            )
        if isinstance(declared, str):
            known, who = sizes.setdefault(declared, (extent, v.name or ""))
            if known != extent:
                raise FeedError(f"input {v.name!r}: dim {declared!r} is {extent}, but {who!r} makes it {known}")
    return array


def _shape(dims: Sequence[object]) -> str:
    return "[" + ", ".join("?" if d is None else str(d) for d in dims) + "]"


def _own(value: Any) -> Any:
    """An array nobody else holds."""
    if isinstance(value, list):
        return [_own(v) for v in value]
    return value.copy() if isinstance(value, np.ndarray) and not value.flags.owndata else value
