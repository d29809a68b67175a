"""The conformance cases: ONNX's own, straight from the installed ``onnx`` package, and ours.

ONNX's are of five kinds: ``node`` (one operator each, and the same expanded into its function body), ``simple``,
``pytorch-converted``, ``pytorch-operator`` and ``light`` (whole networks with their weights left out). Ours of
operators are ``edge`` (`omniop.conformance.edge`) and ``own`` (`omniop.conformance.own`); ``memory`` and ``prim`` ask a
device itself (`omniop.conformance.prim`), ``tuned`` for its tuned kernels (`omniop.conformance.tuned`); ``trained``
are networks (`omniop.conformance.trained`).
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper

from omniop.conformance.archive import DATA, case_archive, light_file, read_index
from omniop.conformance.choices import HARVESTED, KINDS, LEVELS
from omniop.conformance.samples.catalogue import catalogue
from omniop.conformance.tolerance import Relative, Tolerance
from omniop.conformance.verdict import Error, Facts

_RTOL, _ATOL = 1e-3, 1e-7

Value = Any
"""A feed or an output: an array, a list (sequence), a dict (map) or None (an empty optional)."""


class DataSet(NamedTuple):
    """Feeds by input name, and the outputs that they must give, by output name in graph order."""

    feeds: dict[str, Value]
    expected: dict[str, Value]


@dataclass(frozen=True)
class Case:
    """One conformance case; ``model`` and ``data_sets`` are read on first use.

    ``op`` is the operator that it is about, "" where it is a network of several, and ``dtypes`` those of the case that
    the operator varies over. ``folder`` holds ``model.onnx`` and ``test_data_set_*``, on disk or inside the zip
    ``archive``.
    """

    name: str
    kind: str
    op: str = ""
    dtypes: tuple[str, ...] = ()
    folder: str = field(default="", repr=False)
    archive: str | None = field(default=None, repr=False)
    rtol: float = _RTOL
    atol: float = _ATOL

    as_it_is: ClassVar[bool] = False
    """Whether the model's constants stay constant, as in a user's session, in suite mode too."""

    @property
    def tolerance(self) -> Tolerance:
        """How near outputs have to be; none is judged more strictly than by onnx's own runner."""
        return Relative(max(self.rtol, _RTOL), max(self.atol, _ATOL))

    @property
    def refused(self) -> bool:
        """Whether the case passes where omniop refuses it, and not where it gives outputs."""
        return False

    @property
    def draw(self) -> tuple[Any, ...]:
        """The distribution that the output is drawn from, and its parameters; empty where the output is expected."""
        return ()

    @functools.cached_property
    def model(self) -> onnx.ModelProto:
        """The model, as onnx ships it."""
        data = self._read("model.onnx")
        if data is None:
            raise FileNotFoundError(f"{self.folder}/model.onnx")
        return onnx.load_from_string(data)

    @functools.cached_property
    def data_sets(self) -> tuple[DataSet, ...]:
        """Feeds and expected outputs; ``input_i.pb`` belongs to the i-th graph input."""
        graph, sets = self.model.graph, list[DataSet]()
        while expected := self._values(f"test_data_set_{len(sets)}/output", graph.output):
            sets.append(DataSet(self._values(f"test_data_set_{len(sets)}/input", graph.input), expected))
        return tuple(sets)

    def _values(self, stem: str, infos: Sequence[onnx.ValueInfoProto]) -> dict[str, Value]:
        """``stem_0.pb``, ``stem_1.pb``, ... as far as they go, by the names of the graph's inputs or outputs."""
        values: dict[str, Value] = {}
        for i, info in enumerate(infos):
            data = self._read(f"{stem}_{i}.pb")
            if data is None:
                break
            values[info.name] = _parse(data, info.type)
        return values

    def _read(self, name: str) -> bytes | None:
        """A file of the case; None where there is none."""
        if self.archive is None:
            file = Path(self.folder) / name
            return file.read_bytes() if file.exists() else None
        archive = _open_archive(self.archive)
        try:
            return archive.read(f"{self.folder}/{name}")
        except KeyError:
            return None


class Asked(NamedTuple):
    """What a device answered: why that is wrong ("" where it is right), how far off it was, and how it ran."""

    reason: str
    error: Error | None = None
    facts: Facts = Facts()


class DeviceCase(Case):
    """A case that asks a device itself, in ways of its own, and not an engine that runs models."""

    def ask(self, device: str) -> Asked:
        """Ask the device of that name. Raises UnsupportedError or PlacementError where it declines, anything else for
        what it gets wrong."""
        raise NotImplementedError


