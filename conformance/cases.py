"""ONNX's own conformance cases, straight from the installed ``onnx`` package.

The suite has five kinds: ``node`` (one operator each, and the same expanded into its function body), ``simple``,
``pytorch-converted``, ``pytorch-operator`` and ``light`` (whole networks with their weights left out). Node cases exist
only as Python code that onnx runs to make them, which takes seconds; we run it once, seeded, and keep the result as one
zip in ONNX's own folder layout, so that a worker opens a single case in a millisecond.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
import tempfile
import warnings
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import platformdirs
from onnx import numpy_helper

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator", "light")
"""Every kind of case, in the order in which they are listed."""

_RTOL, _ATOL = 1e-3, 1e-7
_SEED = 0
_ARCHIVE_FORMAT = 1
_DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"

Value = Any
"""A feed or an output: an array, a list (sequence), a dict (map) or None (an empty optional)."""


class DataSet(NamedTuple):
    """Feeds by input name, and the outputs that they must give, by output name in graph order."""

    feeds: dict[str, Value]
    expected: dict[str, Value]


@dataclass(frozen=True)
class Case:
    """One conformance case; ``model`` and ``data_sets`` are read on first use.

    ``folder`` holds ``model.onnx`` and ``test_data_set_*``, on disk or inside the zip ``archive``.
    """

    name: str
    kind: str
    folder: str = field(repr=False)
    archive: str | None = field(default=None, repr=False)
    rtol: float = _RTOL
    atol: float = _ATOL

    @functools.cached_property
    def model(self) -> onnx.ModelProto:
        """The model, as onnx ships it."""
        return onnx.load_from_string((self._root / "model.onnx").read_bytes())

    @functools.cached_property
    def data_sets(self) -> tuple[DataSet, ...]:
        """Feeds and expected outputs; ``input_i.pb`` belongs to the i-th graph input."""
        graph = self.model.graph
        folders = (self._root / f"test_data_set_{number}" for number in itertools.count())
        return tuple(
            DataSet(_read_values(folder, "input", graph.input), _read_values(folder, "output", graph.output))
            for folder in itertools.takewhile(lambda folder: (folder / "output_0.pb").exists(), folders)
        )

    @property
    def _root(self) -> Path | zipfile.Path:
        return _open_archive(self.archive) / self.folder if self.archive else Path(self.folder)


class LightCase(Case):
    """A network without trained weights: constant weights, a ramp as input, the outputs that onnx recorded."""

    @functools.cached_property
    def model(self) -> onnx.ModelProto:
        return onnx.load(Path(self.folder) / f"{_light_stem(self.name)}.onnx")

    @functools.cached_property
    def data_sets(self) -> tuple[DataSet, ...]:
        graph = self.model.graph
        weights = {tensor.name for tensor in graph.initializer}
        feeds = {value.name: _ramp(value) for value in graph.input if value.name not in weights}
        files = [Path(self.folder) / f"{_light_stem(self.name)}_output_{i}.pb" for i in range(len(graph.output))]
        expected = {
            value.name: _parse(file.read_bytes(), value.type) for value, file in zip(graph.output, files, strict=True)
        }
        return (DataSet(feeds, expected),)


def load_cases(pattern: str = "", kinds: Sequence[str] = KINDS) -> list[Case]:
    """The cases of ``kinds`` whose name matches the regular expression ``pattern`` anywhere.

    Raises ValueError for an unknown kind or a bad pattern.
    """
    if unknown := set(kinds) - set(KINDS):
        raise ValueError(f"unknown kind {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    try:
        matcher = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
    return [case for kind in KINDS if kind in kinds for case in _list(kind) if matcher.search(case.name)]


def _list(kind: str) -> Iterable[Case]:
    if kind == "node":
        archive = node_archive()
        names = zipfile.Path(archive).joinpath(kind).iterdir()
        return [Case(entry.name, kind, f"{kind}/{entry.name}", str(archive)) for entry in names]
    if kind == "light":
        stems = sorted(file.stem for file in (_DATA / kind).glob("*.onnx"))
        return [LightCase(f"test_{stem.removeprefix('light_')}", kind, str(_DATA / kind)) for stem in stems]
    folders = sorted(folder.parent for folder in (_DATA / kind).glob("*/model.onnx"))
    return [Case(folder.name, kind, str(folder), None, *_tolerances(folder)) for folder in folders]


def _tolerances(folder: Path) -> tuple[float, float]:
    config = folder / "data.json"
    data = json.loads(config.read_text()) if config.exists() else {}
    return data.get("rtol", _RTOL), data.get("atol", _ATOL)


def _light_stem(name: str) -> str:
    return f"light_{name.removeprefix('test_')}"


def _ramp(value: onnx.ValueInfoProto) -> np.ndarray:
    """onnx's dummy input: 0, 1/n, ... (n-1)/n."""
    shape = [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
    size = int(np.prod(shape))
    return (np.arange(size).reshape(shape) / size).astype(np.float32)


# -- reading ---------------------------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=4)
def _open_archive(path: str) -> zipfile.Path:
    return zipfile.Path(path)


def _read_values(root: Path | zipfile.Path, stem: str, infos: Sequence[onnx.ValueInfoProto]) -> dict[str, Value]:
    """``stem_0.pb``, ``stem_1.pb``, ... as far as they go, by the names of the graph's inputs or outputs."""
    values: dict[str, Value] = {}
    for i, info in enumerate(infos):
        file = root / f"{stem}_{i}.pb"
        if not file.exists():
            break
        values[info.name] = _parse(file.read_bytes(), info.type)
    return values


def _parse(data: bytes, type_: onnx.TypeProto) -> Value:
    match type_.WhichOneof("value"):
        case "sequence_type":
            return numpy_helper.to_list(onnx.SequenceProto.FromString(data))
        case "optional_type":
            return numpy_helper.to_optional(onnx.OptionalProto.FromString(data))
        case _:
            return numpy_helper.to_array(onnx.TensorProto.FromString(data))


# -- the archive of node cases ---------------------------------------------------------------------------------------


def node_archive() -> Path:
    """The zip of node cases for the installed onnx, made on first use (some 10 s) and kept in the user's cache."""
    name = f"node-{_ARCHIVE_FORMAT}-onnx-{onnx.__version__}-numpy-{np.__version__}.zip"
    for folder in (platformdirs.user_cache_path("omniop") / "conformance", Path(tempfile.gettempdir()) / "omniop"):
        if (folder / name).exists():
            return folder / name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return _write_archive(folder / name)
        except OSError:
            continue  # a read-only home: the temporary folder serves
    raise OSError(f"neither the user's cache nor {tempfile.gettempdir()} can hold {name}")


def _write_archive(target: Path) -> Path:
    """Write to a private file and rename, so that a reader never sees half an archive."""
    handle, partial = tempfile.mkstemp(dir=target.parent, suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as stream, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for case in _generate_node_cases():
                _write_case(archive, f"node/{case.name}", case)
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


def _write_case(archive: zipfile.ZipFile, folder: str, case: Any) -> None:
    graph = case.model.graph
    archive.writestr(f"{folder}/model.onnx", case.model.SerializeToString())
    for number, (inputs, outputs) in enumerate(case.data_sets):
        for stem, values, infos in (("input", inputs, graph.input), ("output", outputs, graph.output)):
            for i, (value, info) in enumerate(zip(values, infos, strict=True)):
                archive.writestr(f"{folder}/test_data_set_{number}/{stem}_{i}.pb", _serialize(value, info.type))


def _serialize(value: Value, type_: onnx.TypeProto) -> bytes:
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
