"""From a file to a ModelProto that onnx-ir can hold.

Reading says in one sentence what a file is when it is not a model. `adapt` rewrites the few spellings of valid models
for which onnx-ir has no place: map types, sparse tensors, attributes without a type (IR versions before 2), external
data with keys that the standard does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

import google.protobuf.message
import numpy as np
import onnx
import onnx_ir as ir
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, ValueInfoProto

from omniop.opset.errors import ModelError
from omniop.opset.tensor_data import check_tensor, data_type, element_count, tensor_array

MAX_NESTING = 64
"""Graphs within graphs, deeper than which a model is refused; protobuf itself stops near 33."""

MAX_DENSE_BYTES = 1 << 31
"""What a sparse tensor may take once dense: no more than protobuf lets a dense one take in a file."""

# How other files begin that people pass by mistake.
_SIGNATURES = (
    (b"version https://git-lfs", "a Git LFS pointer: fetch the model itself with `git lfs pull`"),
    (b"PK\x03\x04", "a zip archive (a PyTorch checkpoint is one): unpack it, or export it to ONNX"),
    (b"\x89HDF", "an HDF5 file (Keras): export it to ONNX"),
    (b"GGUF", "a GGUF file (llama.cpp): export it to ONNX"),
    (b"<", "an HTML or XML page: a download that went wrong, or OpenVINO's IR"),
    (b"\x1f\x8b", "a gzip archive: unpack it"),
)
_ORT_FLATBUFFER = slice(4, 8), b"ORTM"

_NUMBER_KEYS = frozenset({"offset", "length"})
_EXTERNAL_KEYS = frozenset({"location", "checksum"}) | _NUMBER_KEYS


def read_file(path: Path) -> ModelProto:
    """Parse a model: protobuf, or what the suffix says (.textproto, .json, .onnxtxt, as `onnx.load`).

    Raises ModelError when the file cannot be read or holds no model.
    """
    try:
        data = path.read_bytes()
    except OSError as e:
        raise ModelError(f"{path} cannot be read: {e.strerror or e}") from e
    text = onnx.serialization.registry.get_format_from_file_extension(path.suffix)
    return parse(data, str(path), text or "protobuf")


def parse(data: bytes, name: str, encoding: str = "protobuf") -> ModelProto:
    """Parse a model's bytes. ``name`` opens the messages. Raises ModelError when they hold no model."""
    if not data:
        raise ModelError(f"{name} is empty, so it holds no model")
    try:
        # By its parser, for load_model_from_string warns that onnxtxt is experimental.
        if encoding == "onnxtxt":
            proto: ModelProto = onnx.parser.parse_model(data.decode())
        else:
            proto = onnx.load_model_from_string(data, format=encoding)
    # Each format's parser has errors of its own, some of them no more than Exception.
    except Exception as e:
        other = _what_else(data) if encoding == "protobuf" else ""
        raise ModelError(f"{name} is not an ONNX model: {other or _one_line(e)}") from e
    if not proto.HasField("graph"):
        raise ModelError(f"{name} is not an ONNX model: {_what_else(data) or 'it holds no graph'}")
    return proto


def _what_else(data: bytes) -> str:
    where, ort = _ORT_FLATBUFFER
    if data[where] == ort:
        return "it is in ONNX Runtime's own format: pass the .onnx file that it was made from"
    return next((f"it is {what}" for start, what in _SIGNATURES if data.startswith(start)), "")


def _one_line(error: Exception) -> str:
    if isinstance(error, google.protobuf.message.DecodeError):
        return "its protobuf encoding is damaged or cut short"
    return " ".join(str(error).split())[:200]


def adapt(proto: ModelProto, borrowed: bool) -> ModelProto:
    """The model in terms that onnx-ir can hold. Changes ``proto`` itself, unless it is ``borrowed``: then a copy, if
    there is anything to change.

    Raises ModelError on graphs nested too deep, on sparse tensors that do not fit their shape, and on offsets and
    lengths that are no numbers.
    """
    repairs = list(_model_repairs(proto))
    if repairs and borrowed:
        copy = ModelProto()
        copy.CopyFrom(proto)
        proto, repairs = copy, list(_model_repairs(copy))
    for repair in repairs:
        repair()
    return proto


Repair = Callable[[], object]


def _model_repairs(proto: ModelProto) -> Iterator[Repair]:
    yield from _graph_repairs(proto.graph, 1)
    for function in proto.functions:
        yield from _value_repairs(function.value_info)
        yield from _node_repairs(function.node, 1)
        yield from (partial(_infer_type, a) for a in function.attribute_proto if _untyped(a))


def _graph_repairs(graph: GraphProto, depth: int) -> Iterator[Repair]:
    if depth > MAX_NESTING:
        raise ModelError(f"the model nests graphs more than {MAX_NESTING} deep")
    for values in (graph.input, graph.output, graph.value_info):
        yield from _value_repairs(values)
    for tensor in graph.initializer:
        yield from _tensor_repairs(tensor)
    if graph.sparse_initializer:
        yield partial(_make_initializers_dense, graph)
    yield from _node_repairs(graph.node, depth)