class LightCase(Case):
    """A network without trained weights: constant weights, a ramp as input, the outputs that onnx recorded."""

    @functools.cached_property
    def model(self) -> onnx.ModelProto:
        return onnx.load(light_file(self.name))

    @functools.cached_property
    def data_sets(self) -> tuple[DataSet, ...]:
        graph, file = self.model.graph, light_file(self.name)
        weights = {tensor.name for tensor in graph.initializer}
        feeds = {value.name: _ramp(value) for value in graph.input if value.name not in weights}
        files = [file.with_name(f"{file.stem}_output_{i}.pb") for i in range(len(graph.output))]
        expected = {
            value.name: _parse(file.read_bytes(), value.type) for value, file in zip(graph.output, files, strict=True)
        }
        return (DataSet(feeds, expected),)


# -- which ones ------------------------------------------------------------------------------------------------------


def load_cases(pattern: str = "", kinds: Sequence[str] = KINDS) -> list[Case]:
    """The cases of ``kinds`` whose name matches the regular expression ``pattern`` anywhere.

    Raises ValueError for an unknown kind or a bad pattern.
    """
    if unknown := set(kinds) - set(KINDS):
        raise ValueError(f"unknown kind {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    return matching((case for kind in KINDS if kind in kinds for case in _list(kind)), pattern)


def matching(cases: Iterable[Case], pattern: str) -> list[Case]:
    """Those whose name matches the regular expression ``pattern`` anywhere. ValueError for a bad one."""
    try:
        matcher = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
    return [case for case in cases if matcher.search(case.name)]


def _list(kind: str) -> Iterable[Case]:
    if kind == HARVESTED:
        return
    if kind == "own":
        from omniop.conformance.own import OwnCase

        yield from (OwnCase(name, kind, sample.key, sample.dtypes) for name, sample in catalogue().items())
        return
    if kind in LEVELS["L0"]:
        from omniop.conformance.prim import table
        from omniop.conformance.prim.case import PrimCase

        found = (check for check in table.catalogue().values() if check.kind == kind)
        yield from (PrimCase(check.name, kind, check.key, check.dtypes) for check in found)
        return
    if kind == "trained":
        from omniop.conformance.trained import trained_cases

        yield from trained_cases()
        return
    if kind == "tuned":
        from omniop.conformance.tuned import case as tuned
        from omniop.conformance.tuned.sized import sized

        yield from (
            tuned.SizedCase(name, kind, f"{tuned.DOMAIN}::{one.op}", (one.dtype,)) for name, one in sized().items()
        )
        yield from tuned.samples()
        return
    archive = str(case_archive())
    for name, (op, dtypes) in read_index(archive)[kind].items():
        if kind in ("node", "edge"):
            yield Case(name, kind, op, dtypes, f"{kind}/{name}", archive)
        elif kind == "light":
            yield LightCase(name, kind, op, dtypes)
        else:
            folder = DATA / kind / name
            yield Case(name, kind, op, dtypes, str(folder), None, *_tolerances(folder))


def sample_cases(cases: Sequence[Case], size: int) -> list[Case]:
    """``size`` of the cases, in listed order: the same ones on every machine, each operator by its share.

    Within an operator (for networks: within a kind) cases are ranked by the SHA-256 of their names; the sample is those
    whose rank is the least fraction of their operator's cases. So one case of each operator comes first.
    """
    strata: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        strata[case.op or case.kind].append(case)
    places: dict[Case, tuple[float, str]] = {}
    for stratum in strata.values():
        for rank, case in enumerate(sorted(stratum, key=_digest)):
            places[case] = (rank / len(stratum), _digest(case))
    chosen = set(sorted(cases, key=places.__getitem__)[:size])
    return [case for case in cases if case in chosen]


def shard_cases(cases: Sequence[Case], number: int, count: int) -> list[Case]:
    """Part ``number`` (from 1) of ``count`` parts of like size, in listed order; ValueError where there is no such."""
    if not 1 <= number <= count:
        raise ValueError(f"shard {number}/{count}: the number is 1 to {count}")
    chosen = set(sorted(cases, key=_digest)[number - 1 :: count])
    return [case for case in cases if case in chosen]


def _digest(case: Case) -> str:
    return hashlib.sha256(f"{case.kind}/{case.name}".encode()).hexdigest()


# -- reading ---------------------------------------------------------------------------------------------------------


def _tolerances(folder: Path) -> tuple[float, float]:
    config = folder / "data.json"
    data = json.loads(config.read_text()) if config.exists() else {}
    return data.get("rtol", _RTOL), data.get("atol", _ATOL)


def _ramp(value: onnx.ValueInfoProto) -> np.ndarray:
    """onnx's dummy input: 0, 1/n, ... (n-1)/n."""
    shape = [dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim]
    size = int(np.prod(shape))
    return (np.arange(size).reshape(shape) / size).astype(np.float32)


@functools.lru_cache(maxsize=4)
def _open_archive(path: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)


def _parse(data: bytes, type_: onnx.TypeProto) -> Value:
    match type_.WhichOneof("value"):
        case "sequence_type":
            return numpy_helper.to_list(onnx.SequenceProto.FromString(data))
        case "optional_type":
            return numpy_helper.to_optional(onnx.OptionalProto.FromString(data))
        case _:
            return numpy_helper.to_array(onnx.TensorProto.FromString(data))
