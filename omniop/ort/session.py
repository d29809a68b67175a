"""`InferenceSession`: an omniop session behind onnxruntime's methods."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from omniop.dispatcher.graph import Value, ValueType
from omniop.dispatcher.session import Session
from omniop.opset.errors import ExecutionError, FeedError
from omniop.ort.binding import IOBinding, OrtValue, plain
from omniop.ort.options import OptionError, RunOptions, SessionOptions
from omniop.ort.providers import Given, choose


@dataclass(frozen=True)
class NodeArg:
    """An input or output. ``type``: ``tensor(float)``, ``seq(tensor(int64))``; ``shape``: ints, names, None."""

    name: str
    type: str
    shape: list[int | str | None]


@dataclass(frozen=True)
class ModelMetadata:
    """What the file says about itself."""

    producer_name: str
    graph_name: str
    domain: str
    description: str
    graph_description: str
    version: int
    custom_metadata_map: dict[str, str]


class InferenceSession:
    """A model on its devices, called as onnxruntime's class of this name.

    ``path_or_bytes``: a path, the bytes of a model, or a ModelProto. ``sess_options``: a SessionOptions, of omniop or
    onnxruntime. ``providers``, best first: names, or (name, options), of onnxruntime's providers or of omniop's
    devices; by default the CPU. `session` is the omniop session, with ``explain()``.

    Raises ModelError, DeviceError, and OptionError for an option that cannot be honoured.
    """

    def __init__(
        self,
        path_or_bytes: str | os.PathLike[str] | bytes | onnx.ModelProto,
        sess_options: object = None,
        providers: Given | None = None,
        provider_options: Sequence[Mapping[Any, Any]] | None = None,
        **kwargs: Any,
    ) -> None:
        for name in kwargs:
            if name != "enable_fallback":  # what it retries are failures of onnxruntime's providers
                raise OptionError(f"InferenceSession has no option {name!r}")
        self._source = path_or_bytes
        self._options = sess_options
        self._open(providers, provider_options)

    def _open(self, providers: Given | None, provider_options: Sequence[Mapping[Any, Any]] | None) -> None:
        settings = SessionOptions.settings(self._options)
        chosen = choose(providers or settings.providers or None, provider_options, settings.fallback)
        self._providers = chosen.providers
        self._sizes = settings.dims
        self.session = Session(self._source, chosen.devices, threads=settings.threads, fallback=settings.fallback)
        if not settings.spins:
            for device in self.session.devices:
                device.keep_calm()
        graph = self.session.model.graph
        self._inputs = [_node_arg(v, self._sizes) for v in graph.inputs if not v.constant]
        self._initializers = [_node_arg(v, self._sizes) for v in graph.inputs if v.constant]
        self._outputs = [_node_arg(v, self._sizes) for v in graph.outputs]

    # What it is -------------------------------------------------------------------------------------------------------

    def get_inputs(self) -> list[NodeArg]:
        """Inputs that a run has to feed."""
        return list(self._inputs)

    def get_overridable_initializers(self) -> list[NodeArg]:
        """Inputs that have a value of their own, and may be fed another."""
        return list(self._initializers)

    def get_outputs(self) -> list[NodeArg]:
        return list(self._outputs)

    def input_names(self) -> list[str]:
        """Of everything that may be fed."""
        return [arg.name for arg in (*self._inputs, *self._initializers)]

    def output_names(self) -> list[str]:
        return [arg.name for arg in self._outputs]

    def get_modelmeta(self) -> ModelMetadata:
        found = self.session.model.metadata
        return ModelMetadata(
            producer_name=found.producer_name,
            graph_name=found.graph_name,
            domain=found.domain,
            description=found.doc_string,
            graph_description=found.graph_doc_string,
            version=found.model_version,
            custom_metadata_map=dict(found.metadata_props),
        )

    def get_session_options(self) -> object:
        return SessionOptions() if self._options is None else self._options

    def get_providers(self) -> list[str]:
        return list(self._providers)

    def get_provider_options(self) -> dict[str, dict[str, str]]:
        return {name: dict(options) for name, options in self._providers.items()}

    def set_providers(
        self, providers: Given | None = None, provider_options: Sequence[Mapping[Any, Any]] | None = None
    ) -> None:
        """Load the model anew on other devices."""
        self._open(providers, provider_options)

    def disable_fallback(self) -> None:
        """A failed run is never tried again on another provider."""

    # Running ----------------------------------------------------------------------------------------------------------

    def run(
        self, output_names: Sequence[str] | None, input_feed: Mapping[str, Any], run_options: object = None
    ) -> list[Any]:
        """The outputs named, or all: arrays, lists for sequences, dicts for maps, None for an empty optional.

        ``input_feed``: as `omniop.Session.run`, and OrtValues. Raises FeedError, ExecutionError, PlacementError, and
        OptionError for a run option that cannot be honoured.
        """
        if run_options is None and not (output_names or self._sizes):
            values = self.session.direct(input_feed)
            if values is not None:
                return values
        if isinstance(output_names, str):
            raise FeedError(f"output_names is a list of names: [{output_names!r}]")
        if RunOptions.of(run_options).terminate:
            raise ExecutionError("the run was asked to terminate before it began")
        feeds = {name: plain(value) for name, value in input_feed.items()}
        for arg in self._inputs:
            if arg.type.startswith("optional"):
                feeds.setdefault(arg.name, None)
        self._check_sizes(feeds)
        wanted = list(output_names or self.output_names())
        found = self.session.run(feeds, list(dict.fromkeys(wanted)))
        return [found[name] for name in wanted]

    def run_with_ort_values(
        self,
        output_names: Sequence[str] | None,
        input_dict_ort_values: Mapping[str, OrtValue],
        run_options: object = None,
    ) -> list[OrtValue]:
        return [OrtValue(value) for value in self.run(output_names, input_dict_ort_values, run_options)]

    def io_binding(self) -> IOBinding:
        return IOBinding(self)

    def run_with_iobinding(self, iobinding: IOBinding, run_options: object = None) -> None:
        """Run on what is bound; the results are the binding's."""
        if iobinding.session is not self:
            raise FeedError("the binding is another session's")
        targets = iobinding.targets()
        if not targets:
            raise FeedError(f"no output is bound; the model has: {', '.join(self.output_names())}")
        iobinding.deliver(self.run(targets, iobinding.feeds(), run_options))

    def _check_sizes(self, feeds: Mapping[str, Any]) -> None:
        """Dims that the session options fixed."""
        if not self._sizes:
            return
        for v in self.session.model.graph.inputs:
            shape = getattr(feeds.get(v.name), "shape", None)
            dims = None if v.type is None else v.type.dims
            for axis, (dim, extent) in enumerate(zip(dims or (), shape or (), strict=False)):
                if isinstance(dim, str) and self._sizes.get(dim, extent) != extent:
                    raise FeedError(
                        f"input {v.name!r}: dim {dim!r} was set to {self._sizes[dim]}, "
                        f"the feed has {list(shape or ())} (axis {axis})"
                    )


# Types as text --------------------------------------------------------------------------------------------------------


def _node_arg(v: Value, sizes: Mapping[str, int]) -> NodeArg:
    shown = v.type.element if v.type is not None and v.type.kind == "optional" else v.type
    dims = () if shown is None else shown.dims or ()
    return NodeArg(v.name, _type_text(v.type), [sizes.get(d, d) if isinstance(d, str) else d for d in dims])


def tensor_type_text(number: int) -> str:
    """``tensor(float)`` for 1, TensorProto.FLOAT."""
    return f"tensor({onnx.TensorProto.DataType.Name(number).lower()})"


def _type_text(kind: ValueType | None) -> str:
    """As onnxruntime writes a type; "undefined" where the model declares none."""
    if kind is None:
        return "undefined"
    number = 0 if kind.dtype is None else kind.dtype.onnx
    if kind.kind == "tensor":
        return tensor_type_text(number)
    if kind.kind == "map":
        return f"map({onnx.TensorProto.DataType.Name(number).lower()},{_type_text(kind.element)})"
    return f"{'seq' if kind.kind == 'sequence' else 'optional'}({_type_text(kind.element)})"
