"""The node cases of the installed onnx, and an index of all its cases, kept as one zip.

Node cases exist only as Python code that onnx runs to make them, which takes seconds. It is run once, seeded, and what
it makes is kept in ONNX's own folder layout, so that a worker opens a single case in a millisecond. Our own edge cases
are kept beside them with what onnx.reference makes of them, and ``index.json`` says of every case which operator and
dtypes it is about, so that listing cases reads no model.
"""

from __future__ import annotations

import functools
import json
import os
import re
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import platformdirs
from onnx import helper, numpy_helper

from omniop.conformance.edge import EdgeCase, edge_cases
from omniop.conformance.oracles import reference_engine

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
"""Where onnx keeps the cases that it ships as files."""

INDEX = "index.json"
_FORMAT = 4
_SEED = 0
_EXPANDED = re.compile(r"_expanded(_ver\d+)?$")
_INDEX_DTYPES = frozenset(("tensor(bool)", "tensor(int32)", "tensor(int64)"))


class Subject(NamedTuple):
    """What a case is about: its operator ("" for a network of several) and the dtypes that the operator varies over."""

    op: str
    dtypes: tuple[str, ...]


def case_archive() -> Path:
    """The zip for the installed onnx, made on first use (some 10 s) and kept in the user's cache."""
    name = f"cases-{_FORMAT}-onnx-{onnx.__version__}-numpy-{np.__version__}.zip"
    for folder in (platformdirs.user_cache_path("omniop") / "conformance", Path(tempfile.gettempdir()) / "omniop"):
        if (folder / name).exists():
            return folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return _write_archive(folder / name)
        except OSError:
            continue  # a read-only home: the temporary folder serves
    raise OSError(f"neither the user's cache nor {tempfile.gettempdir()} can hold {name}")


@functools.lru_cache(maxsize=4)
def read_index(archive: str) -> Mapping[str, Mapping[str, Subject]]:
    """Subjects by kind and name; names are sorted."""
    with zipfile.ZipFile(archive) as stream:
        found = json.loads(stream.read(INDEX))
    return {
        kind: {name: Subject(op, tuple(dtypes)) for name, (op, dtypes) in entries.items()}
        for kind, entries in found.items()
    }


def light_file(name: str) -> Path:
    """The model of a light case; its outputs lie beside it."""
    return DATA / "light" / f"light_{name.removeprefix('test_')}.onnx"


# -- writing ---------------------------------------------------------------------------------------------------------


