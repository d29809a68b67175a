"""omniop as a backend of ONNX's own interface, `onnx.backend.base`.

    import omniop.onnx_backend as backend
    outputs = backend.run_model(model, [x])

``device``: ONNX's spellings CPU, CUDA and CUDA:1, or a name of `omniop.devices()`. Unsupported nodes run on the cpu, as
with `omniop.load`; give ``fallback="error"`` to have them refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx.backend.base import Backend, BackendRep, namedtupledict

from omniop.dispatcher.registry import registry
from omniop.dispatcher.session import Session
from omniop.opset import dtype as dtypes
from omniop.opset.errors import DeviceError, FeedError


class OmniopBackendRep(BackendRep):
    """A prepared model."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def run(self, inputs: Any, **kwargs: Any) -> tuple[Any, ...]:
        """The outputs by position and by name. ``inputs``: by position or by name; a lone array is the only input.

        Raises the errors of `omniop.Session.run`.
        """
        _refuse(kwargs)
        found = self.session.run(self._feeds(inputs))
        names = [info.name for info in self.session.outputs]
        return namedtupledict("Outputs", names)(*(found[name] for name in names))

    def _feeds(self, inputs: Any) -> Mapping[str, Any]:
        if isinstance(inputs, Mapping):
            return inputs
        given = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
        names = [v.name for v in self.session.model.graph.inputs]
        required = [info.name for info in self.session.inputs]
        if not len(required) <= len(given) <= len(names):
            raise FeedError(f"{len(given)} inputs are given; the model has: {', '.join(names) or 'none'}")
        # Weights that are inputs as well come where the model lists them, and may be left out altogether.
        return dict(zip(names if len(given) > len(required) else required, given, strict=False))


class OmniopBackend(Backend):
    """`prepare`, `run_model` and `run_node` on any device of omniop's."""

    @classmethod
    def is_compatible(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> bool:
        """Every model may be tried: a node without a lowering is told when it is met."""
        return cls.supports_device(device)

    @classmethod
    def prepare(cls, model: onnx.ModelProto, device: str = "CPU", **kwargs: Any) -> OmniopBackendRep:
        """Load a model. ``kwargs``: the options of `omniop.load`. Raises ModelError, DeviceError."""
        return OmniopBackendRep(Session(model, _device_name(device), **kwargs))

    @classmethod
    def run_model(cls, model: onnx.ModelProto, inputs: Any, device: str = "CPU", **kwargs: Any) -> tuple[Any, ...]:
        return cls.prepare(model, device, **kwargs).run(inputs)

    @classmethod
    def run_node(
        cls,
        node: onnx.NodeProto,
        inputs: Any,
        device: str = "CPU",
        outputs_info: Sequence[tuple[np.dtype, tuple[int, ...]]] | None = None,
        **kwargs: Any,
    ) -> tuple[Any, ...]:
        """Run one node on arrays, by position or by name, as of ``opset_version`` of its domain, by default the newest.

        Shapes and types of its outputs are found by running it, so ``outputs_info`` has nothing to add.
        """
        version = kwargs.pop("opset_version", None) or _newest(node.domain)
        names = [name for name in node.input if name]
        feeds = inputs if isinstance(inputs, Mapping) else dict(zip(names, inputs, strict=True))
        graph = onnx.helper.make_graph(
            [node],
            "node",
            [_value_info(name, value) for name, value in feeds.items()],
            [onnx.helper.make_empty_tensor_value_info(name) for name in node.output if name],
        )
        imports = [onnx.helper.make_opsetid(node.domain, version)]
        return cls.run_model(onnx.helper.make_model(graph, opset_imports=imports), dict(feeds), device, **kwargs)

    @classmethod
    def supports_device(cls, device: str) -> bool:
        try:
            registry().device(_device_name(device))
        except DeviceError:
            return False
        return True


def _device_name(device: str) -> str:
    """``CUDA:1`` as omniop says it."""
    kind, colon, number = device.partition(":")
    return f"{kind.lower()}{colon}{number}" if kind in ("CPU", "CUDA") else device


def _newest(domain: str) -> int:
    """The newest version of a domain that has an operator's schema; 1 where ONNX knows no operator of it."""
    versions = (schema.since_version for schema in onnx.defs.get_all_schemas() if schema.domain == domain)
    return max(versions, default=1)


def _value_info(name: str, value: Any) -> onnx.ValueInfoProto:
    array = np.asarray(value)
    return onnx.helper.make_tensor_value_info(name, dtypes.of_numpy(array.dtype).onnx, array.shape)


def _refuse(options: Mapping[str, Any]) -> None:
    for name in options:
        raise FeedError(f"BackendRep.run has no option {name!r}")


is_compatible = OmniopBackend.is_compatible
prepare = OmniopBackend.prepare
run_model = OmniopBackend.run_model
run_node = OmniopBackend.run_node
supports_device = OmniopBackend.supports_device