def _node_repairs(nodes: Iterable[NodeProto], depth: int) -> Iterator[Repair]:
    for node in nodes:
        for attribute in node.attribute:
            if _untyped(attribute):
                yield partial(_infer_type, attribute)
            if attribute.HasField("t"):
                yield from _tensor_repairs(attribute.t)
            if attribute.HasField("sparse_tensor") and node.op_type == "Constant":
                yield partial(_make_constant_dense, attribute)
            for graph in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                yield from _graph_repairs(graph, depth + 1)


def _value_repairs(values: Iterable[ValueInfoProto]) -> Iterator[Repair]:
    return (partial(value.ClearField, "type") for value in values if has_map_type(value.type))


def _tensor_repairs(tensor: TensorProto) -> Iterator[Repair]:
    for entry in tensor.external_data:
        if entry.key in _NUMBER_KEYS and not (entry.value.isascii() and entry.value.isdigit()):
            raise ModelError(f'tensor "{tensor.name}" has the {entry.key} {entry.value!r} in its external data')
    if any(entry.key not in _EXTERNAL_KEYS for entry in tensor.external_data):
        yield partial(_drop_unknown_keys, tensor)


def has_map_type(proto: onnx.TypeProto) -> bool:
    """Whether a type is a map, or a sequence or optional of maps (ai.onnx.ml's ZipMap makes a sequence of them)."""
    while (kind := proto.WhichOneof("value")) in ("sequence_type", "optional_type"):
        proto = getattr(proto, kind).elem_type
    return kind == "map_type"


def _drop_unknown_keys(tensor: TensorProto) -> None:
    known = [entry for entry in tensor.external_data if entry.key in _EXTERNAL_KEYS]
    kept = [onnx.StringStringEntryProto(key=entry.key, value=entry.value) for entry in known]
    del tensor.external_data[:]
    tensor.external_data.extend(kept)


# The field an attribute is in tells its type.
_ATTRIBUTE_FIELDS = {
    "f": AttributeProto.FLOAT,
    "i": AttributeProto.INT,
    "s": AttributeProto.STRING,
    "t": AttributeProto.TENSOR,
    "g": AttributeProto.GRAPH,
    "floats": AttributeProto.FLOATS,
    "ints": AttributeProto.INTS,
    "strings": AttributeProto.STRINGS,
    "tensors": AttributeProto.TENSORS,
    "graphs": AttributeProto.GRAPHS,
}


def _untyped(attribute: AttributeProto) -> bool:
    return attribute.type == AttributeProto.UNDEFINED and not attribute.ref_attr_name


def _infer_type(attribute: AttributeProto) -> None:
    for field, _ in attribute.ListFields():
        if field.name in _ATTRIBUTE_FIELDS:
            attribute.type = _ATTRIBUTE_FIELDS[field.name]


def _make_initializers_dense(graph: GraphProto) -> None:
    for sparse in graph.sparse_initializer:
        graph.initializer.append(dense(sparse, f'sparse initializer "{sparse.values.name}"'))
    graph.ClearField("sparse_initializer")


def _make_constant_dense(attribute: AttributeProto) -> None:
    tensor = dense(attribute.sparse_tensor, "a Constant's sparse_value")
    attribute.ClearField("sparse_tensor")
    attribute.name, attribute.type = "value", AttributeProto.TENSOR
    attribute.t.CopyFrom(tensor)


def dense(sparse: SparseTensorProto, what: str) -> TensorProto:
    """A sparse tensor in COO form (indices [NNZ] linear, or [NNZ, rank]) as a dense one of the same name.

    Raises ModelError when its parts do not fit its shape, or it would take more than `MAX_DENSE_BYTES`.
    """
    for part in (sparse.values, sparse.indices):
        if part.data_location == TensorProto.EXTERNAL:
            raise ModelError(f"{what} keeps its data outside of the model, which is only read for dense tensors")
        check_tensor(ir.serde.deserialize_tensor(part), what)
    count = element_count(sparse.dims, what)
    dtype = data_type(sparse.values.data_type, what)
    if dtype == ir.DataType.STRING or count * dtype.itemsize > MAX_DENSE_BYTES:
        raise ModelError(f"{what}, of shape {list(sparse.dims)} and type {dtype.name}, is too large to be made dense")
    values = tensor_array(ir.serde.deserialize_tensor(sparse.values), what).reshape(-1)
    indices = tensor_array(ir.serde.deserialize_tensor(sparse.indices), what).astype(np.int64)
    flat = np.zeros(count, dtype=values.dtype)
    flat[_linear(indices, values.size, list(sparse.dims), what)] = values
    array = flat.reshape(tuple(sparse.dims))
    return ir.serde.serialize_tensor(ir.Tensor(array, dtype=dtype, name=sparse.values.name))


def _linear(indices: np.ndarray, count: int, dims: list[int], what: str) -> np.ndarray:
    """Positions in the flattened tensor, each within its shape."""
    extents = np.array(dims, dtype=np.int64)
    if indices.shape == (count,):
        indices, extents = indices[:, None], np.array([np.prod(extents)])
    if indices.shape != (count, len(extents)):
        raise ModelError(f"{what} has {count} values and indices of shape {list(indices.shape)}")
    if not ((indices >= 0) & (indices < extents)).all():
        raise ModelError(f"{what} has an index outside of its shape {dims}")
    strides = np.append(np.cumprod(extents[::-1])[::-1][1:], 1)
    return (indices * strides).sum(axis=1)