def _write_archive(target: Path) -> Path:
    """Write to a private file and rename, so that a reader never sees half an archive."""
    handle, partial = tempfile.mkstemp(dir=target.parent, suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            cases, edges = _generate_node_cases(), list(edge_cases())
            for case in cases:
                _write_case(archive, f"node/{case.name}", case.model, case.data_sets)
            for edge in edges:
                _write_case(archive, f"edge/{edge.name}", edge.model, [_expect(edge)])
            index = {"node": _node_subjects(cases), **_shipped_subjects()}
            index["edge"] = {edge.name: subject_of(edge.model) for edge in sorted(edges, key=lambda edge: edge.name)}
            archive.writestr(INDEX, json.dumps(index))
        os.replace(partial, target)
    finally:
        Path(partial).unlink(missing_ok=True)
    return target


def _generate_node_cases() -> list[Any]:
    """Run onnx's generators. They draw from numpy's global state: seeded here, and given back as it was."""
    from onnx.backend.test.loader import load_model_tests

    state = np.random.get_state()
    np.random.seed(_SEED)
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return sorted(load_model_tests(kind="node"), key=lambda case: case.name)
    finally:
        np.random.set_state(state)


def _expect(edge: EdgeCase) -> tuple[list[Any], list[Any]]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        outputs = reference_engine(edge.model)(edge.feeds)
    return list(edge.feeds.values()), list(outputs.values())


def _write_case(archive: zipfile.ZipFile, folder: str, model: onnx.ModelProto, data_sets: Any) -> None:
    graph = model.graph
    archive.writestr(f"{folder}/model.onnx", model.SerializeToString())
    for number, (inputs, outputs) in enumerate(data_sets):
        for stem, values, infos in (("input", inputs, graph.input), ("output", outputs, graph.output)):
            for i, (value, info) in enumerate(zip(values, infos, strict=True)):
                archive.writestr(f"{folder}/test_data_set_{number}/{stem}_{i}.pb", serialize(value, info.type))


def serialize(value: Any, type_: onnx.TypeProto) -> bytes:
    """A feed or an output as ONNX keeps it beside a case."""
    if isinstance(value, onnx.TensorProto):
        return bytes(value.SerializeToString())
    match type_.WhichOneof("value"):
        case "sequence_type":
            proto: Any = numpy_helper.from_list(value)
        case "optional_type":
            proto = numpy_helper.from_optional(value)
        case _:
            proto = numpy_helper.from_array(np.asarray(value))
    return bytes(proto.SerializeToString())


# -- what a case is about --------------------------------------------------------------------------------------------


def _node_subjects(cases: list[Any]) -> dict[str, Subject]:
    """An expanded case is about the operator that it was expanded from, as the case of that name is."""
    plain = {case.name: subject_of(case.model) for case in cases if not _EXPANDED.search(case.name)}
    return {case.name: plain[_EXPANDED.sub("", case.name)] for case in cases}


def _shipped_subjects() -> dict[str, dict[str, Subject]]:
    light = {f"test_{file.stem.removeprefix('light_')}": file for file in (DATA / "light").glob("*.onnx")}
    folders = ("simple", "pytorch-converted", "pytorch-operator")
    files = {kind: {file.parent.name: file for file in (DATA / kind).glob("*/model.onnx")} for kind in folders}
    return {
        kind: {name: subject_of(onnx.load(file)) for name, file in sorted(found.items())}
        for kind, found in {**files, "light": light}.items()
    }


def subject_of(model: onnx.ModelProto) -> Subject:
    """The one operator of a model's graph, constants aside, and the dtypes bound to its type parameters.

    Parameters that only index dtypes or bool fit (a shape, axes, a mask) say nothing of the operator and are left out,
    where there are others. Operators outside ai.onnx carry their domain: ``ai.onnx.ml::Binarizer``.
    """
    nodes = [node for node in model.graph.node if node.op_type != "Constant"]
    if len({(node.domain, node.op_type) for node in nodes}) != 1:
        return Subject("", ())
    node = nodes[0]
    types = {value.name: value.type for value in (*model.graph.input, *model.graph.output, *model.graph.value_info)}
    dtypes = {tensor.name: _dtype(tensor.data_type) for tensor in model.graph.initializer}
    dtypes |= {name: dtype for name, type_ in types.items() if (dtype := _element(type_))}
    values = [dtypes[name] for name in (*node.input, *node.output) if name in dtypes]
    varied = [dtypes[name] for name in _varied(node, model) if name in dtypes] or values[:1]
    op = f"{node.domain}::{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
    return Subject(op, tuple(sorted(set(varied))))


def _varied(node: onnx.NodeProto, model: onnx.ModelProto) -> list[str]:
    """The node's values whose type parameter admits more than index dtypes and bool."""
    versions = {entry.domain: entry.version for entry in model.opset_import}
    try:
        schema = onnx.defs.get_schema(node.op_type, versions[node.domain], node.domain)
    except (KeyError, onnx.defs.SchemaError):
        return []
    wide = {c.type_param_str for c in schema.type_constraints if not _INDEX_DTYPES.issuperset(c.allowed_type_strs)}
    pairs = [*zip(node.input, _formal(schema.inputs, len(node.input)), strict=False)]
    pairs += zip(node.output, _formal(schema.outputs, len(node.output)), strict=False)
    return [name for name, parameter in pairs if parameter.type_str in wide]


def _formal(parameters: Any, count: int) -> list[Any]:
    """One formal parameter for each actual one: a variadic last parameter repeats."""
    given = list(parameters)
    return given + given[-1:] * max(0, count - len(given))


def _element(type_: onnx.TypeProto) -> str:
    """The dtype of a tensor, or of the tensors in a sequence or optional; "" where there is none."""
    match type_.WhichOneof("value"):
        case "tensor_type":
            return _dtype(type_.tensor_type.elem_type)
        case "sequence_type":
            return _element(type_.sequence_type.elem_type)
        case "optional_type":
            return _element(type_.optional_type.elem_type)
        case _:
            return ""


def _dtype(elem_type: int) -> str:
    """numpy's and ml_dtypes' name of a dtype (``float32``, ``float8_e4m3fn``), and ``string``."""
    if elem_type in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
        return "string" if elem_type else ""
    return helper.tensor_dtype_to_np_dtype(elem_type).name
